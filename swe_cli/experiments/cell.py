"""One cell, a recipe: load, prune, recover, measure, row. Cells are shared by all sweeps."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from swe_cli.contracts import Evidence
from swe_cli.controls import DENSE, RECOVERED
from swe_cli.errors import CorruptFileError, Interrupted
from swe_cli.evaluation.cost import Meter, batch_that_fits, cost, cost_of_answers, measured_cost
from swe_cli.evaluation.loss import Evaluation, Measured
from swe_cli.evaluation.measure import measure, metrics
from swe_cli.experiments.model import TrainedModel
from swe_cli.experiments.spec import Spec, built
from swe_cli.experiments.training import TrainingSpec
from swe_cli.files import (
    compressed,
    read_json,
    read_tensors,
    remove_litter,
    set_aside,
    sha256,
    write_json,
    write_tensors,
)
from swe_cli.pruning.masks import apply_masks, fuse, sparsity, zeros
from swe_cli.pruning.prune import Scorer, check_evidence, overlap_with_magnitude, prune
from swe_cli.pruning.recover import EnforceMasks, Recovery
from swe_cli.pruning.shrink import Tried, chosen_of, quantized, shrink, transform
from swe_cli.records import COSTS, OF_TRAINING, Interval, Masks, Row, Scalar, Tensors
from swe_cli.store import check_identity, identity, locked, provenance
from swe_cli.training.state import Callback, Stop, StopWhen, TrainState, fit, never

COSTS_FILE, WINDOWS = "costs.json", "windows.safetensors"
FILES = "files.json"  # what else is kept of a cell → its hash
BATCH_SIZE = 8  # of the recovery of a model that nobody knows the training of


@dataclass(frozen=True)
class Cell:
    """What one row stands for, and where it is kept: a job that can be pickled.

    ``reads``: the cells its deltas are measured against, by kind. ``model_to``: a file to keep the
    pruned model in. ``axes``: the values of a sweep that its table shows beside the row.
    ``refresh``: to be measured anew where its row is of a version that measured less. ``costs``:
    whether what depends on the machine is measured, too: beside the row, never in it.
    """

    spec: Spec
    training: TrainingSpec
    reads: Mapping[str, "Cell"] = field(default_factory=dict)
    model_to: Path | None = None
    axes: Mapping[str, Scalar] = field(default_factory=dict)
    refresh: bool = False
    costs: bool = False

    @property
    def kind(self) -> str:
        return self.spec.kind

    @property
    def config(self) -> dict[str, Any]:
        """What is stored: plain values."""
        read = {cell.training.hash for cell in self.reads.values()} - {self.training.hash}
        against = {"against": sorted(read)} if read else {}  # the deltas of a control trained anew
        return {**self.training.of_cells, **self.spec.identity(), **against}

    @cached_property
    def hash(self) -> str:
        return identity(self.config)

    @property
    def folder(self) -> Path:
        return self.training.run.path.parent / "cells" / self.hash

    def done(self) -> bool:
        """Whether its row, its windows and the model it keeps are there."""
        files = [self.folder / "row.json", self.folder / WINDOWS, self.model_to]
        files += [self.folder / COSTS_FILE] if self.costs else []
        if not all(file is None or file.is_file() for file in files) or self.spoilt():
            return False
        return not self.refresh or {"nonzeros", "delta_calibrated"} <= self.row().metrics.keys()

    def spoilt(self) -> bool:
        """Whether its row is there and cannot be read."""
        try:
            return (self.folder / "row.json").is_file() and not self.row()
        except CorruptFileError:
            return True

    def row(self) -> Row:
        """The row of a cell that is done."""
        return replace(row_of(self.folder), axes=self.axes)

    def new_row(self, **found: Any) -> Row:
        """A row of what was ``found``: metrics and fingerprint, or an error."""
        trained = self.training.config["identity"]
        return Row(
            kind=self.kind,
            model=self.training.label,
            data=trained["data"]["name"],
            seed=trained["seed"],
            config_hash=self.hash,
            training=self.training.run.name,
            settings=self.spec.settings(),
            **found,
        )

    def windows(self) -> Measured:
        """Every window of a cell that is done: what deltas are paired over."""
        return windows_of(self.folder)


def row_of(folder: Path) -> Row:
    """The row in a cell's folder. CorruptFileError where it is missing, or is none."""
    path = folder / "row.json"
    state = path.stat() if path.is_file() else None
    return _row_in(path, state and (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=50_000)  # each once a process: a resumed sweep asks of every one several times
def _row_in(path: Path, version: tuple[int, int] | None) -> Row:
    return Row.from_json(read_json(path))


def config_of(folder: Path) -> dict[str, Any]:
    """What a cell stands for. CorruptFileError where that is not what its name is a hash of."""
    config = dict(read_json(path := folder / "cell.json", "kind"))
    check_identity(path, config, folder.name)
    return config


def windows_of(folder: Path) -> Measured:
    """The windows in a cell's folder. CorruptFileError where they are not as they were written."""
    known = read_json(folder / FILES) if (folder / FILES).is_file() else {}  # of an older version
    stored = read_tensors(folder / WINDOWS, known.get(WINDOWS))
    return {name: tensor.numpy() for name, tensor in stored.items()}


def check_stop(stop: Stop) -> None:
    """Raise Interrupted if ``stop`` says so; to be called between cells."""
    if stop():
        raise Interrupted("Stopped; finished cells are safe, and so are checkpoints.")


def run_cell(cell: Cell, stop: Stop = never, callbacks: Sequence[Callback] = ()) -> Row:
    """Run a cell, and first its controls, unless they are there. Interrupted when ``stop`` asks."""
    if cell.done():
        return cell.row()
    check_stop(stop)
    for reference in cell.reads.values():
        run_cell(reference, stop)
    with locked(cell.folder.parent / ".locks" / cell.hash, f"Cell {cell.hash}"):
        remove_litter(cell.folder)
        if cell.spoilt():
            set_aside(cell.folder / "row.json")
        if not cell.done():  # or another process finished it while we waited
            references = {kind: reference.windows() for kind, reference in cell.reads.items()}
            _write(cell, execute(cell.spec, cell.training.open(), references, stop, callbacks))
    return cell.row()


def execute(
    spec: Spec,
    trained: TrainedModel,
    references: Mapping[str, Measured] | None = None,
    stop: Stop = never,
    callbacks: Sequence[Callback] = (),
) -> "CellRun":
    """Do to the one live model of ``trained`` what a cell stands for, and measure it."""
    run = CellRun(spec, trained, stop, callbacks)
    dense = (references or {}).get(DENSE.kind, {})
    if spec.kind == RECOVERED.kind and not spec.recovery_steps and "token_nats" in dense:
        run.measured = dense  # nothing is done to it
    if spec.transform is not None:
        run.transform()
    elif spec.criterion is not None:
        run.prune()
    if spec.recovery is not None and not run.recovers_between_cuts:
        run.before = run.measure(calibrate=not spec.recovery_steps)
        run.recover(spec.recovery_steps)
    if spec.fuse is not None:
        run.fuse(spec.fuse)
        # The paper recovers from it for half as long; so does a control that nothing is cut of.
        run.recover(spec.recovery_steps // 2, step=spec.recovery_steps)
    if spec.quantize is not None:
        run.quantize()
    run.finish(references or {})
    return run


@dataclass
class CellRun:
    """A cell on its way: the live model of ``trained``, the masks on it, what was measured.

    ``before`` recovery is None where there was no one moment before. ``spent``: seconds and the
    like (see ``Meter``) by stage. In the end ``weights`` are without the units that were cut whole,
    ``stored`` is what they are stored as, and ``metrics`` all that was measured.
    """

    spec: Spec
    trained: TrainedModel
    stop: Stop = never
    callbacks: Sequence[Callback] = ()
    masks: Masks = field(default_factory=dict)
    overlap: float | None = None
    tried: list[Tried] = field(default_factory=list)
    before: Measured | None = None
    after: Measured = field(init=False)
    weights: Tensors = field(init=False)
    stored: Tensors = field(default_factory=dict)
    metrics: dict[str, Interval] = field(init=False)
    spent: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: Measured | None = None

    def __post_init__(self) -> None:
        self._meter = Meter(self.trained.machine.device)
        self.schedule = self.spec.plan
        self.lens = self.trained.lens(self.spec.prunable, self.spec.roles or "all")
        at_step = self.schedule.at_step
        self.start, self.trajectory = self.trained.starting_point(self.spec.base, at_step)
        self.trained.load(self.start)
        self.lap("load")

    def lap(self, stage: str) -> None:
        """What has passed since the last lap was of this stage."""
        for what, amount in self._meter.lap().items():
            self.spent.setdefault(what, defaultdict(float))[stage] += amount

    # Prune

    @property
    def recovers_between_cuts(self) -> bool:
        """Whether the steps of the recovery lie between the cuts, not after the last."""
        return self.schedule.rounds > 1 and self.schedule.at_step is None

    def prune(self) -> None:
        """Cut round by round; between cuts comes the rest of the training, or the recovery."""
        state, steps = None, 0
        if self.schedule.at_step is not None:
            state, steps = self._rest_of_training(self.schedule.at_step)
        for at_round in range(1, self.schedule.rounds + 1):
            self.cut(at_round)
            if state is None and self.recovers_between_cuts:  # of what a cut has left, or made
                state, steps = self._recovery(), self.spec.recovery_steps
            if state is not None:
                self._fit(state, self.schedule.steps_of(at_round, steps))

    def cut(self, at_round: int) -> None:
        """One round of cuts. An update starts from what was there before a criterion's own."""
        method, scorer, run = self.spec.method(at_round), self._scorer(), self.trained.name
        told = self.trained.run.manifest["tracker"] if self.trained.run else {}
        received = told.get("as_received", ())
        # Its base is there: the weights of a stranger come without a trajectory.
        replace(self.spec, base="final").check_recorded(self.trained.trajectory, run)
        for judge in (method.judge, *method.consulted.values()):
            check_evidence(judge, scorer.evidence, run, self.schedule.at_step, received)
        how = self.spec.update
        uncut = {name: w.clone() for name, w in self._live().items()} if how else {}
        self.masks = prune(method, scorer, at_round)
        self.overlap = overlap_with_magnitude(method, scorer, self.masks)
        self._charge(scorer, method.judge.key)
        if how is not None:
            scorer.calibrated.update(built(how), f"update={how.name}", uncut, self.masks)
            self.lap("update")
        self._apply_masks()

    def _charge(self, scorer: Scorer, judge: str) -> None:
        """A cut that found its scores there is charged with them, too."""
        self.lap("cut")
        own = {what: of["cut"] for what, of in self.spent.items()}
        for what, first in scorer.spent.setdefault(judge, own).items():
            if not scorer.earlier and first > own.get(what, first):
                self.spent[what]["score"] = first - own[what]

    def fuse(self, most_zeros: float) -> None:
        """Cut whole what is mostly zeros, where anything was cut."""
        if self.masks:
            self.masks, self.overlap = fuse(self._live(), self.masks, most_zeros), None
            self._apply_masks()

    def quantize(self) -> None:
        """Leave in the live model what its int8 stands for, in the size that is stored."""
        self._shrink()
        self.stored, self.measured = quantized(self.trained.model), None
        self.trained.load(self.stored)
        self.lap("quantize")

    def _shrink(self) -> None:
        """Take out, once, what is cut whole."""
        spec, model = self.spec, self.trained.model
        whole = spec.pattern is not None and built(spec.pattern).unit is not None
        shrinks = whole or (spec.fuse is not None and spec.control is None)
        if shrinks and not self.stored:
            self.trained.load(shrink(model, model.weights()))

    def _apply_masks(self) -> None:
        apply_masks(self.masks, self._live())
        self.measured = None
        self.lap("cut")

    def _live(self) -> Tensors:
        """What may be cut of the live model, as views."""
        return self.lens(self.trained.model.weights())

    def _scorer(self) -> Scorer:
        """Scores of the first round serve all ratios; later rounds judge weights of their own."""
        spec, trained = self.spec, self.trained
        key = (spec.base, spec.prunable, spec.roles, spec.calibration, self.schedule.at_step)
        if key in trained.scorers and not self.masks:
            return trained.scorers[key]
        weights = self.lens(self.start)
        if self.masks:
            weights = {name: w.to("cpu", copy=True) for name, w in self._live().items()}
        trajectory = {name: self.lens(of) for name, of in self.trajectory.items()}
        samples = spec.calibration.instance if spec.calibration else None
        evidence = Evidence(weights, trajectory, trained.seed)
        scorer = Scorer(trained, self.lens, evidence, samples, self.masks)
        if not self.masks:
            trained.scorers[key] = scorer
        return scorer

    def transform(self) -> None:
        """Rewrite matrices, the best of a grid; recovery then trains the factors."""
        assert self.spec.transform is not None
        how, size = built(self.spec.transform), self.spec.evaluation.instance.batch_size
        self.tried = transform(self.trained, self.start, how, self.lens, size, self.stop)
        self.lap("transform")

    # Train on

    def recover(self, steps: int, step: int = 0) -> None:
        """Train on with a fresh optimizer, on the batches after ``step``."""
        if steps:
            self._fit(self._recovery(step), steps)

    def _recovery(self, step: int = 0) -> TrainState:
        assert self.spec.recovery is not None
        recovery: Recovery = self.spec.recovery.instance
        teacher, recipe = partial(self.trained.teacher, self.spec.base), self.trained.recipe
        batch_size = recipe.batch_size if recipe else BATCH_SIZE
        state = recovery.begin(self.trained, batch_size, teacher, step)
        if self.spec.transform is not None and state.learner is not None:
            state.learner = built(self.spec.transform).learner(self.trained.model, state.learner)
        return state

    def _rest_of_training(self, at_step: int) -> tuple[TrainState, int]:
        """The very training as it was after a step, and how many were left."""
        trained, recipe = self.trained, self.trained.recipe
        assert recipe is not None
        state = recipe.begin(trained)
        snapshot = trained.after(at_step)
        state.load_optimizer(snapshot.optimizer)
        state.step, state.recent_losses = at_step, [*snapshot.recent_losses]
        return state, recipe.steps - at_step

    def _fit(self, state: TrainState, steps: int) -> None:
        stage, where = "training", "in the rest of training"
        if state.recovering:
            stage, where = "recovery", "during recovery"
        mask = EnforceMasks(self._live(), self.masks)
        stop = StopWhen(self.stop, f"Stopped {where}; finished cells are safe.")
        fit(state, steps, [mask, *self.callbacks, stop])
        self.measured = None
        self.lap(stage)

    # Measure

    def measure(self, *, calibrate: bool = True) -> Measured:
        """The live model, window by window: once, until it is another."""
        if self.measured is None:
            shuffled = self.trained.seed if self.spec.blind else None
            protocol: Evaluation = self.spec.evaluation.instance
            self.measured = measure(self.trained, protocol, shuffled, calibrate=calibrate)
            self.lap("evaluation")
        return self.measured

    def finish(self, references: Mapping[str, Measured]) -> None:
        """All that came of it. The live model then has the size that is stored."""
        spec, trained = self.spec, self.trained
        protocol: Evaluation = spec.evaluation.instance
        if spec.blind:
            protocol = replace(protocol, random_batches=0)
        self.after = self.measure()
        if spec.kind == DENSE.kind:
            references = {DENSE.kind: self.after}
        self.metrics = dict(metrics(trained, protocol, self.after, self.before, references))
        self.lap("evaluation")
        self._shrink()
        self.weights = trained.model.weights()
        self.stored = self.stored or self.weights
        self.masks = masks = {name: mask.cpu() for name, mask in self.masks.items()}
        dense = _size(self.start)
        found = {"sparsity": sparsity(masks), "compression": _compression(self.weights, dense)}
        if spec.roles is not None:
            role_of = trained.model.role_of
            for role in dict.fromkeys(role_of(name) for name in masks):
                of_role = {name: mask for name, mask in masks.items() if role_of(name) == role}
                found[f"sparsity.{role}"] = sparsity(of_role)
        if self.overlap is not None:
            found["jaccard_magnitude"] = self.overlap
        if (chosen := chosen_of(self.tried)) is not None:
            found["sparsity"] = max(0, dense - _size(self.weights)) / _size(self.lens(self.start))
            found |= {"rank": float(chosen.rank)} if chosen.rank else {}
        found |= dict(cost(trained))
        found["bytes"] = float(sum(tensor.nbytes for tensor in self.stored.values()))
        found["bytes_compressed"] = float(len(compressed(self.stored)))
        self.lap("cost")
        self.metrics |= dict(cost_of_answers(trained, protocol.split, self.after))
        if trained.run is not None:
            found |= trained.run.manifest.get("measures", {})
        self.metrics |= {name: Interval(value) for name, value in found.items()}


def _size(weights: Tensors) -> int:
    return sum(weight.numel() for weight in weights.values())


def _compression(weights: Tensors, dense: int) -> float:
    """Of the ``dense`` parameters, the fraction that is not stored, or is zero."""
    return (dense - _size(weights) + zeros(weights)) / dense


def _write(cell: Cell, run: CellRun) -> None:
    """Leave the row of the table, the windows it was measured over, and what was asked for."""
    fingerprint = run.trained.fingerprint(cell.spec.evaluation.instance)
    row = cell.new_row(metrics=run.metrics, fingerprint=fingerprint)
    if cell.model_to is not None:
        write_tensors(cell.model_to, run.stored, {"cell": cell.hash})
    stored = {name: torch.from_numpy(of) for name, of in run.after.items()}
    if run.before is not None and run.before is not run.after:
        stored["nats_before_recovery"] = torch.from_numpy(run.before["nats"])
    write_tensors(cell.folder / WINDOWS, stored, {"fingerprint": fingerprint})
    write_json(cell.folder / FILES, {WINDOWS: sha256(cell.folder / WINDOWS)})
    write_json(cell.folder / "cell.json", cell.config)
    if run.tried:
        write_json(cell.folder / "grid.json", [asdict(candidate) for candidate in run.tried])
    by_tensor = {n: [m.numel() - int(m.sum()), m.numel()] for n, m in run.masks.items()}
    write_json(cell.folder / "layers.json", by_tensor)  # cut, of how many
    if cell.costs:
        dense = run.trained.teacher("final")
        size = batch_that_fits(run.trained, cell.spec.evaluation.instance.batch_size)
        measured = measured_cost(run.trained, dense, size)
        write_json(cell.folder / COSTS_FILE, measured)
        run.lap("timing")
    run.lap("write")
    write_json(cell.folder / "timing.json", {**provenance(), **run.spent})
    write_json(cell.folder / "row.json", row.to_json())  # last: its presence means done


def measured_beside(folder: Path) -> dict[str, Any]:
    """What is no part of the row of a cell, as one line: where it ran, what it took by stage
    (``recovery.seconds``, ``….cpu_seconds``, ``….joules`` where a counter tells), what was timed.
    """
    if not (folder / "timing.json").is_file():
        return {}
    spent = read_json(folder / "timing.json")
    line = {"host": spent["host"]}
    for what in ("seconds", "cpu_seconds", "joules"):
        line |= {f"{stage}.{what}": n for stage, n in spent.get(what, {}).items()}
    timed = read_json(folder / COSTS_FILE) if (folder / COSTS_FILE).is_file() else {}
    if told := timed.pop("conditions", {}):
        timed |= {"machine": told["fingerprint"], "load": told["load"]}
        timed["warnings"] = "; ".join(timed["warnings"])
    return line | timed


def evaluate_pruned(stored: Row, trained: TrainedModel, protocol: Evaluation) -> Row:
    """Measure the live model, that of ``stored``, anew; what was cut, and how, is as there."""
    dense, weights = _size(trained.weights("final")), trained.model.weights()
    kept = ("jaccard_magnitude", *COSTS, *OF_TRAINING)
    cut = {n: v for n, v in stored.metrics.items() if n.startswith("sparsity") or n in kept}
    cut["compression"] = Interval(_compression(weights, dense))
    after = measure(trained, protocol)
    cut |= dict(metrics(trained, protocol, after))
    cut |= dict(cost_of_answers(trained, protocol.split, after))
    return replace(stored, metrics=cut, fingerprint=trained.fingerprint(protocol))
