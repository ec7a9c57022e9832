"""swe report: rows that are there already → table, figures, terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from swe_cli.commands.present import present
from swe_cli.commands.shared import chosen_run, config_root, output, read_words, training_of
from swe_cli.compose import ConfigRoot, compose, default_part
from swe_cli.compose.suggest import did_you_mean
from swe_cli.contracts import WindowLosses
from swe_cli.errors import RunError, UsageError
from swe_cli.evaluation.measure import Measured
from swe_cli.files import read_json, read_tensors
from swe_cli.records import Row, Scalar
from swe_cli.reporting.against import compare_with
from swe_cli.reporting.against_report import print_comparisons, write_comparisons
from swe_cli.reporting.aggregate import split_by_protocol
from swe_cli.runs import Run
from swe_cli.sweeps.build import results_root

ANY = ("sweep", "train", "prune")


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
    root, tokens = config_root(config_dir), read_words("report", words, runs=1)
    results = results_root(compose("report", tokens.overrides, root).values["results_dir"])
    kinds = ANY if tokens.runs else _newest_kinds(results)
    run = chosen_run(tokens, results, kinds, "Make some rows: swe sweep experiment=demo")
    if run.kind == "prune":
        run = training_of(run)
    rows = rows_of_sweep(run) if run.kind == "sweep" else _rows_of_training(run, root)
    if not rows:
        raise RunError(
            f"{run.name} has no rows yet.",
            f"Cut it: swe prune {run.name} --ratio 0.5, or name another run: swe runs",
        )
    if against is not None:
        _check_criterion(against, rows)
    own = run.path if run.kind == "sweep" else run.path / "report"
    console = output()
    # A run named by its path has its trainings beside it, wherever that is.
    results = run.path.parent.parent
    place = folder.expanduser() if folder else own
    written = present(console, place, rows, root, results)
    if against is not None:
        written += _compare(console, place, rows, against, run.path.parent / "cells")
    if not quiet:
        console.print()
        for path in written:
            console.print(str(path), markup=False, soft_wrap=True)


def _check_criterion(name: str, rows: Sequence[Row]) -> None:
    known = sorted({row.criterion for row in rows if row.criterion})
    if name not in known:
        raise UsageError(
            f"--against {name}: no row is of that criterion.{did_you_mean(name, known)}",
            f"Criteria of these rows: {', '.join(known) or 'none'}.",
        )


def _compare(
    console: Console, folder: Path, rows: Sequence[Row], criterion: str, cells: Path
) -> list[Path]:
    """Paired differences to ``criterion``, protocol by protocol."""

    def windows(row: Row) -> tuple[WindowLosses, WindowLosses | None]:
        after, before = _windows(cells, row.config_hash)
        # Where recovery lies between cuts, no loss is one before it.
        return after, None if row.loss_before_recovery_nats is None else before

    groups = []
    for group in split_by_protocol(rows):
        compared = compare_with(group, criterion, windows)
        if any(one.other for one in compared):
            print_comparisons(console, compared, criterion)
        groups.append(compared)
    return write_comparisons(groups, folder, criterion)


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


def _newest_kinds(results: Path) -> tuple[str, ...]:
    """Sweeps where there is one, else whatever has been cut."""
    finished = [path for path in (results / "runs").glob("sweep-*") if Run(path).finished]
    return ("sweep",) if finished else ("prune", "train")


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
    found = []
    for path in sorted((run.path.parent / "cells").glob("*/row.json")):
        row = Row.from_json(read_json(path))
        if row.training == run.name:
            found.append((row, _options(read_json(path.with_name("cell.json")), root)))
    values: dict[str, set[Scalar]] = {}
    for _, options in found:
        for key, value in options.items():
            values.setdefault(key, set()).add(value)
    said = [key for key in values if any(key not in options for _, options in found)]
    varied = {*said, *(key for key, seen in values.items() if len(seen) > 1)}
    return [
        replace(row, axes={key: value for key, value in options.items() if key in varied})
        for row, options in found
    ]


def _options(config: Mapping[str, Any], root: ConfigRoot) -> dict[str, Scalar]:
    """``recovery.steps`` and the like: all of a cell that has no column of its own, and is not as
    its YAML has it.
    """
    return {
        f"{group}.{key}": ",".join(map(str, value)) if isinstance(value, list) else value
        for group, options in config.items()
        if isinstance(options, Mapping) and group != "consulted"
        for key, value in options.items()
        if key != "name" and not isinstance(value, Mapping)
        if value != _usual(group, options["name"], root).get(key)
    }


def _usual(group: str, name: str, root: ConfigRoot) -> dict[str, Any]:
    """The options of a choice's YAML; none where it is a user's that is not at hand."""
    return default_part(group, name, root).describe() if name in root.options(group) else {}
