"""Start `barkfast serve` with the demo voice and run speak.py against it: `python run.py PYTHON_OF_THE_CLIENTS`."""

import re
import subprocess
import sys
from pathlib import Path

SERVE = "from barkfast.cli import main; raise SystemExit(main())"


def run(python: str) -> int:
    """The exit status of speak.py, or of the server where it does not end well."""
    command = [sys.executable, "-c", SERVE, "serve", "--model", "demo", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = None
        for line in server.stderr:
            if found := re.search(r"say hello: curl (http://\S+/v1)/", line):
                url = found.group(1)
                break
        if url is None:
            return 1
        try:
            status = subprocess.run([python, Path(__file__).with_name("speak.py"), url]).returncode
        finally:
            server.terminate()
            server.communicate()
    return status or server.returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
