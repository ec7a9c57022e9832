"""Checkpoints and snapshots: all that a training needs to go on bit for bit, in one directory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swe_cli.errors import Interrupted
from swe_cli.files import read_directory, read_json, remove_directory, write_directory
from swe_cli.records import Tensors
from swe_cli.store import Run
from swe_cli.training.recipe import Recipe
from swe_cli.training.state import Callback, TrainState
from swe_cli.training.tracker import Tracker, statistic_of, unrecorded

CHECKPOINTS, SNAPSHOTS = "checkpoints", "snapshots"
KEPT = 2  # the newest and, should a disk damage it, the one before
PROGRESS = ("step", "best_step", "best_loss_nats", "final_loss_nats", "recent_losses")


@dataclass(frozen=True)
class Checkpoints(Callback):
    """Saves all of a training now and then, to go on from; after the steps ``snapshots``, for good.

    What is cut in the middle of training starts from a snapshot; 0 is before the first step. Raises
    Interrupted once ``stop`` is true and a checkpoint is safe.
    Randomness has no state to save: it is a function of (seed, name, step); see ``seeds``.
    """

    run: Run
    tracker: Tracker
    recipe: Recipe
    snapshots: Sequence[int]
    stop: Callable[[], bool]

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        self.keep(state)
        if state.step == self.recipe.steps:
            return
        stopping = self.stop()
        if stopping or state.step % self.recipe.checkpoint_every == 0:
            folder = self.run.path / CHECKPOINTS
            progress = {key: getattr(state, key) for key in PROGRESS}
            files = {"tracker": self.tracker.tensors(), "best": state.best}
            self._write(folder / f"step-{state.step:08d}", state, files, {"progress": progress})
            for old in sorted(folder.glob("step-*"))[:-KEPT]:
                remove_directory(old)
        if stopping:
            raise Interrupted(f"Stopped at step {state.step}; a checkpoint is safe.")

    def keep(self, state: TrainState) -> None:
        """Write a snapshot, if one is wanted of this step and there is none."""
        wanted = [step for step in self.snapshots if step == state.step]
        if missing_snapshots(self.run, wanted, self.tracker.sources):
            files = {"trajectory": self.tracker.tensors()}
            self._write(snapshot_path(self.run, state.step), state, files, {"step": state.step})

    def _write(
        self, path: Path, state: TrainState, files: Mapping[str, Tensors], values: dict[str, Any]
    ) -> None:
        model = state.setup.model
        whole = {"model": model.weights(), "optimizer": optimizer_state(model, state.optimizer)}
        write_directory(path, {**whole, **files}, {**values, "tracker": self.tracker.info()})

    @torch.no_grad()
    def restore(self, state: TrainState) -> None:
        """Load the newest whole checkpoint in place; where there is none to use, change nothing.

        One that lacks a statistic now wanted cannot serve, nor can one that lies behind a snapshot
        still to be taken. Those are dropped: they would pass for the newest of a fresh start.
        Raises CorruptFileError, naming the file, for a damaged one.
        """
        model, sources = state.setup.model, self.tracker.sources
        absent = missing_snapshots(self.run, self.snapshots, sources)
        for path in sorted((self.run.path / CHECKPOINTS).glob("step-*"), reverse=True):
            files, saved = read_directory(path)
            behind = any(step <= saved["progress"]["step"] for step in absent)
            if behind or unrecorded(saved["tracker"], sources):
                remove_directory(path)
                continue
            for name, parameter in model.named_parameters():
                parameter.copy_(files["model"][name])
            load_optimizer(model, state.optimizer, files["optimizer"])
            self.tracker.load(files["tracker"], saved["tracker"])
            state.best = files["best"]
            for key in PROGRESS:
                setattr(state, key, saved["progress"][key])
            return


@dataclass(frozen=True)
class Snapshot:
    """A training as it was after ``step`` steps; ``observations``: how many its statistics saw."""

    step: int
    weights: Tensors
    trajectory: dict[str, Tensors]
    observations: int
    optimizer: Tensors


def snapshot_path(run: Run, step: int) -> Path:
    """Where a run keeps what it was after a step."""
    return run.path / SNAPSHOTS / f"step-{step:08d}"


def missing_snapshots(
    run: Run, steps: Sequence[int], statistics: Mapping[str, str | None] | None = None
) -> list[int]:
    """Those of ``steps`` that a run has not kept, or without some of these statistics."""
    paths = {step: snapshot_path(run, step) for step in steps}
    return [
        step
        for step, path in paths.items()
        if not path.is_dir()
        or unrecorded(read_json(path / "state.json")["tracker"], statistics or {})
    ]


def read_snapshot(run: Run, step: int) -> Snapshot:
    """What a run kept of a step. Raises CorruptFileError, naming the file, for a damaged one."""
    files, state = read_directory(snapshot_path(run, step))
    trajectory = {
        name: statistic_of(files["trajectory"], name) for name in state["tracker"]["statistics"]
    }
    seen = state["tracker"]["count"]
    return Snapshot(step, files["model"], trajectory, seen, files["optimizer"])


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """State as named tensors, ``<parameter>/<slot>``."""
    names: dict[Tensor, str] = {of: name for name, of in model.named_parameters()}
    return {
        f"{names[parameter]}/{slot}": value
        for parameter, slots in optimizer.state.items()
        for slot, value in slots.items()
    }


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, saved: Tensors) -> None:
    """Give an optimizer over the parameters of ``model`` a copy of the state it had.

    Before version 0.2 state was saved by a parameter's position among those of the optimizer.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    place_of = {parameter: place for place, parameter in enumerate(parameters)}
    places = {str(place): place for place in place_of.values()}
    places |= {n: place_of[p] for n, p in model.named_parameters() if p in place_of}
    state: dict[int, Tensors] = {}
    for key, value in saved.items():
        name, _, slot = key.rpartition("/")
        state.setdefault(places[name], {})[slot] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
