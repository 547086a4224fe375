"""Draw the sentence of `make demo`, as spoken by the demo voice and by the training voice.

    python -m training.demo_voice.picture            # docs/pictures/demo-voice.png

It needs festival, as synthesis does, and matplotlib.
"""

import re
from pathlib import Path

import numpy as np

from barkfast import Bark
from barkfast.bench import plots
from barkfast.normalize.english import spell_out

from .features import HOP, SAMPLE_RATE, log_mel
from .synth import speak

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "demo-voice.png"


def read_sentence() -> tuple[str, int]:
    """Text and seed of `make demo`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text, seed = (re.search(rf"^{name} \?= (.+)$", makefile, re.MULTILINE) for name in ("DEMO_TEXT", "DEMO_SEED"))
    if text is None or seed is None:
        raise SystemExit("the Makefile has no DEMO_TEXT and DEMO_SEED; expected what `make demo` says")
    return text[1], int(seed[1])


def draw(sounds: dict[str, np.ndarray]) -> None:
    """Log-mel spectrograms of (n,) float32 sounds one above the other, on one scale of time and loudness."""
    matplotlib = plots.require_matplotlib()
    from matplotlib.figure import Figure

    frames = {name: log_mel(sound).T for name, sound in sounds.items()}
    longest = max(mel.shape[1] for mel in frames.values()) * HOP / SAMPLE_RATE
    low, high = np.percentile(np.concatenate(list(frames.values()), axis=1), [2, 99.5])
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(12, 5.4), layout="constrained")
        for axes, (name, mel) in zip(figure.subplots(len(frames), sharex=True), frames.items(), strict=True):
            extent = (0, mel.shape[1] * HOP / SAMPLE_RATE, 0, len(mel))
            axes.imshow(mel, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="magma")
            axes.set(xlim=(0, longest), ylabel="mel bands, to 12 kHz", yticks=[])
            axes.grid(False)
            axes.set_title(f"{name}, {mel.shape[1] * HOP / SAMPLE_RATE:.1f} s", loc="left")
        axes.set_xlabel("seconds")
        plots.save(figure, PICTURE)


def main() -> None:
    text, seed = read_sentence()
    demo = Bark("demo", device="cpu").generate(text, seed=seed)
    (training,) = speak([spell_out(text)])
    draw({"demo voice": demo.audio, "training voice": training["audio"].astype(np.float32) / 32767})
    print(PICTURE)


if __name__ == "__main__":
    main()
