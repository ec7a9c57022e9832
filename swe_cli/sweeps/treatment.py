"""What is done to the model of a cell: loaded, cut, trained on, and measured on the way."""

import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from swe_cli.contracts import (
    Lens,
    Masks,
    Model,
    Tensors,
    UnitPattern,
)
from swe_cli.errors import PruningError
from swe_cli.evaluation.cost import cost
from swe_cli.evaluation.loss import Evaluation, random_batches_loss
from swe_cli.evaluation.measure import Measured, measure
from swe_cli.masks.masks import sparsity
from swe_cli.pruning.continued import Continued
from swe_cli.pruning.cut import cut, zeros
from swe_cli.pruning.fuse import fuse
from swe_cli.pruning.recover import Recovering, Recovery, Watch
from swe_cli.pruning.schedule import Schedule
from swe_cli.pruning.shrink import load, shrink
from swe_cli.pruning.transform import Transformed, Tried, transform
from swe_cli.sweeps.cell import Cell
from swe_cli.sweeps.cutting import Cutting, Start, live
from swe_cli.sweeps.subject import Subject
from swe_cli.training.loop import as_module

BASE_OF_CONTROL = {"dense_best": "best", "dense_averaged": "averaged"}


@dataclass
class Treated:
    """What became of a model. ``before`` recovery is None where it was cut in rounds during it.

    ``weights`` are without the units that were cut whole. ``grid``: what a transform tried.
    ``cost``: of a model that is smaller than the dense one; a masked one is not.
    """

    weights: Tensors
    masks: Masks
    sparsity: float
    before: Measured | None
    after: Measured
    random_batches_nats: float | None
    compression: float
    jaccard: float | None
    seconds: dict[str, float]
    grid: tuple[Tried, ...] = ()
    cost: dict[str, float] = field(default_factory=dict)


def treat(cell: Cell, subject: Subject, watch: Watch) -> Treated:
    """Do to the one live model of ``subject`` what a cell stands for, and measure it."""
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    evaluation: Evaluation = cell.built("evaluation")
    start = _start(cell, subject)
    model = subject.load(start.weights)
    clock.lap("load")
    lens = subject.lens(cell.config.get("prunable", "linear"), cell.config.get("roles", "all"))
    work = _Work(cell, subject, model, lens, start, watch, evaluation, clock)
    if "transform" in cell.config:
        work.transform()
    elif cell.kind == "pruned":
        work.prune()
    else:
        work.control()
    blinded = cell.kind == "dense_blind"
    random_nats = None if blinded else random_batches(subject, evaluation)
    clock.lap("evaluation")
    assert work.after is not None
    weights = live(model)
    dense, stored = (sum(w.numel() for w in of.values()) for of in (start.weights, weights))
    treated = Treated(
        weights,
        work.masks,
        sparsity(work.masks) if work.masks else 0.0,
        work.before,
        work.after,
        random_nats,
        1 - (stored - zeros(weights)) / dense,
        work.jaccard,
        seconds,
    )
    if work.transformed is not None:
        prunable = sum(w.numel() for w in lens(start.weights).values())
        treated.sparsity, treated.grid = (dense - stored) / prunable, work.transformed.tried
        treated.cost = _cost(subject) | {"rank": float(work.transformed.chosen.rank)}
    elif takes_units_out(cell):
        treated.weights = shrink(model, weights)
        subject.load(treated.weights)
        treated.cost = _cost(subject)
    return treated


def takes_units_out(cell: Cell) -> bool:
    """Whether what is cut whole is taken out of the model that is kept."""
    units = "pattern" in cell.config and isinstance(cell.built("pattern"), UnitPattern)
    return cell.kind == "pruned" and (units or "fuse" in cell.config)


def _cost(subject: Subject) -> dict[str, float]:
    found = cost(subject.model, subject.dataset.shape)
    return {name: float(value) for name, value in asdict(found).items()}


