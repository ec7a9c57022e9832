"""One quantity against sparsity, and weights over training; colours and style of every figure."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from swe_cli.controls import BY_KIND, PRUNED
from swe_cli.errors import SweError
from swe_cli.files import write_bytes
from swe_cli.report.quantities import Quantity, bounds
from swe_cli.report.summary import Point, Summary
from swe_cli.report.text import count, exact, number

alt.data_transformers.disable_max_rows()
# Okabe and Ito's colours, told apart by colour-blind readers; black is left to the controls.
# Six colours and seven markers only meet again after 42 lines, so grey print stays readable too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-left")
GREY = "#666666"
DPI = 120
ABOVE = 0.35  # how high the logarithmic part of an axis is, of the linear one
AFTER, BEFORE = "after recovery", "before recovery"
DASHES = {AFTER: [1, 0], BEFORE: [4, 2]}
BAND = ("low", "high")
BASELINE = {"colour": "#1a1a1a", "dash": (1, 4), "blind": True}
MANY = 8  # lines, beyond which not all are drawn
ALWAYS = ("swe", "magnitude", "random")
MOST, MOST_WITH_ROLES = 6, 4  # as many as there are colours; as dashes, where colour says the role
# A module keeps its colour, and a criterion its marker, from report to report.
_MODULES = ("vision cut", "projector cut", "language cut", "all modules cut")
_CRITERIA = ("magnitude", "random", "swe")


def data(records: Iterable[Mapping[str, Any]]) -> alt.Chart:
    """A chart of plain records, whose channels name their types."""
    return alt.Chart(pd.DataFrame(list(records)))


def exactly(start: float, end: float) -> dict[str, Any]:
    """A scale from ``start`` to ``end``, wherever the values lie."""
    return {"domain": [start, end], "nice": False, "zero": False}


def round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
    return float(f"{step * power:.1g}")


def titled(chart: Any, words: str, lines: Sequence[str], width: int) -> Any:
    """A figure with a title, ``lines`` of ``width`` signs below it, and the common style."""
    subtitle = [part for line in lines for part in textwrap.wrap(line, width)]
    title = alt.Title(words, subtitle=subtitle, anchor="start", frame="group", offset=12)
    return (
        chart.properties(title=title)
        .configure_view(stroke=None)
        .configure_axis(domainColor="black", tickColor="black", labelFontSize=11, titleFontSize=11)
        .configure_axis(titleFontWeight="normal", gridColor="#ebebeb")
        .configure_legend(labelLimit=0, titleFontWeight="normal", symbolStrokeWidth=1.5)
        .configure_title(fontSize=13, fontWeight="normal", subtitleFontSize=11)
    )


def write_figure(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` (120 dpi) and ``name.svg``, atomically; same figure, same bytes."""
    svg = vl_convert.vegalite_to_svg(figure.to_json(indent=None, validate=False))
    svg = re.sub(r"gradient_\d+", "gradient", svg)  # which counts the figures of this process
    contents = {"png": vl_convert.svg_to_png(svg, ppi=DPI), "svg": svg.encode()}
    for ending, data in contents.items():
        write_bytes(folder / f"{name}.{ending}", data)
    return [folder / f"{name}.{ending}" for ending in contents]


def weight_evolution(
    steps: Sequence[int], values: Any, kept: Any, *, criterion: str, ratio: float
) -> alt.HConcatChart:
    """A sample of weights over training, those kept beside those pruned.

    ``steps`` (observations,); ``values`` float (observations, n); ``kept`` bool (n,). Raises
    ValueError where the shapes do not agree.
    """
    if values.shape != (len(steps), len(kept)):
        raise ValueError(f"values {values.shape} are not ({len(steps)}, {len(kept)})")
    panels: list[Any] = []
    lowest, highest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    y = alt.Y("value:Q", scale=exactly(lowest, highest), axis={"grid": False})
    x = alt.X("step:Q", title="training step", axis={"grid": False, "tickCount": 5})
    zero = data([{"value": 0}]).mark_rule().encode(y=y)
    for name, chosen, colour in (("kept", kept, COLOURS[0]), ("pruned", ~kept, COLOURS[1])):
        size = int(chosen.sum())
        lines = data(
            {"step": step, "value": float(value), "weight": weight}
            for weight in chosen.nonzero()[0].tolist()
            for step, value in zip(steps, values[:, weight], strict=True)
        )
        opacity = max(0.12, min(0.6, 12 / max(1, size)))
        lines = lines.mark_line(strokeWidth=0.6, strokeOpacity=opacity, color=colour)
        title = None if panels else "weight value"
        panel = lines.encode(x=x, y=y.title(title), detail="weight:N") + zero
        panels.append(
            panel.properties(title=f"{name}: {count(size, 'weight')}", width=280, height=220)
        )
    words = f"Weights over training, judged by {criterion} at ratio {exact(ratio)}"
    return titled(alt.hconcat(*panels), words, [], 100)


