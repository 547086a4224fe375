"""Words or phones that a recognizer, which knows neither text nor voice, finds in a sound."""

from collections.abc import Callable

import numpy as np

# Of every clip, before it is recognized.
PEAK = 0.6


def make_recognizer(sample_rate: int, *, phones: bool = False) -> Callable[[np.ndarray], list[str]]:
    """A function from (samples,) to words in lower case, or to the phones of CMU's dictionary.

    Raises: ImportError without pocketsphinx or scipy (the extras `wer` and `test`).
    """
    from pocketsphinx import Decoder, get_model_path
    from scipy.signal import resample_poly

    options: dict = {}
    if phones:
        model = get_model_path("en-us/en-us-phone.lm.bin")
        options = {"lm": None, "allphone": model, "beam": 1e-20, "pbeam": 1e-20, "lw": 2.0}
    # Normalize over each clip separately: earlier clips must have no influence.
    decoder = Decoder(loglevel="FATAL", cmn="batch", **options)

    def recognize(samples: np.ndarray) -> list[str]:
        x = resample_poly(samples, 2, sample_rate // 8000)
        pcm = (x / max(1e-3, np.abs(x).max()) * PEAK * 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        if phones:
            found = [segment.word for segment in decoder.seg()]
            return [word.lower() for word in found if word != "SIL" and not word.startswith("+")]
        heard = decoder.hyp()
        return heard.hypstr.lower().split() if heard else []

    return recognize
