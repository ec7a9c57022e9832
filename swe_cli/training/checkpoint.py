"""Checkpoints: everything a training needs to go on bit for bit, in one directory."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from swe_cli.contracts import Tensors
from swe_cli.files import read_directory, remove_directory, write_directory
from swe_cli.runs import Run
from swe_cli.training.loop import Progress
from swe_cli.training.tracker import Tracker

KEPT = 2  # the newest and, should a disk damage it, the one before


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
) -> Progress:
    """Load the newest whole checkpoint in place, or start afresh where there is none to use.

    A checkpoint that lacks a statistic that is now wanted cannot serve, and is dropped: otherwise
    it would pass for the newest one of the training that starts afresh.
    Raises CorruptFileError, naming the file, for a damaged one.
    """
    for path in reversed(_all(run)):
        files, state = read_directory(path)
        if not set(tracker.statistics) <= set(state["tracker"]["statistics"]):
            remove_directory(path)
            continue
        for name, parameter in model.named_parameters():
            parameter.copy_(files["model"][name])
        _unflatten(optimizer, files["optimizer"])
        tracker.load(files["tracker"], state["tracker"])
        best.update(files["best"])
        return Progress(**state["progress"])
    return Progress()


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
