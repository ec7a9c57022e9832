"""One training run on disk: resume or start, train, and leave the trajectory as an artifact."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from swe_cli.contracts import Dataset, Model, Statistic, Tensors
from swe_cli.errors import Interrupted, RunError
from swe_cli.files import remove_litter, storage, write_bytes, write_tensors
from swe_cli.machine import Machine
from swe_cli.runs import Run
from swe_cli.training import checkpoint
from swe_cli.training.loop import Hook, Progress, as_module, freeze, train
from swe_cli.training.recipe import Recipe
from swe_cli.training.tracker import Tracker, Tracking

FILES = ["model.safetensors", "best.safetensors", "trajectory.safetensors", "metrics.jsonl"]


@dataclass(frozen=True)
class Training:
    """Everything that makes a training what it is, built and ready to run.

    ``config`` is its plain description (what its name is a hash of); ``statistics`` makes each
    statistic from the live weights.
    """

    config: Mapping[str, Any]
    model: Model
    dataset: Dataset
    recipe: Recipe
    tracking: Tracking
    statistics: Mapping[str, Callable[[Tensors], Statistic]]
    seed: int
    machine: Machine
    snapshots: Sequence[int] = ()


def serves(run: Run, statistics: Sequence[str], snapshots: Sequence[int] = ()) -> bool:
    """Whether a finished run recorded all of these statistics, and kept all of these steps."""
    return run.finished and not lacks(run, statistics, snapshots)


def lacks(run: Run, statistics: Sequence[str], snapshots: Sequence[int]) -> list[str]:
    """In words: what of this a finished run did not record."""
    missing = sorted(set(statistics) - set(run.manifest["tracker"]["statistics"]))
    steps = checkpoint.missing_snapshots(run, snapshots, statistics)
    return [*missing, *(f"a snapshot of step {step}" for step in steps)]


def train_run(
    run: Run, training: Training, hooks: Sequence[Hook], stop: Callable[[], bool], resume: str
) -> None:
    """Train into ``run``, going on from its newest checkpoint; the caller holds the run.

    ``resume`` is what to type after an interruption. Raises Interrupted once a checkpoint is safe.
    """
    model = as_module(training.model).to(training.machine.device)
    freeze(training.model, training.recipe.trains)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    tracked = {
        name: weights[name]
        for name, p in model.named_parameters()
        if p.requires_grad or training.tracking.frozen
    }
    tracker = Tracker(
        tracked,
        {name: make(tracked) for name, make in training.statistics.items()},
        training.model.prunable(tracked, "linear"),
        training.tracking,
        steps=training.recipe.steps,
        steps_per_epoch=training.dataset.steps_per_epoch(
            size=training.recipe.batch_size * training.recipe.accumulation,
            context=training.model.context,
        ),
        seed=training.seed,
    )

    def gradients() -> Tensors:
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    optimizer = training.recipe.build_optimizer(model.parameters())
    best: Tensors = {}
    run.begin(training.config)
    remove_litter(run.path)
    progress = checkpoint.restore(run, model, optimizer, tracker, best, training.snapshots)
    snapshots = checkpoint.Snapshots(run, model, optimizer, tracker, training.snapshots)
    if progress.step == 0:
        snapshots.keep(0)
    started, resumed_at = time.perf_counter(), progress.step
    metrics = _Metrics(run.path / "metrics.jsonl", progress.step)
    finished = train(
        training.model,
        training.dataset,
        training.recipe,
        optimizer,
        progress,
        best,
        seed=training.seed,
        machine=training.machine,
        hooks=[tracker, snapshots, *hooks],
        record=metrics.record,
        checkpoint=lambda: checkpoint.save(run, model, optimizer, tracker, progress, best),
        stop=stop,
        before_step=lambda step: tracker.before_step(step, gradients),
    )
    if not finished:
        raise Interrupted(f"Stopped at step {progress.step}; a checkpoint is safe.", resume)
    seconds = time.perf_counter() - started
    _write_results(run, weights, best, tracker)
    run.finish(
        FILES,
        seed=training.seed,
        data_sha256=training.dataset.sha256,
        fingerprint=training.dataset.fingerprint("test", context=training.model.context),
        tracker=tracker.info(),
        results=_results(progress),
        seconds_per_step=seconds / max(1, progress.step - resumed_at),
        parameters=sum(p.numel() for p in model.parameters()),
    )
    checkpoint.clear(run)


def _write_results(run: Run, weights: Tensors, best: Tensors, tracker: Tracker) -> None:
    if run.finished:  # trained again for one more statistic: cells refer to these very weights
        before = run.tensors("model.safetensors")
        if not all(torch.equal(before[name], weight.cpu()) for name, weight in weights.items()):
            checkpoint.drop_snapshots(run)  # among them are some of the other training
            raise RunError(
                f"Training {run.name} again gave other weights than before (another torch version "
                "or processor), so its old rows would not belong to it.",
                "Keep both apart: results_dir=PATH",
            )
    write_tensors(run.path / "model.safetensors", weights)
    write_tensors(run.path / "best.safetensors", best)
    write_tensors(run.path / "trajectory.safetensors", tracker.tensors(), tracker.info())


def _results(progress: Progress) -> dict[str, float | int | None]:
    return {
        "steps": progress.step,
        "best_step": progress.best_step,
        "best_validation_loss_nats": progress.best_loss_nats,
        "final_validation_loss_nats": progress.final_loss_nats,
    }


class _Metrics:
    """``metrics.jsonl``: one line a step, cut back to the checkpoint that a run resumes from."""

    def __init__(self, path: Path, step: int) -> None:
        kept = []
        if step and path.is_file():
            for line in path.read_text().splitlines():
                try:
                    known = json.loads(line)["step"] <= step
                except ValueError:  # the last line of a killed process may be torn
                    break
                if not known:
                    break
                kept.append(line + "\n")
        write_bytes(path, "".join(kept).encode())
        self._path = path

    def record(self, line: dict[str, Any]) -> None:
        with storage(self._path), self._path.open("a") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
