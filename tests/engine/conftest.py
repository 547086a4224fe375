"""The smallest model on the cpu engine, one per test module; a Bark for an engine with a scripted scheduler."""

import pytest

from barkfast import Bark
from barkfast.bench.workload import vocabulary
from barkfast.engine import async_engine
from barkfast.native import native_status
from engine.scripted import ScriptedBark, ScriptedScheduler


@pytest.fixture(scope="module")
def bark(tmp_path_factory: pytest.TempPathFactory) -> Bark:
    if not native_status()[0]:
        pytest.skip(f"native module {native_status()[1]}")
    tokenizer = vocabulary(tmp_path_factory.mktemp("tokenizer"))
    return Bark("random:nano", device="cpu", engine="cpu", dtype="float32", tokenizer=tokenizer)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedBark:
    monkeypatch.setattr(async_engine, "Scheduler", ScriptedScheduler)
    return ScriptedBark()
