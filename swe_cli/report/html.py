"""One file that a browser opens, offline: sentences, charts, and every row with its source."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from jinja2 import Environment, FileSystemLoader

from swe_cli.controls import KIND_NAMES, PRUNED
from swe_cli.files import read_json
from swe_cli.report import panels
from swe_cli.report.figures import control_lines, notes
from swe_cli.report.look import colour_of
from swe_cli.report.panels import COSTS
from swe_cli.report.quantities import CALIBRATED, LOSS, QUANTITIES
from swe_cli.report.summary import Summary
from swe_cli.report.tables import records, settings_of
from swe_cli.report.text import NOTHING, word

EMBED = "window.embed = vegaEmbed;"  # all that the page asks of Vega; its version is Altair's
TRAINING = ["run", "step", "loss_nats", "validation_loss_nats", "tracked"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is shown; of a part that is not there the page says so, and how it is made.

    ``command`` makes the page again. ``table``: rows, with columns of ``COSTS`` where they are
    known. ``sentences``: the conclusion; ``ledger``: on what was timed. ``declared``: a heading,
    and what ``compare.compared`` gives. ``layers``: line, ratio, tensor, sparsity. ``hurt``: line,
    cut, slice, difference_nats, low, high, p_holm, tokens. ``lives``: step, value, weight, group.
    ``training``: run, step, loss_nats, validation_loss_nats, tracked.
    """

    title: str
    command: str
    summaries: Sequence[Summary] = ()
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    sentences: Sequence[str] = ()
    declared: tuple[str, pd.DataFrame] | None = None
    layers: pd.DataFrame | None = None
    hurt: pd.DataFrame | None = None
    hurt_sentences: Sequence[str] = ()
    ledger: Sequence[str] = ()
    lives: pd.DataFrame | None = None
    training: pd.DataFrame | None = None


def html(report: Report) -> str:
    """The page: one file of HTML that asks for nothing outside it."""
    costs, front = panels.cost(report.summaries, report.table)
    charts = {q.name: panels.loss(report.summaries, q) for q in (LOSS, CALIBRATED)}
    charts["cost"] = costs
    for make in (panels.hurt, panels.lives, panels.training):
        if (rows := getattr(report, make.__name__)) is not None:
            charts[make.__name__] = make(rows)
    criteria = {line.criterion for summary in report.summaries for line in summary.lines}
    columns, several = _columns(report.table), len(report.table) > 1
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page.trim_blocks = page.lstrip_blocks = True
    page.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    page.filters |= {"spelt": _spelt, "records": records}
    return page.get_template("report.html.j2").render(
        report=report,
        drawn={name: made for name, of in charts.items() if (made := panels.drawn(of))["names"]},
        front=front,
        drawable=[summary for summary in report.summaries if panels.drawable(summary, LOSS)],
        notes=partial(notes, quantity=LOSS, elsewhere="the table"),
        rules=partial(control_lines, quantity=LOSS),
        costs={name: words for name, words in COSTS.items() if name not in report.table},
        same=[w for n, w in COSTS.items() if n in report.table and report.table[n].nunique() == 1],
        colours={name: colour_of(name) for name in sorted(criteria)},
        shared={name: of[0] for name, of in columns.items() if several and len({*of}) == 1},
        columns={name: of for name, of in columns.items() if not several or len({*of}) > 1},
        layers=_layers(report.layers),
        vega=vl_convert.javascript_bundle(EMBED, alt.SCHEMA_VERSION[1:].rpartition(".")[0]),
    )


def trainings(runs: Path, names: Iterable[str]) -> pd.DataFrame | None:
    """``Report.training`` of the runs that are still there; None where none is."""
    curves = []
    for run in (runs / name for name in names if (runs / name / "manifest.json").is_file()):
        metrics = run / "metrics.jsonl"
        if metrics.is_file() and metrics.stat().st_size:  # else it is a model that was not trained
            curve = pd.read_json(metrics, lines=True).assign(run=run.name)
            tracker = read_json(run / "manifest.json").get("tracker") or {}
            since = curve["step"] - tracker.get("start", math.inf)
            curve["tracked"] = (since > 0) & (since % tracker.get("every_steps", 1) == 0)
            curves.append(curve.reindex(columns=TRAINING))
    return pd.concat(curves, ignore_index=True) if curves else None


# Tables


def _layers(layers: pd.DataFrame | None) -> list[tuple[Any, pd.DataFrame]]:
    """Of each line, the sparsity of its tensors by ratio."""
    if layers is None:
        return []
    wide: dict[str, Any] = {"index": "tensor", "columns": "ratio", "sort": False}
    return [
        (name, of.pivot_table(**wide, values="sparsity"))
        for name, of in layers.groupby("line", sort=False)
    ]


def _columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The table as words, column by column; none is empty."""
    if table.empty:
        return {}
    rows, settings = records(table), [name for name in settings_of(table) if name not in COSTS]

    def told(*names: str) -> dict[str, list[str]]:
        return {n: ["" if row.get(n) is None else _spelt(row[n]) for row in rows] for n in names}

    kinds = KIND_NAMES | {PRUNED: ""}
    columns = {"line": [kinds.get(row["kind"], row["kind"]) or row["criterion"] for row in rows]}
    columns |= told("model", "data", *settings, "ratio", "rate", "sparsity")
    columns["before recovery"] = told(LOSS.before)[LOSS.before]
    for q in QUANTITIES:
        columns[q.short] = [q.phrase(row, q.mean) for row in rows]
        columns[f"{q.short} against dense"] = [
            q.phrase(row, q.delta).replace("-", "−") for row in rows
        ]
    columns |= told(*COSTS, "error", "seed", "training", "config_hash", "fingerprint")
    return {name: cells for name, cells in columns.items() if any(cells)}


def _spelt(value: Any) -> str:
    """Four digits, which is enough to compare, and a true minus."""
    if isinstance(value, float):
        value = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return str(value).replace("-", "−")
    return NOTHING if value is None else word(value)
