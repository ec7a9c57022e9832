"""The figure of a sweep: one quantity against sparsity, with the controls."""

import math
import textwrap
from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from swe_cli.errors import SweError
from swe_cli.reporting.curve_legend import (
    BASELINE_STYLE,
    BEFORE,
    CONTROL_STYLES,
    Stroke,
    legend_of,
    strokes_of,
)
from swe_cli.reporting.figures import STYLE
from swe_cli.reporting.quantity import Quantity
from swe_cli.reporting.selection import ALWAYS, left_out, selected
from swe_cli.reporting.summary import Line, Summary
from swe_cli.reporting.text import count


def curve_figure(whole: Summary, quantity: Quantity, *, elsewhere: str = "grid.png") -> Figure:
    """A quantity in its unit against the percentage cut, with the controls as horizontal lines.

    After recovery solid, with the paired interval of its difference to dense as a band; before
    recovery dashed. What explodes goes on in a narrow logarithmic panel above, so that the region
    around the controls stays readable. Of many lines those are drawn that can be told apart; the
    figure says which it leaves out, and that they are in ``elsewhere``.
    Raises SweError where no pruned row has a finite value.
    """
    summary = selected(whole, quantity)
    low, cut, top = _limits(summary, quantity)
    broken = top > cut
    strokes = strokes_of(summary)
    with matplotlib.rc_context(STYLE):
        legend = legend_of(summary, quantity, strokes)
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
            _draw_references(axes, summary, quantity)
            for line, stroke in zip(summary.lines, strokes, strict=True):
                _draw_line(axes, line, quantity, stroke, floor)
            axes.grid(axis="y", color="0.92", linewidth=0.6)
            axes.set_axisbelow(True)
        panels[-1].set_ylim(low, cut)
        panels[-1].set_ylabel(quantity.axis)
        panels[-1].set_xlabel(_x_label(summary))
        panels[-1].xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
        if broken:
            _break(panels[0], panels[1], cut, top)
        figure.suptitle(_title(summary, quantity), fontsize=10, x=0.01, ha="left")
        if summary is not whole:
            _say_left_out(figure, whole, summary, elsewhere)
        figure.legend(handles=legend, loc="outside right upper", fontsize=8, handlelength=3)
    return figure


def _limits(summary: Summary, quantity: Quantity) -> tuple[float, float, float]:
    """Bottom and top of the readable panel, and the highest value of all, as drawn."""
    scale, points = quantity.scale, [point for line in summary.lines for point in line.points]
    read = [quantity.read(point) for point in points]
    known = [(c.kind, quantity.read(c.point).mean) for c in summary.controls]
    controls = _finite(scale * mean.mean for kind, mean in known if mean and kind != "dense_blind")
    # What sees nothing is far from everything else: it is drawn, but does not set the scale.
    blind = _finite(scale * mean.mean for kind, mean in known if mean and kind == "dense_blind")
    if quantity.name in summary.baselines:
        blind.append(scale * summary.baselines[quantity.name])
    after = _finite(scale * reading.mean.mean for reading in read if reading.mean)
    before = _finite(scale * reading.before.mean for reading in read if reading.before)
    if not after:
        raise SweError(
            f"There is no figure to draw: no pruned row has a finite {quantity.title}.",
            "See the errors of its cells, or add ratios: swe sweep ratios=0.1..0.9..0.1",
        )
    bands = [(scale * low, scale * high) for low, high in (r.band for r in read if r.band)]
    if quantity.bounded:
        return _whole(controls + blind + after + before, bands)
    return _around(controls, blind, after, before, bands)


def _whole(
    values: Sequence[float], bands: Sequence[tuple[float, float]]
) -> tuple[float, float, float]:
    """Everything on one linear axis, which ends shortly beyond what a percentage can be."""
    every = [*values, *_finite(bound for band in bands for bound in band)]
    bottom, top = max(0.0, min(every)), min(100.0, max(every))
    span = max(top - bottom, 1.0)
    return bottom - 0.04 * span, top + 0.04 * span, top