def extra_steps(cell: Cell, subject_steps: int) -> int:
    """Training steps that a cell takes, for a progress bar. ``subject_steps``: the training's."""
    recovery: Recovery = cell.built("recovery")
    at_step = cell.built("schedule").at_step if "schedule" in cell.config else None
    rest = 0 if at_step is None else subject_steps - at_step
    return rest + recovery.steps + (recovery.steps // 2 if "fuse" in cell.config else 0)


def _start(cell: Cell, subject: Subject) -> Start:
    base = BASE_OF_CONTROL.get(cell.kind, cell.config.get("base", "final"))
    at_step = cell.built("schedule").at_step if "schedule" in cell.config else None
    if at_step is None:
        return Start(subject.weights(base), subject.trajectory)
    kept = subject.after(at_step)
    seen = kept.trajectory if kept.observations else {}
    if base == "averaged":
        if not seen:
            raise PruningError(f"Nothing had been averaged by step {at_step}.", "Write base=final")
        return Start({**kept.weights, **seen["weighted_average"]}, seen)
    return Start(kept.weights, seen)


@dataclass
class _Work:
    """A cell being worked on."""

    cell: Cell
    subject: Subject
    model: Model
    lens: Lens
    start: Start
    watch: Watch
    evaluation: Evaluation
    clock: "_Clock"
    masks: Masks = field(default_factory=dict)
    jaccard: float | None = None
    before: Measured | None = None
    after: Measured | None = None
    transformed: Transformed | None = None

    def control(self) -> None:
        """Nothing is cut."""
        blinded = self.subject.seed if self.cell.kind == "dense_blind" else None
        self.before = self.after = self._measured(blinded)
        if "recovery" in self.cell.config:
            steps = self.cell.built("recovery").steps
            self._recover(steps)
            if "fuse" in self.cell.config:  # nothing is cut, but as many steps are taken
                self._recover(steps // 2, done=steps)

    def transform(self) -> None:
        """Rewrite matrices, the best of a grid; then recover, which trains the factors."""
        self.transformed = transform(
            self.model,
            self.start.weights,
            self.cell.built("transform"),
            self.subject.dataset,
            self.lens,
            seed=self.subject.seed,
            machine=self.subject.machine,
            batch_size=self.evaluation.batch_size,
            stop=self.watch.stop,
        )
        self.clock.lap("transform")
        self.before = self.after = self._measured()
        self._recover(self.cell.built("recovery").steps)

    def prune(self) -> None:
        """Cut in the rounds of the schedule; train between them and after."""
        schedule: Schedule = self.cell.built("schedule")
        recovery: Recovery = self.cell.built("recovery")
        if schedule.at_step is not None:
            rest = self._rest_of_training(schedule.at_step)
            steps = rest.left
            for done in range(1, schedule.rounds + 1):
                self._cut(schedule, done)
                rest.run(schedule.steps_of(done, steps), self.masks)
                self.clock.lap("training")
        elif schedule.rounds == 1:
            self._cut(schedule, 1)
        else:
            recovering = self._recovering(recovery)
            for done in range(1, schedule.rounds + 1):
                self._cut(schedule, done)
                recovering.run(schedule.steps_of(done, recovery.steps), self.masks)
                self.clock.lap("recovery")
            self.after = self._measured()
        if self.after is None:
            self.before = self.after = self._measured()
            self._recover(recovery.steps)
        if "fuse" in self.cell.config:
            self._fuse(self.cell.config["fuse"], recovery)
        self.masks = {name: mask.cpu() for name, mask in self.masks.items()}

    def _recover(self, steps: int, done: int = 0) -> None:
        if steps:
            self._recovering(self.cell.built("recovery"), done).run(steps, self.masks)
            self.clock.lap("recovery")
            self.after = self._measured()

    def _fuse(self, most_zeros: float, recovery: Recovery) -> None:
        """The paper recovers from it for half as long, with a fresh optimizer."""
        weights = self.lens(live(self.model))
        self.masks, self.jaccard = fuse(weights, self.masks, most_zeros), None
        cut(live(self.model), self.masks, self.lens)
        self.clock.lap("cut")
        self.after = self._measured()
        self._recover(recovery.steps // 2, done=recovery.steps)

    def _cut(self, schedule: Schedule, done: int) -> None:
        self.masks, self.jaccard = Cutting(
            self.cell, self.subject, self.lens, self.start, self.masks, done
        ).masks(schedule.fraction(done))
        cut(live(self.model), self.masks, self.lens)
        self.clock.lap("cut")

    def _measured(self, shuffle_images: int | None = None) -> Measured:
        measured = measured_on(self.subject, self.evaluation, shuffle_images)
        self.clock.lap("evaluation")
        return measured

    def _recovering(self, recovery: Recovery, done: int = 0) -> Recovering:
        return recovery.begin(
            self.model,
            self.subject.dataset,
            self.lens,
            seed=self.subject.seed,
            machine=self.subject.machine,
            batch_size=self.subject.recipe.batch_size,
            teacher=partial(_teacher, self.subject, self.cell.config.get("base", "final")),
            watch=self.watch,
            done=done,
        )

    def _rest_of_training(self, step: int) -> Continued:
        optimizer = self.subject.recipe.build_optimizer(as_module(self.model).parameters())
        self.subject.after(step).resume(optimizer)
        return Continued(
            self.model,
            self.subject.dataset,
            self.lens,
            self.subject.recipe,
            optimizer,
            self.subject.seed,
            self.subject.machine,
            self.watch,
            step,
        )


def _teacher(subject: Subject, base: str) -> Model:
    """The dense model, apart from the live one. Of an early cut it is the one training ended with:
    what it was cut from had learned little.
    """
    taught = deepcopy(subject.model)
    load(as_module(taught), subject.weights(base), subject.run.name)
    as_module(taught).eval().requires_grad_(False)
    return taught


def measured_on(
    subject: Subject, evaluation: Evaluation, shuffle_images: int | None = None
) -> Measured:
    """Measure the live model. PruningError where its loss is not a number."""
    measured = measure(
        subject.model,
        subject.dataset,
        evaluation,
        machine=subject.machine,
        shuffle_images=shuffle_images,
    )
    if not measured.finite:
        raise PruningError("The loss of the cut model is not a finite number.")
    return measured


def random_batches(subject: Subject, evaluation: Evaluation) -> float | None:
    """The live model's loss over random windows, where the protocol asks for it."""
    if not evaluation.random_batches:
        return None
    return random_batches_loss(
        subject.model,
        subject.dataset,
        evaluation.split,
        batches=evaluation.random_batches,
        size=evaluation.batch_size,
        seed=subject.seed,
        machine=subject.machine,
    )


class _Clock:
    """Wall seconds by stage."""

    def __init__(self, seconds: dict[str, Any]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now
