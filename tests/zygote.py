"""A process that has loaded barkfast, and forks a child for each command, which runs it as a fresh process would.

Run as a program it reads a line of JSON for each command: {"argv", "env", "cwd", "fds", "prepare", "real"}. `fds` are
the child's streams: 0, 1 or 2 -> a path, or null for closed. `prepare` is code that is run before the command. Unless
`real`, the model is a stand-in. The process answers with the child's process id, and later with its exit status.
`Zygote` is the client.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Instead of a path: a pipe whose reader is gone.
BROKEN_PIPE = "|"
ROOT = Path(__file__).resolve().parents[1]


class Zygote:
    """Starts the process and sends it commands."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        )

    def start(
        self,
        *argv: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        fds: Mapping[int, str | None] | None = None,
        prepare: str = "",
        real: bool = False,
    ) -> int:
        """Begin a command; what it prints goes to the files 1 and 2 in `cwd`. Returns its process id."""
        streams = {0: os.devnull, 1: str(cwd / "1"), 2: str(cwd / "2")} | dict(fds or {})
        command = {"argv": argv, "cwd": str(cwd), "env": dict(env or {}), "fds": streams, "prepare": prepare}
        command["real"] = real
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def finish(self) -> int:
        """Wait for the command; its exit status, or minus the signal that killed it."""
        return int(self._read())

    def run(self, *argv: str, **options: Any) -> int:
        self.start(*argv, **options)
        return self.finish()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.communicate()


def _open(path: str, mode: str) -> int:
    if path == BROKEN_PIPE:
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    return os.open(path, os.O_RDONLY if mode == "r" else os.O_WRONLY | os.O_CREAT, 0o666)


def _become(command: dict[str, Any]) -> None:
    """Turn a child into the process of a command."""
    os.chdir(command["cwd"])
    os.environ.update(command["env"])
    for descriptor, path in command["fds"].items():
        number, mode = int(descriptor), "r" if descriptor == "0" else "w"
        os.close(number)
        stream = None
        if path is not None:
            opened = _open(path, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            stream = open(number, mode, encoding=os.environ.get("PYTHONIOENCODING"), closefd=False)  # noqa: SIM115
        setattr(sys, ("stdin", "stdout", "stderr")[number], stream)
    # Whatever started these tests may ignore them, as nohup does.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not command["real"]:
        _speak_noise()
    exec(command["prepare"], {})


def _speak_noise() -> None:
    """Replace the model, which takes seconds, by noise: these tests are about everything around it."""
    import numpy as np

    from barkfast import Bark, Generation

    codes = np.ones((8, 10), np.int32)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3200).astype(np.float32)
    generation = Generation(noise, 24_000, np.ones(7, np.int64), codes[:2], codes, {"codec": 0.1})
    Bark.load = lambda self: None
    Bark.generate = lambda self, text, voice=None, **options: generation
    Bark.generate_long = lambda self, text, voice=None, **options: (noise for _ in text)


def _serve() -> None:
    import safetensors.torch  # noqa: F401
    import sentencex  # noqa: F401
    import soundfile  # noqa: F401
    import tokenizers  # noqa: F401
    import torch

    from barkfast.cli import main
    from barkfast.weights import open_model

    torch.set_num_threads(1)
    open_model("demo")
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 99
            try:
                _become(command)
                status = main(command["argv"])
            except BaseException:
                traceback.print_exc()
            # As at the end of a process: what is left in the streams is written, or the status becomes 120.
            sys.exit(status)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
