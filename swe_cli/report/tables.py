"""Rows as one tidy frame, which all else is made from, and its files: ``table.csv`` and the like.

Whatever takes such a frame also takes a ``table.csv`` that ``pd.read_csv`` has read.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from swe_cli.controls import KIND_NAMES, KINDS, PRUNED
from swe_cli.files import write_files
from swe_cli.records import COLUMNS, COSTS, OF_ROW, OPTIONAL_SETTINGS, SETTINGS, YOUNGER, Row
from swe_cli.report.quantities import ACCURACY, CALIBRATED, LOSS, MEASURE, OF_QUESTIONS, Quantity
from swe_cli.report.text import NOTHING, exact, markdown_table

# What tells lines of one criterion apart, beside the axes of a sweep; in the order of labels.
OF_LINE = ("allocation", "pattern", "base", "prunable", "roles", "recovery", "schedule", "fuse")
_WORDS = {*OF_ROW, *SETTINGS} - {"ratio", "rate", "fuse"}
_DTYPES = {**dict.fromkeys(_WORDS, "string"), "seed": "int64"}  # else float64
# What always has a column of its own in the Markdown, around those that vary.
BEFORE, AFTER = ("kind", "criterion"), ("base", "seed", "ratio", "rate")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
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


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """One line per cell: ``COLUMNS``, columns that only some rows have, measures, axes.

    Empty where null. Losses and deltas in nats per token. The order of lines does not depend on
    that of ``rows``; a row that is there twice is kept once.
    """
    placed = [(_place(pair := (row.columns(), row.varied)), pair) for row in rows]
    lines: list[tuple[Any, Any]] = []
    for _, run in groupby(sorted(placed, key=itemgetter(0)), itemgetter(0)):
        pairs = [pair for _, pair in run]
        if len(pairs) > 1:  # nothing that has a place of its own in the order tells them apart
            unique = {json.dumps(pair, sort_keys=True, default=str): pair for pair in pairs}
            pairs = sorted(unique.values(), key=_last_place)
        lines += pairs
    axes = sorted({axis for _, varied in lines for axis in varied})
    present = {name for line, _ in lines for name in line}
    names = [*COLUMNS, *(name for name in OPTIONAL_SETTINGS if name in present)]
    names += sorted(present - {*COLUMNS, *OPTIONAL_SETTINGS, *YOUNGER})

    def column(name: str) -> "pd.Series[Any]":
        dtype = _DTYPES.get(name, "float64")
        return pd.Series([line.get(name) for line, _ in lines], dtype=dtype)

    table = {name: column(name) for name in names}
    table |= {axis: _axis([varied.get(axis) for _, varied in lines]) for axis in axes}
    made = pd.DataFrame(table | {name: column(name) for name in YOUNGER if name in present})
    made.attrs["axes"] = axes
    return made


def axes_of(table: pd.DataFrame) -> list[str]:
    """The columns that hold what a sweep varied; of a table that was read, by their names."""
    ours = {*COLUMNS, *OPTIONAL_SETTINGS, *COSTS, *YOUNGER}
    read = [c for c in map(str, table.columns) if c not in ours and not MEASURE.fullmatch(c)]
    return [axis for axis in table.attrs.get("axes", read) if axis in table]


def settings_of(table: pd.DataFrame) -> list[str]:
    """The columns that tell lines of one criterion apart."""
    return [name for name in OF_LINE if name in table] + axes_of(table)


def split_by_protocol(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Groups that may share a table of means or a figure: one fingerprint, model and data set each.

    A failed row, measured by no protocol, joins the first group of its model and data.
    """
    home = [table["model"], table["data"]]
    done = table["fingerprint"].where(table["status"] == "done")
    protocol = done.fillna(done.groupby(home).transform("first")).fillna(table["fingerprint"])
    ordered = table.assign(protocol=protocol).sort_values("status", kind="stable")
    groups = ordered.groupby(["model", "data", "protocol"], sort=False, dropna=False)
    return [table.loc[group.index.sort_values()] for _, group in groups]


