"""One cell, a recipe: load, prune, recover, measure, row. Cells are shared by all sweeps."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import filelock
import torch

from swe_cli.contracts import Evidence, Transform
from swe_cli.controls import DENSE
from swe_cli.evaluation.loss import Evaluation
from swe_cli.evaluation.measure import Measured, cost, measure, metrics
from swe_cli.experiments.model import TrainedModel, TrainedRun
from swe_cli.experiments.spec import CutSpec, Spec, built, check_recorded
from swe_cli.experiments.training import never
from swe_cli.files import (
    canonical,
    read_json,
    read_tensors,
    storage,
    write_json,
    write_tensors,
)
from swe_cli.pruning.calibration import CalibratedModel
from swe_cli.pruning.masks import apply_masks, fuse, sparsity, zeros
from swe_cli.pruning.prune import (
    Scorer,
    check_evidence,
    overlap_with_magnitude,
    prune,
)
from swe_cli.pruning.recover import EnforceMasks, Recovery
from swe_cli.pruning.shrink import shrink
from swe_cli.pruning.transform import Transformed, transform
from swe_cli.records import COSTS, Interval, Masks, Row, Tensors
from swe_cli.store import identity, provenance
from swe_cli.training.checkpoint import load_optimizer
from swe_cli.training.state import Callback, StopWhen, TrainState, fit


@dataclass(frozen=True)
class Watch:
    """Who looks on: a progress bar, the user's Ctrl-C."""

    progress: Callback = field(default_factory=Callback)
    stop: Callable[[], bool] = never


