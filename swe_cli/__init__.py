"""Systematic Weight Evaluation: train, track, prune, evaluate, report.

The floors, top to bottom, are listed in ``pyproject.toml`` and drawn in the README.
"""

from importlib.metadata import version

__version__ = version("swe-cli")
