"""A sweep run: trainings, then controls, then cells. What is already there is not run again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from swe_cli.errors import Interrupted, SweError, TrainingError
from swe_cli.files import read_json, write_json
from swe_cli.pruning.recover import Watch
from swe_cli.records import Row
from swe_cli.runs import Run
from swe_cli.sweeps.build import TrainingPlan
from swe_cli.sweeps.cell import Cell
from swe_cli.sweeps.cells import judge_of, run_cell, staged
from swe_cli.sweeps.plan import PlannedCell, SweepPlan
from swe_cli.training.loop import Hook
from swe_cli.training.train import lacks, serves, train_run


class Observer(Protocol):
    """Who watches a sweep; every call is information, none is a question."""

    def say(self, text: str) -> None: ...

    def training(self, name: str, steps: int) -> Hook: ...

    def cells(self, total: int, reused: int) -> None: ...

    def cell_done(self, row: Row) -> None: ...


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


def ensure_trained(
    plan: TrainingPlan,
    results: Path,
    observer: Observer,
    stop: Callable[[], bool],
    *,
    resume: str,
    wait: bool = False,
) -> bool:
    """Train unless a finished run already serves; whether training ran.

    A finished run that lacks a statistic or a snapshot is trained again, and that is said.
    """
    run = plan.run(results)
    if serves(run, plan.statistics, plan.snapshots):
        _follow_moved_files(run, plan)
        return False
    with run.hold(wait):
        if serves(run, plan.statistics, plan.snapshots):  # finished while we waited
            return False
        if plan.first is not None:
            ensure_trained(plan.first, results, observer, stop, resume=resume, wait=wait)
        if run.finished:
            recorded = run.manifest["tracker"]["statistics"]
            missing = ", ".join(lacks(run, plan.statistics, plan.snapshots))
            observer.say(f"{run.name} did not record {missing}: training it again.")
            plan = replace(plan, statistics=tuple(sorted({*plan.statistics, *recorded})))
        training = plan.build(results)
        for note in getattr(training.dataset, "notes", ()):
            observer.say(note)
        if training.dataset.shape.image and not getattr(training.model, "image_tokens", 1):
            observer.say("This model reads the questions only; one that looks: model=llava_nano")
        hook = observer.training(run.name, training.recipe.steps)
        train_run(run, training, [hook], stop, resume)
    return True


def _follow_moved_files(run: Run, plan: TrainingPlan) -> None:
    """The same text at another path is the same training; later commands read it there."""
    if run.config["paths"] != plan.config["paths"]:
        write_json(run.path / "config.json", plan.config)


def execute(
    plan: SweepPlan,
    results: Path,
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
    for training in plan.trainings:
        try:
            outcome.trained += ensure_trained(
                training, results, observer, stop, resume=resume, wait=wait
            )
        except TrainingError as error:
            observer.say(f"{training.name}: {error.message}")
            path = training.run(results).path
            lost = [planned for planned in plan.cells if planned.cell.training == path]
            rows |= {p.cell.hash: _failed(p, training, error) for p in lost}
    if outcome.trained:
        outcome.stages["training"] = time.perf_counter() - started
    trainings = {training.run(results).path: training for training in plan.trainings}
    possible = [planned for planned in plan.cells if planned.cell.hash not in rows]
    missing = [planned for planned in possible if not planned.cell.done]
    outcome.reused = len(possible) - len(missing)
    observer.cells(len(possible), outcome.reused)
    rows |= {p.cell.hash: _shown(p.cell.row(), p) for p in possible if p.cell.done}
    for controls in (True, False):  # controls first: pruned cells read their windows
        jobs = [p for p in missing if (p.cell.kind != "pruned") is controls]
        job = partial(_run, watch=Watch(stop=stop), resume=resume)
        for planned, result in plan.launcher.map(job, jobs):
            if isinstance(result, Row):
                row = _shown(result, planned)
            else:
                row = _failed(planned, trainings[planned.cell.training], result)
            rows[planned.cell.hash] = row
            outcome.ran += 1
            _add_stages(outcome.stages, planned.cell)
            observer.cell_done(row)
    outcome.rows = [rows[planned.cell.hash] for planned in plan.cells]
    outcome.seconds = time.perf_counter() - started
    return outcome


def _run(planned: PlannedCell, watch: Watch, resume: str) -> Row:
    if watch.stop():
        raise Interrupted("Stopped between cells; finished cells are safe.", resume)
    return run_cell(planned.cell, watch)


def _shown(row: Row, planned: PlannedCell) -> Row:
    return replace(row, axes=planned.axes)


def _failed(planned: PlannedCell, training: TrainingPlan, error: BaseException) -> Row:
    """The row of a cell that could not be measured: visible, not kept as done, so tried again."""
    described, cell = training.config["identity"], planned.cell
    config = cell.config
    names: dict[str, Any] = {
        group: config[group]["name"]
        for group in ("allocation", "pattern", "recovery")
        if group in config
    }
    if cell.kind == "pruned":
        names["criterion"] = config[judge_of(config)]["name"]
    return Row(
        kind=cell.kind,
        status="failed",
        error=_in_one_line(error),
        model=described["model"]["name"],
        data=described["data"]["name"],
        seed=described["seed"],
        config_hash=cell.hash,
        fingerprint="",
        training=cell.training.name,
        axes=planned.axes,
        **names,
        **{key: config[key] for key in ("base", "prunable", "ratio", "rate") if key in config},
        **staged(config),
        roles=config.get("roles"),
    )


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, SweError):
        return error.message
    return " ".join(f"{type(error).__name__}: {error}".split())


def _add_stages(stages: dict[str, float], cell: Cell) -> None:
    path = cell.folder / "timing.json"
    seconds = read_json(path)["seconds"] if path.is_file() else {}
    for stage, duration in seconds.items():
        stages[stage] = stages.get(stage, 0.0) + duration


def timings(plan: SweepPlan, results: Path) -> list[dict[str, Any]]:
    """One line per training and cell: where and how long. Never part of the table."""
    lines: list[dict[str, Any]] = []
    for training in plan.trainings:
        if not training.run(results).finished:
            continue
        manifest = training.run(results).manifest
        steps, per_step = manifest["results"]["steps"], manifest["seconds_per_step"]
        seconds = {"training_seconds": steps * per_step}
        lines.append({"name": training.name, "host": manifest["host"], **seconds})
    for planned in plan.cells:
        path = planned.cell.folder / "timing.json"
        if path.is_file():
            stored = read_json(path)
            seconds = {f"{stage}_seconds": s for stage, s in stored["seconds"].items()}
            lines.append({"name": planned.cell.hash, "host": stored["host"], **seconds})
    return lines
