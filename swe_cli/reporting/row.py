"""One evaluation result in the terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swe_cli.records import COSTS, Row
from swe_cli.reporting.quantity import ACCURACY, OF_QUESTIONS, Quantity
from swe_cli.reporting.text import KIND_NAMES, bracket, exact, number, percent


def print_row(console: Console, row: Row) -> None:
    """Label and value, one pair a line; what was not measured is left out.

    Intervals are over the windows of the test split; losses and deltas in nats per token, accuracy
    in % with its deltas in percentage points.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _pairs(row):
        grid.add_row(Text(name, "dim"), Text(value))
    console.print(grid)


def _pairs(row: Row) -> Iterator[tuple[str, str]]:
    yield "model", f"{row.model} on {row.data}, seed {row.seed}"
    yield "kind", KIND_NAMES[row.kind]
    if row.kind == "pruned":
        yield "criterion", str(row.criterion)
    settings = {
        "allocation": row.allocation,
        "pattern": row.pattern,
        "base": row.base,
        "prunable set": row.prunable if row.kind == "pruned" else None,
        "roles": row.roles if row.kind == "pruned" else None,
        "recovery": row.recovery,
        "schedule": row.schedule,
        "fuse": exact(row.fuse),
        "ratio": exact(row.ratio),
        "rate": exact(row.rate),
        **{name: str(value) for name, value in sorted(row.axes.items())},
    }
    yield from ((name, value) for name, value in settings.items() if value)
    if row.status == "failed":
        yield "failed", row.error or "no message"
        return
    if row.sparsity is not None:
        yield "sparsity", percent(row.sparsity, decimals=2)
    for name, value in sorted(row.measures.items()):
        if name.startswith("sparsity."):
            yield f"sparsity of {name.removeprefix('sparsity.')}", percent(value, decimals=2)
    if row.compression is not None:
        yield "compression", percent(row.compression, decimals=2)
    for name in (name for name in COSTS if name in row.measures):
        yield name.replace("_", " "), f"{row.measures[name]:,.0f}"
    yield from _measures(row)
    yield from _answers(row)
    yield "protocol", row.fingerprint


def _measures(row: Row) -> Iterator[tuple[str, str]]:
    losses = (
        ("loss before recovery", row.loss_before_recovery_nats, None, None),
        ("loss", row.loss_nats, row.loss_low, row.loss_high),
        ("loss, random batches", row.random_batches_loss_nats, None, None),
    )
    for name, mean, low, high in losses:
        if mean is not None and (row.recovery != "none" or "before" not in name):
            yield name, f"{number(mean)} nats per token {bracket(low, high)}".strip()
    deltas = (
        ("against dense", row.delta_nats, row.delta_low, row.delta_high),
        (
            "before recovery, against dense",
            row.delta_before_recovery_nats,
            row.delta_before_recovery_low,
            row.delta_before_recovery_high,
        ),
        (
            "against dense recovered",
            row.delta_recovered_nats,
            row.delta_recovered_low,
            row.delta_recovered_high,
        ),
    )
    for name, mean, low, high in deltas:
        if mean is not None and (row.recovery != "none" or "before" not in name):
            bounds = bracket(low, high, signed=True)
            yield name, f"{number(mean, signed=True)} {bounds}".strip()
    rest = (
        ("bits per character", row.bits_per_character),
        ("perplexity", row.perplexity),
        ("overlap with magnitude", row.jaccard_magnitude),
    )
    yield from ((name, number(value)) for name, value in rest if value is not None)


def _answers(row: Row) -> Iterator[tuple[str, str]]:
    """Accuracy and MAE with what there is to compare them with; nothing of a text."""
    measures = row.measures
    for quantity in OF_QUESTIONS:
        name, short = quantity.name, quantity.short
        before = measures.get(f"{name}_before_recovery")
        if before is not None:
            yield f"{short} before recovery", quantity.spell(before)
        yield from _with_interval(row, quantity, name, short)
        if quantity is ACCURACY:
            for kind, value in sorted(measures.items()):
                if kind.startswith("accuracy."):
                    yield f"  {kind.removeprefix('accuracy.')}", quantity.spell(value)
        yield from _with_interval(row, quantity, f"delta_{name}", f"{short}, against dense")
        baseline = measures.get(quantity.baseline_measure)
        if baseline is not None:
            yield f"{short}, always the {quantity.baseline}", quantity.spell(baseline)
    rest = (("RMSE", "rmse"), ("RMSE, always the median answer", "rmse_median"))
    yield from ((words, number(measures[name])) for words, name in rest if name in measures)
    if "unparsable" in measures:
        yield "answers that are no number", percent(measures["unparsable"], decimals=1)


def _with_interval(
    row: Row, quantity: Quantity, name: str, words: str
) -> Iterator[tuple[str, str]]:
    mean, signed = row.measures.get(name), name.startswith("delta_")
    if mean is None:
        return
    low, high = (row.measures.get(f"{name}_{end}") for end in ("low", "high"))
    unit = " points" if signed and quantity is ACCURACY else ""
    bounds = quantity.bracket(low, high, signed=signed)
    yield words, f"{quantity.spell(mean, signed=signed)}{unit} {bounds}".strip()
