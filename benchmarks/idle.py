"""Whether anything else is on the device, as nvidia-smi sees it: before something is timed, nothing may be."""

import shutil
import subprocess
import time

QUERY = ("--query-compute-apps=pid,process_name", "--format=csv,noheader")
# For one answer: the tool waits for a device in trouble.
ANSWER_S = 5.0


def ask() -> list[str] | None:
    """A line per process that computes on a GPU; None where nvidia-smi cannot say."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        answer = subprocess.run([tool, *QUERY], capture_output=True, text=True, timeout=ANSWER_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()] if answer.returncode == 0 else None


def wait_until_idle(seconds: float) -> str:
    """Wait until no process computes on a GPU; returns what is to be noted: nothing if none does."""
    end = time.monotonic() + seconds
    while True:
        found = ask()
        if found is None:
            return "nvidia-smi does not say whether anything else is on the device"
        if not found:
            return ""
        if time.monotonic() > end:
            return f"timed beside other processes on the device: {'; '.join(found)[:200]}"
        time.sleep(0.25)
