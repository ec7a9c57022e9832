"""One evaluation result in the terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swe_cli.records import Row
from swe_cli.reporting.text import KIND_NAMES, bracket, exact, number, percent


def print_row(console: Console, row: Row) -> None:
    """Label and value, one pair a line; what was not measured is left out.

    Intervals are over the windows of the test split; losses and deltas in nats per token.
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
        "recovery": row.recovery,
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
    if row.compression is not None:
        yield "compression", percent(row.compression, decimals=2)
    yield from _measures(row)
    yield "protocol", row.fingerprint


def _measures(row: Row) -> Iterator[tuple[str, str]]:
    losses = (
        ("loss before recovery", row.loss_before_recovery_nats, None, None),
        ("loss", row.loss_nats, row.loss_low, row.loss_high),
        ("loss, random batches", row.random_batches_loss_nats, None, None),
    )
    for name, mean, low, high in losses:
        if mean is not None:
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
        if mean is not None:
            bounds = bracket(low, high, signed=True)
            yield name, f"{number(mean, signed=True)} {bounds}".strip()
    rest = (
        ("bits per character", row.bits_per_character),
        ("perplexity", row.perplexity),
        ("overlap with magnitude", row.jaccard_magnitude),
    )
    yield from ((name, number(value)) for name, value in rest if value is not None)
