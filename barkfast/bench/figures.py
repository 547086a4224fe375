"""The sheet that every picture of a result is drawn on: its size, title, colours and fonts, and how it is saved."""

from pathlib import Path
from textwrap import shorten
from typing import Any

from barkfast.bench.report import VOICES
from barkfast.errors import InputError

# Inches and dots per inch: every picture is 1200 pixels wide.
WIDTH, DPI = 12.0, 100
# Between the sheet's edges and the axes, in inches; the title stands in the one at the top.
LEFT, RIGHT, TOP, BOTTOM = 1.6, 0.5, 1.75, 1.1
# Behind words that a line may cross.
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
COLOURS = {"semantic": "#4477aa", "coarse": "#cc6633", "fine": "#228866", "codec": "#aa4499"}
INK, GREY, LIGHT = "#222222", "#666666", "#bbbbbb"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 13,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 12,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def require_matplotlib() -> Any:
    """The package. Errors: InputError with the line that installs it."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            f"pictures need matplotlib, which cannot be imported ({error}); run: pip install 'barkfast[bench]'"
        ) from error
    return matplotlib


def number(value: float) -> str:
    """Three digits, without an exponent: 0.0123, 38.9, 1498, 52.7k."""
    if value >= 1e4:
        return f"{number(value / 1e3)}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def describe_machine(result: dict[str, Any]) -> str:
    """One line: the device, and on a CPU the threads."""
    environment = result["environment"]
    name = shorten(environment["device"]["name"], 90, placeholder=" ...")
    if result["case"]["device"] != "cpu":
        return name
    return f"{name}, {environment['threads']} thread{'s' * (environment['threads'] != 1)}"


def describe_case(result: dict[str, Any]) -> str:
    """One line: model, dtype, engine and voice."""
    workload = result["case"]
    model = workload["model"] if len(workload["model"]) <= 40 else "..." + workload["model"][-37:]
    weights = " (random weights)" if workload["random_weights"] else ""
    voice = VOICES.get(workload["voice"])
    voice = voice or f"voice {shorten(Path(workload['voice']).name, 30, placeholder=' ...')}"
    return f"{model}{weights}, {workload['dtype']}, {workload['engine']} engine, {voice}"


def describe_run(result: dict[str, Any]) -> str:
    """One line: version, commit and date."""
    environment = result["environment"]
    commit = environment["source"]["commit"]
    source = f", commit {commit[:10]}{' with changes' * bool(environment['source']['dirty'])}" if commit else ""
    early = "; the run was ended early" if result["status"] == "partial" else ""
    return f"barkfast {environment['barkfast']}{source}, {environment['date'][:10]}{early}"


def new_page(
    result: dict[str, Any],
    title: str,
    note: str,
    *,
    height: float,
    axes: int = 1,
    top: float = TOP,
    right: float = RIGHT,
) -> Any:
    """A figure with axes side by side, a title that names the machine and the workload, and a note at the foot.

    Args:
        height: in inches.
        top, right: margins, in inches.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    figure.subplots(1, axes)
    figure.subplots_adjust(
        left=LEFT / WIDTH, right=1 - right / WIDTH, top=1 - top / height, bottom=BOTTOM / height, wspace=0.28
    )
    for axis in figure.axes:
        axis.tick_params(which="both", length=0, pad=7)
    edge = 0.3 / WIDTH
    figure.text(edge, 1 - 0.42 / height, title, fontsize=18, fontweight="bold")
    figure.text(edge, 1 - 0.74 / height, describe_machine(result), fontsize=13.5)
    figure.text(edge, 1 - 1.03 / height, describe_case(result), fontsize=13.5, color=GREY)
    figure.text(edge, 0.18 / height, f"{note} {describe_run(result)}.".strip(), fontsize=10.5, color=GREY)
    return figure


def put_legend(axis: Any, handles: list[Any], *, columns: int = 4) -> None:
    """Above the axes, where nothing is drawn."""
    axis.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        borderaxespad=0.4,
        handlelength=1.4,
        columnspacing=1.6,
    )


def save(figure: Any, path: Path) -> Path:
    """Write a PNG. Errors: InputError where it cannot be written."""
    try:
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    return path
