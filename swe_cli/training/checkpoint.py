"""Checkpoints and snapshots: all that a training needs to go on bit for bit, in one directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swe_cli.files import read_directory, read_json, remove_directory, write_directory
from swe_cli.records import Tensors
from swe_cli.store import Run
from swe_cli.training.state import Callback, TrainState
from swe_cli.training.tracker import Tracker, statistic_of, unrecorded

CHECKPOINTS, SNAPSHOTS = "checkpoints", "snapshots"
KEPT = 2  # the newest and, should a disk damage it, the one before
PROGRESS = ("step", "best_step", "best_loss_nats", "final_loss_nats", "recent_losses")


def save(run: Run, state: TrainState, tracker: Tracker) -> None:
    """Write ``checkpoints/step-…`` whole, then drop those that are no longer needed.

    Randomness has no state to save: it is a function of (seed, name, step); see ``seeds``.
    """
    folder = run.path / CHECKPOINTS
    write_directory(
        folder / f"step-{state.step:08d}",
        {
            "model": state.setup.model.weights(),
            "optimizer": optimizer_state(state.setup.model, state.optimizer),
            "tracker": tracker.tensors(),
            "best": state.best,
        },
        {"progress": {key: getattr(state, key) for key in PROGRESS}, "tracker": tracker.info()},
    )
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        remove_directory(old)


@torch.no_grad()
def restore(run: Run, state: TrainState, tracker: Tracker, snapshots: Sequence[int] = ()) -> None:
    """Load the newest whole checkpoint in place; where there is none to use, change nothing.

    A checkpoint that lacks a statistic that is now wanted cannot serve, and is dropped: otherwise
    it would pass for the newest one of the training that starts afresh. So does one that lies
    behind a snapshot that is wanted and was not kept.
    Raises CorruptFileError, naming the file, for a damaged one.
    """
    statistics = sources_of(tracker)
    for path in sorted((run.path / CHECKPOINTS).glob("step-*"), reverse=True):
        files, saved = read_directory(path)
        absent = missing_snapshots(run, snapshots, statistics)
        behind = any(step <= saved["progress"]["step"] for step in absent)
        if behind or unrecorded(saved["tracker"], statistics):
            remove_directory(path)
            continue
        for name, parameter in state.setup.model.named_parameters():
            parameter.copy_(files["model"][name])
        load_optimizer(state.setup.model, state.optimizer, files["optimizer"])
        tracker.load(files["tracker"], saved["tracker"])
        state.best = files["best"]
        for key in PROGRESS:
            setattr(state, key, saved["progress"][key])
        return


def sources_of(tracker: Tracker) -> dict[str, str | None]:
    """Statistic → hash of its code, where a user wrote it."""
    return {name: tracker.sources.get(name) for name in tracker.statistics}


@dataclass(frozen=True)
class Snapshots(Callback):
    """Keeps a training as it was after some of its steps, for good.

    What is cut in the middle of training starts from one. 0 is before the first step.
    """

    run: Run
    tracker: Tracker
    steps: Sequence[int]

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        self.keep(state)

    def keep(self, state: TrainState) -> None:
        """Keep the state, if its step is one of those, and was not kept."""
        if state.step not in self.steps:
            return
        if missing_snapshots(self.run, [state.step], sources_of(self.tracker)):
            write_directory(
                snapshot_path(self.run, state.step),
                {
                    "model": state.setup.model.weights(),
                    "optimizer": optimizer_state(state.setup.model, state.optimizer),
                    "trajectory": self.tracker.tensors(),
                },
                {"step": state.step, "tracker": self.tracker.info()},
            )


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

    def kept(step: int) -> bool:
        path = snapshot_path(run, step)
        if not path.is_dir():
            return False
        return not unrecorded(read_json(path / "state.json")["tracker"], statistics or {})

    return [step for step in steps if not kept(step)]


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
    places = {
        parameter: place
        for place, parameter in enumerate(p for g in optimizer.param_groups for p in g["params"])
    }
    by_name = {n: places[p] for n, p in model.named_parameters() if p in places}
    state: dict[int, Tensors] = {}
    for key, value in saved.items():
        name, _, slot = key.rpartition("/")
        place = int(name) if name.isdigit() else by_name[name]
        state.setdefault(place, {})[slot] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
