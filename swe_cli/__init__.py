"""Systematic Weight Evaluation: train, track, prune, evaluate, report.

The floors, top to bottom, are listed in ``pyproject.toml`` and drawn in docs/architecture.md.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("swe-cli")


def __getattr__(name: str) -> Any:
    """What one uses in Python; the command line need not wait for it."""
    rooms = {"WeightTracker": "training.own_loop", "prune": "pruning.own_model"}
    rooms |= {"decompressed": "files"}
    if name in rooms:
        return getattr(import_module(f"swe_cli.{rooms[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
