"""Tables as files: every row as CSV, Parquet and Markdown, and the means over seeds as CSV."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from swe_cli.controls import KIND_NAMES, PRUNED
from swe_cli.files import write_bytes
from swe_cli.records import COSTS, OPTIONAL_SETTINGS
from swe_cli.report.quantities import LOSS, MEASURE, OF_QUESTIONS, QUANTITIES, Quantity
from swe_cli.report.summary import summarise
from swe_cli.report.tables import (
    SETTINGS,
    axes_of,
    caveats,
    csv_bytes,
    records,
    split_by_protocol,
)
from swe_cli.report.text import NOTHING, exact, markdown_table, number, percent

HEAD = (
    "Losses and deltas are in nats per token; a delta is against `dense`, paired window by window. "
    "Brackets hold 95% intervals over the windows of the test split, one row at a time, "
    "not over seeds."
)
HEAD_QUESTIONS = (
    "A window is an image, with all questions about it. "
    "Accuracy is in % of the questions, its delta in percentage points, unparsable the % of "
    "answers that are no number; MAE, the mean absolute error, is in the unit of the answers."
)
HEAD_ROLES = (
    "`roles` are the modules that could be cut, and `sparsity.<role>` is the fraction cut of the "
    "prunable weights of one."
)
Spell = Callable[[Mapping[str, Any]], str]


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
        points += [about | point for point in (*summary.controls, *summary.cuts)]
    means = pd.DataFrame(points).drop(columns=["line", "by", "parts", "x"], errors="ignore")
    return means.assign(seeds=means["seeds"].map(len)).dropna(axis=1, how="all")


def markdown(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The table for people: fewer columns, four decimals, a head that says what intervals are.

    Settings that never change, and ``notes``, stand above it.
    """
    optional = [name for name in OPTIONAL_SETTINGS if name in table]
    always = [name for name in SETTINGS if name not in ("base", *OPTIONAL_SETTINGS)]
    settings = ["model", "data", *always, *optional, "fingerprint"]
    values = {name: table[name].dropna().unique() for name in [*settings, *axes_of(table)]}
    # A cut that a setting does not touch differs from one that it does; a control does not.
    cuts = table[table["kind"] == PRUNED]
    partly = {name for name in settings if len(values[name]) and cuts[name].isna().any()}
    varying = [name for name in values if len(values[name]) > 1 or name in partly]
    fixed = [f"{n} {values[n][0]}" for n in settings if len(values[n]) and n not in varying]
    titles = ["kind", "criterion", *varying, "base", "seed", "ratio"]
    titles += ["rate"] if table["rate"].notna().any() else []
    numbers = _numbers(table, several_roles="roles" in varying)
    lines = [[*titles, *numbers]]
    for row in records(table):
        about = row | {"kind": KIND_NAMES.get(row["kind"], row["kind"])}
        cells = [spell(row) for spell in numbers.values()]
        if row["status"] == "failed":
            error = NOTHING if row["error"] is None else _plain(row["error"])
            cells = [f"failed: {error}" if title == "loss" else "" for title in numbers]
        lines.append([*(_plain(about[name]) for name in titles), *cells])
    heads = [HEAD, *([HEAD_QUESTIONS] if any(q.mean in table for q in OF_QUESTIONS) else [])]
    heads += [HEAD_ROLES] if "roles" in varying else []
    heads += [_baseline(table, q) for q in OF_QUESTIONS if q.baseline_column in table]
    parts = [" ".join([*heads, *notes]), *([", ".join(fixed) + "."] if fixed else [])]
    return "\n\n".join([*parts, markdown_table(lines, left=len(titles)) + "\n"])


def _numbers(table: pd.DataFrame, *, several_roles: bool) -> dict[str, Spell]:
    """What stands in the columns of numbers of a row that is done, by their heads."""

    def of(column: str, spell: Callable[[float], str] = number) -> Spell:
        return lambda row: "" if row[column] is None else spell(row[column])

    names = list(map(str, table.columns))
    roles = [name for name in names if name.startswith("sparsity.")] * several_roles
    cells = {name: of(name) for name in ["sparsity", *roles]}
    cells["loss before recovery"] = of(LOSS.before)
    for quantity in (q for q in QUANTITIES if q.mean in table):
        delta = "delta" if quantity is LOSS else f"delta {quantity.short}"
        cells[quantity.short] = partial(quantity.phrase, column=quantity.mean)
        cells[delta] = partial(quantity.phrase, column=quantity.delta)
    if "unparsable" in table:
        cells["unparsable"] = of("unparsable", partial(percent, decimals=1))
    costs = {name: of(name, "{:,.0f}".format) for name in COSTS if name in table}
    measured = costs or any(map(MEASURE.fullmatch, names))
    if table["bits_per_character"].notna().any() or not measured:
        costs["bits per character"] = of("bits_per_character")
    return cells | costs


def _baseline(table: pd.DataFrame, quantity: Quantity) -> str:
    """What always the same answer gives, data set by data set where there are several."""
    rows = table.dropna(subset=[quantity.baseline_column])
    several = table["data"].nunique() > 1
    words = [
        ", ".join(map(quantity.spell, values.unique())) + (f" ({data})" if several else "")
        for data, values in rows.groupby("data")[quantity.baseline_column]
    ]
    return f"Always the {quantity.baseline}: {quantity.short} {', '.join(words)}."


def _plain(value: Any) -> str:
    if value is None or isinstance(value, float):
        return exact(value)
    return str(value).split("\n")[0].replace("|", "\\|")
