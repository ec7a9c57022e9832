"""One file that a browser opens, offline: sentences, charts, and every row with its source."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from jinja2 import Environment, FileSystemLoader

from swe_cli.controls import DENSE, KIND_NAMES, PRUNED, RECOVERED
from swe_cli.files import read_json
from swe_cli.report.look import GREY, colour_of
from swe_cli.report.quantities import CALIBRATED, LOSS, QUANTITIES, bounds
from swe_cli.report.summary import Summary
from swe_cli.report.tables import records, settings_of
from swe_cli.report.text import NOTHING, exact, word

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
# Variables of the page's CSS, so that its theme is also that of the charts, which are SVG.
INK, DIM, RULE, STRONG = (f"var(--{name})" for name in ("ink", "dim", "rule", "strong"))
AXIS = {"labelColor": DIM, "titleColor": DIM, "domainColor": GREY, "tickColor": GREY}
AXIS |= {"gridColor": RULE, "titleFontWeight": "normal", "labelLimit": 150, "tickCount": 5}
CONFIG = {"background": None, "view": {"stroke": None}, "axis": AXIS, "aria": False}
EMBED = "window.embed = vegaEmbed;"  # all that the page asks of Vega; its version is Altair's
HEIGHT, WIDTH = 150, 250
MINE, NEAR = "datum.panel == panel", "indexof(panel, datum.about) == 0"  # of the same protocol
DOT = {"filled": True, "opacity": 1, "size": 28}
COLOUR = alt.Color("colour:N", scale=None)
STEP = alt.X("step:Q", title="step")
Drawn = tuple[Any, pd.DataFrame]  # a chart of one panel, and the rows of all


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is shown; of a part that is not there the page says so, and how it is made.

    ``command`` makes the page again. ``table``: rows, with columns of ``COSTS`` where they are
    known. ``sentences``: the conclusion. ``declared``: a heading, and what ``compare.compared``
    gives. ``layers``: line, ratio, tensor, sparsity. ``hurt``: line, ratio, slice, difference_nats,
    low, high, p_holm, tokens. ``lives``: step, value, weight, group. ``training``: run, step,
    loss_nats, validation_loss_nats, tracked.
    """

    title: str
    command: str
    summaries: Sequence[Summary] = ()
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    sentences: Sequence[str] = ()
    caveats: Sequence[str] = ()
    declared: tuple[str, pd.DataFrame] | None = None
    layers: pd.DataFrame | None = None
    hurt: pd.DataFrame | None = None
    hurt_sentences: Sequence[str] = ()
    lives: pd.DataFrame | None = None
    training: pd.DataFrame | None = None


def html(report: Report) -> str:
    """The page: one file of HTML that asks for nothing outside it."""
    parts = {"hurt": _hurt, "lives": _lives, "training": _training}
    made = {
        name: make(of) for name, make in parts.items() if (of := getattr(report, name)) is not None
    }
    made = {"loss": _loss(report), "cost": _cost(report), **made}
    drawn = {name: part for name, part in made.items() if part}
    names = {name: list(rows["panel"].dropna().unique()) for name, (_, rows) in drawn.items()}
    left = {name: of[PANELS:] for name, of in names.items()}
    rows = {name: of[~of["panel"].isin(left[name])].round(5) for name, (_, of) in drawn.items()}
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page.trim_blocks = page.lstrip_blocks = True
    page.filters |= {"spelt": _spelt, "records": records}
    columns = _columns(report.table)
    return page.get_template("report.html.j2").render(
        report=report,
        shared={n: of[0] for n, of in columns.items() if len(of) > 1 and len({*of}) == 1},
        columns={n: of for n, of in columns.items() if len(of) == 1 or len({*of}) > 1},
        layers=_layers(report.layers) if report.layers is not None else [],
        panels={name: of[:PANELS] for name, of in names.items()},
        left=left,
        data={name: records(of) for name, of in rows.items()},
        charts={name: _whole(chart) for name, (chart, _) in drawn.items()},
        vega=vl_convert.javascript_bundle(EMBED, alt.SCHEMA_VERSION[1:4]) if drawn else "",
        colours={
            c: colour_of(c)
            for s in report.summaries
            for c in sorted({x.criterion for x in s.lines})
        },
        costs=COSTS,
    )


