"""Rows as one tidy frame: the table that is written as ``table.csv``, and all else is made from.

Whatever takes such a frame also takes a ``table.csv`` that ``pd.read_csv`` has read.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from swe_cli import records as columns
from swe_cli.controls import KINDS
from swe_cli.records import COLUMNS, COSTS, OPTIONAL_SETTINGS, Row, Scalar
from swe_cli.report.quantities import MEASURE
from swe_cli.report.text import word

# What tells lines of one criterion apart, beside the axes of a sweep; in the order of labels.
SETTINGS = ("allocation", "pattern", "base", "prunable", "roles", "recovery", "schedule", "fuse")
_OF_MASKS = ("allocation", "pattern")  # settings that not every line has
_ORDER = ("criterion", "allocation", "pattern", "base", "prunable", "recovery")
_WORDS = {*columns.OF_ROW, *columns.SETTINGS, *OPTIONAL_SETTINGS} - {"ratio", "rate", "fuse"}


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """One line per cell: ``COLUMNS``, columns that only some rows have, measures, axes.

    Empty where null. Losses and deltas in nats per token. The order of lines does not depend on
    that of ``rows``; a row that is there twice is kept once.
    """
    pairs = [(row.columns(), row.varied) for row in rows]
    unique = {json.dumps(pair, sort_keys=True, default=str): pair for pair in pairs}
    lines = sorted(unique.values(), key=_place)
    axes = sorted({axis for _, varied in lines for axis in varied})
    present = {name for line, _ in lines for name in line}
    names = [*COLUMNS, *(name for name in OPTIONAL_SETTINGS if name in present)]
    names += sorted(present - {*COLUMNS, *OPTIONAL_SETTINGS})
    table = {
        name: pd.Series([line.get(name) for line, _ in lines], dtype=_dtype(name)) for name in names
    }
    table |= {axis: _axis([varied.get(axis) for _, varied in lines]) for axis in axes}
    made = pd.DataFrame(table)
    made.attrs["axes"] = axes
    return made


def axes_of(table: pd.DataFrame) -> list[str]:
    """The columns that hold what a sweep varied; of a table that was read, by their names."""
    ours = {*COLUMNS, *OPTIONAL_SETTINGS, *COSTS}
    read = [c for c in map(str, table.columns) if c not in ours and not MEASURE.fullmatch(c)]
    return [axis for axis in table.attrs.get("axes", read) if axis in table]


def settings_of(table: pd.DataFrame) -> list[str]:
    """The columns that tell lines of one criterion apart."""
    return [name for name in SETTINGS if name in table] + axes_of(table)


def split_by_protocol(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Groups that may share a table of means or a figure: one fingerprint, model and data set each.

    A failed row, which has been measured by no protocol, joins the first group of its model and
    data.
    """
    home = [table["model"], table["data"]]
    protocol = table["fingerprint"].where(table["status"] == "done")
    protocol = protocol.fillna(protocol.groupby(home).transform("first"))
    protocol = protocol.fillna(table["fingerprint"])
    ordered = table.assign(protocol=protocol).sort_values("status", kind="stable")
    groups = ordered.groupby(["model", "data", "protocol"], sort=False, dropna=False)
    return [table.loc[group.index.sort_values()] for _, group in groups]


def lines_of(rows: pd.DataFrame) -> "pd.Series[int]":
    """The number of the line that each row belongs to: rows that differ in seed and cut only."""
    keys = rows.assign(by=rows["ratio"].notna())
    names = ["kind", "criterion", "by", *settings_of(rows)]
    return keys.groupby(names, sort=False, dropna=False).ngroup()


def parts_of(firsts: pd.DataFrame, settings: Sequence[str]) -> list[tuple[str, ...]]:
    """What tells each line from the others: ``("base final", "tracking.every 10")``.

    From one row of each, all of one kind. Only what differs is said. What draws its own masks has
    no allocation or pattern: that others have one tells nothing of them. Where some lines were cut
    by ratio and others by rate, each says which; what finds its own sparsity was told neither.
    """

    def differs(key: str) -> bool:
        values = groups[key].dropna() if key in _OF_MASKS else groups[key]
        return len({None if pd.isna(value) else word(value) for value in values}) > 1

    told = firsts["ratio"].notna().map({True: "ratio", False: None})
    told = told.where(firsts["rate"].isna(), "rate")
    groups = firsts.assign(by=told if {"ratio", "rate"} <= set(told) else None)
    keys = [key for key in ("by", *settings) if differs(key)]
    return [
        tuple(f"{key} {word(v)}" for key, v in zip(keys, group, strict=True) if not pd.isna(v))
        for group in groups[keys].itertuples(index=False, name=None)
    ]


def caveats(
    ran: Iterable[tuple[Any, Any]], published: Mapping[str, str] | None = None
) -> list[str]:
    """A sentence on criteria that ran with another allocation than ``published`` says is theirs.

    ``ran``: criterion and allocation, as often as there are rows. Nothing is said of a criterion
    that is not in ``published``, nor of one that was published with the global allocation.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for name, allocation in sorted(pair for pair in set(ran) if not pd.isna(list(pair)).any()):
        own = (published or {}).get(name, "global")
        if own not in ("global", allocation):
            names.setdefault((allocation, own), []).append(name)
    words = (
        f"{', '.join(of)} ran with allocation {allocation}; published with {own}."
        for (allocation, own), of in names.items()
    )
    return [" ".join(words)] if names else []


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines as plain values; None where null."""
    names, values = list(map(str, table.columns)), table.astype(object).to_numpy()
    values[table.isna().to_numpy()] = None
    return [dict(zip(names, line, strict=True)) for line in values.tolist()]


def csv_bytes(table: pd.DataFrame) -> bytes:
    """UTF-8, ``\\n``, shortest exact decimals, nothing between the commas where null."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def _place(line: tuple[Mapping[str, Any], Mapping[str, Scalar]]) -> tuple[Any, ...]:
    """Controls first, then axes, settings and cuts; at last whatever else tells rows apart."""
    row, axes = line
    return (
        KINDS.index(row["kind"]),
        row["model"],
        row["data"],
        tuple((name, _rank(value)) for name, value in sorted(axes.items())),
        tuple(_rank(row.get(name)) for name in (*_ORDER, *OPTIONAL_SETTINGS, "ratio", "rate")),
        row["seed"],
        json.dumps({name: row[name] for name in COLUMNS}, sort_keys=True),
    )


def _rank(value: Scalar) -> tuple[int, float, str]:
    """Nothing, then numbers by size, then words."""
    if value is None:
        return (0, 0.0, "")
    return (2, 0.0, value) if isinstance(value, str) else (1, float(value), "")


def _dtype(name: str) -> str:
    if name == "seed":
        return "int64"
    return "string" if name in _WORDS else "float64"


def _axis(values: Sequence[Scalar]) -> "pd.Series[Any]":
    kinds = {type(value) for value in values if value is not None}
    for numeric, dtype in (({bool}, "boolean"), ({int}, "Int64"), ({int, float}, "Float64")):
        if kinds <= numeric:
            return pd.Series(values, dtype=dtype)
    return pd.Series([None if value is None else str(value) for value in values], dtype="string")
