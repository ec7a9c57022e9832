"""A sweep run: trainings, then controls, then cells. What is already there is not run again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from swe_cli.controls import PRUNED
from swe_cli.errors import Interrupted, SweError, TrainingError
from swe_cli.experiments.cell import Cell, Watch, run_cell
from swe_cli.experiments.plan import PlannedCell, SweepPlan
from swe_cli.experiments.training import Observer, TrainingSpec, ensure_trained, never
from swe_cli.files import read_json
from swe_cli.records import Row


@dataclass
class Outcome:
    """Rows in the plan's order, failed ones among them, and what it took to get them.

    ``stages``: wall seconds of this very run by stage (training, recovery, evaluation, …).
    """

    rows: list[Row] = field(default_factory=list)
    trained: int = 0
    ran: int = 0
    reused: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row.status == "failed"]


def cell_job(planned: PlannedCell, stop: Callable[[], bool] = never, *, resume: str) -> Row:
    """The row of a cell, run unless it is there."""
    if stop():
        raise Interrupted("Stopped between cells; finished cells are safe.", resume)
    return run_cell(planned.cell, Watch(stop=stop))


def run_sweep(
    plan: SweepPlan,
    observer: Observer,
    stop: Callable[[], bool],
    *,
    resume: str,
    wait: bool = False,
) -> Outcome:
    """Run what is missing of a plan. What fails becomes a row; the rest goes on.

    A training that diverges fails the rows of its own cells only.

    Raises Interrupted when ``stop`` asks; finished cells and checkpoints are safe by then.
    """
    outcome, started = Outcome(), time.perf_counter()
    rows: dict[str, Row] = {}
    train: Callable[[TrainingSpec], bool] = partial(ensure_trained, resume=resume)
    run: Callable[[PlannedCell], Row] = partial(cell_job, resume=resume)
    if plan.launcher.in_process:  # elsewhere nobody can look on
        train = partial(ensure_trained, observer=observer, stop=stop, resume=resume, wait=wait)
        run = partial(cell_job, stop=stop, resume=resume)
    for training, trained in plan.launcher.map(train, plan.trainings):
        if isinstance(trained, TrainingError):
            observer.say(f"{training.name}: {trained.message}")
            of_it = [p for p in plan.cells if p.cell.source.path == training.run.path]
            rows |= {p.cell.hash: _failed(p, training, trained) for p in of_it}
        elif isinstance(trained, BaseException):
            raise trained
        else:
            outcome.trained += trained
        _check_stop(plan, stop, resume)
    if outcome.trained:
        outcome.stages["training"] = time.perf_counter() - started
    trainings = {training.run.path: training for training in plan.trainings}
    cells = [planned for planned in plan.cells if planned.cell.hash not in rows]
    done = {p.cell.hash: replace(p.cell.row(), axes=p.axes) for p in cells if p.cell.done()}
    outcome.reused, rows = len(done), rows | done
    observer.cells(len(cells), outcome.reused)
    lost: dict[str, BaseException] = {}
    for controls in (True, False):  # controls first: pruned cells read their windows
        missing = [p for p in cells if p.cell.hash not in done]
        jobs = [p for p in missing if (p.cell.kind != PRUNED) is controls]
        for planned in [p for p in jobs if lost.keys() & {c.hash for c in p.cell.reads.values()}]:
            jobs.remove(planned)  # what it is compared with failed, and would again
            control = next(lost[c.hash] for c in planned.cell.reads.values() if c.hash in lost)
            training = trainings[planned.cell.source.path]
            rows[planned.cell.hash] = _failed(planned, training, control)
            observer.cell_done(rows[planned.cell.hash])
        for planned, result in plan.launcher.map(run, jobs):
            if isinstance(result, Row):
                row = replace(result, axes=planned.axes)
            else:
                row = _failed(planned, trainings[planned.cell.source.path], result)
                lost[planned.cell.hash] = result
            rows[planned.cell.hash] = row
            outcome.ran += 1
            for stage, seconds in _timing(planned.cell).get("seconds", {}).items():
                outcome.stages[stage] = outcome.stages.get(stage, 0.0) + seconds
            observer.cell_done(row)
            _check_stop(plan, stop, resume)
    outcome.rows = [rows[planned.cell.hash] for planned in plan.cells]
    outcome.seconds = time.perf_counter() - started
    return outcome


def _check_stop(plan: SweepPlan, stop: Callable[[], bool], resume: str) -> None:
    """Jobs in this process ask themselves, before they begin; of others somebody must."""
    if not plan.launcher.in_process and stop():
        raise Interrupted("Stopped between cells; finished cells are safe.", resume)


def _failed(planned: PlannedCell, training: TrainingSpec, error: BaseException) -> Row:
    """The row of a cell that could not be measured: visible, not kept as done, so tried again."""
    described, cell = training.config["identity"], planned.cell
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return Row(
        kind=cell.kind,
        status="failed",
        error=error.message if isinstance(error, SweError) else message,
        model=described["model"]["name"],
        data=described["data"]["name"],
        seed=described["seed"],
        config_hash=cell.hash,
        fingerprint="",
        training=training.name,
        settings=cell.spec.settings(),
        axes=planned.axes,
    )


def _timing(cell: Cell) -> dict[str, Any]:
    """Where a cell has run, and its wall seconds by stage."""
    path = cell.folder / "timing.json"
    return read_json(path) if path.is_file() else {}


def timings(plan: SweepPlan) -> list[dict[str, Any]]:
    """One line per training and cell: where and how long. Never part of the table."""
    lines: list[dict[str, Any]] = []
    for training in (training for training in plan.trainings if training.run.finished):
        manifest = training.run.manifest
        seconds = manifest["results"]["steps"] * manifest["seconds_per_step"]
        host = {"name": training.name, "host": manifest["host"]}
        lines.append({**host, "training_seconds": seconds})
    for cell in (planned.cell for planned in plan.cells):
        if timing := _timing(cell):
            by_stage = {f"{stage}_seconds": s for stage, s in timing["seconds"].items()}
            lines.append({"name": cell.hash, "host": timing["host"], **by_stage})
    return lines
