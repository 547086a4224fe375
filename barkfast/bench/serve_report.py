"""What `barkfast bench --serve` prints and draws."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, TextIO

from barkfast.bench import plots
from barkfast.bench.report import PARTIAL, Rows, make_console, number, show

OUTCOMES = {"done": "#228866", "refused": "#ddaa33", "failed": "#bb3333"}
# Seconds by which the client may send late, before its times are in doubt.
LATE_S = 0.05
NOTES = (
    "first audio: from when a request was to be sent to its first byte",
    "underrun: the most seconds of sound that a player lacked which began at the first byte",
    "audio s/s: seconds of sound that were received per second, of all requests that were done",
)


def print_serve(result: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Print everything in a result."""
    console = make_console(file)
    for line in describe_serve(result):
        console.print(line, soft_wrap=True)
    console.print()
    if result["status"] == PARTIAL:
        console.print("This run ended early: the result is partial.\n")
    if not result["rates"]:
        return
    show(console, "Requests that arrive at random, whether or not others are done", *rate_table(result["rates"]))
    for rate in result["rates"]:
        for reason, count in rate["errors"].items():
            console.print(f"{rate['rate']:g} requests/s: {count} failed: {reason}", soft_wrap=True)
        if rate["late_s"]["p95"] > LATE_S:
            console.print(
                f"{rate['rate']:g} requests/s: this client sent up to {number(rate['late_s']['p95'])} s late (p95); "
                "it is too slow for the rate, or shares its cores with the server",
                soft_wrap=True,
            )
    for note in NOTES:
        console.print(note, style="dim", soft_wrap=True)


def describe_serve(result: Mapping[str, Any]) -> Iterator[str]:
    """What was sent where, and from which machine."""
    yield describe_server(result)
    yield describe_requests(result)
    environment = result["environment"]
    yield f"sent from {environment['device']['name']}, by barkfast {environment['barkfast']}, {environment['date']}"


def describe_server(result: Mapping[str, Any]) -> str:
    """One line: address, model and voice."""
    case = result["case"]
    return f"{shorten(case['url'], 70, placeholder=' ...')}, model {case['model']}, voice {case['voice']}"


def describe_requests(result: Mapping[str, Any]) -> str:
    """One line: how many, and how long their texts are."""
    case = result["case"]
    count = f"{case['requests']} requests" if case["seconds"] is None else f"requests for {case['seconds']:g} s"
    return f"{count} at each rate, of {case['words'][0]} to {case['words'][1]} words, seed {case['seed']}"


def rate_table(rates: list[dict[str, Any]]) -> Rows:
    """A row for each rate."""
    rows = []
    for rate in rates:
        first, underrun, whole = ((rate[key] or {}) for key in ("first_audio_s", "underrun_s", "whole_s"))
        counts = [str(rate[key]) for key in ("done", "refused", "failed")]
        times = [first.get("median"), first.get("p95"), whole.get("median"), whole.get("p95")]
        missed = [underrun.get("median"), underrun.get("p95")]
        cells = [*counts, *map(number, times), str(rate["underruns"]), *map(number, missed)]
        rows.append([f"{rate['rate']:g}", *cells, number(rate["audio_s_per_s"])])
    head = ["requests/s", "done", "refused", "failed", "first audio s", "p95", "whole s", "p95"]
    return [*head, "underruns", "underrun s", "p95", "audio s/s"], rows


def plot_serve(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw serve.png, 1200 pixels wide, into a folder, and return its path; nothing where no rate was done.

    Raises: InputError without matplotlib, or where the file cannot be written.
    """
    if not result["rates"]:
        return []
    place = plots.make_folder(folder)
    with plots.require_matplotlib().rc_context(plots.STYLE):
        return [plots.save(draw(result), place / "serve.png")]


def draw(result: dict[str, Any]) -> Any:
    """Time to first audio, underruns, and what became of the requests, by rate."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rates = sorted(result["rates"], key=lambda rate: rate["rate"])
    title = "A speech server under load, by requests per second"
    note = "Bars: medians; thin lines: 95 % are below."
    about = describe_server(result), describe_requests(result)
    figure = plots.new_page(result, title, note, height=5.8, axes=3, about=about)
    figure.subplots_adjust(left=0.9 / plots.WIDTH, wspace=0.32)
    first, underrun, outcome = figure.axes
    for axis, key, colour, name in (
        (first, "first_audio_s", plots.COLOURS["semantic"], "first audio"),
        (underrun, "underrun_s", plots.COLOURS["coarse"], "underrun"),
    ):
        draw_times(axis, [rate[key] for rate in rates], colour)
        axis.set(ylabel="seconds")
        handles = [Patch(color=colour, label=name), Line2D([], [], color=plots.INK, linewidth=1.2, label="95 %")]
        plots.put_legend(axis, handles, columns=2)
    bottom = [0] * len(rates)
    for name, colour in OUTCOMES.items():
        counts = [rate[name] for rate in rates]
        outcome.bar(range(len(rates)), counts, bottom=bottom, color=colour, width=0.6)
        bottom = [low + count for low, count in zip(bottom, counts, strict=True)]
    label_bars(outcome, bottom, [f"{plots.number(rate['audio_s_per_s'])} s/s" for rate in rates])
    outcome.set(ylabel="requests, and audio s/s", ylim=(0, 1.2 * max(bottom)))
    plots.put_legend(outcome, [Patch(color=colour, label=name) for name, colour in OUTCOMES.items()], columns=3)
    for axis in figure.axes:
        axis.set_xticks(range(len(rates)), [f"{rate['rate']:g}" for rate in rates])
        axis.set(xlabel="requests per second", xlim=(-0.6, len(rates) - 0.4))
        axis.grid(axis="y")
    return figure


def draw_times(axis: Any, summaries: list[dict[str, Any] | None], colour: str) -> None:
    """A bar for each median, and a line up to the 95th percentile; a dash where nothing was done."""
    medians = [0.0 if summary is None else summary["median"] for summary in summaries]
    late = [0.0 if summary is None else summary["p95"] for summary in summaries]
    axis.bar(range(len(medians)), medians, color=colour, width=0.6)
    axis.vlines(range(len(medians)), medians, late, color=plots.INK, linewidth=1.2)
    labels = ["-" if summary is None else plots.number(summary["median"]) for summary in summaries]
    label_bars(axis, late, labels)
    axis.set(ylim=(0, 1.2 * max(*late, 1e-3)))


def label_bars(axis: Any, heights: list[Any], labels: list[str]) -> None:
    """Text above bars."""
    where = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    for place, (height, label) in enumerate(zip(heights, labels, strict=True)):
        axis.annotate(label, (place, height), bbox=plots.PAPER, fontsize=12 if len(labels) < 5 else 9, **where)
