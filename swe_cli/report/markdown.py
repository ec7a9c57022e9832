"""The table for people: fewer columns, four decimals, a head that says what the intervals are."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from swe_cli.controls import KIND_NAMES, PRUNED
from swe_cli.records import COSTS, OPTIONAL_SETTINGS
from swe_cli.report.quantities import LOSS, MEASURE, OF_QUESTIONS, QUANTITIES, Quantity
from swe_cli.report.tables import SETTINGS, axes_of, records
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


def markdown(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A readable part of the table. Settings that never change, and ``notes``, stand above it."""
    axes = axes_of(table)
    optional = [name for name in OPTIONAL_SETTINGS if name in table]
    always = [name for name in SETTINGS if name not in ("base", *OPTIONAL_SETTINGS)]
    settings = ["model", "data", *always, *optional, "fingerprint"]
    values = {name: table[name].dropna().unique() for name in [*settings, *axes]}
    # A cut that a setting does not touch differs from one that it does; a control does not.
    cuts = table[table["kind"] == PRUNED]
    partly = {name for name in settings if len(values[name]) and cuts[name].isna().any()}
    varying = [name for name in values if len(values[name]) > 1 or name in partly]
    fixed = [f"{n} {values[n][0]}" for n in settings if len(values[n]) and n not in varying]
    titles = ["kind", "criterion", *varying, "base", "seed", "ratio"]
    titles += ["rate"] if table["rate"].notna().any() else []
    numbers = _numbers(table, several_roles="roles" in varying)
    lines = [[*titles, *numbers]]
    for record in records(table):
        lines.append([_plain(record[name], name) for name in titles])
        if record["status"] == "failed":
            failed = f"failed: {_plain(record['error'], 'error')}"
            lines[-1] += [failed if title == "loss" else "" for title in numbers]
        else:
            lines[-1] += [spell(record) for spell in numbers.values()]
    heads = [HEAD, *([HEAD_QUESTIONS] if any(q.mean in table for q in OF_QUESTIONS) else [])]
    heads += [HEAD_ROLES] if "roles" in varying else []
    heads += [_baseline(table, q) for q in OF_QUESTIONS if q.baseline_column in table]
    parts = [" ".join([*heads, *notes]), *([", ".join(fixed) + "."] if fixed else [])]
    return "\n\n".join([*parts, markdown_table(lines, left=len(titles)) + "\n"])


def _numbers(table: pd.DataFrame, *, several_roles: bool) -> dict[str, Spell]:
    """What stands in the columns of numbers of a row that is done, by their heads."""
    parts = [name for name in map(str, table.columns) if name.startswith("sparsity.")]
    cells: dict[str, Spell] = {
        name: partial(_number, name) for name in ["sparsity", *(parts * several_roles)]
    }
    cells["loss before recovery"] = partial(_number, LOSS.before)
    for quantity in (q for q in QUANTITIES if q.mean in table):
        delta = "delta" if quantity is LOSS else f"delta {quantity.short}"
        cells[quantity.short] = partial(quantity.phrase, column=quantity.mean)
        cells[delta] = partial(quantity.phrase, column=quantity.delta)
    shares = partial(percent, decimals=1)
    cells |= {n: partial(_number, n, spell=shares) for n in ("unparsable",) if n in table}
    costs = [name for name in COSTS if name in table]
    cells |= {name: partial(_number, name, spell="{:,.0f}".format) for name in costs}
    measured = costs or any(map(MEASURE.fullmatch, map(str, table.columns)))
    if table["bits_per_character"].notna().any() or not measured:
        cells["bits per character"] = partial(_number, "bits_per_character")
    return cells


def _baseline(table: pd.DataFrame, quantity: Quantity) -> str:
    """What always the same answer gives, data set by data set where there are several."""
    column = quantity.baseline_column
    rows = table.dropna(subset=[column])
    worth = {
        str(data): ", ".join(map(quantity.spell, values.unique()))
        for data, values in rows.groupby("data")[column]
    }
    several = table["data"].nunique() > 1
    words = [f"{value} ({data})" if several else value for data, value in worth.items()]
    return f"Always the {quantity.baseline}: {quantity.short} {', '.join(words)}."


def _number(column: str, record: Mapping[str, Any], spell: Callable[[float], str] = number) -> str:
    return "" if record[column] is None else spell(record[column])


def _plain(value: Any, column: str) -> str:
    if value is None:
        return "" if column != "error" else NOTHING
    if column == "kind":
        return KIND_NAMES.get(value, str(value))
    return (
        exact(value) if isinstance(value, float) else str(value).split("\n")[0].replace("|", "\\|")
    )
