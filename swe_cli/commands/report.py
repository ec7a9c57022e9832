"""swe report: rows that are there already → table, figures, terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swe_cli.commands.present import present
from swe_cli.commands.shared import chosen_run, config_root, output, read_words, training_of
from swe_cli.compose import compose
from swe_cli.errors import RunError
from swe_cli.files import read_json
from swe_cli.records import Row, Scalar
from swe_cli.runs import Run
from swe_cli.sweeps.build import results_root

ANY = ("sweep", "train", "prune")


def report(
    words: Sequence[str], config_dir: Path | None, *, folder: Path | None, quiet: bool
) -> None:
    """Report a sweep, or every cut of a training; the newest sweep, unless named."""
    root, tokens = config_root(config_dir), read_words("report", words, runs=1)
    results = results_root(compose("report", tokens.overrides, root).values["results_dir"])
    kinds = ANY if tokens.runs else _newest_kinds(results)
    run = chosen_run(tokens, results, kinds, "Make some rows: swe sweep experiment=demo")
    if run.kind == "prune":
        run = training_of(run)
    rows = _rows_of_sweep(run) if run.kind == "sweep" else _rows_of_training(run)
    if not rows:
        raise RunError(
            f"{run.name} has no rows yet.",
            f"Cut it: swe prune {run.name} --ratio 0.5, or name another run: swe runs",
        )
    own = run.path if run.kind == "sweep" else run.path / "report"
    console = output()
    # A run named by its path has its trainings beside it, wherever that is.
    results = run.path.parent.parent
    written = present(console, folder.expanduser() if folder else own, rows, root, results)
    if not quiet:
        console.print()
        for path in written:
            console.print(str(path), markup=False, soft_wrap=True)


def _newest_kinds(results: Path) -> tuple[str, ...]:
    """Sweeps where there is one, else whatever has been cut."""
    finished = [path for path in (results / "runs").glob("sweep-*") if Run(path).finished]
    return ("sweep",) if finished else ("prune", "train")


def _rows_of_sweep(run: Run) -> list[Row]:
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


def _rows_of_training(run: Run) -> list[Row]:
    """Every cut of a training; what was set differently among them becomes an axis."""
    found = []
    for path in sorted((run.path.parent / "cells").glob("*/row.json")):
        row = Row.from_json(read_json(path))
        if row.training == run.name:
            found.append((row, _options(read_json(path.with_name("cell.json")))))
    values: dict[str, set[Scalar]] = {}
    for _, options in found:
        for key, value in options.items():
            values.setdefault(key, set()).add(value)
    varied = {key for key, seen in values.items() if len(seen) > 1}
    return [
        replace(row, axes={key: value for key, value in options.items() if key in varied})
        for row, options in found
    ]


def _options(config: Mapping[str, Any]) -> dict[str, Scalar]:
    """``recovery.steps`` and the like: all of a cell that has no column of its own."""
    return {
        f"{group}.{key}": value
        for group, options in config.items()
        if isinstance(options, Mapping)
        for key, value in options.items()
        if key != "name"
    }
