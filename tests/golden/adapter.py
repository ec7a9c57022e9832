"""All that the nets of this folder know of the package's insides; the rest is commands and files.

Where the package changes its inner shape, this file is pointed at it, and nothing else here.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from swe_cli.config import ConfigRoot, component, read_tokens
from swe_cli.contracts import Evidence
from swe_cli.data import text as texts
from swe_cli.experiments import training
from swe_cli.experiments.cell import execute
from swe_cli.experiments.spec import built
from swe_cli.experiments.sweep import SweepPlan, plan_sweep
from swe_cli.ranking import Ranking
from swe_cli.seeds import derive

__all__ = ["Ranking", "derive"]

Tensors = dict[str, Tensor]


def plan(words: Sequence[str], results: Path) -> dict[str, Any]:
    """What ``swe sweep`` would run, in order: every training and cell by its hash."""
    made = _plan(words, results)
    return {
        "name": f"sweep-{made.name}-{made.hash[:8]}",
        "trainings": {
            spec.hash: {
                "name": spec.run.name,
                "identity": spec.config["identity"],
                "statistics": list(spec.statistics),
                "snapshots": list(spec.snapshots),
            }
            for spec in made.trainings
        },
        "cells": {p.hash: dict(p.config) for p in made.cells},
        "axes": {p.hash: dict(p.axes) for p in made.cells},
    }


def cell_masks(words: Sequence[str], results: Path) -> Iterator[tuple[dict[str, Any], Tensors]]:
    """Cut every pruned cell of a sweep of one finished training: its description and its masks."""
    made = _plan(words, results)
    (spec,) = made.trainings
    trained = spec.open()
    for planned in made.cells:
        if planned.kind == "pruned":
            yield dict(planned.config), execute(planned.spec, trained).masks


def _plan(words: Sequence[str], results: Path) -> SweepPlan:
    return plan_sweep(read_tokens(words), ConfigRoot(), results)


def criterion(name: str, **options: Any) -> Any:
    """A criterion with the options of its YAML, but for those given."""
    return built(component("criterion", name, ConfigRoot(), options))


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
    (folder / texts.SHAKESPEARE).write_bytes(text)
    patch.setenv("SWE_DATA_DIR", str(folder))
    patch.setattr(texts, "SHAKESPEARE_BYTES", len(text))
    patch.setattr(texts, "SHAKESPEARE_SHA256", hashlib.sha256(text).hexdigest())


def begin_anew() -> None:
    """Forget what a process keeps of data it has read, as a new one would."""
    training._dataset.cache_clear()