def trainings(runs: Path, names: Iterable[str]) -> pd.DataFrame | None:
    """``Report.training`` of the runs that are still there; None where none is."""
    curves = []
    for run in (runs / name for name in names if (runs / name / "manifest.json").is_file()):
        curve = pd.read_json(run / "metrics.jsonl", lines=True).assign(run=run.name)
        tracker = read_json(run / "manifest.json").get("tracker") or {}
        since = curve["step"] - tracker.get("start", math.inf)
        curve["tracked"] = (since > 0) & (since % tracker.get("every_steps", 1) == 0)
        curves.append(curve)
    return pd.concat(curves, ignore_index=True) if curves else None


def _whole(chart: Any) -> dict[str, Any]:
    """As the page has it: without rows, in the theme's colours."""
    height = {} if "slice:N" in str(chart) else {"height": HEIGHT}
    chart = chart.add_params(alt.param(name="panel", value=""))
    return {**chart.to_dict(), "config": CONFIG, "width": WIDTH, **height}


# Charts, each of one panel at a time: of the rows that have its name


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


def _about(summary: Summary, report: Report) -> str:
    """What stands before the name of a panel where there are several protocols."""
    several = len(report.summaries) > 1
    return f"{summary.model} on {summary.data} ({summary.fingerprint[:6]}): " if several else ""


def _loss(report: Report) -> Drawn | None:
    """Difference to dense of one line (one criterion, where lines are many), the others in grey."""
    frames = [of for s in report.summaries if len(of := _curves(s, report))]
    if not frames:
        return None
    rows = pd.concat(frames).sort_values(["place", "leading", "label", "x"], kind="stable")
    axis = _difference(rows[["delta", "calibrated"]].stack())
    y = {name: alt.Y(f"{name}:Q", **axis) for name in ("delta", "low", "calibrated")}
    x = alt.X("x:Q", title="% cut", scale={"zero": False, "nice": False, "padding": 6})
    width = alt.when("datum.best").then(alt.value(2.2)).otherwise(alt.value(0.9))
    line = {"x": x, "y": y["delta"], "detail": "label:N"}
    mine, point = line | {"color": COLOUR, "strokeWidth": width}, line | {"color": COLOUR}
    told = ["label:N", alt.Tooltip("x:Q", format=".3~g"), alt.Tooltip("delta:Q", format="+.4f")]
    rule = {"y": y["delta"], "strokeDash": alt.StrokeDash("dash:N", scale=None)}
    best, calibrated = f"{MINE} && datum.best", f"{MINE} && isValid(datum.calibrated)"
    band = point | {"y": y["low"], "y2": "high:Q"}
    chart = alt.layer(
        _layer(f"isValid(datum.dash) && {NEAR}", "rule", rule, color=INK),
        _layer(f"datum.best && {NEAR} && !({MINE})", "line", line, color=GREY, strokeWidth=0.6),
        _layer(f"{best} && isValid(datum.low)", "area", band, opacity=0.25),
        _layer(calibrated, "line", mine | {"y": y["calibrated"]}, strokeDash=[4, 3]),
        _layer(MINE, "line", mine),
        _layer(best, "point", point | {"tooltip": told}, **DOT),
    )
    return chart, rows.drop(columns=["criterion", "leading", "place"])


