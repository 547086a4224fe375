"""Every test here starts isolated: no settings, empty caches, and no access to the hub."""

from pathlib import Path

import pytest

from barkfast.weights import hub


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BARKFAST_MODEL", "BARKFAST_CODEC", "BARKFAST_TOKENIZER", "SUNO_USE_SMALL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    # huggingface_hub reads its own variables once, when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_unreachable", None)
    monkeypatch.setattr(hub, "_answered", True)
