"""barkfast under the name `bark`: each module is loaded once, however it is imported; programs run as in `python`."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import barkfast
from barkfast import generation
from barkfast.as_bark import main
from barkfast.errors import InputError

ROOT = Path(__file__).parents[2]

SAME = """
import sys
import bark, bark.api, bark.generation
from bark import SAMPLE_RATE, generate_audio, preload_models
from bark.generation import *
from bark.api import *
import bark.model_fine, bark.voices.load, bark.engine.async_engine, bark.cli
import barkfast, barkfast.api, barkfast.generation, barkfast.model_fine, barkfast.engine.async_engine
assert bark is barkfast and models is barkfast.generation.models is bark.generation.models
assert bark.cli is barkfast.cli and bark.voices.load is barkfast.voices.load
assert barkfast.engine.async_engine.Engine is bark.Engine
twice = {}
for name, module in sys.modules.items():
    if name.partition(".")[0] in ("bark", "barkfast"):
        twice.setdefault(module.__name__, set()).add(id(module))
assert all(len(ids) == 1 for ids in twice.values()), twice
assert not [name for name in twice if name.startswith("bark.")], "no module of its own lies under bark"
assert bark.__spec__.name == "barkfast" and bark.voices.load.__spec__.name == "barkfast.voices.load"
import importlib.util
assert importlib.util.find_spec("bark.nonsense") is None
load_codec_model(); assert bark.generation.models["codec"] is barkfast.generation.load_codec_model()
"""


def run(*arguments: str, cwd: Path, code: int = 0, **environment: str) -> str:
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "BARKFAST_MODEL": "random:nano"}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | settings | environment, capture_output=True, text=True
    )
    assert result.returncode == code, result.stderr
    return result.stdout if not code else result.stderr


def test_every_module_is_there_once(tmp_path: Path) -> None:
    finders = "assert sum('barkfast.alias._Finder' in repr(f) for f in sys.meta_path) == 1"
    run("-c", f"import barkfast\nfor _ in range(3): barkfast.install_as_bark()\n{SAME}{finders}", cwd=tmp_path)


def test_a_script_runs_as_under_python(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "neighbour.py").write_text("NAME = 'beside the script'\n")
    script = tmp_path / "scripts" / "program.py"
    script.write_text(
        "import sys, neighbour\nfrom bark.generation import generate_text_semantic\n"
        f"{SAME}\nsys.exit(f'{{__name__}} {{neighbour.NAME}} {{sys.argv[1:]}} {{__file__}}')\n"
    )
    said = run("-m", "barkfast.as_bark", str(script), "-v", "a", cwd=tmp_path, code=1)
    assert said.splitlines()[-1] == f"__main__ beside the script ['-v', 'a'] {script}"


def test_the_command_line_of_bark(tmp_path: Path) -> None:
    assert "--history_prompt" in run("-m", "barkfast.as_bark", "-m", "bark", "--help", cwd=tmp_path)


def test_the_entry_point_of_bark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from barkfast.cli import cli

    monkeypatch.setattr(sys, "argv", ["bark", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli()
    assert ended.value.code == 0 and "--history_prompt" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "said"), [([], "usage"), (["-m"], "usage"), (["absent.py"], "does not exist")])
def test_mistakes_are_explained(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barkfast.as_bark.install_as_bark", lambda: None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit, match=said):
        main(arguments)


def test_bark_itself_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    other = types.ModuleType("bark")
    other.__file__ = "elsewhere.py"
    monkeypatch.setitem(sys.modules, "bark", other)
    with pytest.raises(InputError, match=r"imported already, from 'elsewhere.py'; call .*before"):
        barkfast.install_as_bark()


def test_the_presets_of_an_installed_bark_are_found_behind_the_alias(
    nano: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "site" / "bark" / "assets" / "prompts"
    prompts.mkdir(parents=True)
    (prompts.parents[1] / "__init__.py").write_text("raise ImportError('the installed bark must not be imported')\n")
    codes = np.zeros((8, 9), np.int64)
    np.savez(prompts / "mine.npz", semantic_prompt=codes[0, :6], coarse_prompt=codes[:2], fine_prompt=codes)
    monkeypatch.setitem(sys.modules, "bark", barkfast)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert Path(generation.CUR_PATH, "assets", "prompts", "mine.npz").is_file()
    assert set(generation._load_history_prompt("mine")) == {"semantic_prompt", "coarse_prompt", "fine_prompt"}
