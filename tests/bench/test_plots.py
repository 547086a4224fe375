"""The plots: 1200 pixels wide, without overlapping text, also of incomplete results."""

import itertools
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from barkfast.bench import plots
from barkfast.bench.plots import plot_all
from barkfast.errors import InputError
from bench.sample import not_run, red_result, sample_result

NAMES = ["waterfall.png", "roofline.png", "peers.png"]


@pytest.fixture
def matplotlib() -> Any:
    return pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `test`)")


def width_of(path: Path) -> int:
    """Width of a PNG, in pixels."""
    start = path.read_bytes()[:24]
    assert start[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">I", start[16:20])[0]


def gpu_result() -> dict[str, Any]:
    """A result with small numbers and a long device name."""
    result = sample_result()
    result["case"] |= {"device": "cuda", "engine": "cuda", "dtype": "bfloat16", "model": "suno/bark"}
    result["environment"]["device"] = {"name": "NVIDIA Example Accelerator 80GB HBM3 of the newest generation"}
    result["limits"] |= {"read_gb_per_s": 2980.0, "tflop_per_s": 712.0}
    for backend in result["contenders"]:
        slow = 1 if backend["name"] == "barkfast" else 2
        for stage in backend["stages"]:
            stage["s"] = {k: v if k == "n" else slow * v / 16 for k, v in stage["s"].items()}
        factor = backend["real_time_factor"]
        backend["real_time_factor"] = {k: v if k == "n" else slow * v / 16 for k, v in factor.items()}
    return result


def with_gaps() -> dict[str, Any]:
    """A result without the parts that may be missing: a peer, a peer's stages, bytes, shares."""
    result = sample_result()
    result["contenders"][1] = not_run()
    result["contenders"][2]["stages"] = []
    for stage in result["contenders"][0]["stages"]:
        stage["share"] = None
        if stage["stage"] in ("fine", "codec"):
            stage["bytes"] = stage["gb_per_s"] = None
    return result


RESULTS = {
    "cpu": sample_result,
    "gpu": gpu_result,
    "gaps": with_gaps,
    "partial": lambda: sample_result("partial"),
}


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize("kind", RESULTS)
def test_pictures_are_as_wide_as_is_said(kind: str, tmp_path: Path):
    paths = plot_all(RESULTS[kind](), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == NAMES
    assert {width_of(path) for path in paths} == {1200}


@pytest.mark.parametrize("plot", ["plot_waterfall", "plot_roofline", "plot_peers"])
@pytest.mark.parametrize("kind", ["cpu", "gpu", "gaps"])
def test_words_stay_apart_and_on_the_sheet(matplotlib: Any, kind: str, plot: str, monkeypatch: pytest.MonkeyPatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    with matplotlib.rc_context(plots.STYLE):
        figure = getattr(plots, plot)(RESULTS[kind]())
        renderer = FigureCanvasAgg(figure).get_renderer()
        drawn, draw = [], Text.draw

        def spy(text: Text, *args: Any) -> None:
            drawn.append(text)
            draw(text, *args)

        # Labels of ticks beyond the ends of an axis exist, but are not drawn.
        monkeypatch.setattr(Text, "draw", spy)
        figure.draw(renderer)
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in drawn if t.get_visible() and t.get_text()]
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text!r} is cut off: {box}"
    for (text, box), (other, second) in itertools.combinations(boxes, 2):
        assert not box.overlaps(second), f"{text!r} and {other!r} overlap"
    machine = plots.describe_machine(RESULTS[kind]())
    assert machine in [text for text, _ in boxes]
    assert all(axis.get_xlabel() for axis in figure.axes)


@pytest.mark.usefixtures("matplotlib")
def test_nothing_is_drawn_of_what_was_not_timed(tmp_path: Path):
    assert plot_all(red_result(), tmp_path) == []


def test_without_matplotlib_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'barkfast\[bench\]'"):
        plot_all(sample_result(), tmp_path)


@pytest.mark.usefixtures("matplotlib")
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        plot_all(sample_result(), tmp_path / "file" / "folder")
    (tmp_path / "waterfall.png").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        plot_all(sample_result(), tmp_path)