def _curves(summary: Summary, report: Report) -> pd.DataFrame:
    """Every cut, and the controls as rules. A panel is named by its best line, by mean rank."""
    points = summary.points[summary.points["kind"] == PRUNED]
    numbers = points[[LOSS.delta, *bounds(LOSS.delta), CALIBRATED.delta]].astype(float)
    numbers.columns = pd.Index(["delta", "low", "high", "calibrated"])
    drawn = points[["label", "criterion"]].assign(x=100 * points["x"]).join(numbers)
    drawn = drawn.replace([math.inf, -math.inf], math.nan).dropna(subset=["delta"])
    few = drawn["label"].nunique() <= PANELS // len(report.summaries)
    group, cut = drawn["label" if few else "criterion"], drawn.groupby("x")["delta"]
    # Alone at its cut, a line is neither best nor worst.
    rank = cut.rank(pct=True).where(cut.transform("size") > 1)
    rank = rank.groupby(drawn["label"]).transform("mean").fillna(1.0)
    leading = rank.groupby(group).transform("min")
    drawn = drawn.assign(best=rank == leading, leading=leading)
    names = drawn[drawn["best"]].groupby(group)["label"].first()
    drawn["panel"] = _about(summary, report) + group.map(names)
    drawn["colour"] = drawn["criterion"].map(colour_of)
    drawn["place"] = drawn["criterion"].map(FIRST).fillna(len(FIRST))
    dashes = {DENSE.kind: [1, 0], RECOVERED.kind: [1, 3]}
    of = [control for control in summary.controls if control["kind"] in dashes and len(drawn)]
    rules = [{"delta": control[LOSS.delta], "dash": dashes[control["kind"]]} for control in of]
    return pd.concat([drawn, pd.DataFrame(rules)]).assign(about=_about(summary, report))


def _cost(report: Report) -> Drawn | None:
    """Difference to dense against each cost; ``front``: nothing that costs less loses less."""
    frames = []
    for summary in report.summaries:
        points = summary.points[["label", "kind", "criterion", "ratio", LOSS.delta]]
        points = points.set_axis(["label", "kind", "criterion", "ratio", "delta"], axis=1)
        points["colour"] = points["criterion"].map(colour_of).where(points["kind"] == PRUNED, INK)
        cells = summary.points["cells"].map(lambda of: [row["config_hash"] for row in of.values()])
        for name in (name for name in COSTS if name in report.table):
            cost = cells.explode().map(report.table.groupby("config_hash")[name].first())
            rows = points.assign(cost=cost.astype(float).groupby(level=0).mean())
            rows = rows.dropna(subset=["cost", "delta"]).sort_values(["cost", "delta"])
            cheaper = rows["delta"].cummin().shift(fill_value=math.inf)
            panel = _about(summary, report) + COSTS[name]
            frames.append(rows.assign(front=rows["delta"] < cheaper, panel=panel))
    if not any(map(len, frames)):
        return None
    every = pd.concat(frames).drop(columns=["kind", "criterion"])
    x = alt.X("cost:Q", title=None, scale={"zero": False}, axis={"format": ".3~s"})
    step = {"x": x, "y": alt.Y("delta:Q", **_difference(every["delta"]))}
    told = ["label:N", "ratio:Q", "cost:Q", alt.Tooltip("delta:Q", format="+.4f")]
    front = _layer(f"{MINE} && datum.front", "line", step, color=INK, interpolate="step-after")
    points = step | {"color": COLOUR, "tooltip": told}
    return alt.layer(front, _layer(MINE, "point", points, **DOT)), every


def _hurt(rows: pd.DataFrame) -> Drawn:
    """Difference to dense of each slice with its interval, strong where it holds after Holm."""
    rows = rows.assign(panel=rows["line"] + " at " + rows["ratio"].map(exact))
    rows["colour"] = (rows["p_holm"] < 0.05).map({True: STRONG, False: GREY})
    x = alt.X("low:Q", title="loss less dense (nats per token)")
    channels = {"y": alt.Y("slice:N", sort=None, title=None), "color": COLOUR}
    bars = _layer(MINE, "rule", channels | {"x": x, "x2": "high:Q"}, strokeWidth=2)
    points = _layer(MINE, "point", channels | {"x": "difference_nats:Q"}, **DOT)
    zero = alt.Chart(alt.NamedData("rows")).mark_rule(color=INK).encode(x=alt.datum(0))
    return alt.layer(zero, bars, points), rows


