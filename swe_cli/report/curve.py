"""The figure of a sweep: one quantity against sparsity, with the controls."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from swe_cli.controls import BY_KIND
from swe_cli.errors import SweError
from swe_cli.report.figures import COLOURS, GREY, MARKERS, data, exactly, round_up, titled
from swe_cli.report.quantities import Quantity, bounds
from swe_cli.report.selection import left_out, selected
from swe_cli.report.summary import Line, Point, Summary
from swe_cli.report.text import count, number

WIDTH, HEIGHT = 500, 340  # pixels
ABOVE = 0.35  # how high the logarithmic part is, of the linear one
AFTER, BEFORE = "after recovery", "before recovery"
DASHES = {AFTER: [1, 0], BEFORE: [4, 2]}
BASELINE = ("#1a1a1a", (1, 4))
# A module keeps its colour, and a criterion its marker, from report to report.
_MODULES = ("vision cut", "projector cut", "language cut", "all modules cut")
_CRITERIA = ("magnitude", "random", "swe")


def curve(whole: Summary, quantity: Quantity, *, elsewhere: str = "grid.png") -> alt.LayerChart:
    """A quantity in its unit against the percentage cut, with the controls as horizontal lines.

    After recovery solid, with the paired interval of its difference to dense as a band; before
    recovery dashed. What explodes goes on logarithmically above a thin line, so that the region
    around the controls stays readable. Of many lines those are drawn that can be told apart; the
    figure says which it leaves out, and that they are in ``elsewhere``.
    Raises SweError where no pruned row has a finite value.
    """
    summary = selected(whole, quantity)
    axis = _Axis(*_limits(summary, quantity), quantity.axis)
    colours, shapes = zip(
        *(_names(line, summary.several_roles) for line in summary.lines), strict=True
    )
    modules, criteria = (_MODULES, _CRITERIA) if summary.several_roles else ((), ())
    look = {"title": None, "sort": None, "legend": {"symbolOpacity": 1}}
    shape = alt.Shape("shape:N", **look, scale=_scale(criteria, shapes, MARKERS))
    points = list(_cuts(summary, quantity, axis))
    dashes = {s: dash for s, dash in DASHES.items() if any(p["stage"] == s for p in points)}
    stage = {"title": None, "sort": None, "legend": {"symbolSize": 400}}
    across = {"axis": {"tickCount": 10, "grid": False}, "title": _x_title(summary)}
    cuts = data(points).encode(
        x=alt.X("x:Q", **across, scale={"zero": False, "nice": False, "padding": 12}),
        color=alt.Color("colour:N", **look, scale=_scale(modules, colours, COLOURS)),
    )
    before = alt.when(f"datum.stage == '{BEFORE}'")
    lines = cuts.mark_line().encode(
        strokeDash=alt.StrokeDash("stage:N", **stage, scale=_ranged(dashes)),
        strokeWidth=before.then(alt.value(1)).otherwise(alt.value(1.8)),
        strokeOpacity=before.then(alt.value(0.6)).otherwise(alt.value(1)),
    )
    after = cuts.transform_filter(f"datum.stage == '{AFTER}'")
    bands = after.transform_filter("isValid(datum.low)").mark_area(opacity=1, fillOpacity=0.13)
    markers = after.mark_point(filled=True, opacity=1, size=45)
    layers = alt.layer(
        bands.encode(y=axis.channel("low"), y2="high:Q", detail="line:N"),
        lines.encode(y=axis.channel("value"), detail="line:N"),
        markers.encode(y=axis.channel("value"), shape=shape),
    )
    charts = [layers, _references(summary, quantity, axis)]
    if axis.upper:
        start = data([{"value": axis.cut}]).mark_rule(color=GREY, strokeWidth=0.5)
        charts.append(start.encode(y=axis.channel("value")))
    channels = dict.fromkeys(("color", "strokeDash", "shape"), "independent")
    chart = alt.layer(*charts).resolve_scale(**channels)
    words = f"{summary.model} on {summary.data}: {quantity.title} against sparsity"
    subtitle = [_subtitle(summary), *whole.caveats, *left_out(whole, summary, elsewhere)]
    return titled(chart.properties(width=WIDTH, height=HEIGHT), words, subtitle, 110)


@dataclass(frozen=True)
class _Axis:
    """Linear from ``low`` to ``cut``; what is higher goes on, up to ``top``, logarithmically."""

    low: float
    cut: float
    top: float
    title: str

    @property
    def upper(self) -> float:
        """How high the logarithmic part is, in the unit of the linear one; 0 without one."""
        return ABOVE * (self.cut - self.low) if self.top > self.cut else 0.0

    def place(self, value: float) -> float:
        if value <= self.cut or not self.upper:
            return max(value, self.low)
        return self.cut + self.upper * math.log(value / self.cut) / math.log(self.top / self.cut)

    def channel(self, field: str) -> alt.Y:
        """The channel of a field that holds places."""
        step = round_up((self.cut - self.low) / 9)
        ticks = [step * n for n in range(math.ceil(self.low / step), int(self.cut / step) + 1)]
        label = f"format(datum.value, '.{max(0, -math.floor(math.log10(step)))}f')"
        title = self.title
        if self.upper:
            wide = self.top > 30 * self.cut  # one tick a decade is then enough
            powers = range(math.floor(math.log10(self.cut)), math.ceil(math.log10(self.top)) + 1)
            values = [digit * 10.0**p for p in powers for digit in ((1,) if wide else (1, 2, 3, 5))]
            ticks += [self.place(v) for v in values if 1.1 * self.cut < v <= 1.05 * self.top]
            base, exponent = self.top / self.cut, f"(datum.value - {self.cut}) / {self.upper}"
            high = f"format({self.cut} * pow({base}, {exponent}), '.2~r')"
            label = f"datum.value > {self.cut} ? {high} : {label}"
            title += f", log scale above {number(self.cut)}"
        axis = {"values": ticks, "labelExpr": label, "title": title}
        scale = exactly(self.low, self.cut + 1.06 * self.upper)
        return alt.Y(f"{field}:Q", axis=axis, scale=scale)


def _names(line: Line, several_roles: bool) -> tuple[str, str]:
    """What colour and marker say; with several roles colour is of the module that was cut."""
    if not several_roles:
        return line.label, line.label
    return f"{'all modules' if line.roles == 'all' else line.roles} cut", line.without_roles


def _scale(fixed: Sequence[str], used: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    """A value for each of ``used``; those that are ``fixed`` keep theirs, whichever are used."""
    names = list(dict.fromkeys([*fixed, *used]))
    return _ranged({n: values[i % len(values)] for i, n in enumerate(names) if n in used})


def _ranged(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"domain": list(values), "range": list(values.values())}


def _cuts(summary: Summary, quantity: Quantity, axis: _Axis) -> Iterator[dict[str, Any]]:
    """One value of one cut each, before or after recovery; the latter with its band."""
    for line in summary.lines:
        colour, shape = _names(line, summary.several_roles)
        for point in line.points:
            for stage, column in ((AFTER, quantity.mean), (BEFORE, quantity.before)):
                for value in _drawn([point], quantity, column):
                    ends = band(point, quantity) if stage == AFTER else ()
                    cut = {"x": 100 * point["x"], "stage": stage, "value": axis.place(value)}
                    cut |= zip(("low", "high"), map(axis.place, ends), strict=False)
                    yield {"line": line.label, "colour": colour, "shape": shape, **cut}


def band(point: Point, quantity: Quantity) -> tuple[float, ...]:
    """The paired interval of the difference to dense, laid around the mean; empty without one.

    Windows, and seeds, differ far more from each other than two models do on one of them; an
    interval of the mean itself would hide differences that are certain.
    """
    mean, delta = point[quantity.mean], point[quantity.delta]
    ends = [point[bound] for bound in bounds(quantity.delta)]
    if None in (mean, delta, *ends) or not all(map(math.isfinite, (mean, delta, *ends))):
        return ()
    return tuple(quantity.scale * (mean + end - delta) for end in ends)


def _references(summary: Summary, quantity: Quantity, axis: _Axis) -> alt.Chart:
    """The controls, and what could always be answered, as horizontal lines."""
    dashes, colours, values = {}, {}, {}
    for point in summary.controls:
        for value in _drawn([point], quantity, quantity.mean):
            name = f"{point['label']} {quantity.spell(point[quantity.mean])}"
            control, values[name] = BY_KIND[point["kind"]], value
            dashes[name], colours[name] = control.dash or (1, 0), control.colour
    if quantity.name in summary.baselines:
        worth = summary.baselines[quantity.name]
        name = f"always the {quantity.baseline} {quantity.spell(worth)}"
        values[name], (colours[name], dashes[name]) = quantity.scale * worth, BASELINE
    legend = {"symbolType": "stroke", "symbolSize": 900}
    look = {"title": None, "sort": None, "legend": legend}
    lines = data({"name": name, "value": axis.place(value)} for name, value in values.items())
    return lines.mark_rule(strokeWidth=1.3).encode(
        y=axis.channel("value"),
        color=alt.Color("name:N", **look, scale=_ranged(colours)),
        strokeDash=alt.StrokeDash("name:N", **look, scale=_ranged(dashes)),
    )


def _limits(summary: Summary, quantity: Quantity) -> tuple[float, float, float]:
    """Bottom and top of the readable part, and the highest value of all, as drawn."""
    seeing, blind = (
        _drawn(
            (p for p in summary.controls if BY_KIND[p["kind"]].blind == b), quantity, quantity.mean
        )
        for b in (False, True)
    )
    # What sees nothing is far from everything else: it is drawn, but does not set the scale.
    if quantity.name in summary.baselines:
        blind.append(quantity.scale * summary.baselines[quantity.name])
    after, before = (_drawn(summary.cuts, quantity, c) for c in (quantity.mean, quantity.before))
    if not after:
        raise SweError(
            f"There is no figure to draw: no pruned row has a finite {quantity.title}.",
            "See the errors of its cells, or add ratios: swe sweep ratios=0.1..0.9..0.1",
        )
    ends = [end for point in summary.cuts for end in band(point, quantity)]
    every = [*seeing, *blind, *after, *before]
    if quantity.bounded:  # one linear axis, which ends shortly beyond what a percentage can be
        bottom, top = max(0.0, min(every + ends)), min(100.0, max(every + ends))
        margin = 0.04 * max(top - bottom, 1.0)
        return bottom - margin, top + margin, top
    bottom = min([*seeing, *blind, *after])
    # The mildest cut stands in for the dense model where no control was measured.
    top_control = max(seeing or after[:1])
    span = max(top_control - bottom, 0.02 * abs(bottom), 1e-3)
    highest, cut = max(every), top_control + 0.8 * span
    if highest <= cut + 0.5 * span:
        cut = min(max([highest, *ends]), highest + 0.5 * span) + 0.08 * span
    lowest = max(min([bottom, *ends]), bottom - 0.5 * span)
    return lowest - 0.1 * span, cut, highest


def _drawn(points: Iterable[Point], quantity: Quantity, column: str) -> list[float]:
    """The finite values of a column, as drawn."""
    values = (point[column] for point in points if point[column] is not None)
    return [quantity.scale * value for value in values if math.isfinite(value)]


def _subtitle(summary: Summary) -> str:
    over = summary.intervals.removeprefix("95% ")
    words = f"; band: difference to dense, 95% {over}" if over else ""
    return f"{count(len(summary.seeds), 'seed')}{words}"


def _x_title(summary: Summary) -> str:
    by = {line.by for line in summary.lines}
    if any(point["ratio"] is not None and point["x"] != point["ratio"] for point in summary.cuts):
        by.add("rate")
    what = {"ratio": "ratio asked for", "rate": "sparsity achieved"}
    words = " or ".join(what[name] for name in what if name in by)
    whose = "the prunable weights of those modules" if summary.several_roles else "prunable weights"
    return f"{words} (% of {whose})"
