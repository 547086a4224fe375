"""Set-up for every test: no network, none of the user's caches or settings; GPU tests run only if there is a GPU."""

import os
import shutil
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# huggingface_hub reads these when it is first imported, so they are set before any test module is.
_HOME = tempfile.mkdtemp(prefix="barkfast-tests-")
for _name in [name for name in os.environ if name.startswith(("BARKFAST_", "SUNO_", "HF_", "HUGGINGFACE_"))]:
    del os.environ[_name]
os.environ.update(
    HF_HOME=os.path.join(_HOME, "huggingface"),
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    XDG_CACHE_HOME=os.path.join(_HOME, "cache"),
    TOKENIZERS_PARALLELISM="false",
    # The networks under test are small: more threads would only wait for one another. Sub-processes inherit this.
    OMP_NUM_THREADS="1",
)

import pytest  # noqa: E402
import torch  # noqa: E402

from interpreter import avoid_repetition  # noqa: E402

pytest_plugins = ["sweeps"]

# So that failed asserts in this helper module show their values, as those in test files do.
pytest.register_assert_rewrite("contract.decoding")

torch.set_num_threads(1)

# Kernels are compiled where there is a GPU and interpreted elsewhere; they read this when they are first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
# So that a checkout can be tested in place, without an install.
sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in (".", "kernels")]


if find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    # The duration of an example depends on the machine's load, not on whether the code is right.
    settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this test suite."""
    parser.addoption("--full", action="store_true", help="test the demo voice with 200 sentences instead of a few")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu`, with the reason, where torch sees no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch sees none here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


# What the parity tests need.
REFERENCE = ("bark", "encodec", "transformers", "scipy", "einops", "funcy")
# For the summary at the end of a run: figures are added up, texts are printed one after the other.
FIGURES, TEXTS = pytest.StashKey[Counter[str]](), pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Start with an empty summary."""
    config.stash[FIGURES], config.stash[TEXTS] = Counter(), []


@pytest.fixture(scope="session", autouse=True)
def interpreter() -> None:
    """Make Triton's interpreter faster, if the tests' modules have loaded it."""
    module = sys.modules.get("triton.runtime.interpreter")
    if module is not None and not torch.cuda.is_available():
        avoid_repetition(module)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Counter[str]:
    """Counts for the summary, by name."""
    return request.config.stash[FIGURES]


@pytest.fixture(scope="session")
def texts(request: pytest.FixtureRequest) -> list[str]:
    """Texts for the summary."""
    return request.config.stash[TEXTS]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the summary of a pytest-xdist worker to the process that prints it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = dict(session.config.stash[FIGURES])
        session.config.workeroutput["texts"] = session.config.stash[TEXTS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the summary of a finished worker; one that crashed has none."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[FIGURES].update(output.get("figures", {}))
    node.config.stash[TEXTS].extend(output.get("texts", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the summary."""
    for text in terminalreporter.config.stash[TEXTS]:
        terminalreporter.write_line(text)
    figures = terminalreporter.config.stash[FIGURES]
    missing = [name for name in REFERENCE if find_spec(name) is None]
    if missing:
        terminalreporter.write_line(f"parity: not run, {', '.join(missing)} not installed (the extra `reference`)")
    if figures["sequences"]:
        same = figures["sequences"] == figures["identical"]
        terminalreporter.write_line(
            f"parity: {figures['sequences']} token sequences compared, {figures['identical']} identical",
            green=same,
            red=not same,
        )
    if figures["logits"]:
        terminalreporter.write_line(
            f"parity: {figures['logits']} sets of logits close to the reference's, "
            f"{figures['same_bits']} of them bit for bit"
        )


def pytest_unconfigure() -> None:
    """Remove the session's caches."""
    shutil.rmtree(_HOME, ignore_errors=True)
