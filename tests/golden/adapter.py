"""All that the nets of this folder know of the package's insides; the rest is commands and files.

Where the package changes its inner shape, this file is pointed at it, and nothing else here.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from swe_cli.compose import ConfigRoot, default_part, read_tokens
from swe_cli.contracts import Evidence
from swe_cli.data import shakespeare_chars
from swe_cli.masks.rank import Ranking
from swe_cli.pruning.recover import UNWATCHED
from swe_cli.runs import Run
from swe_cli.seeds import derive
from swe_cli.sweeps import build
from swe_cli.sweeps.plan import SweepPlan, plan_sweep
from swe_cli.sweeps.subject import load_subject
from swe_cli.sweeps.treatment import treat

__all__ = ["Ranking", "derive"]

Tensors = dict[str, Tensor]


def plan(words: Sequence[str], results: Path) -> dict[str, Any]:
    """What ``swe sweep`` would run, in order: every training and cell by its hash."""
    made = _plan(words, results)
    return {
        "name": f"sweep-{made.name}-{made.hash[:8]}",
        "trainings": {
            training.hash: {
                "name": training.name,
                "identity": training.config["identity"],
                "statistics": list(training.statistics),
                "snapshots": list(training.snapshots),
            }
            for training in made.trainings
        },
        "cells": {p.cell.hash: dict(p.cell.config) for p in made.cells},
        "axes": {p.cell.hash: dict(p.axes) for p in made.cells},
    }


def cell_masks(words: Sequence[str], results: Path) -> Iterator[tuple[dict[str, Any], Tensors]]:
    """Cut every pruned cell of a sweep of one finished training: its description and its masks."""
    made = _plan(words, results)
    (training,) = made.trainings
    trained = load_subject(Run(results / "runs" / training.name), ConfigRoot())
    for planned in made.cells:
        if planned.cell.kind == "pruned":
            yield dict(planned.cell.config), treat(planned.cell, trained, UNWATCHED).masks


def _plan(words: Sequence[str], results: Path) -> SweepPlan:
    return plan_sweep(read_tokens(words), ConfigRoot(), results)


def criterion(name: str, **options: Any) -> Any:
    """A criterion with the options of its YAML, but for those given."""
    chosen = default_part("criterion", name, ConfigRoot())
    return replace(chosen, options={**chosen.options, **options}).build()


def evidence(
    weights: Tensors,
    trajectory: Mapping[str, Tensors],
    calibration: Mapping[str, Tensors],
    seed: int,
) -> Any:
    """What a criterion's ``score`` or ``draw`` is given."""
    return Evidence(weights, trajectory, seed, calibration)


def pretend_shakespeare(patch: pytest.MonkeyPatch, folder: Path, text: bytes) -> None:
    """Let another text pass for tinyshakespeare, which is not at hand everywhere."""
    (folder / shakespeare_chars.NAME).write_bytes(text)
    patch.setenv("SWE_DATA_DIR", str(folder))
    patch.setattr(shakespeare_chars, "BYTES", len(text))
    patch.setattr(shakespeare_chars, "SHA256", hashlib.sha256(text).hexdigest())


def begin_anew() -> None:
    """Forget what a process keeps of data it has read, as a new one would."""
    build._dataset.cache_clear()