@dataclass(frozen=True)
class Cell:
    """What one row stands for, and where it is kept: a job that can be pickled.

    ``training``: the hash of the training; ``machine``: the device it computes on, where that is
    not the training's; ``model_to``: a file to keep the pruned model in; ``reads``: the cells its
    deltas are measured against, by kind.
    """

    spec: Spec
    source: TrainedRun
    training: str
    machine: Mapping[str, Any] | None = None
    model_to: Path | None = None
    reads: Mapping[str, "Cell"] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.spec.kind

    @property
    def config(self) -> dict[str, Any]:
        """What is stored: plain values."""
        machine = {"machine": dict(self.machine)} if self.machine else {}
        return {"training": self.training, **machine, **self.spec.identity()}

    @cached_property
    def hash(self) -> str:
        return identity(self.config)

    @property
    def folder(self) -> Path:
        return self.source.path.parent / "cells" / self.hash

    def done(self) -> bool:
        """Whether its row, its windows and the model it keeps are there."""
        files = [self.folder / "row.json", self.folder / "windows.safetensors", self.model_to]
        return all(file is None or file.is_file() for file in files)

    def row(self) -> Row:
        """The stored row of a cell that is done."""
        return Row.from_json(read_json(self.folder / "row.json"))

    def windows(self) -> Measured:
        """Every window of a cell that is done: what deltas are paired over."""
        return Measured.from_tensors(read_tensors(self.folder / "windows.safetensors"))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from running the same cell; they wait, and find it done."""
        locks = self.folder.parent / ".locks"
        with storage(locks):
            locks.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(locks / self.hash):
            yield


def run_cell(cell: Cell, watch: Watch | None = None) -> Row:
    """Run a cell, and first the controls it is compared with, unless they are already there."""
    watch = watch or Watch()
    if cell.done():
        return cell.row()
    for reference in cell.reads.values():
        run_cell(reference, Watch(stop=watch.stop))
    with cell.hold():
        if not cell.done():  # or another process finished it while we waited
            references = {kind: reference.windows() for kind, reference in cell.reads.items()}
            trained = cell.source.open()
            _write(cell, trained, execute(cell.spec, trained, watch, references))
    return cell.row()


def execute(
    spec: Spec, trained: TrainedModel, watch: Watch, references: Mapping[str, Measured]
) -> "CellRun":
    """Do to the one live model of ``trained`` what a cell stands for, and measure it."""
    run = CellRun(spec, trained, watch)
    if run.cut_spec is not None:
        run.cut_or_transform(run.cut_spec)
    if run.after is None:  # in rounds, the recovery lay between the cuts
        run.before = run.after = run.measure()
        run.recover(spec.recovery_steps)
    if spec.fuse is not None:
        # The paper recovers from it for half as long; so does a control that nothing is cut of.
        run.fuse(spec.fuse)
        run.recover(spec.recovery_steps // 2, step=spec.recovery_steps)
    run.finish(references)
    return run


class CellRun:
    """A cell on its way: the live model of ``trained``, the masks on it, what was measured.

    ``before`` recovery is None where it was cut in rounds during it; ``after``, where the model
    changed since it was measured. ``seconds``: wall time by stage. In the end ``weights`` are
    without the units that were cut whole, and ``metrics`` all that was measured.
    """

    def __init__(self, spec: Spec, trained: TrainedModel, watch: Watch) -> None:
        self.spec, self.trained, self.watch = spec, trained, watch
        self.cut_spec = cut = spec if isinstance(spec, CutSpec) else None
        self.lens = trained.lens(cut.prunable if cut else "linear", (cut and cut.roles) or "all")
        self.masks: Masks = {}
        self.overlap: float | None = None
        self.before: Measured | None = None
        self.after: Measured | None = None
        self.transformed: Transformed | None = None
        self.weights: Tensors = {}
        self.metrics: dict[str, Interval] = {}
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()
        self.at_step = cut.plan.at_step if cut else None
        self.start, self.trajectory = trained.starting_point(spec.base, self.at_step)
        trained.load(self.start)
        self.lap("load")

    def lap(self, stage: str) -> None:
        """What has passed since the last lap was of this stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    # Prune

    def cut_or_transform(self, spec: CutSpec) -> None:
        """What is done to the weights, before they recover."""
        if spec.transform is not None:
            self.transform(built(spec.transform))
        else:
            self.prune(spec)

    def prune(self, spec: CutSpec) -> None:
        """Cut in the rounds of the schedule, and train between them."""
        schedule, recipe = spec.plan, self.trained.recipe
        if self.at_step is None and schedule.rounds == 1:
            self.cut(spec, 1)
            return
        if self.at_step is None:
            state, steps, stage = self._recovery(), spec.recovery_steps, "recovery"
        else:  # the very training goes on from there
            assert recipe is not None
            state, steps, stage = recipe.begin(self.trained), recipe.steps, "training"
            saved = self.trained.after(self.at_step).optimizer
            load_optimizer(self.trained.model, state.optimizer, saved)
            state.step, steps = self.at_step, recipe.steps - self.at_step
        for at_round in range(1, schedule.rounds + 1):
            self.cut(spec, at_round)
            self._fit(state, schedule.steps_of(at_round, steps), stage)
        if self.at_step is None:
            self.after = self.measure()

    def cut(self, spec: CutSpec, at_round: int) -> None:
        """One round of cuts. Criteria that update weights do so in the live model."""
        method, scorer, run = spec.method(at_round), self._scorer(spec), self.trained.name
        check_recorded(spec, self.trained.trajectory, run)
        for judge in (method.judge, *method.consulted.values()):
            check_evidence(judge, scorer.evidence, run, self.at_step)
        self.masks = prune(method, scorer, at_round)
        self.overlap = overlap_with_magnitude(method, scorer, self.masks)
        self._apply_masks()

    def fuse(self, most_zeros: float) -> None:
        """Cut whole what is mostly zeros, where anything was cut."""
        if self.masks:
            self.masks, self.overlap = fuse(self._live(), self.masks, most_zeros), None
            self._apply_masks()
            self.after = None

    def _apply_masks(self) -> None:
        apply_masks(self.masks, self._live())
        self.lap("cut")

    def _live(self) -> Tensors:
        """What may be cut of the live model, as views."""
        return self.lens(self.trained.model.weights())

    def _scorer(self, spec: CutSpec) -> Scorer:
        """Scores of the first round serve all ratios; later rounds judge weights of their own."""
        calibration = spec.calibration.describe() if spec.calibration else None
        key = canonical([spec.base, spec.prunable, spec.roles, calibration, self.at_step])
        if key in self.trained.scorers and not self.masks:
            return self.trained.scorers[key]
        weights = self.lens(self.start)
        if self.masks:
            weights = {name: w.to("cpu", copy=True) for name, w in self._live().items()}
        trajectory = {name: self.lens(of) for name, of in self.trajectory.items()}
        calibrated = None
        if spec.calibration is not None:
            calibrated = CalibratedModel(self.trained, spec.calibration.instance, self.lens)
        evidence = Evidence(weights, trajectory, self.trained.seed)
        scorer = Scorer(self.trained, self.lens, evidence, calibrated, self.masks)
        if not self.masks:
            self.trained.scorers[key] = scorer
        return scorer

    def transform(self, how: Transform) -> None:
        """Rewrite matrices, the best of a grid; recovery then trains the factors."""
        size = self.spec.evaluation.instance.batch_size
        stop = self.watch.stop
        self.transformed = transform(self.trained, self.start, how, self.lens, size, stop)
        self.lap("transform")

    # Recover

    def recover(self, steps: int, step: int = 0) -> None:
        """Train on with a fresh optimizer, on the batches after ``step``."""
        if steps:
            self._fit(self._recovery(step), steps, "recovery")
            self.after = None

    def _recovery(self, step: int = 0) -> TrainState:
        assert self.spec.recovery is not None
        recovery: Recovery = self.spec.recovery.instance
        teacher = partial(self.trained.teacher, self.spec.base)
        return recovery.begin(self.trained, self.trained.batch_size, teacher, step)

    def _fit(self, state: TrainState, steps: int, stage: str) -> None:
        where = "in the rest of training" if stage == "training" else "during recovery"
        mask = EnforceMasks(self._live(), self.masks)
        stop = StopWhen(self.watch.stop, f"Stopped {where}; finished cells are safe.")
        fit(state, steps, [mask, self.watch.progress, stop])
        self.lap(stage)

    # Measure

    def measure(self) -> Measured:
        """The live model, window by window."""
        shuffled = self.trained.seed if self.spec.blind else None
        measured = measure(self.trained, self.spec.evaluation.instance, shuffled)
        self.lap("evaluation")
        return measured

    def finish(self, references: Mapping[str, Measured]) -> None:
        """All that came of it. The live model then has the size that is stored."""
        spec, trained = self.spec, self.trained
        self.after = after = self.measure() if self.after is None else self.after
        protocol: Evaluation = spec.evaluation.instance
        if self.spec.blind:
            protocol = replace(protocol, random_batches=0)
        before = self.before if spec.recovery is not None else None
        references = {DENSE.kind: after, **references}
        self.metrics = dict(metrics(trained, protocol, after, before, references))
        self.lap("evaluation")
        self.weights = trained.model.weights()
        self.masks = masks = {name: mask.cpu() for name, mask in self.masks.items()}
        cut = self.cut_spec
        shrinks = cut is not None and (cut.unit or cut.fuse is not None)
        if shrinks:
            self.weights = shrink(trained.model, self.weights)
            trained.load(self.weights)
        dense = _size(self.start)
        found = {
            "sparsity": sparsity(masks),
            "compression": _compression(self.weights, dense),
        }
        if cut is not None and cut.roles is not None:
            role_of = trained.model.role_of
            for role in dict.fromkeys(role_of(name) for name in masks):
                of_role = {name: mask for name, mask in masks.items() if role_of(name) == role}
                found[f"sparsity.{role}"] = sparsity(of_role)
        if self.overlap is not None:
            found["jaccard_magnitude"] = self.overlap
        if self.transformed is not None:
            found["sparsity"] = (dense - _size(self.weights)) / _size(self.lens(self.start))
            found["rank"] = float(self.transformed.chosen.rank)
        if shrinks or self.transformed is not None:  # a masked model costs what a dense one does
            found |= dict(cost(trained))
        self.metrics |= {name: Interval(value) for name, value in found.items()}


