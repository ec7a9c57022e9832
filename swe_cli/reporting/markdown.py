"""The table for people: fewer columns, four decimals, a head that says what the intervals are."""

import re
from typing import Any

import pandas as pd

from swe_cli.records import COLUMNS, COSTS, OPTIONAL
from swe_cli.reporting.quantity import OF_QUESTIONS, Quantity
from swe_cli.reporting.text import KIND_NAMES, NOTHING, bracket, exact, number, percent

HEAD = (
    "Losses and deltas are in nats per token; a delta is against `dense`, paired window by window. "
    "Brackets hold 95% intervals over the windows of the test split, one row at a time, "
    "not over seeds."
)
WINDOWS_ARE_IMAGES = "A window is an image, with all questions about it."
HEAD_QUESTIONS = (
    "Accuracy is in % of the questions, its delta in percentage points, unparsable the % of "
    "answers that are no number; MAE, the mean absolute error, is in the unit of the answers."
)
HEAD_ROLES = (
    "`roles` are the modules that could be cut, and `sparsity.<role>` is the fraction cut of the "
    "prunable weights of one."
)
_SETTINGS = ("allocation", "pattern", "prunable", "recovery")
_TITLES = {"delta_accuracy": "delta accuracy", "mae": "MAE", "delta_mae": "delta MAE"}
_MEASURE = re.compile(r"(delta_)?(accuracy|mae|rmse)([._].*)?|unparsable|sparsity\..+")


def markdown(table: pd.DataFrame) -> str:
    """A readable part of ``frame``'s table. Settings that never change stand above it."""
    measures = [str(n) for n in table.columns if _MEASURE.fullmatch(str(n)) or n in COSTS]
    axes = [str(n) for n in table.columns if n not in (*COLUMNS, *OPTIONAL, *measures)]
    optional = [name for name in OPTIONAL if name in table.columns]
    said = ["model", "data", *_SETTINGS, *optional, "fingerprint"]
    values = {name: list(table[name].dropna().unique()) for name in [*said, *axes]}
    # A cut that a setting does not touch differs from one that it does; a control does not.
    cuts = table[table["kind"] == "pruned"]
    partly = {name for name in said if values[name] and cuts[name].isna().any()}
    varying = [name for name in [*said, *axes] if len(values[name]) > 1 or name in partly]
    fixed = [f"{name} {values[name][0]}" for name in said if values[name] and name not in varying]
    by_rate = bool(table["rate"].notna().any())
    titles = ["kind", "criterion", *varying, "base", "seed", "ratio"]
    titles += ["rate"] if by_rate else []
    numbers = _number_titles(table, measures, several_roles="roles" in varying)
    lines = [_line([*titles, *numbers]), _line(["---"] * len(titles) + ["---:"] * len(numbers))]
    for record in table.to_dict("records"):
        lines.append(
            _line([_plain(record[name], name) for name in titles] + _numbers(record, numbers))
        )
    heads = [HEAD, *([WINDOWS_ARE_IMAGES, HEAD_QUESTIONS] if _questions(measures) else [])]
    heads += [HEAD_ROLES] if "roles" in varying else []
    heads += _baselines(table)
    fixed_words = [", ".join(fixed) + ".", ""] if fixed else []
    return "\n".join([" ".join(heads), "", *fixed_words, *lines, ""])


def _questions(measures: list[str]) -> list[Quantity]:
    return [quantity for quantity in OF_QUESTIONS if quantity.name in measures]


def _number_titles(table: pd.DataFrame, measures: list[str], *, several_roles: bool) -> list[str]:
    """Heads of the columns of numbers; every one but those of losses is a column of the table."""
    found = ["sparsity"]
    if several_roles:
        found += [name for name in measures if name.startswith("sparsity.")]
    found += ["loss before recovery", "loss", "delta"]
    asked = ("accuracy", "delta_accuracy", "mae", "delta_mae", "unparsable")
    found += [_TITLES.get(name, name) for name in asked if name in measures]
    found += [name for name in COSTS if name in measures]
    if not measures or table["bits_per_character"].notna().any():
        found.append("bits per character")
    return found


def _baselines(table: pd.DataFrame) -> list[str]:
    """What always the same answer gives, data set by data set where there are several."""
    found = []
    for quantity in OF_QUESTIONS:
        column = quantity.baseline_measure
        if column not in table.columns:
            continue
        known = table.dropna(subset=[column])
        given = {
            str(data): ", ".join(quantity.spell(float(value)) for value in of[column].unique())
            for data, of in known.groupby("data")
        }
        several = table["data"].nunique() > 1
        values = [f"{value} ({data})" if several else value for data, value in given.items()]
        found.append(f"Always the {quantity.baseline}: {quantity.short} {', '.join(values)}.")
    return found


def _numbers(record: dict[Any, Any], titles: list[str]) -> list[str]:
    if record["status"] == "failed":
        words = f"failed: {_plain(record['error'], 'error')}"
        return [words if title == "loss" else "" for title in titles]
    return [_cell(record, title) for title in titles]


def _cell(record: dict[Any, Any], title: str) -> str:
    """One number, of a row that is done, with its interval where it has one."""
    loss = bracket(_known(record["loss_low"]), _known(record["loss_high"]))
    delta = bracket(_known(record["delta_low"]), _known(record["delta_high"]), signed=True)
    if title == "loss":
        return f"{_number(record['loss_nats'])} {loss}".strip()
    if title == "delta":
        return f"{_number(record['delta_nats'], signed=True)} {delta}".strip()
    if title == "loss before recovery":
        return _number(record["loss_before_recovery_nats"])
    if title in ("sparsity", "bits per character"):
        return _number(record[title.replace(" ", "_")])
    for quantity in OF_QUESTIONS:
        if title == quantity.short:
            return _measure(record, quantity, quantity.name, signed=False)
        if title == f"delta {quantity.short}":
            return _measure(record, quantity, f"delta_{quantity.name}", signed=True)
    share = _known(record[title])
    if share is not None and title == "unparsable":
        return percent(share, decimals=1)
    if share is not None and title in COSTS:
        return f"{share:,.0f}"
    return _number(share)  # the sparsity of a role


def _measure(record: dict[Any, Any], quantity: Quantity, name: str, *, signed: bool) -> str:
    mean = _known(record[name])
    if mean is None:
        return ""
    low, high = _known(record[f"{name}_low"]), _known(record[f"{name}_high"])
    bounds = quantity.bracket(low, high, signed=signed)
    return f"{quantity.spell(mean, signed=signed)} {bounds}".strip()


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _number(value: Any, *, signed: bool = False) -> str:
    known = _known(value)
    return "" if known is None else number(known, signed=signed)


def _plain(value: Any, column: str) -> str:
    if pd.isna(value):
        return "" if column != "error" else NOTHING
    if column == "kind":
        return KIND_NAMES.get(value, str(value))
    if isinstance(value, float):
        return exact(value)
    return str(value).split("\n")[0].replace("|", "\\|")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
