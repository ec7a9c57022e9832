"""Tables as files: every row as CSV, Parquet and Markdown, and the means over seeds as CSV."""

from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path

import pandas as pd

from swe_cli.files import write_bytes
from swe_cli.report.markdown import markdown
from swe_cli.report.summary import summarise
from swe_cli.report.tables import caveats, csv_bytes, records, split_by_protocol


def write(
    table: pd.DataFrame,
    folder: Path,
    name: str = "table",
    *,
    published: Mapping[str, str] | None = None,
    layerwise: Collection[str] = (),
) -> list[Path]:
    """Write ``name.csv``, ``.parquet``, ``.md``, and ``summary.csv``.

    ``published``: criterion → the allocation it was published with. The head of the Markdown says
    where one of the ``layerwise`` criteria, whose scores are of one layer, was ranked globally.
    The same rows give the same bytes; each file is replaced as a whole. Raises StorageError where
    the folder cannot be written, and SweError where rows cannot be averaged.
    """
    ran = zip(table["criterion"], table["allocation"], strict=True)
    notes = caveats(((c, a) for c, a in ran if c in layerwise and a == "global"), published)
    contents = {
        f"{name}.csv": csv_bytes(table),
        f"{name}.parquet": parquet_bytes(table),
        f"{name}.md": markdown(table, notes).encode(),
        "summary.csv": csv_bytes(summary_table(table)),
    }
    for file, data in contents.items():
        write_bytes(folder / file, data)
    return [folder / file for file in contents]


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """Typed columns; a null is a null."""
    buffer = BytesIO()
    plain = table.copy(deep=False)
    plain.attrs = {}  # which would be written, too
    plain.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds as in ``Summary.points``, of all protocols; ``seeds`` is how many."""
    points = []
    for summary in map(summarise, split_by_protocol(table)):
        about = {name: getattr(summary, name) for name in ("model", "data", "fingerprint")}
        points += [about | point for point in records(summary.points)]
    found = pd.DataFrame(points).drop(columns=["line", "by", "parts", "x"], errors="ignore")
    found["seeds"] = found["seeds"].map(len)
    return found.dropna(axis=1, how="all")
