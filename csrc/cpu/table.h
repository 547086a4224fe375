// The level's table of kernels. Included inside the level's namespace, after its kernels; LEVEL is its name in Isa.

const Kernels& table() {
    static const Kernels functions = {
        Isa::LEVEL,
        {InputType::f32, kTiles || kDotBf16 ? InputType::bf16 : InputType::f32,
         kTiles ? InputType::bf16 : InputType::int8, kTiles ? InputType::bf16 : InputType::int8},
        kTiles,
        linear,
        norm,
        quantize,
        to_bf16,
        softmax,
        attend,
        elu,
        lstm_cell,
        add_to,
        sample,
    };
    return functions;
}
