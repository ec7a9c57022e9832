"""swe compare: runs side by side, the settings in which they differ and their losses, paired."""

from typing import Any

import pandas as pd

from swe_cli.commands.evidence import Beside
from swe_cli.commands.shared import Page, pruned_row
from swe_cli.config.root import dotted
from swe_cli.controls import DENSE
from swe_cli.errors import UsageError
from swe_cli.evaluation.measure import paired_difference
from swe_cli.experiments.cell import row_of
from swe_cli.files import read_or_none
from swe_cli.records import Interval, Row
from swe_cli.report.console import print_table, say
from swe_cli.report.text import NOTHING, number, word
from swe_cli.store import Run, find_run, training_of

LEGEND = (
    "Losses in nats per token; difference: less the first run's, paired over the windows of the "
    "test split, with its 95% interval. It is of this training only: of others, seeds tell."
)
LABELS = 22  # columns for the names of what differs
ALONE = "No protocol measured all of them; swe evaluate RUN measures a training."


def compare(this: Page) -> None:
    """Print in what runs, or the trainings of sweeps, differ. UsageError for fewer than two."""
    runs = [run for token in this.tokens.runs for run in _meant(find_run(token, this.results))]
    if len(runs) < 2:
        raise UsageError("Two runs are compared, or more.", "Name them: swe compare RUN RUN")
    settings, measured = [*map(_settings, runs)], [*map(_measured, runs)]
    rows: dict[str, list[Any]] = {}
    for key in sorted({key for of in settings for key in of}):
        # How weights were cut, a training does not say.
        told = [of.get(key) for of in settings if key in of or "criterion.name" in of]
        if any(value != told[0] for value in told):
            rows[key] = [of.get(key) for of in settings]
    for name in ("best_validation_loss_nats", "final_validation_loss_nats"):
        losses = [run.manifest.get("results", {}).get(name) for run in runs]
        rows |= {name: [loss and Interval(loss) for loss in losses]} if any(losses) else {}
    shared = next((one for one in measured[0] if all(one in of for of in measured)), None)
    if shared is not None:
        rows["loss_nats"] = [of[shared].metrics["loss"] for of in measured]
        hashes = [of[shared].config_hash for of in measured]
        beside = [Beside(run.path.parent, this.root) for run in runs]
        first, *others = (at.windows(of) for at, of in zip(beside, hashes, strict=True))
        rows["difference_nats"] = [None, *(paired_difference(of, first) for of in others)]
    lines = [
        [name.removesuffix("_nats").replace("_", " "), *(_spelt(value, name) for value in of)]
        for name, of in rows.items()
    ]
    heads = [run.name.replace("-", "\n") for run in runs]
    cells = [part for line in (heads, *lines) for cell in line[1:] for part in cell.split("\n")]
    room = max(1, (this.console.width - LABELS) // (1 + max(map(len, cells))))
    for start in range(0, len(runs), room):
        some = slice(start, start + room)
        some_lines = [[name, *of[some]] for name, *of in lines]
        print_table(this.console, ["", *heads[some]], some_lines)
    say(this.console, LEGEND if shared else ALONE, "dim")
    this.result({"runs": [run.name for run in runs], **rows})


def _meant(run: Run) -> list[Run]:
    """A run; of a sweep, its trainings."""
    run.check_finished()
    if run.kind != "sweep":
        return [run]
    names = pd.read_csv(run.path / "table.csv")["training"].unique()
    return [Run(run.path.parent / name) for name in names]


def _settings(run: Run) -> dict[str, Any]:
    """Dotted key → value of all that makes a run what it is."""
    nodes = run.config.get("cut", {}) | training_of(run).config["identity"]
    return {key: of for key, of in dotted(nodes) if not isinstance(of, dict)}


def _measured(run: Run) -> dict[str, Row]:
    """By protocol: the row of a cut, or those of a training's dense cells."""
    if run.kind == "prune":
        return {(row := pruned_row(run)).fingerprint: row}
    paths = sorted((run.path.parent / "cells").glob("*/row.json"))
    rows = (read_or_none(row_of, path.parent) for path in paths)
    kind = (DENSE.kind, run.name)
    return {row.fingerprint: row for row in rows if row and (row.kind, row.training) == kind}


def _spelt(value: Any, name: str) -> str:
    if isinstance(value, Interval):
        mean, low, high = (number(end, signed=name.startswith("diff")) for end in value)
        return mean if value.low is None else f"{mean}\n[{low}, {high}]"
    return NOTHING if value is None else word(value)[:24]