def _around(
    controls: Sequence[float],
    blind: Sequence[float],
    after: Sequence[float],
    before: Sequence[float],
    bands: Sequence[tuple[float, float]],
) -> tuple[float, float, float]:
    """The region around the controls, so that what explodes goes on in a panel of its own."""
    bottom = min([*controls, *blind, *after])
    # The mildest cut stands in for the dense model where no control was measured.
    top_control = max(controls or [after[0]])
    span = max(top_control - bottom, 0.02 * abs(bottom), 1e-3)
    highest = max([*controls, *blind, *after, *before])
    cut = top_control + 0.8 * span
    if highest <= cut + 0.5 * span:
        highs = _finite(high for _, high in bands)
        cut = min(max([highest, *highs]), highest + 0.5 * span) + 0.08 * span
    lows = _finite(low for low, _ in bands)
    lowest = max(min([bottom, *lows]), bottom - 0.5 * span)
    return lowest - 0.1 * span, cut, highest


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _draw_references(axes: Axes, summary: Summary, quantity: Quantity) -> None:
    for control in summary.controls:
        mean = quantity.read(control.point).mean
        if mean:
            colour, dashes = CONTROL_STYLES[control.kind]
            height = quantity.scale * mean.mean
            axes.axhline(height, color=colour, linestyle=dashes, linewidth=1.2, zorder=2)
    if quantity.name in summary.baselines:
        height = quantity.scale * summary.baselines[quantity.name]
        axes.axhline(height, **BASELINE_STYLE, zorder=2)


def _draw_line(axes: Axes, line: Line, quantity: Quantity, stroke: Stroke, floor: float) -> None:
    read = [(100 * point.x, quantity.read(point)) for point in line.points]
    scale = quantity.scale
    before = [(x, scale * reading.before.mean) for x, reading in read if reading.before]
    if before:
        axes.plot(
            *zip(*before, strict=True),
            color=stroke.colour,
            linestyle=BEFORE,
            linewidth=1,
            alpha=stroke.before,
        )
    measured = [(x, scale * reading.mean.mean) for x, reading in read if reading.mean]
    x, mean = [x for x, _ in measured], [mean for _, mean in measured]
    # A marker below the panel would still show its tip.
    marked = [index for index, value in enumerate(mean) if value >= floor]
    axes.plot(
        x,
        mean,
        marker=stroke.marker,
        markevery=marked,
        markersize=4.5,
        linewidth=1.6,
        zorder=4,
        **stroke.look,
    )
    bounds = [(x, *(scale * b for b in reading.band)) for x, reading in read if reading.band]
    if bounds:
        where, low, high = zip(*bounds, strict=True)
        axes.fill_between(where, low, high, color=stroke.colour, alpha=stroke.band, linewidth=0)


def _break(upper: Axes, lower: Axes, cut: float, top: float) -> None:
    """Join a linear panel and a logarithmic one by the usual two strokes."""
    upper.set_yscale("log")
    upper.set_ylim(cut, top * (top / cut) ** 0.12)
    wide = top > 30 * cut  # one tick a decade is then enough
    upper.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 3, 5), numticks=6))
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


def _say_left_out(figure: Figure, whole: Summary, drawn: Summary, elsewhere: str) -> None:
    always = [name for name in ALWAYS if any(line.criterion == name for line in drawn.lines)]
    words = (
        f"{len(drawn.lines)} of {len(whole.lines)} lines: {', '.join(always)} and the best others, "
        f"by mean rank over all cuts. In {elsewhere} only: {left_out(whole, drawn)}."
    )
    text = textwrap.fill(textwrap.shorten(words, 500, placeholder=" …"), 125)
    figure.supxlabel(text, fontsize=7.5, x=0.01, ha="left", color="0.25")


def _title(summary: Summary, quantity: Quantity) -> str:
    seeds = count(len(summary.seeds), "seed")
    over = summary.intervals.removeprefix("95% ")
    band = f"; band: difference to dense, 95% {over}" if over else ""
    return f"{summary.model} on {summary.data}: {quantity.title} against sparsity\n{seeds}{band}"


def _x_label(summary: Summary) -> str:
    by: set[str] = {line.by for line in summary.lines}
    points = [point for line in summary.lines for point in line.points]
    if any(point.ratio is not None and point.x != point.ratio for point in points):
        by.add("rate")
    what = {"ratio": "ratio asked for", "rate": "sparsity achieved"}
    words = " or ".join(what[name] for name in ("ratio", "rate") if name in by)
    whose = "the prunable weights of those modules" if summary.several_roles else "prunable weights"
    return f"{words} (% of {whose})"
