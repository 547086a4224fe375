from torch import Tensor


def embed_prompt_reference(tokens: Tensor, wte: Tensor, wpe: Tensor, x: Tensor, prompt: Tensor) -> None:
    """What `embed_prompt` computes, position by position."""
    _, length, n_merged, _ = prompt.tolist()
    x.zero_()
    for position in range(length):
        if position < n_merged:
            x[position] += wte[int(tokens[position])].float()
        x[position] += wte[int(tokens[position + n_merged])].float()
        x[position] += wpe[position].float()
