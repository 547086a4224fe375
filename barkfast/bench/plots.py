"""Plots of a result: where the time goes, the roofline, and peers side by side."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

from barkfast.bench.backends import OURS
from barkfast.bench.report import VOICES, describe_source, number
from barkfast.errors import InputError

# Inches and dots per inch: every picture is 1200 pixels wide.
WIDTH, DPI = 12.0, 100
# Between the edges and the axes, in inches; the title is in the one at the top.
LEFT, RIGHT, TOP, BOTTOM = 1.6, 0.5, 1.75, 1.1
# Behind text that a line may cross.
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
DASHED: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.2}

Result = dict[str, Any]


def require_matplotlib() -> Any:
    """The package. Raises: InputError with the line that installs it."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            f"pictures need matplotlib, which cannot be imported ({error}); run: pip install 'barkfast[bench]'"
        ) from error
    return matplotlib


def plot_all(result: Result, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw what the result has numbers for, as PNG files of 1200 pixels' width in `folder`, and return their paths.

    Args:
        result: what `run_bench` returns; of a partial one what is there is drawn.
        folder: made where it is missing.

    Raises: InputError without matplotlib, or where the files cannot be written.
    """
    place, paths = make_folder(folder), []
    with require_matplotlib().rc_context(STYLE):
        for plot in (plot_waterfall, plot_roofline, plot_peers):
            figure = plot(result)
            if figure is not None:
                paths.append(save(figure, place / f"{plot.__name__.removeprefix('plot_')}.png"))
    return paths


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder for plots. Raises: InputError without matplotlib, or where it cannot be made."""
    require_matplotlib()
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {place}: {error.strerror or error}; choose another one") from error
    return place


def save(figure: Any, path: Path) -> Path:
    """Write a PNG. Raises: InputError where it cannot be written."""
    try:
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    return path


def describe_machine(result: Result) -> str:
    """One line: the device, and on a CPU the threads."""
    environment = result["environment"]
    name, threads = shorten(environment["device"]["name"], 90, placeholder=" ..."), environment["threads"]
    return name if result["case"]["device"] != "cpu" else f"{name}, {threads} thread{'s' * (threads != 1)}"


def describe_case(result: Result) -> str:
    """One line: model, dtype, engine and voice."""
    workload = result["case"]
    model = workload["model"] if len(workload["model"]) <= 40 else "..." + workload["model"][-37:]
    weights = " (random weights)" if workload["random_weights"] else ""
    voice = VOICES.get(workload["voice"])
    voice = voice or f"voice {shorten(Path(workload['voice']).name, 30, placeholder=' ...')}"
    return f"{model}{weights}, {workload['dtype']}, {workload['engine']} engine, {voice}"


def describe_run(result: Result) -> str:
    """One line: version, commit and date."""
    environment = result["environment"]
    early = "; the run was ended early" if result["status"] == "partial" else ""
    return f"barkfast {environment['barkfast']}{describe_source(environment)}, {environment['date'][:10]}{early}"


def new_page(
    result: Result,
    title: str,
    note: str,
    *,
    height: float,
    axes: int = 1,
    top: float = TOP,
    right: float = RIGHT,
    about: tuple[str, str] | None = None,
) -> Any:
    """A figure with axes side by side, a title that names the machine and the workload, and a note at the foot.

    Args:
        height, top, right: of the whole, and of two margins, in inches.
        about: two lines in place of the machine and the workload.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    figure.subplots(1, axes)
    figure.subplots_adjust(LEFT / WIDTH, BOTTOM / height, 1 - right / WIDTH, 1 - top / height, wspace=0.28)
    for axis in figure.axes:
        axis.tick_params(which="both", length=0, pad=7)
    edge = 0.3 / WIDTH
    figure.text(edge, 1 - 0.42 / height, title, fontsize=18, fontweight="bold")
    machine, case = about or (describe_machine(result), describe_case(result))
    figure.text(edge, 1 - 0.74 / height, machine, fontsize=13.5)
    figure.text(edge, 1 - 1.03 / height, case, fontsize=13.5, color=GREY)
    figure.text(edge, 0.18 / height, f"{note} {describe_run(result)}.".strip(), fontsize=10.5, color=GREY)
    return figure


def put_legend(axis: Any, handles: list[Any], *, columns: int = 4) -> None:
    """Above the axes, where nothing is drawn."""
    spaces = {"borderaxespad": 0.4, "handlelength": 1.4, "columnspacing": 1.6}
    axis.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, **spaces)


def timed(result: Result) -> list[dict[str, Any]]:
    """The backends that were timed, in the result's order; ours is the first where it is among them."""
    return [backend for backend in result["contenders"] if backend["clips"] and backend["real_time_factor"]]


def ours_of(result: Result) -> dict[str, Any] | None:
    """What barkfast itself did, stage by stage; None if it was not timed."""
    return next((backend for backend in timed(result) if backend["name"] == OURS and backend["stages"]), None)


def spread_note(backend: dict[str, Any]) -> str:
    """What the numbers of a backend's clips are."""
    n = backend["real_time_factor"]["n"]
    return f"Medians of {n} clip{'s' * (n != 1)}; thin lines: fastest to slowest."


def plot_waterfall(result: Result) -> Any:
    """Each stage's bar begins where the one before ends; its dark part is the time at this machine's limits."""
    ours = ours_of(result)
    if ours is None:
        return None
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    total = sum(stage["s"]["median"] for stage in ours["stages"])
    audio = ours["clips"][0]["audio_s"]
    title = f"Where the time of a clip goes: {number(total)} s for {number(audio)} s of audio"
    figure = new_page(result, title, spread_note(ours), height=5.6)
    (axis,) = figure.axes
    start = 0.0
    for y, stage in enumerate(ours["stages"]):
        summary, colour = stage["s"], COLOURS[stage["stage"]]
        seconds = summary["median"]
        dark = min(1.0, stage["share"] or 0) * seconds
        axis.barh(y, dark, left=start, color=colour, height=0.62)
        axis.barh(y, seconds - dark, left=start + dark, color=colour, alpha=0.35, height=0.62)
        axis.plot([start + summary["min"], start + summary["max"]], [y, y], color=INK, linewidth=1.2)
        end = start + max(seconds, summary["max"])
        axis.text(end + total / 80, y, f"{number(seconds)} s, {seconds / total:.0%}", va="center", bbox=PAPER)
        start += seconds
    y = len(ours["stages"])
    axis.barh(y, total, color=LIGHT, height=0.62)
    axis.text(total * (1 + 1 / 80), y, f"{number(total)} s", va="center", fontweight="bold")
    axis.set_yticks(range(y + 1), [*(stage["stage"] for stage in ours["stages"]), "all"])
    axis.set(ylim=(y + 0.6, -0.6), xlim=(0, 1.16 * total), xlabel="seconds")
    axis.grid(axis="x")
    handles: list[Any] = [
        Patch(color=GREY, label="needed at the machine's measured limits"),
        Patch(color=GREY, alpha=0.35, label="beyond that"),
    ]
    if audio <= 1.12 * total:
        axis.axvline(audio, **DASHED)
        handles.append(Line2D([], [], **DASHED, label="length of the audio"))
    put_legend(axis, handles)
    return figure


def plot_roofline(result: Result) -> Any:
    """Every stage as a point below the roof that the machine's measured limits make."""
    ours, limits = ours_of(result), result["limits"]
    if ours is None or limits is None:
        return None
    from matplotlib.ticker import FuncFormatter

    read, peak = limits["read_gb_per_s"] * 1e-3, limits["tflop_per_s"]
    ridge = peak / read
    points = [(stage["stage"], *locate(stage)) for stage in ours["stages"] if operations_of(stage)]
    known = [x for _, x, _ in points if x is not None] + [ridge]
    low, high = decade(min(known) / 1.25, math.floor), decade(1.25 * max(known), math.ceil)
    bottom = decade(min(y for *_, y in points) / 1.25, math.floor)
    title = "Roofline: how near each stage comes to the machine's limits"
    note = "Bytes are the fewest that must be read; limits were measured in the same run."
    figure = new_page(result, title, note, height=6.4, top=1.35, right=3.75)
    (axis,) = figure.axes
    roof = f"measured limits:\n{number(read * 1e3)} GB/s, {number(peak)} TFLOP/s"
    axis.plot([low, ridge, high], [read * low, peak, peak], color=INK, linewidth=2, label=roof)
    for name, x, y in points:
        label = f"{name}: {number(y)} TFLOP/s"
        if x is None:
            # Its place from left to right is not known, only that it is not bound by reading.
            label += "\n(bytes not counted)"
            axis.plot(high / 1.3, y, ">", color=COLOURS[name], markersize=11, fillstyle="none", label=label)
            continue
        label += f"\n{number(x)} operations per byte"
        axis.plot([x, x], [y, min(peak, read * x)], color=COLOURS[name], linewidth=1.2, linestyle=":")
        axis.plot(x, y, "o", color=COLOURS[name], markersize=11, label=label)
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, decade(1.5 * peak, math.ceil)))
    axis.set(xlabel="operations per byte", ylabel="TFLOP/s")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.grid(which="major")
    axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), labelspacing=1.1, handlelength=1.6)
    return figure


