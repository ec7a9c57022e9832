"""swe report: rows that are there already → table, figures, terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from swe_cli.commands.present import present, published_allocations
from swe_cli.commands.shared import Page, page, training_of
from swe_cli.config import ConfigRoot, component, did_you_mean
from swe_cli.contracts import WindowLosses
from swe_cli.errors import RunError, UsageError
from swe_cli.evaluation.measure import Measured
from swe_cli.files import read_json, read_tensors
from swe_cli.records import Row, Scalar
from swe_cli.report.against import compare_with, print_comparisons, write_comparisons
from swe_cli.report.tables import frame, split_by_protocol
from swe_cli.store import Run, list_runs


def report(
    words: Sequence[str],
    config_dir: Path | None,
    *,
    folder: Path | None,
    against: str | None,
    quiet: bool,
) -> None:
    """Report a sweep, or every cut of a training; the newest sweep, unless named.

    ``against``: a criterion that every line is then also compared with.
    """
    this = page("report", words, config_dir, runs=1)
    kinds: tuple[str, ...] = ("sweep", "train", "prune")
    if not this.tokens.runs:  # sweeps where there is one, else whatever has been cut
        swept = any(run.finished for run in list_runs(this.results, ("sweep",)))
        kinds = ("sweep",) if swept else ("prune", "train")
    otherwise = "Make some rows: swe sweep experiment=demo"
    run = this.chosen_run(kinds, otherwise, "Reporting", quiet=True)
    if run.kind == "prune":
        run = training_of(run)
    table = _table(run, this.root)
    if against is not None:
        known = sorted(table["criterion"].dropna().unique())
        if against not in known:
            raise UsageError(
                f"--against {against}: no row is of that criterion.{did_you_mean(against, known)}",
                f"Criteria of these rows: {', '.join(known) or 'none'}.",
            )
    own = run.path if run.kind == "sweep" else run.path / "report"
    place = folder.expanduser() if folder else own
    # A run named by its path has its trainings beside it, wherever that is.
    written = present(this.console, place, table, this.root, run.path.parent)
    if against is not None:
        written += _compare(this, place, table, against, run.path.parent / "cells")
    if not quiet:
        this.console.print()
        for path in written:
            this.console.print(str(path), markup=False, soft_wrap=True)


def _table(run: Run, root: ConfigRoot) -> pd.DataFrame:
    """All rows of a sweep or of a training. RunError, with what to type, where there is none."""
    rows = rows_of_sweep(run) if run.kind == "sweep" else _rows_of_training(run, root)
    if rows:
        return frame(rows)
    if run.kind == "sweep" and (run.path / "table.csv").is_file():
        return pd.read_csv(run.path / "table.csv")  # its cells are gone
    hint = f"Cut it: swe prune {run.name} --ratio 0.5, or name another run: swe runs"
    if run.kind == "sweep":
        hint = "Type the same swe sweep: it makes them. Or name another run: swe runs"
    raise RunError(f"{run.name} has no rows yet.", hint)


def _compare(
    this: Page, folder: Path, table: pd.DataFrame, criterion: str, cells: Path
) -> list[Path]:
    """Paired differences to ``criterion``, protocol by protocol."""
    published, _ = published_allocations(table["criterion"].dropna().unique(), this.root)
    windows = partial(_windows, cells)
    groups = [compare_with(group, criterion, windows) for group in split_by_protocol(table)]
    for compared in groups:
        if compared["compared_with"].notna().any():
            print_comparisons(this.console, compared, criterion, published)
    return write_comparisons(groups, folder, criterion, published)


@lru_cache(maxsize=256)
def _windows(cells: Path, config_hash: str) -> tuple[WindowLosses, WindowLosses]:
    """The losses of a cell's windows, after and before recovery."""
    path = cells / config_hash / "windows.safetensors"
    if not path.is_file():
        raise RunError(
            f"{path} is gone: without the windows of its cells nothing is compared.",
            "Put it back, or take out the cell's folder and type the same swe sweep again.",
        )
    stored = read_tensors(path)
    after = Measured.from_tensors(stored).losses
    # Stored only where recovery changed something.
    before = stored.get("nats_before_recovery", stored["nats"])
    return after, WindowLosses(before.numpy(), after.tokens)


def rows_of_sweep(run: Run) -> list[Row]:
    """The rows that a sweep has so far, failed ones among them."""
    if not (run.path / "cells.json").is_file():
        raise RunError(
            f"{run.name} is {run.status}.",
            "Type the same swe sweep: it goes on. Or report a training: swe report train-…",
        )
    failed = run.path / "failed.json"
    rows = [Row.from_json(values) for values in (read_json(failed) if failed.is_file() else [])]
    for entry in read_json(run.path / "cells.json"):
        path = run.path.parent / "cells" / entry["cell"] / "row.json"
        if path.is_file():
            rows.append(replace(Row.from_json(read_json(path)), axes=entry["axes"]))
    return rows


def _rows_of_training(run: Run, root: ConfigRoot) -> list[Row]:
    """Every cut of a training; what was set differently among them becomes an axis."""
    rows: list[Row] = []
    for path in sorted((run.path.parent / "cells").glob("*/row.json")):
        row = Row.from_json(read_json(path))
        if row.training == run.name:
            options = _options(read_json(path.with_name("cell.json")), root)
            rows.append(replace(row, axes=options))
    keys = {key for row in rows for key in row.axes}
    varied = {key for key in keys if len({row.axes.get(key) for row in rows}) > 1}
    return [replace(r, axes={k: v for k, v in r.axes.items() if k in varied}) for r in rows]


def _options(config: Mapping[str, Any], root: ConfigRoot) -> dict[str, Scalar]:
    """``recovery.steps`` and the like: all of a cell that has no column of its own, and is not as
    its YAML has it.
    """
    return {
        f"{group}.{key}": ",".join(map(str, value)) if isinstance(value, list) else value
        for group, options in config.items()
        if isinstance(options, Mapping) and "name" in options
        for key, value in options.items()
        if key != "name" and not isinstance(value, Mapping)
        if value != _usual(group, options["name"], root).get(key)
    }


def _usual(group: str, name: str, root: ConfigRoot) -> dict[str, Any]:
    """The options of a choice's YAML; none where it is a user's that is not at hand."""
    return component(group, name, root).describe() if name in root.options(group) else {}
