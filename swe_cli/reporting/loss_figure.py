"""The figure of a sweep: loss against sparsity, with the controls."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from swe_cli.errors import SweError
from swe_cli.records import Kind
from swe_cli.reporting.figures import COLOURS, MARKERS, STYLE
from swe_cli.reporting.summary import Line, Summary
from swe_cli.reporting.text import count, number

_CONTROL_STYLES: dict[Kind, tuple[str, Any]] = {
    "dense": ("black", "-"),
    "dense_best": ("0.25", (0, (7, 2, 1, 2))),
    "dense_recovered": ("0.45", (0, (1, 1.5))),
    "dense_averaged": ("0.25", (0, (9, 3))),
    "dense_blind": ("0.6", (0, (3, 1, 1, 1, 1, 1))),
}
_BEFORE = (0, (4, 2))


def loss_figure(summary: Summary) -> Figure:
    """Loss in nats per token against the percentage cut, with the controls as horizontal lines.

    After recovery solid, with the paired interval of its difference to dense as a band; before
    recovery dashed. What explodes goes on in a narrow logarithmic panel above, so that the region
    around the controls stays readable.
    Raises SweError where no pruned row has a finite loss.
    """
    low, cut, top = _limits(summary)
    broken = top > cut
    with matplotlib.rc_context(STYLE):
        legend = _legend(summary)
        words = sum(1 + str(handle.get_label()).count("\n") for handle in legend)
        height = max(5.0 if broken else 4.2, 0.3 + 0.18 * words)
        figure = Figure(figsize=(8.2, height), layout=ConstrainedLayoutEngine(hspace=0))
        panels = figure.subplots(
            2 if broken else 1,
            1,
            sharex=True,
            squeeze=False,
            gridspec_kw={"height_ratios": [1, 3] if broken else [1]},
        )[:, 0]
        for axes, floor in zip(panels, (cut, -math.inf) if broken else (-math.inf,), strict=True):
            _draw_controls(axes, summary)
            for place, line in enumerate(summary.lines):
                _draw_line(axes, line, place, floor)
            axes.grid(axis="y", color="0.92", linewidth=0.6)
            axes.set_axisbelow(True)
        panels[-1].set_ylim(low, cut)
        panels[-1].set_ylabel("loss (nats per token)")
        panels[-1].set_xlabel(_x_label(summary.lines))
        panels[-1].xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
        if broken:
            _break(panels[0], panels[1], cut, top)
        figure.suptitle(_title(summary), fontsize=10, x=0.01, ha="left")
        figure.legend(handles=legend, loc="outside right upper", fontsize=8, handlelength=3)
    return figure


def _limits(summary: Summary) -> tuple[float, float, float]:
    """Bottom and top of the readable panel, and the highest loss of all."""
    references = _finite(
        control.point.loss.mean for control in summary.controls if control.point.loss
    )
    after = _finite(p.loss.mean for line in summary.lines for p in line.points if p.loss)
    before = _finite(p.before.mean for line in summary.lines for p in line.points if p.before)
    if not after:
        raise SweError(
            "There is no figure to draw: no pruned row has a finite loss.",
            "See the errors of its cells, or add ratios: swe sweep ratios=0.1..0.9..0.1",
        )
    bottom = min(references + after)
    # The mildest cut stands in for the dense model where no control was measured.
    top_reference = max(references or [after[0]])
    span = max(top_reference - bottom, 0.02 * abs(bottom), 1e-3)
    highest = max(references + after + before)
    bands = [point.band for line in summary.lines for point in line.points if point.band]
    cut = top_reference + 0.8 * span
    if highest <= cut + 0.5 * span:
        highs = _finite(high for _, high in bands)
        cut = min(max([highest, *highs]), highest + 0.5 * span) + 0.08 * span
    lows = _finite(low for low, _ in bands)
    lowest = max(min([bottom, *lows]), bottom - 0.5 * span)
    return lowest - 0.1 * span, cut, highest


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _draw_controls(axes: Axes, summary: Summary) -> None:
    for control in summary.controls:
        if control.point.loss:
            colour, dashes = _CONTROL_STYLES[control.kind]
            axes.axhline(
                control.point.loss.mean, color=colour, linestyle=dashes, linewidth=1.2, zorder=2
            )


def _draw_line(axes: Axes, line: Line, place: int, floor: float) -> None:
    colour = COLOURS[place % len(COLOURS)]
    marker = MARKERS[place % len(MARKERS)]
    before = [(100 * point.x, point.before.mean) for point in line.points if point.before]
    if before:
        axes.plot(
            *zip(*before, strict=True), color=colour, linestyle=_BEFORE, linewidth=1, alpha=0.8
        )
    measured = [(100 * point.x, point.loss) for point in line.points if point.loss]
    x = [place for place, _ in measured]
    mean = [loss.mean for _, loss in measured]
    # A marker below the panel would still show its tip.
    marked = [index for index, loss in enumerate(mean) if loss >= floor]
    axes.plot(
        x,
        mean,
        color=colour,
        marker=marker,
        markevery=marked,
        markersize=4.5,
        linewidth=1.6,
        zorder=4,
    )
    bounds = [(100 * point.x, *point.band) for point in line.points if point.band]
    if bounds:
        where, low, high = zip(*bounds, strict=True)
        axes.fill_between(where, low, high, color=colour, alpha=0.15, linewidth=0)


def _break(upper: Axes, lower: Axes, cut: float, top: float) -> None:
    """Join a linear panel and a logarithmic one by the usual two strokes."""
    upper.set_yscale("log")
    upper.set_ylim(cut, top * (top / cut) ** 0.12)
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5), numticks=6))
    upper.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    upper.yaxis.set_minor_locator(NullLocator())
    upper.set_ylabel("log scale")
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(axis="x", bottom=False, labelbottom=False)
    for axes, height in ((upper, 0), (lower, 1)):
        axes.plot(
            [0],
            [height],
            transform=axes.transAxes,
            marker=[(-1, -0.5), (1, 0.5)],
            markersize=8,
            color="black",
            clip_on=False,
        )


def _title(summary: Summary) -> str:
    seeds = count(len(summary.seeds), "seed")
    over = summary.intervals.removeprefix("95% ")
    band = f"; band: difference to dense, 95% {over}" if over else ""
    return f"{summary.model} on {summary.data}: loss against sparsity\n{seeds}{band}"


def _x_label(lines: Sequence[Line]) -> str:
    by = {line.by for line in lines}
    what = {"ratio": "ratio asked for", "rate": "sparsity achieved"}
    words = " or ".join(what[name] for name in ("ratio", "rate") if name in by)
    return f"{words} (% of prunable weights)"


def _legend(summary: Summary) -> list[Artist]:
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4.5,
            label=_wrapped(line.label),
        )
        for place, line in enumerate(summary.lines)
    ]
    handles.append(Line2D([], [], color="none", label=""))
    handles.append(Line2D([], [], color="0.4", linewidth=1.6, label="after recovery"))
    if any(point.before for line in summary.lines for point in line.points):
        handles.append(
            Line2D([], [], color="0.4", linestyle=_BEFORE, linewidth=1, label="before recovery")
        )
    if any(point.band for point in summary.points):
        handles.append(Patch(color="0.4", alpha=0.15, linewidth=0, label="95% interval, paired"))
    handles.append(Line2D([], [], color="none", label=""))
    for control in summary.controls:
        if control.point.loss:
            colour, dashes = _CONTROL_STYLES[control.kind]
            text = _wrapped(f"{control.label} {number(control.point.loss.mean)}")
            handles.append(
                Line2D([], [], color=colour, linestyle=dashes, linewidth=1.2, label=text)
            )
    return handles


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 30, break_long_words=False, break_on_hyphens=False)
