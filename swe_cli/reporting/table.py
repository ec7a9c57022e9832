"""Rows as a table, and the table as CSV, Parquet and Markdown: the same rows, the same bytes."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd

from swe_cli.files import write_bytes
from swe_cli.records import COLUMNS, OPTIONAL, Row, Scalar
from swe_cli.reporting.markdown import markdown
from swe_cli.reporting.order import ordered

OPTIONAL_COLUMNS = tuple(name for name in OPTIONAL if name not in ("measures", "axes"))


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per cell: ``COLUMNS``, columns that only some rows have, measures, axes.

    Empty where null. Losses and deltas in nats per token. The order of lines does not depend on
    that of ``rows``.
    """
    lines = ordered(rows)
    hints = get_type_hints(Row)
    columns: dict[str, Any] = {
        name: pd.Series([getattr(row, name) for row in lines], dtype=_dtype(hints[name]))
        for name in COLUMNS
    }
    for name in OPTIONAL_COLUMNS:
        values = [getattr(row, name) for row in lines]
        if any(value is not None for value in values):
            columns[name] = pd.Series(values, dtype=_dtype(hints[name]))
    for name in sorted({name for row in lines for name in row.measures}):
        columns[name] = pd.Series([row.measures.get(name) for row in lines], dtype="float64")
    for axis in sorted({axis for row in lines for axis in row.axes}):
        columns[axis] = _axis([row.axes.get(axis) for row in lines])
    return pd.DataFrame(columns)


def csv_bytes(table: pd.DataFrame) -> bytes:
    """UTF-8, ``\\n``, shortest exact decimals, nothing between the commas where null."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """Typed columns; a null is a null."""
    buffer = BytesIO()
    table.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def write(table: pd.DataFrame, folder: Path, name: str = "table") -> list[Path]:
    """Write ``name.csv``, ``name.parquet`` and ``name.md``, each atomically.

    Raises StorageError where the folder cannot be written.
    """
    contents = {
        "csv": csv_bytes(table),
        "parquet": parquet_bytes(table),
        "md": markdown(table).encode(),
    }
    paths = []
    for ending, data in contents.items():
        path = folder / f"{name}.{ending}"
        write_bytes(path, data)
        paths.append(path)
    return paths


def _dtype(hint: Any) -> str:
    if hint is int:
        return "int64"
    return "float64" if float in getattr(hint, "__args__", ()) else "string"


def _axis(values: list[Scalar]) -> "pd.Series[Any]":
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds <= {int}:
        return pd.Series(values, dtype="Int64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="Float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="string")
