"""Stream a sentence into a file while it is generated, as one would to a player or over a network.

For example:

    python examples/stream_to_file.py --model suno/bark-small --mode low_latency -o hello.wav "Hello there."
"""

import argparse
import time

from barkfast import Bark
from barkfast.audio import writing_audio

TEXT = "You will hear the beginning of this before its end is made."


def main(argv: list[str] | None = None) -> int:
    """Synthesize, write, and print the time to the first sound; return the number of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default=TEXT)
    parser.add_argument("--model", default="demo", help="as of barkfast.Bark")
    parser.add_argument("--voice")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--mode", choices=("exact", "low_latency"), default="exact")
    parser.add_argument("--max-duration", type=float, help="end after so many seconds")
    parser.add_argument("-o", "--output", default="stream.wav")
    options = parser.parse_args(argv)
    bark = Bark(options.model)
    bark.load()
    samples, start = 0, time.perf_counter()
    chunks = bark.stream(
        options.text, options.voice, mode=options.mode, seed=options.seed, max_duration_s=options.max_duration
    )
    with writing_audio(options.output, bark.sample_rate) as write:
        for chunk in chunks:
            if not samples:
                print(f"first sound after {time.perf_counter() - start:.2f} s")
            write(chunk)
            samples += len(chunk)
    seconds = time.perf_counter() - start
    print(f"{options.output}: {samples / bark.sample_rate:.2f} s of audio in {seconds:.2f} s")
    return samples


if __name__ == "__main__":
    main()
