"""The charts of the page: small panels, drawn one at a time of the rows that have its name.

Colours are variables of the page's CSS, so that its theme is that of the charts, which are SVG.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from swe_cli.controls import DENSE, PRUNED, RECOVERED
from swe_cli.report.look import GREY, colour_of
from swe_cli.report.quantities import CALIBRATED, LOSS, bounds
from swe_cli.report.summary import Summary
from swe_cli.report.tables import records

PANELS = 12  # of a section: as many as one compares, and as a browser draws at once
WEIGHTS, LIVED, CURVE = 20, 60, 200  # drawn of a group; steps of their lives, and of a training
FIRST = {"swe": 0, "magnitude": 1, "random": 2}
# What is drawn against loss where a table has it.
COSTS = {
    "bytes": "bytes, as stored",
    "bytes_compressed": "bytes, compressed",
    "flops_per_token": "FLOPs per token",
    "latency_p50_ms": "median latency (ms)",
}
INK, DIM, RULE, STRONG = (f"var(--{name})" for name in ("ink", "dim", "rule", "strong"))
AXIS: dict[str, Any] = {
    "labelColor": DIM,
    "titleColor": DIM,
    "domainColor": GREY,
    "tickColor": GREY,
}
AXIS |= {"gridColor": RULE, "titleFontWeight": "normal", "labelLimit": 150, "tickCount": 5}
HEIGHT = 150
VIEW: dict[str, Any] = {"stroke": None, "continuousWidth": 250, "continuousHeight": HEIGHT}
CONFIG: dict[str, Any] = {"background": None, "view": VIEW, "axis": AXIS}
MINE, NEAR = "datum.panel == panel", "indexof(panel, datum.about) == 0"  # of the same protocol
COLOUR = alt.Color("colour:N", scale=None)
DOT = {"filled": True, "opacity": 1, "size": 28}
STEP = alt.X("step:Q", title="step")
ENDLESS = [math.inf, -math.inf]
Drawn = dict[str, Any]  # names of panels, those left out, their rows, the chart of one


def loss(summaries: Sequence[Summary]) -> Drawn | None:
    """Difference to dense of one line (one criterion, where lines are many), the others in grey."""
    frames = [of for s in summaries if len(of := _curves(s, len(summaries)))]
    if not frames:
        return None
    rows = pd.concat(frames).sort_values(["place", "leading", "label", "x"], kind="stable")
    axis = _difference(pd.concat([rows["delta"], rows["calibrated"]]))
    y = {name: alt.Y(f"{name}:Q", **axis) for name in ("delta", "low", "calibrated")}
    x = alt.X("x:Q", title="% cut", scale={"zero": False, "nice": False, "padding": 6})
    width = alt.when("datum.best").then(alt.value(2.2)).otherwise(alt.value(0.9))
    line = {"x": x, "y": y["delta"], "detail": "label:N"}
    mine, dots = line | {"color": COLOUR, "strokeWidth": width}, line | {"color": COLOUR}
    told = ["label:N", alt.Tooltip("x:Q", format=".3~g"), alt.Tooltip("delta:Q", format="+.4f")]
    dotted = alt.when("datum.dotted").then(alt.value([1, 3])).otherwise(alt.value([1, 0]))
    rule = {"y": y["delta"], "strokeDash": dotted}
    best, calibrated = f"{MINE} && datum.best", f"{MINE} && isValid(datum.calibrated)"
    band = dots | {"y": y["low"], "y2": "high:Q"}
    chart = alt.layer(
        _layer(f"isValid(datum.dotted) && {NEAR}", "rule", rule, color=INK),
        _layer(f"datum.best && {NEAR} && !({MINE})", "line", line, color=GREY, strokeWidth=0.6),
        _layer(f"{best} && isValid(datum.low)", "area", band, opacity=0.25),
        _layer(calibrated, "line", mine | {"y": y["calibrated"]}, strokeDash=[4, 3]),
        _layer(MINE, "line", mine),
        _layer(best, "point", dots | {"tooltip": told}, **DOT),
    )
    return _drawn(chart, rows.drop(columns=["criterion", "leading", "place"]))


def _curves(summary: Summary, among: int) -> pd.DataFrame:
    """Every cut, and the controls as rules. A panel is named by its best line, by mean rank."""
    points = summary.points[summary.points["kind"] == PRUNED]
    numbers = points[[LOSS.delta, *bounds(LOSS.delta), CALIBRATED.delta]].astype(float)
    numbers.columns = pd.Index(["delta", "low", "high", "calibrated"])
    rows = points[["label", "criterion"]].assign(x=100 * points["x"]).join(numbers)
    rows = rows.replace(ENDLESS, math.nan).dropna(subset=["delta"])
    few = rows["label"].nunique() <= PANELS // among
    group, cut = rows["label" if few else "criterion"], rows.groupby("x")["delta"]
    # Alone at its cut, a line is neither best nor worst.
    rank = cut.rank(pct=True).where(cut.transform("size") > 1)
    rank = rank.groupby(rows["label"]).transform("mean").fillna(1.0)
    leading, about = rank.groupby(group).transform("min"), _about(summary, among)
    rows = rows.assign(best=rank == leading, leading=leading)
    rows["panel"] = about + group.map(rows[rows["best"]].groupby(group)["label"].first())
    rows["colour"] = rows["criterion"].map(colour_of)
    rows["place"] = rows["criterion"].map(FIRST).fillna(len(FIRST))
    dots = {DENSE.kind: False, RECOVERED.kind: True}
    of = [control for control in summary.controls if control["kind"] in dots and len(rows)]
    rules = [{"delta": control[LOSS.delta], "dotted": dots[control["kind"]]} for control in of]
    return pd.concat([rows, pd.DataFrame(rules)]).assign(about=about)


def cost(summaries: Sequence[Summary], table: pd.DataFrame) -> Drawn | None:
    """Difference to dense against each cost; ``front``: nothing that costs less loses less."""
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
            frames.append(
                rows.assign(front=least, panel=_about(summary, len(summaries)) + COSTS[name])
            )
    if not any(map(len, frames)):
        return None
    every = pd.concat(frames)
    x = alt.X("cost:Q", title=None, scale={"zero": False}, axis={"format": ".3~s"})
    step = {"x": x, "y": alt.Y("delta:Q", **_difference(every["delta"]))}
    told = ["label:N", "ratio:Q", "cost:Q", alt.Tooltip("delta:Q", format="+.4f")]
    line = _layer(f"{MINE} && datum.front", "line", step, color=INK, interpolate="step-after")
    dots = _layer(MINE, "point", step | {"color": COLOUR, "tooltip": told}, **DOT)
    on_it = every.loc[every["front"], ["panel", "cost", "label", "ratio", "delta"]]
    return _drawn(alt.layer(line, dots), every) | {"front": records(on_it)}


def hurt(rows: pd.DataFrame) -> Drawn:
    """Difference to dense of each slice with its interval, strong where it holds after Holm."""
    rows = rows.assign(panel=rows["line"] + " at " + rows["cut"])
    rows["colour"] = (rows["p_holm"] < 0.05).map({True: STRONG, False: GREY})
    y = alt.Y("slice:N", sort=None, title=None, axis={"labelLimit": 220})
    of = {"y": y, "color": COLOUR}
    bar = of | {"x": alt.X("low:Q", title="loss less dense (nats per token)"), "x2": "high:Q"}
    zero = _layer(MINE, "rule", {"x": alt.datum(0)}, color=INK)
    dots = _layer(MINE, "point", of | {"x": "difference_nats:Q"}, **DOT)
    return _drawn(alt.layer(zero, _layer(MINE, "rule", bar, strokeWidth=2), dots), rows)


def lives(rows: pd.DataFrame) -> Drawn:
    """The weights of a group over training."""
    rows = rows.rename(columns={"group": "panel"})
    some = rows.groupby("panel")["weight"].rank(method="dense") <= WEIGHTS
    often = rows["step"].rank(method="dense") % math.ceil(rows["step"].nunique() / LIVED) == 0
    life = {"x": STEP, "y": alt.Y("value:Q", title=None), "detail": "weight:N"}
    chart = _layer(MINE, "line", life, color=STRONG, strokeWidth=0.8)
    return _drawn(chart, rows[some & often])


def training(rows: pd.DataFrame) -> Drawn:
    """Loss of batches and on validation, the tracked steps as ticks; a long training thinned."""
    runs = rows.groupby("run", sort=False)
    steps, tracked = runs["step"].transform("size"), runs["tracked"].transform("sum")
    often = -(-steps // CURVE)
    seen = rows["tracked"] & (runs["tracked"].cumsum() % often == 0)
    asked = rows["validation_loss_nats"].notna() | (runs.cumcount() % often == 0)
    told = tracked.map("{:.0f} of ".format) + steps.map("{} steps tracked".format)
    rows = rows.assign(tracked=seen, panel=rows["run"] + ": " + told)[seen | asked]
    y: dict[str, Any] = {"title": None, "scale": {"zero": False}}
    batch = {"x": STEP, "y": alt.Y("loss_nats:Q", **y)}
    valid = batch | {"y": alt.Y("validation_loss_nats:Q", **y)}
    foot, tick = {"x": STEP, "y": alt.value(HEIGHT)}, {"size": 9, "thickness": 1}
    chart = alt.layer(
        _layer(MINE, "line", batch, color=GREY, strokeWidth=1),
        _layer(
            f"{MINE} && isValid(datum.validation_loss_nats)",
            "line",
            valid,
            color=INK,
            point={"color": INK},
        ),
        _layer(f"{MINE} && datum.tracked", "tick", foot, color=STRONG, **tick),
    )
    return _drawn(chart, rows)


def _drawn(chart: Any, rows: pd.DataFrame) -> Drawn:
    names = list(rows["panel"].dropna().unique())
    rows = rows[~rows["panel"].isin(names[PANELS:])].replace(ENDLESS, math.nan).round(5)
    coded = {name: pd.factorize(of) for name, of in rows.items()}
    packed = {name: [codes.tolist(), list(of.tolist())] for name, (codes, of) in coded.items()}
    spec = chart.add_params(alt.param(name="panel", value="")).to_dict() | {"config": CONFIG}
    return {"names": names[:PANELS], "left": names[PANELS:], "rows": packed, "spec": spec}


def _layer(where: str, mark: str, channels: Mapping[str, Any], **look: Any) -> Any:
    clip = {} if mark in ("point", "tick") else {"clip": True}  # at the edge, those are seen whole
    layer = alt.Chart(alt.NamedData("rows"), mark={"type": mark, **clip, **look})
    return layer.transform_filter(where).encode(**channels)


def _difference(values: "pd.Series[float]") -> dict[str, Any]:
    """Of an axis: linear within the tolerance, logarithmic beyond; the same in every panel."""
    low, high = 1.2 * min(0.0, values.min()), 1.2 * max(LOSS.tolerance, values.max())
    powers = [10.0**power for power in range(-2, 6)]
    ticks = [tick for tick in (*(-p for p in powers), 0.0, *powers) if low <= tick <= high]
    label = "datum.value == 0 ? '0' : format(datum.value, '+~g')"
    scale = {"type": "symlog", "constant": LOSS.tolerance, "domain": [low, high], "nice": False}
    return {"title": None, "scale": scale, "axis": {"values": ticks, "labelExpr": label}}


def _about(summary: Summary, among: int) -> str:
    """What stands before the name of a panel where there are several protocols."""
    return f"{summary.model} on {summary.data} ({summary.fingerprint[:6]}): " if among > 1 else ""