def caveats(ran: Iterable[tuple[Any, Any]], published: Mapping[str, str]) -> list[str]:
    """A sentence on criteria that ran with another allocation than ``published`` says is theirs.

    ``ran``: criterion and allocation, as often as there are rows. Nothing is said of a criterion
    that is not in ``published``, nor of one that was published with the global allocation.
    """
    names = defaultdict(list)
    for name, allocation in sorted(pair for pair in set(ran) if not pd.isna(list(pair)).any()):
        own = published.get(name, "global")
        if own not in ("global", allocation):
            names[allocation, own].append(name)
    words = (
        f"{', '.join(of)} ran with allocation {allocation}; published with {own}."
        for (allocation, own), of in names.items()
    )
    return [" ".join(words)] if names else []


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines as plain values; None where null."""
    plain: Any = table.astype(object).where(table.notna(), None)
    columns = (
        [v.item() if isinstance(v, np.generic) else v for v in plain.iloc[:, at]]
        for at in range(plain.shape[1])
    )
    names = list(plain)
    return [dict(zip(names, line, strict=True)) for line in zip(*columns, strict=True)]


def csv_bytes(table: pd.DataFrame) -> bytes:
    """UTF-8, ``\\n``, shortest exact decimals, nothing between the commas where null.

    Words that a spreadsheet would take for a formula have an apostrophe before them.
    """
    words = table.select_dtypes(["object", "string"])
    safe = words.map(lambda of: f"'{of}" if isinstance(of, str) and of[:1] in FORMULA else of)
    return table.assign(**safe).to_csv(index=False, lineterminator="\n").encode()


def write(
    table: pd.DataFrame, folder: Path, layerwise: Mapping[str, str] | None = None
) -> list[Path]:
    """Write ``table.csv``, ``.parquet`` and ``.md``. StorageError where the folder takes none.

    ``layerwise``: of criteria whose scores are of one layer, the allocation they were published
    with; the head of the Markdown says where one was ranked globally. The same rows give the same
    bytes; each file is replaced as a whole.
    """
    ranked = table[table["allocation"] == "global"]
    notes = caveats(zip(ranked["criterion"], ranked["allocation"], strict=True), layerwise or {})
    plain = table.copy(deep=False)
    plain.attrs = {}  # which Parquet would keep, too
    contents = {
        "table.csv": csv_bytes(table),
        "table.parquet": plain.to_parquet(engine="pyarrow", index=False),
        "table.md": markdown(table, notes).encode(),
    }
    return write_files(folder, contents)


def markdown(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The table for people: fewer columns, fewer decimals, a head that says what intervals are.

    Settings that never change, and ``notes``, stand above it.
    """
    optional = [name for name in SETTINGS if name in table and name not in (*BEFORE, *AFTER)]
    settings = ["model", "data", *optional, "fingerprint", *axes_of(table)]
    values = {name: table[name].dropna().unique() for name in settings}
    # A cut that a setting does not touch differs from one that it does; a control does not.
    cuts = table[table["kind"] == PRUNED]
    partly = {name for name in values if len(values[name]) and cuts[name].isna().any()}
    varying = [name for name in values if len(values[name]) > 1 or name in partly]
    fixed = [f"{n} {values[n][0]}" for n in values if len(values[n]) and n not in varying]
    titles = [*BEFORE, *varying, *AFTER]
    names = map(str, table if "roles" in varying else ())
    roles = [name for name in names if name.startswith("sparsity.")]
    costs = [n for n in COSTS if n in table and table[n].nunique(dropna=False) > 1]
    costs = [name for name in costs if not name.startswith("nonzero")]  # compression says it

    numbers = {name: (LOSS, name) for name in ("sparsity", *roles)}
    numbers["loss before recovery"] = LOSS, LOSS.before
    for q in (LOSS, *OF_QUESTIONS, CALIBRATED):
        if q is CALIBRATED:
            numbers["unparsable"] = ACCURACY, "unparsable"
            numbers["bits per character"] = LOSS, "bits_per_character"
        numbers[q.short] = q, q.mean
        numbers["delta" + f" {q.short}" * (q is not LOSS)] = q, q.delta
    numbers["top-1"] = ACCURACY, "top1"
    lines = []
    for row in records(table):
        about = row | {"kind": KIND_NAMES.get(row["kind"], row["kind"])}
        cells = {
            head: q.phrase(row, column, decimals=3 if column == q.delta else 4)
            for head, (q, column) in numbers.items()
        }
        cells |= {name: "" if row[name] is None else f"{row[name]:,.0f}" for name in costs}
        if row["status"] == "failed":
            error = NOTHING if row["error"] is None else _plain(row["error"])
            cells = dict.fromkeys(cells, "") | {"loss": f"failed: {error}"}
        lines.append([*(_plain(about[name]) for name in titles), *cells.values()])
    said = [any(column) for column in zip(*lines, strict=True)]
    heads = [HEAD, *([HEAD_QUESTIONS] if any(q.mean in table for q in OF_QUESTIONS) else [])]
    heads += [HEAD_ROLES] if "roles" in varying else []
    heads += [_baseline(table, q) for q in OF_QUESTIONS if q.baseline_column in table]
    parts = [" ".join([*heads, *notes]), *([", ".join(fixed) + "."] if fixed else [])]
    shown = (compress(line, said) for line in ([*titles, *cells], *lines))
    return "\n\n".join([*parts, markdown_table(shown, left=sum(said[: len(titles)])) + "\n"])


def _place(line: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[Any, ...]:
    """Controls first, then axes, settings and cuts; see ``_last_place``."""
    row, axes = line
    return (
        KINDS.index(row["kind"]) if row["kind"] in KINDS else len(KINDS),  # of another version
        row["model"],
        row["data"],
        tuple((name, _rank(value)) for name, value in sorted(axes.items())),
        tuple(_rank(row.get(name)) for name in SETTINGS),
        row["seed"],
    )


def _last_place(line: tuple[Mapping[str, Any], Mapping[str, Any]]) -> str:
    """Whatever else tells rows apart."""
    return json.dumps({name: line[0][name] for name in COLUMNS}, sort_keys=True)


def _rank(value: Any) -> tuple[int, float, str]:
    """Nothing, then numbers by size, then words."""
    if value is None:
        return (0, 0.0, "")
    return (2, 0.0, value) if isinstance(value, str) else (1, float(value), "")


def _axis(values: Sequence[Any]) -> "pd.Series[Any]":
    kinds = {type(value) for value in values if value is not None}
    for numeric, dtype in (({bool}, "boolean"), ({int}, "Int64"), ({int, float}, "Float64")):
        if kinds <= numeric:
            return pd.Series(values, dtype=dtype)
    return pd.Series([None if value is None else str(value) for value in values], dtype="string")


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
    return str(value).split("\n")[0]
