"""Stage `codes`: codes of every frame of the corpus, and the audio that the decoder learns from."""

import numpy as np
import torch

from .dataset import parts, save_utterances, split_array
from .features import HOP
from .rvq import encode
from .work import Work

N_AUDIO_PARTS = 40  # about six hours; the decoder sees no more in its time


def run(work: Work) -> dict[str, int]:
    rvq = torch.load(work.path("rvq.pt"))
    n_frames = 0
    for split in ("held_out", "train"):
        codes, audio = [], []
        for number, (_, path) in enumerate(parts(work, split)):
            arrays = np.load(path)
            part = encode(torch.from_numpy(arrays["mel"]).float(), rvq).to(torch.int16).numpy()
            codes += np.split(part, np.cumsum(arrays["n_mel"])[:-1])
            if number < N_AUDIO_PARTS:
                audio += split_array(arrays, "audio", "mel", HOP)
        save_utterances(work, split, "codes", codes)
        save_utterances(work, split, "audio", audio)
        n_frames += sum(map(len, codes))
    return {"frames": n_frames}
