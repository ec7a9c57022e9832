"""One order for rows, so that the same rows always give the same bytes and the same figure."""

import json
from collections.abc import Iterable
from typing import Any

from swe_cli.records import CONTROLS, Kind, Row, Scalar

KINDS: tuple[Kind, ...] = ("dense", *CONTROLS, "pruned")


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Controls first, then what was pruned; a row that is there twice is kept once."""
    unique = {json.dumps(row.to_json(), sort_keys=True, default=str): row for row in rows}
    return [unique[key] for key in sorted(unique, key=lambda key: (*_place(unique[key]), key))]


def _place(row: Row) -> tuple[Any, ...]:
    axes = sorted(row.axes.items())
    words = (
        row.criterion,
        row.allocation,
        row.pattern,
        row.base,
        row.prunable,
        row.recovery,
        row.roles,
        row.schedule,
        row.fuse,
    )
    return (
        KINDS.index(row.kind),
        row.model,
        row.data,
        tuple((name, rank(value)) for name, value in axes),
        tuple(rank(word) for word in words),
        rank(row.ratio),
        rank(row.rate),
        row.seed,
    )


def rank(value: Scalar) -> tuple[int, float, str]:
    """A sort key for values of any plain type: nothing, then numbers by size, then words."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, str):
        return (2, 0.0, value)
    return (1, float(value), "")
