"""Synthesize several sentences in one batch, each with its own length, into a folder of files.

For example:

    python examples/batch.py --model suno/bark-small --folder spoken "Hello there." "How are you?"
"""

import argparse
import time
from pathlib import Path

from barkfast import Bark

TEXTS = ("Hello, my name is Ann.", "And mine is Ben. [laughs]", "The two of us are spoken at the same time.")


def main(argv: list[str] | None = None) -> list[Path]:
    """Synthesize, save, and print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", default=TEXTS, help="what to say")
    parser.add_argument("--model", default="demo", help="as of barkfast.Bark")
    parser.add_argument("--voice", help="for all of them; a voice per request is possible, too")
    parser.add_argument("--folder", type=Path, default=Path("spoken"), help="where the files go")
    parser.add_argument("--max-duration", type=float, help="end each after so many seconds")
    options = parser.parse_args(argv)
    bark = Bark(options.model)
    bark.load()
    start = time.perf_counter()
    generations = bark.generate_batch(
        [{"text": text, "seed": seed} for seed, text in enumerate(options.texts)],
        voice=options.voice,
        max_duration_s=options.max_duration,
        # A request that fails does not stop the others.
        keep_errors=True,
    )
    seconds = time.perf_counter() - start
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, generation in enumerate(generations):
        if isinstance(generation, Exception):
            print(f"{number}: {generation}")
            continue
        paths.append(options.folder / f"{number}.wav")
        generation.save(paths[-1])
        print(f"{paths[-1]}: {generation.duration:.2f} s of audio")
    print(f"{len(paths)} together in {seconds:.2f} s")
    return paths


if __name__ == "__main__":
    main()
