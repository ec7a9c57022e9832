"""Checkpoints: everything a training needs to go on bit for bit, in one directory."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from swe_cli.contracts import Tensors
from swe_cli.files import read_directory, read_json, remove_directory, write_directory
from swe_cli.runs import Run
from swe_cli.training.loop import Progress
from swe_cli.training.tracker import Tracker, statistic_of

KEPT = 2  # the newest and, should a disk damage it, the one before
SNAPSHOTS = "snapshots"


def save(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tracker: Tracker,
    progress: Progress,
    best: Tensors,
) -> None:
    """Write ``checkpoints/step-…`` whole, then drop those that are no longer needed.

    Randomness has no state to save: it is a function of (seed, name, step); see ``seeds``.
    """
    folder = run.path / "checkpoints"
    write_directory(
        folder / f"step-{progress.step:08d}",
        {
            "model": dict(model.named_parameters()),
            "optimizer": _flatten(optimizer),
            "tracker": tracker.tensors(),
            "best": best,
        },
        {"progress": asdict(progress), "tracker": tracker.info()},
    )
    for old in _all(run)[:-KEPT]:
        remove_directory(old)


@torch.no_grad()
def restore(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tracker: Tracker,
    best: Tensors,
    snapshots: Sequence[int] = (),
) -> Progress:
    """Load the newest whole checkpoint in place, or start afresh where there is none to use.

    A checkpoint that lacks a statistic that is now wanted cannot serve, and is dropped: otherwise
    it would pass for the newest one of the training that starts afresh. So does one that lies
    behind a snapshot that is wanted and was not kept.
    Raises CorruptFileError, naming the file, for a damaged one.
    """
    for path in reversed(_all(run)):
        files, state = read_directory(path)
        absent = missing_snapshots(run, snapshots, tracker.statistics)
        lost = [step for step in absent if step <= state["progress"]["step"]]
        if lost or not set(tracker.statistics) <= set(state["tracker"]["statistics"]):
            remove_directory(path)
            continue
        for name, parameter in model.named_parameters():
            parameter.copy_(files["model"][name])
        _unflatten(optimizer, files["optimizer"])
        tracker.load(files["tracker"], state["tracker"])
        best.update(files["best"])
        return Progress(**state["progress"])
    return Progress()


@dataclass(frozen=True)
class Snapshots:
    """A hook of the loop that keeps a training as it was after some of its steps, for good.

    What is cut in the middle of training starts from one. 0 is before the first step.
    """

    run: Run
    model: nn.Module
    optimizer: torch.optim.Optimizer
    tracker: Tracker
    wanted: Sequence[int]

    def after_step(self, step: int, metrics: dict[str, float]) -> None:
        self.keep(step)

    def keep(self, step: int) -> None:
        if step in missing_snapshots(self.run, self.wanted, self.tracker.statistics):
            write_directory(
                snapshot_path(self.run, step),
                {
                    "model": dict(self.model.named_parameters()),
                    "optimizer": _flatten(self.optimizer),
                    "trajectory": self.tracker.tensors(),
                },
                {"step": step, "tracker": self.tracker.info()},
            )


@dataclass(frozen=True)
class Snapshot:
    """A training as it was after ``step`` steps; ``observations``: how many its statistics saw."""

    step: int
    weights: Tensors
    trajectory: dict[str, Tensors]
    observations: int
    _optimizer: Tensors

    def resume(self, optimizer: torch.optim.Optimizer) -> None:
        """Give a new optimizer over the same parameters the state it had, a copy of it."""
        if self._optimizer:
            _unflatten(optimizer, {key: value.clone() for key, value in self._optimizer.items()})


def snapshot_path(run: Run, step: int) -> Path:
    """Where a run keeps what it was after a step."""
    return run.path / SNAPSHOTS / f"step-{step:08d}"


def missing_snapshots(
    run: Run, wanted: Sequence[int], statistics: Collection[str] = ()
) -> list[int]:
    """Those of ``wanted`` that a run has not kept, or without some of these statistics."""

    def kept(step: int) -> bool:
        path = snapshot_path(run, step)
        recorded = read_json(path / "state.json")["tracker"]["statistics"] if path.is_dir() else ()
        return path.is_dir() and set(statistics) <= set(recorded)

    return [step for step in wanted if not kept(step)]


def read_snapshot(run: Run, step: int) -> Snapshot:
    """What a run kept of a step. Raises CorruptFileError, naming the file, for a damaged one."""
    files, state = read_directory(snapshot_path(run, step))
    statistics = state["tracker"]["statistics"]
    return Snapshot(
        step,
        files["model"],
        {name: statistic_of(files["trajectory"], name) for name in statistics},
        state["tracker"]["count"],
        files["optimizer"],
    )


def drop_snapshots(run: Run) -> None:
    """Keep none."""
    remove_directory(run.path / SNAPSHOTS)


def clear(run: Run) -> None:
    """Drop all checkpoints: the run is finished."""
    remove_directory(run.path / "checkpoints")


def _all(run: Run) -> list[Path]:
    return sorted((run.path / "checkpoints").glob("step-*"))


def _flatten(optimizer: torch.optim.Optimizer) -> Tensors:
    """Optimizer state as named tensors: ``<parameter position>/<slot>``."""
    return {
        f"{position}/{slot}": value
        for position, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, saved: Tensors) -> None:
    state: dict[int, Tensors] = {}
    for key, value in saved.items():
        position, slot = key.split("/")
        state.setdefault(int(position), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
