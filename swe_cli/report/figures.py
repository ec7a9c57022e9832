"""One quantity against sparsity, and weights over training; colours and style of every figure."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from swe_cli.controls import BY_KIND, PRUNED, Control
from swe_cli.errors import SweError
from swe_cli.files import write_files
from swe_cli.report.quantities import Quantity, bounds
from swe_cli.report.summary import Summary
from swe_cli.report.text import count, exact, number

alt.data_transformers.disable_max_rows()
# Okabe and Ito's colours, told apart by colour-blind readers, and two; black is for the controls.
# Eight colours and seven markers only meet again after 56 lines, so grey print is readable too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A51A3", "#8C6D31")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-left")
GREY = "#666666"
DPI = 120
HEIGHT = 340  # pixels, of a curve
ABOVE = 0.27  # of them, where the upper part of the axis is logarithmic
AFTER, BEFORE = "after recovery", "before recovery"
DASHES = {AFTER: (1, 0), BEFORE: (4, 2)}
BASELINE = Control("baseline", "", colour="#1a1a1a", dash=(1, 4), blind=True)
MANY = 8  # lines, beyond which not all are drawn
ALWAYS = ("swe", "magnitude", "random")
MOST, MOST_WITH_ROLES = 6, 4  # as many as one reads at once; as dashes, where colour says the role
# A module keeps its colour, and a criterion its marker, from report to report.
_MODULES = ("vision cut", "projector cut", "language cut", "all modules cut")
_CRITERIA = ("magnitude", "random", "swe")


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
    png = vl_convert.svg_to_png(svg, ppi=DPI)
    return write_files(folder, {f"{name}.png": png, f"{name}.svg": svg.encode()})


def weight_evolution(
    steps: Sequence[int], values: Any, kept: Any, *, criterion: str, ratio: float
) -> alt.FacetChart:
    """A sample of weights over training, those kept beside those pruned.

    ``steps`` (observations,); ``values`` float (observations, n); ``kept`` bool (n,). Raises
    ValueError where the shapes do not agree.
    """
    if values.shape != (len(steps), len(kept)):
        raise ValueError(f"values {values.shape} are not ({len(steps)}, {len(kept)})")
    sizes = {"kept": kept.sum(), "pruned": (~kept).sum()}
    heads = [f"{name}: {count(size, 'weight')}" for name, size in sizes.items()]
    drawn = pd.DataFrame(
        {
            "step": np.repeat(steps, len(kept)),
            "value": values.ravel(),
            "weight": np.tile(np.arange(len(kept)), len(steps)),
            "panel": np.tile(np.where(kept, *heads), len(steps)),
        }
    )
    colours = {"domain": heads, "range": COLOURS[:2]}
    opacity = max(0.12, min(0.6, 24 / max(1, len(kept))))
    lines = alt.Chart().mark_line(strokeWidth=0.6, strokeOpacity=opacity)
    lines = lines.encode(
        x=alt.X("step:Q", title="training step", axis={"grid": False, "tickCount": 5}),
        y=alt.Y("value:Q", title="weight value", scale={"nice": False}, axis={"grid": False}),
        color=alt.Color("panel:N", legend=None, scale=colours),
        detail="weight:N",
    )
    once = alt.Chart().transform_aggregate(weights="count()")  # not a rule for every value
    zero = once.mark_rule().encode(y=alt.datum(0))
    panels = alt.layer(lines, zero, data=drawn).properties(width=280, height=220)
    panels = panels.facet(column=alt.Column("panel:N", title=None))
    words = f"Weights over training, judged by {criterion} at ratio {exact(ratio)}"
    return titled(panels, words, [], 100)


def curve(whole: Summary, quantity: Quantity, *, elsewhere: str = "grid.png") -> alt.LayerChart:
    """A quantity in its unit against the percentage cut, with the controls as horizontal lines.

    After recovery solid, with the paired interval of its difference to dense as a band; before
    recovery dashed. What explodes goes on logarithmically above a thin line, so that the region
    around the controls stays readable. Of many lines those are drawn that can be told apart; the
    figure says which it leaves out, and that they are in ``elsewhere``.
    Raises SweError where no pruned row has a finite value.
    """
    summary = selected(whole, quantity)
    cuts, references = _cuts(summary, quantity), _references(summary, quantity)
    low, linear, high = _limits(cuts, references, quantity)
    y = _axis(low, linear, high, quantity.axis)
    plain: dict[str, Any] = {"title": None, "sort": None}
    modules, criteria = (_MODULES, _CRITERIA) if summary.several_roles else ((), ())
    colours = _scale(cuts["colour"], modules, COLOURS)
    across = {"axis": {"tickCount": 10, "grid": False}, "title": _x_title(summary)}
    lines = alt.Chart(cuts).encode(
        x=alt.X("x:Q", **across, scale={"zero": False, "nice": False, "padding": 12}),
        color=alt.Color("colour:N", **plain, legend={"symbolOpacity": 1}, scale=colours),
    )
    after = lines.transform_filter(f"datum.stage == '{AFTER}'")
    bands = after.transform_filter("isValid(datum.low)").mark_area(opacity=1, fillOpacity=0.13)
    shapes = _scale(cuts["shape"], criteria, MARKERS)
    stages = _ranged({s: dash for s, dash in DASHES.items() if (cuts["stage"] == s).any()})
    before = alt.when(f"datum.stage == '{BEFORE}'")
    layers = alt.layer(
        bands.encode(y=alt.Y("low:Q", **y), y2="high:Q", detail="line:N"),
        lines.mark_line().encode(
            y=alt.Y("value:Q", **y),
            detail="line:N",
            strokeDash=alt.StrokeDash("stage:N", **plain, legend={"symbolSize": 400}, scale=stages),
            strokeWidth=before.then(alt.value(1)).otherwise(alt.value(1.8)),
            strokeOpacity=before.then(alt.value(0.6)).otherwise(alt.value(1)),
        ),
        after.mark_point(filled=True, opacity=1, size=45).encode(
            y=alt.Y("value:Q", **y), shape=alt.Shape("shape:N", **plain, scale=shapes)
        ),
    )
    charts = [layers]
    if len(references):  # an empty legend has no finite size
        strokes = plain | {"legend": {"symbolType": "stroke", "symbolSize": 900}}
        looks = references.set_index("name")
        colours, dashes = (_ranged(looks[of].to_dict()) for of in ("colour", "dash"))
        colour = alt.Color("name:N", **strokes, scale=colours)
        dash = alt.StrokeDash("name:N", **strokes, scale=dashes)
        rules = alt.Chart(references[["name", "value"]]).mark_rule(strokeWidth=1.3)
        charts.append(rules.encode(y=alt.Y("value:Q", **y), color=colour, strokeDash=dash))
    if high > linear:
        start = alt.Chart(pd.DataFrame({"value": [linear]}))
        charts.append(start.mark_rule(color=GREY, strokeWidth=0.5).encode(y=alt.Y("value:Q", **y)))
    channels = dict.fromkeys(("color", "strokeDash", "shape"), "independent")
    chart = alt.layer(*charts).resolve_scale(**channels).properties(width=500, height=HEIGHT)
    words = f"{summary.model} on {summary.data}: {quantity.title} against sparsity"
    over = f"; band: difference to dense, {summary.intervals}" if summary.intervals else ""
    seeds = f"{count(len(summary.seeds), 'seed')}{over}"
    return titled(chart, words, [seeds, *whole.caveats, *left_out(whole, summary, elsewhere)], 110)


def selected(summary: Summary, quantity: Quantity) -> Summary:
    """``summary`` with few enough lines: of ``ALWAYS`` the best, then the best of the others.

    Best is the lowest mean rank over all cuts: a mean of losses would only tell which line explodes
    last. Lines that differ only in roles stay together; other criteria go before a second line of
    one that is drawn already.
    """
    most = MOST_WITH_ROLES if summary.several_roles else MOST
    groups = {line.label: line.without_roles for line in summary.lines}
    if len(groups) <= MANY or len(set(groups.values())) <= most:
        return summary
    cuts = summary.points[summary.points["kind"] == PRUNED]
    amount = cuts["x"].where(cuts["by"] == "ratio", cuts["rate"].fillna(0.0))
    of_cut = cuts.groupby([cuts["by"], amount])[quantity.mean]
    size, rank = of_cut.transform("count"), of_cut.rank("min", ascending=quantity.better < 0)
    cuts = cuts.assign(
        group=cuts["label"].map(groups),
        rank=((rank - 1) / size).where(size > 1),  # alone, it is neither best nor worst
    )
    means = cuts.groupby(["group", "criterion"])["rank"].mean().sort_values(kind="stable")
    ranked = means.reset_index()
    ranked["again"] = ranked.duplicated("criterion")
    ranked["asked"] = ranked["criterion"].isin(ALWAYS) & ~ranked["again"]
    ranked = ranked.sort_values(["asked", "again", "rank"], ascending=[False, True, True])
    drawn = summary.points["label"].map(groups).isin(ranked["group"][:most])
    return replace(summary, points=summary.points[drawn | (summary.points["kind"] != PRUNED)])


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


def _cuts(summary: Summary, quantity: Quantity) -> pd.DataFrame:
    """Every finite value before or after recovery, as drawn; the latter with its band.

    The band is the paired interval of the difference to dense, laid around the mean: windows, and
    seeds, differ far more from each other than two models do on one of them; an interval of the
    mean itself would hide differences that are certain. With several roles colour says the module
    that was cut, and the marker the rest.
    """
    points = summary.points[summary.points["kind"] == PRUNED]
    line = points["label"]
    cuts = pd.DataFrame({"line": line, "colour": line, "shape": line, "x": 100 * points["x"]})
    if summary.several_roles:
        cuts["colour"] = points["roles"].replace("all", "all modules") + " cut"
        cuts["shape"] = line.map({line.label: line.without_roles for line in summary.lines})
    names = [quantity.mean, quantity.delta, *bounds(quantity.delta), quantity.before]
    values = points.reindex(columns=names).astype(float) * quantity.scale
    mean, delta, low, high, unrecovered = (values[name] for name in names)
    after = cuts.assign(stage=AFTER, value=mean, low=mean + low - delta, high=mean + high - delta)
    before = cuts.assign(stage=BEFORE, value=unrecovered)
    cuts = pd.concat([after, before]).replace([math.inf, -math.inf], math.nan)
    return cuts.dropna(subset=["value"])


def _references(summary: Summary, quantity: Quantity) -> pd.DataFrame:
    """The controls, and what could always be answered."""
    known = [(p["label"], p[quantity.mean], BY_KIND[p["kind"]]) for p in summary.controls]
    if quantity.name in summary.baselines:
        name, worth = f"always the {quantity.baseline}", summary.baselines[quantity.name]
        known.append((name, worth, BASELINE))
    lines = [
        (f"{name} {quantity.spell(value)}", quantity.scale * value, c.colour, c.dash, c.blind)
        for name, value, c in known
        if value is not None and math.isfinite(value)
    ]
    return pd.DataFrame(lines, columns=["name", "value", "colour", "dash", "blind"])


def _limits(
    cuts: pd.DataFrame, references: pd.DataFrame, quantity: Quantity
) -> tuple[float, float, float]:
    """Bottom and top of the readable part, and the highest value of all."""
    after = cuts.loc[cuts["stage"] == AFTER, "value"]
    if after.empty:
        why = f"There is no figure to draw: no pruned row has a finite {quantity.title}."
        hint = "See the errors of its cells, or add ratios: swe sweep ratios=0.1..0.9..0.1"
        raise SweError(why, hint)
    every = [*references["value"], *cuts["value"]]
    with_bands = [*every, *cuts["low"].dropna(), *cuts["high"].dropna()]
    if quantity.percent:  # one linear axis, which ends shortly beyond what a percentage can be
        bottom, top = max(0.0, min(with_bands)), min(100.0, max(with_bands))
        margin = 0.04 * max(top - bottom, 1.0)
        return bottom - margin, top + margin, top
    # What sees nothing is far from everything else: it is drawn, but does not set the scale.
    controls = references[~references["blind"].astype(bool)]["value"]
    bottom = min([*references["value"], *after])
    # The mildest cut stands in for the dense model where no control was measured.
    top = after.iloc[0] if controls.empty else controls.max()
    span = max(top - bottom, 0.02 * abs(bottom), 1e-3)
    highest, linear = max(every), top + 0.8 * span
    if highest <= linear + 0.5 * span:
        linear = min(max(with_bands), highest + 0.5 * span) + 0.08 * span
    lowest = max(min([bottom, *cuts["low"].dropna()]), bottom - 0.5 * span)
    return lowest - 0.1 * span, linear, highest


def _axis(low: float, linear: float, high: float, title: str) -> dict[str, Any]:
    """Linear from ``low`` to ``linear``; from there on, up to ``high``, logarithmic."""
    step = round_up((linear - low) / 9)
    ticks = [step * n for n in range(math.ceil(low / step), int(linear / step) + 1)]
    label = f"format(datum.value, '.{max(0, -math.floor(math.log10(step)))}f')"
    domain, places = [low, linear], [HEIGHT, 0]
    if high > linear:
        end = 1.05 * high
        # Vega has no scale of two kinds; straight pieces between a hundred places look like one.
        domain = [low, *np.geomspace(linear, end, 100).tolist()]
        places = [HEIGHT, *np.linspace(ABOVE * HEIGHT, 0, 100).tolist()]
        digits = (1,) if high > 30 * linear else (1, 2, 3, 5)  # of a decade
        powers = range(math.floor(math.log10(linear)), math.ceil(math.log10(end)) + 1)
        values = [digit * 10.0**power for power in powers for digit in digits]
        above = [value for value in values if 1.1 * linear < value <= end]
        ticks += above or [float(f"{high:.2g}")]
        label = f"datum.value > {linear} ? format(datum.value, '.2~r') : {label}"
        title += f", log scale above {number(linear)}"
    scale = {"domain": domain, "range": places, "nice": False, "zero": False, "clamp": True}
    return {"axis": {"values": ticks, "labelExpr": label, "title": title}, "scale": scale}


def _scale(drawn: Iterable[str], fixed: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    """A value for each name that is drawn; what is ``fixed`` keeps its own, whichever are."""
    used = dict.fromkeys(drawn)
    names = dict.fromkeys([*fixed, *used])
    return _ranged({n: values[i % len(values)] for i, n in enumerate(names) if n in used})


def _ranged(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {"domain": list(values), "range": list(values.values())}


def _x_title(summary: Summary) -> str:
    points = summary.points[summary.points["kind"] == PRUNED]
    asked = points["x"] == points["ratio"]
    there = {"ratio asked for": asked.any(), "sparsity achieved": (~asked).any()}
    words = " or ".join(name for name in there if there[name])
    whose = "the prunable weights of those modules" if summary.several_roles else "prunable weights"
    return f"{words} (% of {whose})"