def _lives(rows: pd.DataFrame) -> Drawn:
    """The weights of a group over training."""
    rows = rows.rename(columns={"group": "panel"})
    some = rows.groupby("panel")["weight"].rank(method="dense") <= WEIGHTS
    often = rows["step"].rank(method="dense") % math.ceil(rows["step"].nunique() / LIVED) == 0
    channels = {"x": STEP, "y": alt.Y("value:Q", title=None), "detail": "weight:N"}
    return _layer(MINE, "line", channels, color=STRONG, strokeWidth=0.8), rows[some & often]


def _training(rows: pd.DataFrame) -> Drawn:
    """Loss of batches and on validation, the tracked steps as ticks; a long training thinned."""
    runs = rows.groupby("run", sort=False)
    steps, tracked = runs["step"].transform("size"), runs["tracked"].cumsum()
    often, told = -(-steps // CURVE), tracked.groupby(rows["run"]).transform("max")
    seen = rows["tracked"] & (tracked % often == 0)
    asked = rows["validation_loss_nats"].notna() | (runs.cumcount() % often == 0)
    panel = rows["run"] + ": " + told.map(str) + " of " + steps.map(str) + " steps tracked"
    y, valid = {"title": None, "scale": {"zero": False}}, "isValid(datum.validation_loss_nats)"
    batch = {"x": STEP, "y": alt.Y("loss_nats:Q", **y)}
    validation = batch | {"y": alt.Y("validation_loss_nats:Q", **y)}
    tick = {"color": STRONG, "size": 7, "thickness": 1}
    chart = alt.layer(
        _layer(MINE, "line", batch, color=GREY, strokeWidth=1),
        _layer(f"{MINE} && {valid}", "line", validation, color=INK, point={"color": INK}),
        _layer(f"{MINE} && datum.tracked", "tick", {"x": STEP, "y": alt.value(HEIGHT - 4)}, **tick),
    )
    return chart, rows.assign(tracked=seen, panel=panel)[seen | asked]


# Tables


def _layers(layers: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Of each line, the sparsity of its tensors by ratio."""
    lines = list(layers.groupby("line", sort=False))[:PANELS]
    wide = {"index": "tensor", "columns": "ratio", "values": "sparsity"}
    return [(name, of.pivot(**wide).loc[of["tensor"].unique()]) for name, of in lines]


def _columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The table as words, column by column; none is empty."""
    if table.empty:
        return {}
    rows, settings = records(table), [name for name in settings_of(table) if name not in COSTS]

    def told(*names: str) -> dict[str, list[str]]:
        return {n: ["" if row.get(n) is None else _spelt(row[n]) for row in rows] for n in names}

    kinds = KIND_NAMES | {PRUNED: ""}
    columns = {"line": [kinds.get(row["kind"], row["kind"]) or row["criterion"] for row in rows]}
    columns |= told("model", "data", *settings, "ratio", "rate", "sparsity", LOSS.before)
    for q in QUANTITIES:
        columns[q.short] = [q.phrase(row, q.mean) for row in rows]
        columns[f"{q.short} against dense"] = [q.phrase(row, q.delta) for row in rows]
    columns |= told(*COSTS, "error", "seed", "training", "config_hash", "fingerprint")
    return {name: cells for name, cells in columns.items() if any(cells)}


def _spelt(value: Any) -> str:
    """Four digits, which is enough to compare, and a true minus."""
    if isinstance(value, float):
        value = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return str(value).replace("-", "−")
    return NOTHING if value is None else word(value)
