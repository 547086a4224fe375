"""Stage `codes`: codes of every frame of the corpus, and the audio that the decoder is trained on."""

import numpy as np
import torch

from .dataset import parts, read_audio, save_utterances
from .rvq import encode
from .work import Work

N_AUDIO_PARTS = 40  # about six hours; the decoder's training does not reach more


def run(work: Work) -> dict[str, int]:
    rvq = torch.load(work.path("rvq.pt"))
    n_frames = 0
    for split in ("held_out", "train"):
        codes = []
        for _, path in parts(work, split):
            arrays = np.load(path)
            part = encode(torch.from_numpy(arrays["mel"]).float(), rvq).to(torch.int16).numpy()
            codes += np.split(part, np.cumsum(arrays["n_mel"])[:-1])
        save_utterances(work, split, "codes", codes)
        save_utterances(work, split, "audio", read_audio(work, split, N_AUDIO_PARTS))
        n_frames += sum(map(len, codes))
    return {"frames": n_frames}