def _size(weights: Tensors) -> int:
    return sum(weight.numel() for weight in weights.values())


def _compression(weights: Tensors, dense: int) -> float:
    """Of the ``dense`` parameters, the fraction that is not stored, or is zero."""
    return (dense - _size(weights) + zeros(weights)) / dense


def _write(cell: Cell, trained: TrainedModel, run: CellRun) -> None:
    """Leave the row of the table, the windows it was measured over, and what was asked for."""
    assert run.after is not None
    started = time.perf_counter()
    row = Row(
        kind=cell.kind,
        model=trained.model_name,
        data=trained.data_name,
        seed=trained.seed,
        config_hash=cell.hash,
        fingerprint=trained.fingerprint(cell.spec.evaluation.instance.split),
        training=trained.name,
        settings=cell.spec.settings(),
        metrics=run.metrics,
    )
    if cell.model_to is not None:
        write_tensors(cell.model_to, run.weights, {"cell": cell.hash})
    stored = run.after.tensors()
    if run.before is not None and run.before is not run.after:
        stored["nats_before_recovery"] = torch.from_numpy(run.before.losses.nats)
    write_tensors(cell.folder / "windows.safetensors", stored, {"fingerprint": row.fingerprint})
    write_json(cell.folder / "cell.json", cell.config)
    if run.transformed is not None:
        grid = [asdict(candidate) for candidate in run.transformed.tried]
        write_json(cell.folder / "grid.json", grid)
    write_json(cell.folder / "row.json", row.to_json())  # last: its presence means done
    run.seconds["write"] = time.perf_counter() - started
    write_json(cell.folder / "timing.json", {**provenance(), "seconds": run.seconds})


def evaluate_pruned(
    stored: Row, trained: TrainedModel, weights: Tensors, protocol: Evaluation
) -> Row:
    """Measure a stored pruned model anew; what was cut, and how, is as ``stored`` says."""
    dense = _size(trained.weights("final"))
    trained.load(weights)
    kept = ("jaccard_magnitude", *COSTS)
    cut = {n: v for n, v in stored.metrics.items() if n.startswith("sparsity") or n in kept}
    cut["compression"] = Interval(_compression(weights, dense))
    measured = dict(metrics(trained, protocol, measure(trained, protocol)))
    fingerprint = trained.fingerprint(protocol.split)
    return replace(stored, metrics={**cut, **measured}, fingerprint=fingerprint)
