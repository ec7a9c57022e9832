"""The charts of the page: those of the figures, and what only a page has room for.

Colours are variables of the page's CSS, so that its theme is that of the charts, which are SVG.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from swe_cli.report.figures import SIGNED, panels, shown_lines, ticks, weight_charts
from swe_cli.report.look import GREY, colour_of
from swe_cli.report.quantities import LOSS, Quantity
from swe_cli.report.summary import Summary

PANELS = 12  # of a section: as many as one compares, and as a browser draws at once
WEIGHTS, LIVED, CURVE = 20, 60, 200  # drawn of a group; steps of their lives, and of a training
# What is drawn against loss where a table has it.
COSTS = {
    "bytes": "bytes, as stored",
    "bytes_compressed": "bytes, compressed",
    "flops_per_token": "FLOPs per token",
    "latency_p50_ms": "median latency (ms)",
}
INK, DIM, RULE, STRONG = (f"var(--{name})" for name in ("ink", "dim", "rule", "strong"))
SIZE = {"width": 230, "height": 150}
LOOK: Mapping[str, Any] = {
    "background": None,
    "view": {"stroke": None},
    "axis": {"labelColor": DIM, "titleColor": DIM, "domainColor": GREY, "tickColor": GREY}
    | {"gridColor": RULE, "titleFontWeight": "normal", "labelLimit": 150, "tickCount": 5},
    "style": {"control": {"color": INK}, "words": {"fill": INK, "fontSize": 10.5}},
}
COLOUR = alt.Color("colour:N", scale=None)
DOT = {"filled": True, "opacity": 1, "size": 28}
STEP = alt.X("step:Q", title="step")
ENDLESS = [math.inf, -math.inf]
Charts = Iterator[tuple[str, alt.LayerChart]]  # by name


def loss(summaries: Sequence[Summary], quantity: Quantity) -> Charts:
    """``figures.panels``, of every protocol that has such a difference."""
    for summary in summaries:
        if drawable(summary, quantity):
            about, shown = _about(summary, summaries), shown_lines(summary, quantity)
            charts = panels(summary, quantity, columns=0, width=SIZE["width"])
            for (name, lines), chart in zip(shown.items(), charts, strict=True):
                yield about + (lines[0].label if len(lines) == 1 else name), chart


def drawable(summary: Summary, quantity: Quantity) -> bool:
    """Whether any cut has a finite difference."""
    return any(math.isfinite(cut[quantity.delta] or math.nan) for cut in summary.cuts)


def cost(summaries: Sequence[Summary], table: pd.DataFrame) -> tuple[Charts, pd.DataFrame]:
    """Difference to dense against each cost, and the front: nothing that costs less loses less."""
    frames = []
    for summary in summaries:
        points = summary.points[["label", "ratio"]].assign(delta=summary.points[LOSS.delta])
        colours = summary.points["criterion"].map(colour_of, na_action="ignore")
        cells = summary.points["cells"].map(lambda of: [row["config_hash"] for row in of.values()])
        for name in (name for name in COSTS if name in table):
            cost = cells.explode().map(table.groupby("config_hash")[name].first())
            cost = cost.astype(float).groupby(level=0).mean()
            rows = points.assign(cost=cost, colour=colours.fillna(INK)).replace(ENDLESS, math.nan)
            if cost.nunique() == 1:  # of masks alone: the page says so
                continue
            rows = rows.dropna(subset=["cost", "delta"]).sort_values(["cost", "delta"])
            least = rows["delta"] < rows["delta"].cummin().shift(fill_value=math.inf)
            panel = _about(summary, summaries) + COSTS[name]
            frames.append(rows.assign(front=least, panel=panel))
    if not any(map(len, frames)):
        return iter(()), pd.DataFrame()
    every = pd.concat(frames)
    low, high = 1.2 * min(0.0, every["delta"].min()), 1.2 * max(0.01, every["delta"].max())
    unit = LOSS.tolerance
    scale = {"type": "symlog", "constant": unit, "domain": [low, high], "nice": False}
    axis = SIGNED | {"values": ticks(low, high, unit, SIZE["height"] / 16)}
    step = {
        "x": alt.X("cost:Q", title=None, scale={"zero": False}, axis={"format": ".3~s"}),
        "y": alt.Y("delta:Q", title=None, scale=scale, axis=axis),
    }
    told = ["label:N", "ratio:Q", "cost:Q", alt.Tooltip("delta:Q", format="+.4f")]
    line = alt.Chart().transform_filter("datum.front").encode(**step)
    line = line.mark_line(clip=True, color=INK, interpolate="step-after")
    dots = alt.Chart().mark_point(**DOT).encode(**step, color=COLOUR, tooltip=told)
    front = every.loc[every["front"], ["panel", "cost", "label", "ratio", "delta"]]
    return _each(alt.layer(line, dots), every), front


def hurt(rows: pd.DataFrame) -> Charts:
    """Difference to dense of each slice with its interval, strong where it holds after Holm."""
    rows = rows.assign(panel=rows["line"] + " at " + rows["cut"])
    rows["colour"] = (rows["p_holm"] < 0.05).map({True: STRONG, False: GREY})
    y = alt.Y("slice:N", sort=None, title=None, axis={"labelLimit": 220})
    of = alt.Chart().encode(y, COLOUR)
    x = alt.X("low:Q", title="loss less dense (nats per token)")
    zero = alt.Chart().mark_rule(color=INK).encode(alt.X(datum=0))
    bars = of.mark_rule(strokeWidth=2).encode(x, alt.X2("high:Q"))
    dots = of.mark_point(**DOT).encode(x="difference_nats:Q")
    return _each(alt.layer(zero, bars, dots), rows, height={"step": 15})


def lives(rows: pd.DataFrame) -> Charts:
    """``figures.weight_charts`` of fewer weights, at fewer steps."""
    some = rows.groupby("group")["weight"].rank(method="dense") <= WEIGHTS
    often = rows["step"].rank(method="dense") % math.ceil(rows["step"].nunique() / LIVED) == 0
    yield from weight_charts(rows[some & often], **SIZE).items()


def training(rows: pd.DataFrame) -> Charts:
    """Loss of batches and on validation, the tracked steps as ticks; a long training thinned."""
    runs = rows.groupby("run", sort=False)
    steps, tracked = runs["step"].transform("size"), runs["tracked"].transform("sum")
    often = -(-steps // CURVE)
    seen = rows["tracked"] & (runs["tracked"].cumsum() % often == 0)
    asked = rows["validation_loss_nats"].notna() | (runs.cumcount() % often == 0)
    told = tracked.map("{:.0f} of ".format) + steps.map("{} steps tracked".format)
    rows = rows.assign(tracked=seen, panel=rows["run"] + ": " + told)[seen | asked]
    batch = alt.Chart().mark_line(color=GREY, strokeWidth=1, clip=True)
    batch = batch.encode(STEP, alt.Y("loss_nats:Q", title=None, scale={"zero": False}))
    valid = alt.Chart().transform_filter("isValid(datum.validation_loss_nats)")
    valid = valid.mark_line(color=INK, point={"color": INK}).encode(
        STEP, y="validation_loss_nats:Q"
    )
    ticks = alt.Chart().transform_filter("datum.tracked").mark_tick(color=STRONG, size=9)
    return _each(alt.layer(batch, valid, ticks.encode(STEP, alt.YValue(SIZE["height"]))), rows)


def drawn(charts: Charts) -> dict[str, Any]:
    """``names`` of charts, those ``left`` out, ``specs``, and the ``datasets`` that these share.

    A column is its codes and what they stand for: a third of the size of one object a row.
    """
    named = list(charts)
    specs = [chart.to_dict(validate=False) for _, chart in named[:PANELS]]
    datasets: dict[str, Any] = {}
    for spec in specs:
        for name, rows in spec.pop("datasets").items():
            coded = {key: pd.factorize(of) for key, of in pd.DataFrame(rows).round(5).items()}
            packed = {key: [at.tolist(), list(of.tolist())] for key, (at, of) in coded.items()}
            datasets[name] = packed
        spec["config"] = LOOK
    names, left = ([name for name, _ in of] for of in (named[:PANELS], named[PANELS:]))
    return {"names": names, "left": left, "specs": specs, "datasets": datasets}


def _each(chart: alt.LayerChart, rows: pd.DataFrame, **size: Any) -> Charts:
    """The same chart of the rows of every panel."""
    rows = rows.replace(ENDLESS, math.nan)
    for name, of in rows.groupby("panel", sort=False):
        yield str(name), chart.properties(**SIZE | size, data=of.drop(columns="panel"))


def _about(summary: Summary, among: Sequence[Summary]) -> str:
    """What stands before the name of a panel where there are several protocols."""
    about = f"{summary.model} on {summary.data} ({summary.fingerprint[:6]}): "
    return about if len(among) > 1 else ""
