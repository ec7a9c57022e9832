"""Differences to dense against sparsity, and weights over training; the style of every figure.

Charts are made without the colours of a page, which ``titled`` adds for print.
"""

import json
import math
import re
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from swe_cli.controls import BY_KIND, DENSE, KIND_NAMES, PRUNED
from swe_cli.errors import SweError
from swe_cli.files import write_files
from swe_cli.report.look import GREY, colour_of
from swe_cli.report.quantities import Quantity, bounds
from swe_cli.report.summary import ALWAYS, Line, Point, Summary, mean_ranks
from swe_cli.report.text import count, short_label

alt.data_transformers.disable_max_rows()
DPI = 120
_AXIS = {"domainColor": "black", "tickColor": "black", "gridColor": "#ebebeb"}
_SIZES = {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
PRINT: Mapping[str, Any] = {
    "background": "white",
    "view": {"stroke": None},
    "axis": _AXIS | _SIZES,
    "header": {"labelFontSize": 12},
    "legend": {"labelLimit": 0, "titleFontWeight": "normal"},
    "title": {"fontSize": 13, "fontWeight": "normal", "subtitleFontSize": 11},
    # Of marks that have no colour of their own.
    "style": {"control": {"color": "#333333"}, "words": {"fill": "black", "fontSize": 10.5}},
}
PAGE, LEFT, LETTER, GAP = 880, 60, 5.4, 12  # pixels: a page, its axis; a letter; names apart
BARE = {"labels": False, "ticks": False, "domain": False, "title": None}
SIGNED: dict[str, Any] = {"format": "+,~r", "labelExpr": "datum.value ? datum.label : '0'"}
DOT, RING = {"size": 8, "color": GREY}, {"filled": False}  # of lines of one point
TOLD = [alt.Tooltip("label:N"), alt.Tooltip("x:Q"), alt.Tooltip("value:Q")]
_WIDE = partial(alt.StrokeWidth, scale=None)
AFTER, BEFORE = "after recovery", "before recovery"
MOST, MOST_WITH_ROLES, MOST_LINES = 12, 8, 4  # panels; criteria in each module's; lines in one
MANY = 8  # lines, beyond which the grid shows them all
LIVES = {  # of weights that two criteria disagree on, each way at most so many
    "kept by swe, cut by magnitude": colour_of("swe"),
    "kept by magnitude, cut by swe": colour_of("magnitude"),
}
MOST_LIVES = 60
LIFE = "Lives of weights that swe and magnitude disagree on where each cuts one half"


def titled(chart: Any, words: str, lines: Sequence[str], width: int) -> Any:
    """A figure with a title, ``lines`` of ``width`` signs below it, and the colours of print."""
    subtitle = [part for line in lines for part in textwrap.wrap(line, width)]
    title = alt.Title(words, subtitle=subtitle, anchor="start", frame="group", offset=12)
    return chart.properties(title=title).configure(**PRINT)


def write_figure(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` (120 dpi), ``.svg`` and ``.pdf``, atomically; same figure, same bytes,
    but for the order of fonts inside the PDF.
    """
    svg = vl_convert.vegalite_to_svg(figure.to_json(indent=None, validate=False))
    svg = re.sub(r"gradient_\d+", "gradient", svg)  # which counts the figures of this process
    png, pdf = vl_convert.svg_to_png(svg, ppi=DPI), vl_convert.svg_to_pdf(svg)
    return write_files(
        folder, {f"{name}.png": png, f"{name}.svg": svg.encode(), f"{name}.pdf": pdf}
    )


def weight_lives(steps: Sequence[int], values: Any, swe: Any, magnitude: Any) -> pd.DataFrame:
    """Weights that SWE and magnitude disagree on, equally many either way: step, value, weight
    (its place in the sample) and group; empty where they agree.

    ``steps`` (observations,); ``values`` float (observations, n); ``swe`` and ``magnitude`` bool
    (n,), what each keeps. Raises ValueError where the shapes do not agree.
    """
    if not values.shape == (len(steps), len(swe)) == (len(steps), len(magnitude)):
        raise ValueError(f"values {values.shape} are not ({len(steps)}, {len(swe)})")
    found = [np.flatnonzero(swe & ~magnitude), np.flatnonzero(magnitude & ~swe)]
    most = min(MOST_LIVES, *map(len, found))
    # Evenly, since the sample goes through the matrices in order.
    weights = np.concatenate([of[np.linspace(0, len(of) - 1, most).astype(int)] for of in found])
    drawn = {
        "step": np.repeat(steps, len(weights)),
        "value": values[:, weights].ravel(),
        "weight": np.tile(weights, len(steps)),
        "group": np.tile(np.repeat(list(LIVES), most), len(steps)),
    }
    return pd.DataFrame(drawn)


def weight_charts(lives: pd.DataFrame, **size: int) -> dict[str, alt.LayerChart]:
    """``weight_lives``: value against training step, a chart for each way; no theme."""
    low, high = lives["value"].min(), lives["value"].max()
    y = alt.Y("value:Q", title="weight", axis={"grid": False})
    y = y.scale(domain=[low, high], nice=False)
    x = alt.X("step:Q", title="training step", axis={"grid": False, "tickCount": 5})
    zero = alt.Chart(alt.InlineData([{}])).mark_rule(style="control").encode(y=alt.datum(0))
    lines = (
        alt.Chart().mark_line(strokeWidth=0.8, strokeOpacity=0.6).encode(x, y, detail="weight:N")
    )
    charts = {}
    for group, of in lives.groupby("group", sort=False):
        name = str(group)
        coloured = lines.encode(color=alt.ColorValue(LIVES.get(name, GREY)))
        charts[name] = alt.layer(coloured, zero, data=of).properties(**size)
    return charts


def weight_figure(lives: pd.DataFrame) -> Any:
    """``weight_charts`` for print."""
    charts = weight_charts(lives, width=330, height=240)
    beside = alt.hconcat(*(of.properties(title=name) for name, of in charts.items()))
    return titled(beside, LIFE, [], 110)


def curve(summary: Summary, quantity: Quantity, *, elsewhere: str = "grid.png") -> Any:
    """``panels`` for print, under a title that says what is drawn, and what only ``elsewhere``.

    Raises SweError where there is no difference to draw.
    """
    shown, controls = shown_lines(summary, quantity), control_lines(summary, quantity)
    signs = [len(_name(line, name)) for name, lines in shown.items() for line in lines]
    gutter = LETTER * max(signs) + 26 if any(signs) else 14
    right = max(gutter, LETTER * max(controls["name"].map(len), default=0) + 26)
    most = 3 if any(signs) or len(shown) in (5, 6, 9) else 4
    if summary.several_roles or (any(signs) and len(shown) == 4):
        most = 2
    columns = max(1, min(len(shown), most))
    beside = LEFT + right + (columns - 1) * gutter
    width = int(max(150, min(420, (PAGE - beside) / columns)))
    charts = panels(summary, quantity, columns=columns, width=width)
    space = {"column": gutter, "row": 34}
    whole = alt.concat(*charts, columns=columns, align="none", bounds="flush", spacing=space)
    dense = [p[quantity.mean] for p in summary.controls if p["kind"] == DENSE.kind]
    worth = f" ({quantity.spell(dense[0])})" if len(dense) == 1 else ""
    words = f"{summary.model} on {summary.data}: {quantity.title} against dense{worth}"
    across = int((columns * width + beside - LEFT) / LETTER)
    said = [*notes(summary, quantity, elsewhere), *summary.caveats]
    return titled(whole, words, said, across)


def panels(
    summary: Summary, quantity: Quantity, *, columns: int = 1, width: int = 300
) -> list[alt.LayerChart]:
    """Small charts of the difference to dense on one symmetric-log axis; no theme.

    One a criterion, best mean rank first, the others grey behind it; where lines differ in modules
    one a module, lines by criterion. After recovery solid, with the paired interval as a band; the
    best line of a criterion before recovery dashed. Controls are horizontal lines, named in the
    last of the ``columns`` that these charts are laid in; where each stands alone (0), nowhere.
    ``width`` in pixels.
    Raises SweError where no pruned row has a finite difference.
    """
    shown, controls = shown_lines(summary, quantity), control_lines(summary, quantity)
    cuts, height = _cuts(summary, quantity, shown), int(min(250, max(180, width)))
    every = pd.concat([cuts["value"], cuts["low"], cuts["high"], controls["value"]]).dropna()
    unit = min(quantity.scale * quantity.tolerance, every.abs().max() / 50 or 1.0)
    squashed = squash([*every, 0.0], unit)
    margin = 0.04 * np.ptp(squashed) or 0.1
    bottom, top = squashed.min() - margin, squashed.max() + margin
    low, high = stretch([bottom, top], unit)
    at = sorted(cuts["x"].unique())
    pad = max(2.0, 0.05 * (at[-1] - at[0]))
    x_scale = {"domain": [at[0] - pad, at[-1] + pad], "nice": False, "zero": False}
    y_scale = {"type": "symlog", "constant": unit, "domain": [low, high], "nice": False}
    worth = "points" if quantity.percent else quantity.axis.partition("(")[2].rstrip(")")
    x_axis: dict[str, Any] = {"title": "sparsity (%)", "grid": False, "tickCount": 5}
    x_axis |= {"values": at} if len(at) < 5 else {}
    y_axis = SIGNED | {"title": f"against dense ({worth or 'unit of the answers'})"}
    y_axis["values"] = ticks(low, high, unit, height / 16)
    dashes = {"domain": list(controls["name"]), "range": list(controls["dash"])}
    rules = alt.Chart(controls[["name", "value"]]).mark_rule(style="control")
    rules = rules.encode(strokeDash=alt.StrokeDash("name:N", legend=None, scale=dashes))
    # A title proper would stand higher where its chart has an axis.
    head = alt.Chart(alt.InlineData([{}])).mark_text(
        style="words", x=0, y=-8, align="left", fontSize=12, fontWeight="bold"
    )
    behind, charts = cuts.dropna(subset=["behind"]), []
    for place, (name, lines) in enumerate(shown.items()):
        last = columns > 0 and (place + 1) % columns == 0
        lowest = not columns or place + columns >= len(shown)
        x = alt.X("x:Q", scale=x_scale, axis=x_axis | ({} if lowest else BARE))
        y = {"scale": y_scale, "axis": y_axis | (BARE if columns and place % columns else {})}
        said = {line.label: _name(line, name) for line in lines}
        if not columns and len(lines) == 1:  # the caption has all of its name
            said = dict.fromkeys(said, "")
        colour, title = alt.ColorValue(colour_of(name)), name
        if summary.several_roles:
            whole = "all modules" if name == "all" else name
            colour, title = alt.Color("colour:N", scale=None), f"{whole} cut"
        own = cuts[cuts["label"].isin(said.keys())]
        after, before = (own[own["stage"] == stage] for stage in (AFTER, BEFORE))
        names = after.groupby("label").last().reset_index()
        names["name"] = names["label"].map(said)
        if last:
            names = pd.concat([names, controls.assign(x=at[-1] + pad)])
        names = names[names["name"] != ""].sort_values("value", kind="stable")
        gap, wanted = (top - bottom) * GAP / height, squash(names["value"], unit)
        names["place"] = stretch(_apart(wanted, gap, bottom, top), unit)
        named = alt.Chart(names[["name", "x", "value", "place"]])
        pointer = named.mark_rule(color=GREY, strokeWidth=0.7)
        words = named.mark_text(style="words", align="left", baseline="middle")

        def drawn(rows: Any, x: Any = x, y: Any = y) -> alt.Chart:
            return alt.Chart(rows).encode(x, alt.Y("value:Q", **y), alt.Detail("label:N"))

        mine = f"indexof({json.dumps(list(said))}, datum.label) >= 0"
        others = drawn(behind).transform_filter(f"!({mine})")
        bands = drawn(after.dropna(subset=["low"])).encode(colour)
        dot, ring = (DOT, RING) if len(at) == 1 else (False, False)
        bar = bands.mark_rule(strokeWidth=5, strokeOpacity=0.3)
        bands = bar if len(at) == 1 else bands.mark_area(opacity=1, fillOpacity=0.15)
        layers = [
            others.mark_line(color=GREY, point=dot).encode(_WIDE("behind:Q")),
            rules.encode(alt.Y("value:Q", **y)),
            bands.encode(alt.Y("low:Q", **y), alt.Y2("high:Q")),
            drawn(before).mark_line(strokeDash=[4, 2], strokeWidth=1.2, point=ring).encode(colour),
            drawn(after)
            .mark_line(point={"size": 16})
            .encode(colour, _WIDE("width:Q"), tooltip=TOLD),
            pointer.encode(x, alt.X2Value(width + 8), alt.Y("value:Q", **y), alt.Y2("place:Q")),
            words.encode(alt.XValue(width + 11), alt.Y("place:Q", **y), alt.Text("name:N")),
            *([head.encode(alt.TextValue(title))] if columns else []),  # a page has captions
        ]
        charts.append(alt.layer(*layers, description=name, width=width, height=height))
    return charts


def notes(summary: Summary, quantity: Quantity, elsewhere: str) -> list[str]:
    """What a reader of ``panels`` has to know: how they are drawn, and what is not."""
    shown = shown_lines(summary, quantity)
    drawn = {line.label: line for lines in shown.values() for line in lines}
    cuts, single = _cuts(summary, quantity, shown), not summary.several_roles
    dashed = "dashed" if cuts["x"].nunique() > 1 else "ring"
    seeds = count(len(summary.seeds), "seed")
    said = {
        f"{dashed}: before recovery": (cuts["stage"] == BEFORE).any(),
        "grey: other criteria": single and len(shown) > 1,
        "thin: its other settings": single and max(map(len, shown.values())) > 1,
        f"{'below' if quantity.better < 0 else 'above'} 0 is better": True,
    }
    points = [point for line in drawn.values() for point in line.points]
    lost = sum(p["failed"] or not math.isfinite(p[quantity.mean] or 0.0) for p in points)
    missing = [f"{count(lost, 'cut')} failed or infinite, not drawn."] if lost else []
    band = f"{seeds}; band: {summary.intervals}" if summary.intervals else seeds
    head = "; ".join(words for words, holds in said.items() if holds)
    return [band, head, *missing, *_left_out(summary, drawn, elsewhere)]


def shown_lines(summary: Summary, quantity: Quantity) -> dict[str, list[Line]]:
    """Criterion, or module where several were cut, → the lines that its panel draws, best first.

    Of many criteria ``ALWAYS``, then the best by mean rank; of each its best lines, or one in each
    module. A line of two names ("swe = magnitude") is of both, if
    each is the first of a line.
    """
    ranks = mean_ranks(summary, quantity)
    lines = sorted(summary.lines, key=lambda line: ranks[line.label])
    of: dict[str, list[Line]] = {line.criterion: [] for line in lines}
    for line in lines:
        for name in (name for name in line.criteria if name in of):
            of[name].append(line)
    wanted = sorted(of, key=lambda name: name not in ALWAYS)
    if not summary.several_roles:
        most = MOST_LINES if len(of) < MOST else 2
        return {name: of[name][:most] for name in of if name in wanted[:MOST]}
    drawn = {line.criterion for name in wanted[:MOST_WITH_ROLES] for line in of[name]}
    modules: dict[str, dict[str, Line]] = defaultdict(dict)
    for line in (line for line in lines if line.criterion in drawn):
        modules[str(line.roles)].setdefault(line.criterion, line)
    return {role: list(best.values()) for role, best in modules.items()}


def _left_out(summary: Summary, drawn: Mapping[str, Line], elsewhere: str) -> list[str]:
    """A sentence on what is not drawn: criteria by their names, further lines of others counted."""
    shown = {name for line in drawn.values() for name in line.criteria}
    left = [line.criterion for line in summary.lines if line.label not in drawn]
    names = list(dict.fromkeys(name for name in left if name not in shown))
    further = sum(name not in names for name in left)
    names += [f"{further} further settings of these criteria"] if further else []
    words = (
        f"{len(drawn)} of {len(summary.lines)} lines: {', '.join(n for n in ALWAYS if n in shown)} "
        f"and the best others, by mean rank over all cuts. In {elsewhere} only: {', '.join(names)}."
    )
    return [textwrap.shorten(words, 500, placeholder=" …")] if names else []


def _cuts(
    summary: Summary, quantity: Quantity, shown: Mapping[str, Sequence[Line]]
) -> pd.DataFrame:
    """Every finite difference to dense that is drawn, and how: of the best lines also the paired
    interval, what was before recovery, and the width ``behind`` other panels.

    Windows, and seeds, differ far more from each other than two models do on one of them: an
    interval of the mean itself would hide differences that are certain.
    """
    points = summary.points[summary.points["kind"] == PRUNED]
    names = [quantity.delta, *bounds(quantity.delta), quantity.mean, quantity.before]
    values = points.reindex(columns=names).astype(float) * quantity.scale
    delta, low, high, mean, before = (values[name] for name in names)
    label, of = points["label"], points["criterion"].str.split(" = ")
    most = None if summary.several_roles else 1
    first = {line.label for lines in shown.values() for line in lines[:most]}
    best, wide = label.isin(first), of.map(lambda names: 2.8 if "swe" in names else 1.6)
    about = pd.DataFrame({"label": label, "x": 100 * points["x"], "width": wide.where(best, 1.0)})
    about["behind"] = (wide / 2).where(best & (not summary.several_roles))
    about["colour"] = of.map(lambda names: colour_of(names[0]))
    recovered = (before - mean).abs().groupby(label).transform("max") > 0
    earlier = about.assign(stage=BEFORE, value=(delta + before - mean).where(recovered & best))
    after = about.assign(stage=AFTER, value=delta, low=low.where(best), high=high.where(best))
    cuts = pd.concat([after, earlier.drop(columns="behind")])
    cuts = cuts.replace([math.inf, -math.inf], math.nan).dropna(subset=["value"])
    if not (cuts["stage"] == AFTER).any():
        why = "There is no figure to draw: no pruned row has a finite difference to dense"
        hint = "See the errors of its cells, or add ratios: swe sweep ratios=0.1..0.9..0.1"
        raise SweError(f"{why} in {quantity.title}.", hint)
    return cuts[cuts["label"].isin([o.label for lines in shown.values() for o in lines])]


def named_models(summary: Summary) -> list[tuple[str, Point]]:
    """Each control and its name; those of the very same weights are one checkpoint."""
    named = []
    for of in summary.models:
        kinds = ", ".join(dict.fromkeys(KIND_NAMES[point["kind"]] for point in of))
        same = ": same checkpoint" if len(of) > 1 else ""
        named.append((_brief(kinds, of[0]["parts"]) + same, of[-1]))
    return named


def control_lines(summary: Summary, quantity: Quantity) -> pd.DataFrame:
    """The controls, and what could always be answered: name, value and dash."""
    models = named_models(summary)
    known = [(name, p[quantity.delta], BY_KIND[p["kind"]].dash) for name, p in models]
    dense = [p[quantity.mean] for p in summary.controls if p["kind"] == DENSE.kind]
    if quantity.name in summary.baselines and len(dense) == 1:
        worth = summary.baselines[quantity.name] - dense[0]
        known.append((f"always the {quantity.baseline}", worth, (1, 4)))
    places = 1 if quantity.percent else 3
    lines = [
        (f"{name} {spelt(scaled, places)}" if scaled else name, scaled, dash)
        for name, value, dash in known
        if value is not None and math.isfinite(scaled := quantity.scale * value)
    ]
    return pd.DataFrame(lines, columns=["name", "value", "dash"])


def spelt(value: float, places: int = 3) -> str:
    """A difference with a true minus sign; at three digits where a loss has exploded."""
    words = f"{value:+z.{places}f}" if abs(value) < 10 ** (4 - places) else f"{value:+#.3g}"
    return words.replace("-", "−").replace("e+0", "e").rstrip(".")


def _brief(name: str, parts: Sequence[str]) -> str:
    """``averaged, learning_rate 0.1`` of base averaged and training.learning_rate 0.1."""
    return re.sub(r"\b(\w+\.(?=[a-z])|base )", "", short_label(name, parts)).removeprefix(", ")


def _name(line: Line, panel: str) -> str:
    """What a line is called at its end, beside its panel's title."""
    if str(line.roles) == panel:
        return line.without_roles
    others = [f"= {name}" for name in line.criteria if name != panel]
    return _brief(" ".join(others), line.parts)


def squash(values: Any, unit: float) -> Any:
    """Linear within ``±unit``, logarithmic beyond: Vega's symlog scale."""
    values = np.asarray(values, dtype=float)
    return np.sign(values) * np.log1p(np.abs(values) / unit)


def stretch(places: Any, unit: float) -> Any:
    """What ``squash`` makes ``places`` of."""
    return np.sign(places) * unit * np.expm1(np.abs(places))


def ticks(low: float, high: float, unit: float, most: float) -> list[float]:
    """Zero, then powers of ten from the largest, then threes: about ``most``, none too close."""
    apart, found = np.ptp(squash([low, high], unit)) / most, [0.0]
    powers = range(math.ceil(math.log10(max(high, -low))), math.floor(math.log10(unit)) - 1, -1)
    for value in (s * d * 10.0**power for d in (1, 3) for power in powers for s in (1, -1)):
        nearest = np.abs(squash(value, unit) - squash(found, unit)).min()
        if low <= value <= high and nearest >= apart:
            found.append(value)
    return sorted(found)


def _apart(places: Any, gap: float, low: float, high: float) -> Any:
    """Rising ``places``, moved as little as keeps them ``gap`` apart, from ``low`` to ``high``."""
    from scipy.optimize import isotonic_regression  # half a second to import

    steps = gap * np.arange(len(places))
    room = max(low, high - gap * (len(places) - 1))
    return np.clip(isotonic_regression(places - steps).x, low, room) + steps
