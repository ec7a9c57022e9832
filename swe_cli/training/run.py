"""One training run on disk: start it or go on with it, and leave the trajectory as an artifact.

A checkpoint is all that a training needs to go on bit for bit (randomness has no state: ``seeds``);
a snapshot is one that is kept for good: what is cut in the middle of training starts from it.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from swe_cli.contracts import Setup, Statistic
from swe_cli.errors import Interrupted, RunError, TrainingError, UsageError
from swe_cli.evaluation.cost import flops_of
from swe_cli.evaluation.loss import validation_loss
from swe_cli.files import (
    DAMAGED,
    read_directory,
    read_json,
    remove_directory,
    sha256,
    storage,
    write_bytes,
    write_directory,
    write_tensors,
)
from swe_cli.records import Tensors
from swe_cli.store import Run
from swe_cli.training.own_loop import read_trajectory
from swe_cli.training.parallel import ALONE, Ranks, agreed, laid_as, local, spread
from swe_cli.training.recipe import Recipe, freeze
from swe_cli.training.state import Callback, Stop, TrainState, fit, gradient
from swe_cli.training.tracker import Tracker, Tracking, trajectory_of, unrecorded

METRICS, TAIL = "metrics.jsonl", 4096  # bytes that hold its last line
BEST = "best.safetensors"
FILES = ["model.safetensors", BEST, "trajectory.safetensors", METRICS]
CHECKPOINTS, SNAPSHOTS = "checkpoints", "snapshots"
KEPT = 2  # checkpoints: the newest and, should a disk damage it, the one before


@dataclass(frozen=True)
class Training:
    """Everything that makes a training what it is, built and ready to run.

    ``config`` is its plain description (what its name is a hash of); ``statistics`` makes each
    statistic from the live weights; ``sources`` are the hashes of those that a user wrote.
    ``snapshots``: the steps to keep snapshots of; 0 is before the first. ``trajectory``: where that
    of a model lies that is not trained here.
    """

    setup: Setup
    recipe: Recipe
    tracking: Tracking
    statistics: Mapping[str, Callable[[Tensors], Statistic]]
    config: Mapping[str, Any]
    sources: Mapping[str, str | None] = field(default_factory=dict)
    snapshots: Sequence[int] = ()
    trajectory: Path | None = None


def train_run(run: Run, training: Training, callbacks: Sequence[Callback], stop: Stop) -> None:
    """Train into ``run``, which the caller holds, going on from its newest checkpoint; of ranks
    that are joined the first writes. Raises Interrupted once ``stop`` is true, for any of them, and
    a checkpoint is safe.
    """
    setup, recipe = training.setup, training.recipe
    model = setup.model.to(setup.machine.device)
    freeze(model, recipe.trains)
    ranks = spread(model, recipe.parallel, setup.machine.device)
    state, tracker = recipe.begin(setup), _tracker(training, ranks)
    state.ranks, state.learner = ranks, ranks.learner or state.learner
    if not ranks.number:
        run.begin(training.config)
        if run.finished:  # what says that it is being trained again, should it be killed at once
            (run.path / CHECKPOINTS).mkdir(exist_ok=True)
    recorder = _Recorder(run, training, tracker, stop, ranks)
    recorder.start(state)
    if not recipe.steps:
        recorder.validate(state, {})
    started, resumed_at = time.perf_counter(), state.step
    fit(state, recipe.steps - state.step, [tracker, *callbacks, recorder])
    seconds, taken = time.perf_counter() - started, max(1, state.step - resumed_at)
    if recipe.steps and not tracker.count:
        raise TrainingError("All to be observed were spikes.", "Write training.on_spike=record")
    progress = recorder.progress
    measures = {"spikes": progress.spikes, "training_flops": _flops(state)} if recipe.steps else {}
    lived, told = ranks.whole(tracker.tensors()), tracker.info()
    weights, best = ranks.whole(model.weights()), ranks.whole(recorder.best)
    if ranks.number:
        agreed(True)  # the run is whole
        return
    if run.finished:  # trained again for one more statistic, or for what was damaged
        _check_same(run, weights)
    write_tensors(run.path / "model.safetensors", weights)
    files = [name for name in FILES if recipe.steps or name != BEST]
    if BEST in files:
        write_tensors(run.path / BEST, best)
    if training.trajectory is not None:
        lived, came = read_trajectory(training.trajectory, weights, model.prefix)
        told |= came
    if model.prefix and told["count"]:  # it went on from what somebody else had trained
        measures["weights_moved"] = told["weights_moved"]
    write_tensors(run.path / "trajectory.safetensors", lived, told)
    run.finish(
        files,
        seed=setup.seed,
        data_sha256=setup.dataset.sha256,
        fingerprint=setup.dataset.fingerprint("test", context=model.context),
        tracker=told,
        results={
            "steps": progress.step,
            "best_step": progress.best_step,
            "best_validation_loss_nats": progress.best_loss_nats,
            "final_validation_loss_nats": progress.final_loss_nats,
        },
        measures=measures,
        seconds_per_step=seconds / taken,
        tracking_seconds_per_step=tracker.seconds / taken,
        parameters=sum(p.numel() for p in model.parameters()),
    )
    remove_directory(run.path / CHECKPOINTS)
    agreed(True)


def steps_done(run: Run) -> int:
    """How far a training has come, which another process may be at."""
    try:
        with (run.path / METRICS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return int(json.loads(file.read().splitlines()[-1])["step"])
    except (OSError, ValueError, IndexError, KeyError):  # not begun; half a line
        return 0


def _flops(state: TrainState) -> float:
    """FLOPs of all matrix products of all steps, by one of each kind; of a text, by one window."""
    total, thinned = 0.0, [state.backward.thins(step + 1) for step in range(state.step)]
    size = state.batch_size if state.setup.dataset.questions else 1
    for kind in {*thinned}:
        alone: dict[str, Any] = {"learner": None, "ranks": ALONE, "batch_size": size}
        step = replace(state, step=1 + thinned.index(kind), **alone)
        flops = flops_of(state.setup.model, partial(gradient, step))
        total += thinned.count(kind) * flops * (state.batch_size // size)
    state.optimizer.zero_grad(set_to_none=True)
    return total


def _tracker(training: Training, ranks: Ranks) -> Tracker:
    """Of our shards; of ranks that have the same weights, only the first looks."""
    setup, recipe, tracking = training.setup, training.recipe, training.tracking
    parameters, size = setup.model.named_parameters(), recipe.batch_size * recipe.accumulation
    whole = {n: p.detach() for n, p in parameters if p.requires_grad or tracking.frozen}
    tracked = {n: local(w) for n, w in whole.items()}
    looking = training.statistics if ranks.keeps else {}
    made = {name: make(tracked) for name, make in looking.items()}
    epoch = setup.dataset.steps_per_epoch(size=size, context=setup.model.context)
    told: Any = {"seed": setup.seed, "sources": training.sources, "ranks": ranks}
    told |= {"steps": recipe.steps, "steps_per_epoch": epoch}
    if not ranks.keeps:
        tracking = replace(tracking, sample=0)
    shapes = {n: torch.empty(w.shape, device="meta") for n, w in whole.items()}
    if ranks.shards and not setup.model.prunable(shapes, "linear").keys() <= whole.keys():
        why = "Heads that are shown apart (model.split_heads) are no rows that a rank could hold."
        raise UsageError(why, "Write training.parallel=ddp")
    return Tracker(tracked, made, setup.model.prunable(whole, "linear"), tracking, **told)


def _check_same(run: Run, weights: Tensors) -> None:
    """Raise RunError for weights that are not those of a finished run: cells refer to them."""
    name = "model.safetensors"
    if name in run.damaged:  # what is left of it is its hash
        trial = run.path / DAMAGED / f"again-{name}"
        write_tensors(trial, weights)
        same = sha256(trial) == run.manifest["files"][name]
        trial.unlink()
    else:
        before = run.tensors(name)
        same = all(torch.equal(before[key], of.cpu()) for key, of in weights.items())
    if same:
        return
    for folder in (SNAPSHOTS, CHECKPOINTS):  # some are of the other training
        remove_directory(run.path / folder)
    other, rows = "(another torch version or processor)", "its old rows would not belong to it"
    why = f"Training {run.name} again gave other weights than before {other}, so {rows}."
    raise RunError(why, "Keep both apart: results_dir=PATH")


@dataclass
class _Progress:
    """How far a training has come, as its checkpoints tell. Losses are nats per token."""

    step: int = 0
    best_step: int = 0
    best_loss_nats: float | None = None  # None until the first evaluation
    final_loss_nats: float | None = None
    recent_losses: list[float] = field(default_factory=list)
    spikes: int = 0


@dataclass
class _Recorder(Callback):
    """What a training leaves: metrics a step, the best weights, checkpoints and snapshots."""

    run: Run
    training: Training
    tracker: Tracker
    stop: Stop
    ranks: Ranks = ALONE
    progress: _Progress = field(default_factory=_Progress)
    best: Tensors = field(default_factory=dict)

    def start(self, state: TrainState) -> None:
        """Go on from the newest checkpoint, or from nothing where there is none to use."""
        self._restore(state)
        state.recent_losses = self.progress.recent_losses
        path, kept = self.run.path / METRICS, []
        for line in path.read_text().splitlines() if path.is_file() else ():
            with suppress(ValueError):  # the last line of a killed process may be torn
                if json.loads(line)["step"] <= state.step:
                    kept.append(line + "\n")
        if not self.ranks.number:
            write_bytes(path, "".join(kept).encode())
        self._keep_snapshot(state)

    @torch.no_grad()
    def _restore(self, state: TrainState) -> None:
        """Load the newest whole checkpoint in place. Raises CorruptFileError for a damaged one.

        One that lacks a statistic now wanted cannot serve, nor can one that lies behind a snapshot
        still to be taken. Those are dropped: they would pass for the newest of a fresh start.
        """
        at = agreed(0 if self.ranks.number else self._newest())
        if not at:
            return
        files, saved = read_directory(self._checkpoint(at))  # mapped: others' rows cost no memory
        for name, parameter in state.setup.model.named_parameters():
            parameter.copy_(laid_as(parameter, files["model"][name]))
        state.load_optimizer(files["optimizer"])
        self.tracker.load(self.ranks.ours(files["tracker"]), saved["tracker"])
        self.best, self.progress = self.ranks.ours(files["best"]), _Progress(**saved["progress"])
        state.step = at

    def _newest(self) -> int:
        """The step of the newest checkpoint that serves; 0 where none does."""
        sources, wanted = self.tracker.sources, self.training.snapshots
        absent = [step for step in wanted if not has_snapshot(self.run, step, sources)]
        for path in sorted((self.run.path / CHECKPOINTS).glob("step-*"), reverse=True):
            saved = read_json(path / "state.json")
            step: int = saved["progress"]["step"]
            if any(s <= step for s in absent) or unrecorded(saved["tracker"], sources):
                remove_directory(path)
                continue
            return step
        return 0

    def _checkpoint(self, step: int) -> Path:
        return self.run.path / CHECKPOINTS / f"step-{step:08d}"

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        recipe, self.progress.step = self.training.recipe, state.step
        self.progress.spikes += "spike" in metrics
        last = state.step == recipe.steps
        if last or state.step % recipe.evaluate_every == 0:
            self.validate(state, metrics)
        path, line = self.run.path / METRICS, {"step": state.step, **metrics}
        if not self.ranks.number:
            with storage(path), path.open("a") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")
        self._keep_snapshot(state)
        if last:
            return
        stopping = self.ranks.sum(self.stop())
        if stopping or state.step % recipe.checkpoint_every == 0:
            self._keep_checkpoint(state)
        if stopping:
            raise Interrupted(f"Stopped at step {state.step}; a checkpoint is safe.")

    def validate(self, state: TrainState, metrics: dict[str, Any]) -> None:
        """Measure the model on the validation split; keep it where it is the best so far."""
        loss, progress = validation_loss(state.setup, state.batch_size), self.progress
        state.check_finite("validation loss", loss)
        metrics["validation_loss_nats"] = progress.final_loss_nats = loss
        if progress.best_loss_nats is None or loss < progress.best_loss_nats:
            progress.best_loss_nats, progress.best_step = loss, state.step
            weights = state.setup.model.weights() if self.ranks.keeps else {}
            self.best = {name: local(w).clone() for name, w in weights.items()}

    def _keep_checkpoint(self, state: TrainState) -> None:
        path = self._checkpoint(state.step)
        files = {"tracker": self.tracker.tensors(), "best": self.best}
        self._write(path, state, files, progress=asdict(self.progress))
        for old in [] if self.ranks.number else sorted(path.parent.glob("step-*"))[:-KEPT]:
            remove_directory(old)

    def _keep_snapshot(self, state: TrainState) -> None:
        """Write a snapshot, if one is wanted of this step and there is none."""
        step, wanted = state.step, self.training.snapshots
        if step in wanted and agreed(not has_snapshot(self.run, step, self.tracker.sources)):
            files = {"trajectory": self.tracker.tensors()}
            recent, path = state.recent_losses, snapshot_path(self.run, step)
            self._write(path, state, files, step=step, recent_losses=recent)

    def _write(self, to: Path, state: TrainState, files: dict[str, Tensors], **told: Any) -> None:
        of_state = {"model": state.setup.model.weights(), "optimizer": state.optimizer_tensors()}
        whole = {name: self.ranks.whole(of) for name, of in (of_state | files).items()}
        told["tracker"] = self.tracker.info()
        if not self.ranks.number:
            write_directory(to, whole, told)


# What a run kept


@dataclass(frozen=True)
class Snapshot:
    """A training as it was after a step; no ``trajectory`` before the first observation."""

    weights: Tensors
    trajectory: dict[str, Tensors]
    optimizer: Tensors
    recent_losses: list[float]


def snapshot_path(run: Run, step: int) -> Path:
    """Where a run keeps what it was after a step."""
    return run.path / SNAPSHOTS / f"step-{step:08d}"


def check_kept(run: Run, step: int | None, statistics: Mapping[str, str | None] = {}) -> None:
    """Raise RunError, with the flag to train with, where a run kept no such snapshot of a step."""
    if step is not None and not has_snapshot(run, step, statistics):
        having = f", with {', '.join(statistics)}" if statistics else ""
        hint = f"Train with tracking.snapshots=[{step}], or sweep schedule.at_step={step}."
        raise RunError(f"{run.name} did not keep what it was after step {step}{having}.", hint)


def has_snapshot(run: Run, step: int, statistics: Mapping[str, str | None]) -> bool:
    """Whether a run kept what it was after a step, with all of these statistics."""
    path = snapshot_path(run, step)
    return path.is_dir() and not unrecorded(read_json(path / "state.json")["tracker"], statistics)


def read_snapshot(run: Run, step: int) -> Snapshot:
    """What a run kept of a step. RunError where that is nothing; CorruptFileError for damage."""
    check_kept(run, step)
    files, state = read_directory(snapshot_path(run, step))
    observed = state["tracker"]["statistics"] if state["tracker"]["count"] else ()
    trajectory = trajectory_of(files["trajectory"], observed)
    recent = state.get("recent_losses", [])  # which before 0.3 nobody read
    return Snapshot(files["model"], trajectory, files["optimizer"], recent)
