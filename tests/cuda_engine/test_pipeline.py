"""Text to sound on the GPU engine: greedy results equal the torch engine's."""

import numpy as np

from barkfast import Bark
from barkfast.runtime.cuda.codec import CudaCodec
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.refiner import CudaRefiner
from cuda_engine.networks import DEVICE


def test_greedy_speech_is_that_of_the_torch_engine() -> None:
    greedy = {"text_temp": 0, "waveform_temp": 0, "fine_temp": 0, "max_duration_s": 0.1}
    barks = [Bark("random:demo", device=DEVICE.type, dtype="float32", engine=engine) for engine in ("cuda", "torch")]
    ours, theirs = (bark.generate("Hello there.", **greedy) for bark in barks)
    for name in ("semantic", "coarse", "fine"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert np.abs(ours.audio - theirs.audio).max() < 1e-5
    kinds = [type(barks[0].components.network(part)) for part in ("text", "coarse", "fine", "codec")]
    assert kinds == [CudaDecoder, CudaDecoder, CudaRefiner, CudaCodec], "an engine fell back"