def curve(whole: Summary, quantity: Quantity, *, elsewhere: str = "grid.png") -> alt.LayerChart:
    """A quantity in its unit against the percentage cut, with the controls as horizontal lines.

    After recovery solid, with the paired interval of its difference to dense as a band; before
    recovery dashed. What explodes goes on logarithmically above a thin line, so that the region
    around the controls stays readable. Of many lines those are drawn that can be told apart; the
    figure says which it leaves out, and that they are in ``elsewhere``.
    Raises SweError where no pruned row has a finite value.
    """
    summary = selected(whole, quantity)
    points, references = _cuts(summary, quantity), _references(summary, quantity)
    axis = _Axis(*_limits(points, references, quantity), quantity.axis)
    for drawn in (*points, *references):
        drawn |= {end: axis.place(drawn[end]) for end in ("value", *BAND) if end in drawn}
    stages = {s: dash for s, dash in DASHES.items() if any(p["stage"] == s for p in points)}
    symbols = {"title": None, "sort": None, "legend": {"symbolOpacity": 1}}
    dashes = {"title": None, "sort": None, "legend": {"symbolSize": 400}}
    strokes = {"title": None, "sort": None, "legend": {"symbolType": "stroke", "symbolSize": 900}}
    modules, criteria = (_MODULES, _CRITERIA) if summary.several_roles else ((), ())
    across = {"axis": {"tickCount": 10, "grid": False}, "title": _x_title(summary)}
    cuts = data(points).encode(
        x=alt.X("x:Q", **across, scale={"zero": False, "nice": False, "padding": 12}),
        color=alt.Color("colour:N", **symbols, scale=_scale(points, "colour", modules, COLOURS)),
    )
    shape = alt.Shape("shape:N", **symbols, scale=_scale(points, "shape", criteria, MARKERS))
    before = alt.when(f"datum.stage == '{BEFORE}'")
    lines = cuts.mark_line().encode(
        strokeDash=alt.StrokeDash("stage:N", **dashes, scale=_ranged(stages)),
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
    rules = data({"name": rule["name"], "value": rule["value"]} for rule in references)
    colours, dashed = (
        _ranged({rule["name"]: rule[look] for rule in references}) for look in ("colour", "dash")
    )
    rules = rules.mark_rule(strokeWidth=1.3).encode(
        y=axis.channel("value"),
        color=alt.Color("name:N", **strokes, scale=colours),
        strokeDash=alt.StrokeDash("name:N", **strokes, scale=dashed),
    )
    charts = [layers, *([rules] * bool(references))]  # an empty legend has no finite size
    if axis.upper:
        start = data([{"value": axis.cut}]).mark_rule(color=GREY, strokeWidth=0.5)
        charts.append(start.encode(y=axis.channel("value")))
    channels = dict.fromkeys(("color", "strokeDash", "shape"), "independent")
    chart = alt.layer(*charts).resolve_scale(**channels).properties(width=500, height=340)
    words = f"{summary.model} on {summary.data}: {quantity.title} against sparsity"
    over = f"; band: difference to dense, {summary.intervals}" if summary.intervals else ""
    seeds = f"{count(len(summary.seeds), 'seed')}{over}"
    subtitle = [seeds, *whole.caveats, *left_out(whole, summary, elsewhere)]
    return titled(chart, words, subtitle, 110)


def selected(summary: Summary, quantity: Quantity) -> Summary:
    """``summary`` with few enough lines: of ``ALWAYS`` the best, then the best of the others.

    Best is the lowest mean rank over all cuts: a mean of losses would only tell which line explodes
    last. Lines that differ only in roles stay together; other criteria go before a second line of
    one that is drawn already.
    """
    most = MOST_WITH_ROLES if summary.several_roles else MOST
    groups = {line.points[0]["line"]: line.without_roles for line in summary.lines}
    if len(summary.lines) <= MANY or len(set(groups.values())) <= most:
        return summary
    cuts = summary.points[summary.points["kind"] == PRUNED]
    amount = cuts["x"].where(cuts["by"] == "ratio", cuts["rate"].fillna(0.0))
    of_cut = cuts.groupby([cuts["by"], amount])[quantity.mean]
    size, rank = of_cut.transform("count"), of_cut.rank("min", ascending=quantity.better < 0)
    ahead = ((rank - 1) / size).where(size > 1)  # alone, it is neither best nor worst
    means = ahead.groupby(cuts["line"].map(groups)).mean().fillna(1.0).sort_values(kind="stable")
    criterion = {line.without_roles: line.criterion for line in summary.lines}
    best = {criterion[group]: group for group in reversed(means.index)}  # of each criterion

    def place(group: str) -> tuple[int, bool]:
        name, first = criterion[group], best[criterion[group]] == group
        return ALWAYS.index(name) if first and name in ALWAYS else len(ALWAYS), not first

    chosen = sorted(means.index, key=place)[:most]
    drawn = summary.points["line"].map(groups).isin(chosen) | (summary.points["kind"] != PRUNED)
    return replace(summary, points=summary.points[drawn])


def left_out(whole: Summary, drawn: Summary, elsewhere: str) -> list[str]:
    """A sentence on what is not drawn: a criterion by its name alone where none of its lines is."""
    shown = {line.label: line.criterion for line in drawn.lines}
    names = dict.fromkeys(
        line.without_roles if line.criterion in shown.values() else line.criterion
        for line in whole.lines
        if line.label not in shown
    )
    always = ", ".join(name for name in ALWAYS if name in shown.values())
    words = (
        f"{len(shown)} of {len(whole.lines)} lines: {always} and the best others, by mean rank "
        f"over all cuts. In {elsewhere} only: {', '.join(names)}."
    )
    return [textwrap.shorten(words, 500, placeholder=" …")] if names else []


def band(point: Point, quantity: Quantity) -> tuple[float, ...]:
    """The paired interval of the difference to dense, laid around the mean; empty without one.

    Windows, and seeds, differ far more from each other than two models do on one of them; an
    interval of the mean itself would hide differences that are certain.
    """
    mean, delta = _finite(point, quantity.mean), _finite(point, quantity.delta)
    ends = [mean + _finite(point, bound) - delta for bound in bounds(quantity.delta)]
    return tuple(quantity.scale * end for end in ends) if all(map(math.isfinite, ends)) else ()


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
            digits = (1,) if self.top > 30 * self.cut else (1, 2, 3, 5)  # of a decade
            powers = range(math.floor(math.log10(self.cut)), math.ceil(math.log10(self.top)) + 1)
            values = [digit * 10.0**power for power in powers for digit in digits]
            ticks += [self.place(v) for v in values if 1.1 * self.cut < v <= 1.05 * self.top]
            base, exponent = self.top / self.cut, f"(datum.value - {self.cut}) / {self.upper}"
            high = f"format({self.cut} * pow({base}, {exponent}), '.2~r')"
            label = f"datum.value > {self.cut} ? {high} : {label}"
            title += f", log scale above {number(self.cut)}"
        axis = {"values": ticks, "labelExpr": label, "title": title}
        scale = exactly(self.low, self.cut + 1.06 * self.upper)
        return alt.Y(f"{field}:Q", axis=axis, scale=scale)


def _cuts(summary: Summary, quantity: Quantity) -> list[dict[str, Any]]:
    """Every finite value before or after recovery, as drawn; the latter with its band.

    With several roles colour says the module that was cut, and the marker the rest.
    """
    cuts = []
    for line in summary.lines:
        about = dict.fromkeys(("line", "colour", "shape"), line.label)
        if summary.several_roles:
            module = "all modules" if line.roles == "all" else line.roles
            about |= {"colour": f"{module} cut", "shape": line.without_roles}
        for point in line.points:
            for stage, column in ((AFTER, quantity.mean), (BEFORE, quantity.before)):
                ends = band(point, quantity) if stage == AFTER else ()
                cut = {**about, "x": 100 * point["x"], "stage": stage}
                cut |= {"value": quantity.scale * _finite(point, column)}
                cuts.append(cut | dict(zip(BAND, ends, strict=False)))
    return [cut for cut in cuts if math.isfinite(cut["value"])]


def _references(summary: Summary, quantity: Quantity) -> list[dict[str, Any]]:
    """The controls, and what could always be answered."""
    lines: list[dict[str, Any]] = []
    for point in summary.controls:
        control, value = BY_KIND[point["kind"]], _finite(point, quantity.mean)
        look = {"colour": control.colour, "dash": control.dash or (1, 0), "blind": control.blind}
        lines.append({"name": point["label"], "value": value, **look})
    if quantity.name in summary.baselines:
        value = summary.baselines[quantity.name]
        lines.append({"name": f"always the {quantity.baseline}", "value": value, **BASELINE})
    for line in lines:
        line["name"] += f" {quantity.spell(line['value'])}"
        line["value"] *= quantity.scale
    return [line for line in lines if math.isfinite(line["value"])]


def _finite(point: Point, column: str) -> float:
    """A value, or NaN where it is none."""
    return math.nan if point[column] is None else float(point[column])


def _limits(
    cuts: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], quantity: Quantity
) -> tuple[float, float, float]:
    """Bottom and top of the readable part, and the highest value of all."""
    after = [cut["value"] for cut in cuts if cut["stage"] == AFTER]
    if not after:
        raise SweError(
            f"There is no figure to draw: no pruned row has a finite {quantity.title}.",
            "See the errors of its cells, or add ratios: swe sweep ratios=0.1..0.9..0.1",
        )
    # What sees nothing is far from everything else: it is drawn, but does not set the scale.
    controls = [line["value"] for line in references if not line["blind"]]
    ends = [cut[end] for cut in cuts for end in BAND if end in cut]
    every = [drawn["value"] for drawn in (*references, *cuts)]
    if quantity.percent:  # one linear axis, which ends shortly beyond what a percentage can be
        bottom, top = max(0.0, min(every + ends)), min(100.0, max(every + ends))
        margin = 0.04 * max(top - bottom, 1.0)
        return bottom - margin, top + margin, top
    bottom = min([line["value"] for line in references] + after)
    # The mildest cut stands in for the dense model where no control was measured.
    top_control = max(controls or after[:1])
    span = max(top_control - bottom, 0.02 * abs(bottom), 1e-3)
    highest, cut = max(every), top_control + 0.8 * span
    if highest <= cut + 0.5 * span:
        cut = min(max([highest, *ends]), highest + 0.5 * span) + 0.08 * span
    lowest = max(min([bottom, *ends]), bottom - 0.5 * span)
    return lowest - 0.1 * span, cut, highest


def _scale(
    cuts: Sequence[Mapping[str, Any]], field: str, fixed: Sequence[str], values: Sequence[str]
) -> dict[str, Any]:
    """A value for each name in a field; what is ``fixed`` keeps its own, whichever are used."""
    used = dict.fromkeys(cut[field] for cut in cuts)
    names = dict.fromkeys([*fixed, *used])
    return _ranged({n: values[i % len(values)] for i, n in enumerate(names) if n in used})


def _ranged(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"domain": list(values), "range": list(values.values())}


def _x_title(summary: Summary) -> str:
    by = {line.by for line in summary.lines}
    if any(point["ratio"] is not None and point["x"] != point["ratio"] for point in summary.cuts):
        by.add("rate")
    what = {"ratio": "ratio asked for", "rate": "sparsity achieved"}
    words = " or ".join(what[name] for name in what if name in by)
    whose = "the prunable weights of those modules" if summary.several_roles else "prunable weights"
    return f"{words} (% of {whose})"
