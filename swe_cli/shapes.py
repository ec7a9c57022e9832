"""What the JSON files of a results folder hold, by their names, as far as anybody relies on it.

A shape is a type or several, ``[shape]`` for a list, ``[shape, shape]`` for a pair, or keys:
``key?`` may be missing, ``*`` is any other. None, and what is not named, may be anything.
"""

import math
from types import NoneType
from typing import Any

from swe_cli.records import COLUMNS, OF_ROW, SETTINGS

NUMBER, MAYBE, TEXT = (int, float), (int, float, NoneType), {"*": str}
SCALAR = (str, int, float, bool, NoneType)
NUMBERS, SCALARS = {"*": NUMBER}, {"*": SCALAR}
WORDS = dict.fromkeys(("kind", "model", "data", "training", "config_hash", "fingerprint"), str)
ROW = {**WORDS, "status?": str, "seed": int, "ratio?": MAYBE, "rate?": MAYBE, "*": SCALAR}
ROW |= {f"{name}?": MAYBE for name in COLUMNS if name not in (*OF_ROW, *SETTINGS)}
ROW |= {"measures?": {"*": MAYBE}, "axes?": SCALARS, "settings?": SCALARS}
LOSSES = "best_validation_loss_nats", "final_validation_loss_nats"
TRACKER = {
    "statistics": [str],
    "count": int,
    "sources?": TEXT,
    "start?": (int, str),
    "every_steps?": int,
}
MANIFEST = {"status": str, "files": TEXT, "kind?": str, "written?": str, "host?": str}
MANIFEST |= {"failed?": int, "measures?": NUMBERS, "tracking_seconds_per_step?": NUMBER}
RESULTS = {"steps": int, **dict.fromkeys(LOSSES, MAYBE)}
# Of a run by its kind: its configuration, and its manifest once it is done.
CONFIGS: dict[str, Any] = {
    "train": {"identity": {}, "paths": TEXT},
    "prune": {"training": str, "cell": str, "cut": {}},
    "sweep": {"words?": [str]},
}
DONE: dict[str, Any] = {
    "train": {"tracker": TRACKER, "results": RESULTS, "seconds_per_step": NUMBER},
    "prune": {"row": ROW},
}
DECLARED = {"line": SCALARS, "primary": SCALARS, "secondary": [SCALARS]}
SHAPES: dict[str, Any] = {
    "manifest.json": MANIFEST,
    "cells.json": [{"cell": str, "axes": SCALARS}],
    "failed.json": [ROW],
    "row.json": ROW,
    "files.json": TEXT,
    "layers.json": {"*": [int, int]},
    "timing.json": {"host": str, "seconds": NUMBERS, "cpu_seconds?": NUMBERS, "joules?": NUMBERS},
    "compare.json": {"declared": DECLARED, "written": str, "done": int, "cells": int},
    "costs.json": {"warnings?": [str], "conditions?": {"fingerprint": str, "load": None}},
    "state.json": {"files": TEXT, "tracker": TRACKER},
    "shown.json": SCALARS,
}


def misfit(value: Any, shape: Any, at: str = "it") -> str:
    """Where a value is not of a shape, in words; empty where it is."""
    if shape is None:
        return ""
    if not isinstance(shape, list | dict):
        kinds = shape if isinstance(shape, tuple) else (shape,)
        if type(value) in kinds and (type(value) is not float or math.isfinite(value)):
            return ""
        wanted = "number" if kinds in (NUMBER, MAYBE) else " or ".join(k.__name__ for k in kinds)
        return f"{at} is no {wanted}"
    if not isinstance(value, type(shape)):
        return f"{at} is no {type(shape).__name__}"
    if isinstance(shape, list):
        if len(value) != len(shape) > 1:
            return f"{at} is not of {len(shape)}"
        parts = [(of, shape[0], f"{at}[{number}]") for number, of in enumerate(value)]
    else:
        needed = [key for key in shape if key[-1] not in "?*"]
        if missing := [key for key in needed if key not in value]:
            return f"{at} holds no {missing[0]}"
        of_key = {key: shape.get(key, shape.get(f"{key}?", shape.get("*"))) for key in value}
        parts = [(value[key], of, key) for key, of in of_key.items()]
    return next(filter(None, (misfit(*part) for part in parts)), "")
