"""Systematic Weight Evaluation: train, track, prune, evaluate, report.

The floors, top to bottom, are listed in ``pyproject.toml`` and drawn in the README.
"""

from importlib.metadata import version
from typing import Any

__version__ = version("swe-cli")


def __getattr__(name: str) -> Any:
    """``WeightTracker`` and ``prune``, in Python; the command line need not wait for them."""
    if name == "WeightTracker":
        from swe_cli.training.own_loop import WeightTracker

        return WeightTracker
    if name == "prune":
        from swe_cli.pruning.own_model import prune

        return prune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
