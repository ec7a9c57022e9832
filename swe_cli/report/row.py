"""One evaluation result in the terminal."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from swe_cli.controls import KIND_NAMES, PRUNED
from swe_cli.records import COSTS, Row
from swe_cli.report.console import print_pairs
from swe_cli.report.quantities import BEFORE_RECOVERY, LOSS, OF_QUESTIONS, TO_RECOVERED
from swe_cli.report.tables import SETTINGS
from swe_cli.report.text import number, percent, word

_LOSSES = {
    "loss before recovery": LOSS.before,
    "loss": LOSS.mean,
    "loss, random batches": "random_batches_loss_nats",
    "against dense": LOSS.delta,
    "before recovery, against dense": BEFORE_RECOVERY,
    "against dense recovered": TO_RECOVERED,
}
_OF_CUTS = ("criterion", "prunable", "roles")  # said of what was pruned only


def print_row(console: Console, row: Row) -> None:
    """Label and value, one pair a line; what was not measured is left out.

    Intervals are over the windows of the test split; losses and deltas in nats per token, accuracy
    in % with its deltas in percentage points.
    """
    print_pairs(console, [pair for pair in _pairs(row) if pair[1]])


def _pairs(row: Row) -> Iterator[tuple[str, str]]:
    of: dict[str, Any] = dict(row.columns())
    yield "model", f"{of['model']} on {of['data']}, seed {of['seed']}"
    yield "kind", KIND_NAMES[of["kind"]]
    for name in ("criterion", *SETTINGS, "ratio", "rate"):
        if of.get(name) is not None and (of["kind"] == PRUNED or name not in _OF_CUTS):
            yield "prunable set" if name == "prunable" else name, word(of[name])
    yield from ((name, str(value)) for name, value in sorted(row.axes.items()))
    if of["status"] == "failed":
        yield "failed", of["error"] or "no message"
        return
    shares = [
        "sparsity",
        *sorted(name for name in of if name.startswith("sparsity.")),
        "compression",
    ]
    for name in (name for name in shares if of[name] is not None):
        yield name.replace("y.", "y of "), percent(of[name], decimals=2)
    for name in (name for name in COSTS if name in of):
        yield name.replace("_", " "), f"{of[name]:,.0f}"
    for words, column in _LOSSES.items():
        if of["recovery"] != "none" or "before" not in words:
            unit = "" if column.startswith("delta_") else "nats per token"
            yield words, LOSS.phrase(of, column, unit)
    for name in ("bits_per_character", "perplexity", "jaccard_magnitude"):
        if of[name] is not None:
            words = name.replace("_", " ").replace("jaccard", "overlap with")
            yield words, number(of[name])
    yield from _answers(of)
    yield "protocol", of["fingerprint"]


def _answers(of: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Accuracy and MAE with what there is to compare them with; nothing of a text."""
    for q in OF_QUESTIONS:
        yield f"{q.short} before recovery", q.phrase(of, q.before)
        yield q.short, q.phrase(of, q.mean)
        for name in sorted(name for name in of if name.startswith(f"{q.mean}.")):
            yield f"  {name.removeprefix(f'{q.mean}.')}", q.phrase(of, name)
        unit = "points" if q.scale != 1 else ""
        yield f"{q.short}, against dense", q.phrase(of, q.delta, unit)
        yield f"{q.short}, always the {q.baseline}", q.phrase(of, q.baseline_column)
    for words, name in (("RMSE", "rmse"), ("RMSE, always the median answer", "rmse_median")):
        yield words, number(of[name]) if name in of else ""
    if "unparsable" in of:
        yield "answers that are no number", percent(of["unparsable"], decimals=1)
