"""The table for people: fewer columns, four decimals, a head that says what the intervals are."""

from typing import Any

import pandas as pd

from swe_cli.records import COLUMNS
from swe_cli.reporting.text import KIND_NAMES, NOTHING, bracket, exact, number

HEAD = (
    "Losses and deltas are in nats per token; a delta is against `dense`, paired window by window. "
    "Brackets hold 95% intervals over the windows of the test split, one row at a time, "
    "not over seeds."
)
_SETTINGS = ("allocation", "pattern", "prunable", "recovery")


def markdown(table: pd.DataFrame) -> str:
    """A readable part of ``frame``'s table. Settings that never change stand above it."""
    axes = [str(name) for name in table.columns if name not in COLUMNS]
    said = ["model", "data", *_SETTINGS, "fingerprint"]
    values = {name: list(table[name].dropna().unique()) for name in [*said, *axes]}
    varying = [name for name in [*said, *axes] if len(values[name]) > 1]
    fixed = [f"{name} {values[name][0]}" for name in said if len(values[name]) == 1]
    by_rate = bool(table["rate"].notna().any())
    titles = ["kind", "criterion", *varying, "base", "seed", "ratio"]
    titles += ["rate"] if by_rate else []
    numbers = ["sparsity", "loss before recovery", "loss", "delta", "bits per character"]
    lines = [_line([*titles, *numbers]), _line(["---"] * len(titles) + ["---:"] * len(numbers))]
    for record in table.to_dict("records"):
        lines.append(_line([_plain(record[name], name) for name in titles] + _numbers(record)))
    return "\n".join([HEAD, "", *([", ".join(fixed) + ".", ""] if fixed else []), *lines, ""])


def _numbers(record: dict[Any, Any]) -> list[str]:
    if record["status"] == "failed":
        return ["", "", f"failed: {_plain(record['error'], 'error')}", "", ""]
    loss = bracket(_known(record["loss_low"]), _known(record["loss_high"]))
    delta = bracket(_known(record["delta_low"]), _known(record["delta_high"]), signed=True)
    return [
        _number(record["sparsity"]),
        _number(record["loss_before_recovery_nats"]),
        f"{_number(record['loss_nats'])} {loss}".strip(),
        f"{_number(record['delta_nats'], signed=True)} {delta}".strip(),
        _number(record["bits_per_character"]),
    ]


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
