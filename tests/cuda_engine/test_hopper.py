"""The GPU engine with CUDA kernels for the decode step: the tests of every engine, on a GPU or in the emulator."""

from typing import Any

import pytest
import torch

from barkfast.config import GPTConfig
from barkfast.errors import EngineError
from barkfast.runtime.cuda import step
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.network import Network
from barkfast.runtime.torch_ import TorchDecoder
from barkfast_kernels.hopper import HopperOps
from barkfast_kernels.variant import VARIANTS, Variant
from contract import networks
from contract.decoding import DecoderContract
from contract.networks import POISON
from cuda_engine.networks import DEVICE, cuda_decoder
from ops.emulator import Emulator, find_compiler

CUDA = VARIANTS["C9 C8, weights to L2"]
REAL = step.hopper_operations
# The narrowest network with the shortest context that the kernels support.
CONFIG = GPTConfig(2, 4, 128, input_vocab_size=120, output_vocab_size=120, block_size=256, bias=True)


def make(**options: Any) -> CudaDecoder:
    tensors = dict(networks.gpt_tensors(CONFIG))
    table = tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].clone()
    table[POISON] = float("nan")
    on_gpu = Options.for_device(DEVICE)
    settings = {"stage": "coarse", "device": DEVICE, "dtype": torch.float32}
    return CudaDecoder(CONFIG, tensors, **settings | {"options": Options(pdl=on_gpu.pdl, variant=CUDA)} | options)


@pytest.fixture(scope="module", autouse=True)
def kernels() -> Any:
    """Emulate the CUDA kernels if there is no GPU."""
    if DEVICE.type == "cuda":
        if torch.cuda.get_device_capability() < (9, 0):
            pytest.skip("the CUDA kernels of a step need compute capability 9.0")
        yield
        return
    if find_compiler() is None:
        pytest.skip("no C++ compiler to emulate the kernels with")

    def emulated(network: Network, variant: Variant, device: torch.device, *, one_slot: bool) -> HopperOps:
        shape = step.shape_of(network, variant)
        return HopperOps(shape, Emulator(shape), one_slot=one_slot)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "hopper_operations", emulated)
        yield


class TestDecoder(DecoderContract):
    """One slot and several; for more than eight, Triton kernels run."""

    config = CONFIG

    def make(self, **options: Any) -> CudaDecoder:
        return make(**options)

    def judge(self) -> TorchDecoder:
        decoder = networks.torch_decoder(CONFIG, None)
        decoder.to(str(DEVICE))
        return decoder

    @pytest.fixture(params=[1, 4], ids=["one", "several"])
    def way(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"n_slots": request.param}

    @pytest.fixture
    def narrow(self) -> dict[str, Any]:
        return {"dtype": torch.float16}

    @pytest.fixture(params=[torch.float32, torch.float16], ids=str)
    def company(self, request: pytest.FixtureRequest) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        options = {"n_slots": 3, "dtype": request.param}
        return options, [options, options | {"n_slots": 1}]


def test_they_are_taken_where_they_are_asked_for() -> None:
    assert isinstance(make()._step._operations, HopperOps)
    assert not make(options=Options())._step.in_cuda
    assert not make(n_slots=16)._step.in_cuda


def test_a_network_that_they_do_not_serve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The real function in place of the emulator's.
    monkeypatch.setattr(step, "hopper_operations", REAL)
    with pytest.raises(EngineError, match="n_embd is 96|compute capability.*use a variant"):
        cuda_decoder(options=Options(variant=CUDA))