def operations_of(stage: dict[str, Any]) -> float | None:
    """All operations of a stage, or those that are known."""
    return stage.get("operations") or stage["flop"]


def locate(stage: dict[str, Any]) -> tuple[float | None, float]:
    """Operations per byte (None where bytes were not counted), and 1e12 operations per second."""
    operations = operations_of(stage) or 0.0
    rate = operations / stage["s"]["median"] / 1e12
    return (operations / stage["bytes"] if stage["bytes"] else None), rate


def decade(value: float, towards: Callable[[float], int]) -> float:
    """The power of ten next to `value`, below or above."""
    return 10.0 ** towards(math.log10(value))


def plot_peers(result: Result) -> Any:
    """A bar per backend, split by stage: seconds of work for a second of audio."""
    bars, others = timed(result), [one for one in result["contenders"] if one["name"] != OURS]
    ours = ours_of(result)
    if not bars or not others:
        return None
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    longest = max(backend["real_time_factor"]["max"] for backend in bars)
    title = "Seconds of work for a second of audio: less is better"
    figure = new_page(result, title, spread_note(bars[0]), height=3.4 + 0.7 * len(result["contenders"]))
    (axis,) = figure.axes
    names, split = [], False
    for y, backend in enumerate(result["contenders"]):
        names.append(f"{backend['name']}\n{backend['dtype']}".strip())
        if backend not in bars:
            why = f"{backend['status']}: {backend['reason']}" if backend["reason"] else "not timed"
            axis.text(longest / 80, y, shorten(why, 90, placeholder=" ..."), va="center", color=GREY, bbox=PAPER)
            continue
        factor, audio = backend["real_time_factor"], backend["clips"][0]["audio_s"]
        parts = [(COLOURS[s["stage"]], s["s"]["median"] / audio) for s in backend["stages"]]
        split = split or bool(parts)
        start = 0.0
        for colour, length in parts or [(LIGHT, factor["median"])]:
            axis.barh(y, length, left=start, color=colour, height=0.6)
            start += length
        axis.plot([factor["min"], factor["max"]], [y, y], color=INK, linewidth=1.2)
        label = number(factor["median"])
        if ours is not None and backend is not ours:
            label += f", {number(factor['median'] / ours['real_time_factor']['median'])} times barkfast's"
        axis.text(max(start, factor["max"]) + longest / 80, y, label, va="center", bbox=PAPER)
    axis.axvline(1, **DASHED)
    axis.set_yticks(range(len(names)), names)
    axis.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, max(1.36 * longest, 1.1)), xlabel="real-time factor")
    axis.grid(axis="x")
    handles: list[Any] = [Patch(color=colour, label=stage) for stage, colour in COLOURS.items() if split]
    handles.append(Line2D([], [], **DASHED, label="real time"))
    put_legend(axis, handles, columns=5)
    return figure
