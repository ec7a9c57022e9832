"""One training run on disk: resume or start, train, and leave the trajectory as an artifact."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from swe_cli.contracts import Setup, Statistic
from swe_cli.errors import RunError
from swe_cli.evaluation.loss import validation_loss
from swe_cli.files import remove_directory, remove_litter, storage, write_bytes, write_tensors
from swe_cli.records import Tensors
from swe_cli.store import Run
from swe_cli.training.checkpoint import CHECKPOINTS, SNAPSHOTS, Checkpoints, missing_snapshots
from swe_cli.training.recipe import Recipe, freeze
from swe_cli.training.state import Callback, TrainState, fit
from swe_cli.training.tracker import Tracker, Tracking, unrecorded

FILES = ["model.safetensors", "best.safetensors", "trajectory.safetensors", "metrics.jsonl"]
SPIKE = 1.5  # a loss this many times the median of the recent ones is recorded as a spike
RECENT = 50


@dataclass(frozen=True)
class Training:
    """Everything that makes a training what it is, built and ready to run.

    ``config`` is its plain description (what its name is a hash of); ``statistics`` makes each
    statistic from the live weights; ``sources`` are the hashes of those that a user wrote.
    """

    setup: Setup
    recipe: Recipe
    tracking: Tracking
    statistics: Mapping[str, Callable[[Tensors], Statistic]]
    config: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    snapshots: Sequence[int] = ()


def lacks(run: Run, statistics: Mapping[str, str | None], snapshots: Sequence[int]) -> list[str]:
    """In words: what of this a finished run did not record."""
    steps = missing_snapshots(run, snapshots, statistics)
    missing = unrecorded(run.manifest["tracker"], statistics)
    return [*missing, *(f"a snapshot of step {step}" for step in steps)]


def train_run(
    run: Run,
    training: Training,
    callbacks: Sequence[Callback],
    stop: Callable[[], bool],
) -> None:
    """Train into ``run``, going on from its newest checkpoint; the caller holds the run.

    Raises Interrupted once ``stop`` is true and a checkpoint is safe.
    """
    setup, recipe = training.setup, training.recipe
    model = setup.model.to(setup.machine.device)
    freeze(model, recipe.trains)
    state, tracker = recipe.begin(setup), _tracker(training)
    run.begin(training.config)
    remove_litter(run.path)
    checkpoints = Checkpoints(run, tracker, recipe, training.snapshots, stop)
    checkpoints.restore(state)
    if state.step == 0:
        checkpoints.keep(state)
    started, resumed_at = time.perf_counter(), state.step
    recording = [_Validation(recipe), _Metrics(run.path / "metrics.jsonl", state.step), checkpoints]
    fit(state, recipe.steps - state.step, [tracker, *callbacks, *recording])
    seconds = time.perf_counter() - started
    _write_results(run, state, tracker)
    run.finish(
        FILES,
        seed=setup.seed,
        data_sha256=setup.dataset.sha256,
        fingerprint=setup.dataset.fingerprint("test", context=model.context),
        tracker=tracker.info(),
        results={
            "steps": state.step,
            "best_step": state.best_step,
            "best_validation_loss_nats": state.best_loss_nats,
            "final_validation_loss_nats": state.final_loss_nats,
        },
        seconds_per_step=seconds / max(1, state.step - resumed_at),
        parameters=sum(p.numel() for p in model.parameters()),
    )
    remove_directory(run.path / CHECKPOINTS)


def _tracker(training: Training) -> Tracker:
    setup, recipe, tracking = training.setup, training.recipe, training.tracking
    parameters = dict(setup.model.named_parameters())
    tracked = {n: p.detach() for n, p in parameters.items() if p.requires_grad or tracking.frozen}
    return Tracker(
        tracked,
        {name: make(tracked) for name, make in training.statistics.items()},
        setup.model.prunable(tracked, "linear"),
        tracking,
        steps=recipe.steps,
        steps_per_epoch=setup.dataset.steps_per_epoch(
            size=recipe.batch_size * recipe.accumulation, context=setup.model.context
        ),
        seed=setup.seed,
        sources=training.sources,
    )


def _write_results(run: Run, state: TrainState, tracker: Tracker) -> None:
    weights = state.setup.model.weights()
    if run.finished:  # trained again for one more statistic: cells refer to these very weights
        before = run.tensors("model.safetensors")
        if not all(torch.equal(before[name], weight.cpu()) for name, weight in weights.items()):
            for folder in (SNAPSHOTS, CHECKPOINTS):  # some are of the other training
                remove_directory(run.path / folder)
            raise RunError(
                f"Training {run.name} again gave other weights than before (another torch version "
                "or processor), so its old rows would not belong to it.",
                "Keep both apart: results_dir=PATH",
            )
    write_tensors(run.path / "model.safetensors", weights)
    write_tensors(run.path / "best.safetensors", state.best)
    write_tensors(run.path / "trajectory.safetensors", tracker.tensors(), tracker.info())


@dataclass(frozen=True)
class _Validation(Callback):
    """The full pass over the validation split now and then; the best weights are kept."""

    recipe: Recipe

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if state.step % self.recipe.evaluate_every and state.step != self.recipe.steps:
            return
        loss = validation_loss(state.setup, self.recipe.batch_size)
        state.check_finite("validation loss", loss)
        metrics["validation_loss_nats"] = state.final_loss_nats = loss
        if state.best_loss_nats is None or loss < state.best_loss_nats:
            state.best_loss_nats, state.best_step = loss, state.step
            state.best = {name: w.clone() for name, w in state.setup.model.weights().items()}


class _Metrics(Callback):
    """``metrics.jsonl``: one line a step, cut back to the checkpoint that a run resumes from."""

    def __init__(self, path: Path, step: int) -> None:
        kept = []
        for line in path.read_text().splitlines() if step and path.is_file() else ():
            with suppress(ValueError):  # the last line of a killed process may be torn
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        write_bytes(path, "".join(kept).encode())
        self._path = path

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        recent, loss = state.recent_losses, metrics["loss_nats"]
        if len(recent) == RECENT and loss > SPIKE * sorted(recent)[RECENT // 2]:
            metrics["spike"] = True
        state.recent_losses = [*recent[1 - RECENT :], loss]
        with storage(self._path), self._path.open("a") as file:
            file.write(json.dumps({"step": state.step, **metrics}, sort_keys=True) + "\n")
