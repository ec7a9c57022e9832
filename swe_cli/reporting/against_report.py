"""A comparison with one criterion in the terminal, as CSV and as Markdown."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from swe_cli.files import write_bytes
from swe_cli.reporting.against import Comparison, Difference
from swe_cli.reporting.aggregate import settings
from swe_cli.reporting.estimate import Estimate
from swe_cli.reporting.table import csv_bytes
from swe_cli.reporting.terminal_tables import GAP, WIDTH, print_table, say, title
from swe_cli.reporting.text import NOTHING, exact, label, number, short, short_label

COLUMN = 8  # signs of a difference with its mark, and the gap before it
MARKS = {-1: "▼", 0: "", 1: "▲"}
_STYLES = {-1: "green", 0: "", 1: "red"}
UNCORRECTED = (
    "The intervals are not corrected for their number: of forty true ties about two are marked."
)
_INTERVALS = {"windows": "95% interval over test windows", "seeds": "95% t interval over seeds"}

Read = Callable[[Difference], Estimate | None]
STAGES: tuple[tuple[str, Read], ...] = (
    ("after recovery", lambda difference: difference.after),
    ("before recovery", lambda difference: difference.before),
)


def print_comparisons(console: Console, comparisons: Sequence[Comparison], name: str) -> None:
    """Differences after and before recovery, line by cut, and a verdict a line."""
    compared = [one for one in comparisons if one.differences]
    columns = (WIDTH - GAP - max((len(_short(one)) for one in compared), default=0)) // COLUMN
    for stage, read in STAGES:
        title(console, f"Loss against {name}, {stage} (nats per token)")
        for amounts in _chunks(_amounts(comparisons), max(3, columns)):
            rows = [
                [Text(_short(one)), *(_cell(one, amount, read) for amount in amounts)]
                for one in compared
            ]
            print_table(console, ["", *(exact(amount) for _, amount in amounts)], rows)
    say(console, _legend(comparisons, name), "dim")
    say(console, UNCORRECTED, "dim")
    title(console, f"Ahead of {name} or behind, after recovery")
    for one in comparisons:
        say(console, f"{_sentence(one, name)}.")


def write_comparisons(
    groups: Sequence[Sequence[Comparison]], folder: Path, name: str
) -> list[Path]:
    """``against-<name>.csv`` and ``.md``, of all protocols."""
    every = [one for group in groups for one in group]
    pages = [_markdown(group, name) for group in groups if group]
    contents = {"csv": csv_bytes(_frame(every)), "md": "\n".join(pages).encode()}
    paths = []
    for ending, data in contents.items():
        path = folder / f"against-{name}.{ending}"
        write_bytes(path, data)
        paths.append(path)
    return paths


def _frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A line for every difference; columns that are empty everywhere but in axes stay."""
    lines: list[dict[str, Any]] = []
    axes = sorted({axis for one in comparisons for axis in one.row.axes})
    for one in comparisons:
        row = one.row
        said: dict[str, Any] = {
            name: getattr(row, name) for name in ("model", "data", "fingerprint")
        }
        said |= {"criterion": row.criterion, **settings(row)} | dict.fromkeys(axes)
        said |= dict(row.axes) | {"compared_with": one.compared_with}
        for difference in one.differences:
            known = difference.after or difference.before
            lines.append(
                {
                    **said,
                    difference.by: difference.amount,
                    "seeds": len(difference.seeds),
                    "interval": known.interval if known else None,
                    **_bounds("difference", difference.after),
                    **_bounds("difference_before_recovery", difference.before),
                }
            )
    return pd.DataFrame(lines)


def _bounds(name: str, value: Estimate | None) -> dict[str, float | None]:
    return {
        f"{name}_nats": value.mean if value else None,
        f"{name}_low": value.low if value else None,
        f"{name}_high": value.high if value else None,
    }


def _markdown(comparisons: Sequence[Comparison], name: str) -> str:
    first = comparisons[0].row
    amounts = _amounts(comparisons)
    compared = [one for one in comparisons if one.differences]
    parts = [
        f"## {first.model} on {first.data}, every line against {name}",
        f"Difference in loss to {name} of the same settings, in nats per token; below 0 is better. "
        f"{_legend(comparisons, name)} {UNCORRECTED} Protocol {first.fingerprint}.",
    ]
    for stage, read in STAGES:
        head = ["line", "compared with", *(exact(amount) for _, amount in amounts)]
        lines = [head, ["---", "---", *["---:"] * len(amounts)]]
        lines += [
            [_label(one), one.compared_with, *(_number(one, amount, read) for amount in amounts)]
            for one in compared
        ]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"{stage.capitalize()}, by {_by(amounts)}:", table]
    parts.append("\n".join(f"- {_sentence(one, name)}." for one in comparisons))
    return "\n\n".join(parts) + "\n"


def _sentence(one: Comparison, name: str) -> str:
    if one.other is None:
        return f"{_label(one)}: not compared, {name} has no line of the same settings"
    if not one.differences:
        return f"{_label(one)}: not compared, it is not told how much to cut"
    other = "" if one.compared_with == name else f" (compared with {one.compared_with})"
    return f"{_label(one)}: {one.verdict}{other}"


def _legend(comparisons: Sequence[Comparison], name: str) -> str:
    over = {
        value.interval
        for one in comparisons
        for difference in one.differences
        if (value := difference.after or difference.before)
    }
    intervals = " or ".join(words for key, words in _INTERVALS.items() if key in over)
    sure = f"the paired {intervals or '95% interval'} excludes 0"
    return f"{MARKS[-1]} ahead of {name}, {MARKS[1]} behind: {sure}."


def _amounts(comparisons: Sequence[Comparison]) -> list[tuple[str, float]]:
    """Every cut that is compared: ratios, then rates."""
    found = {(d.by, d.amount) for one in comparisons for d in one.differences}
    return sorted(found, key=lambda pair: (pair[0] == "rate", pair[1]))


def _by(amounts: Sequence[tuple[str, float]]) -> str:
    return ", then ".join(dict.fromkeys(by for by, _ in amounts)) or "ratio"


def _chunks(
    amounts: Sequence[tuple[str, float]], columns: int
) -> list[Sequence[tuple[str, float]]]:
    """Tables of about the same number of columns, as few as fit."""
    tables = -(-len(amounts) // columns)
    size = -(-len(amounts) // max(1, tables))
    return [amounts[at : at + size] for at in range(0, len(amounts), max(1, size))]


def _value(one: Comparison, amount: tuple[str, float], read: Read) -> Estimate | None:
    return next((read(d) for d in one.differences if (d.by, d.amount) == amount), None)


def _cell(one: Comparison, amount: tuple[str, float], read: Read) -> Text:
    value = _value(one, amount, read)
    if value is None:
        return Text(f"{NOTHING} ")
    return Text(f"{short(value.mean)}{MARKS[value.sign] or ' '}", _STYLES[value.sign])


def _number(one: Comparison, amount: tuple[str, float], read: Read) -> str:
    value = _value(one, amount, read)
    if value is None:
        return NOTHING
    return f"{number(value.mean, signed=True)} {MARKS[value.sign]}".strip()


def _label(one: Comparison) -> str:
    return label(str(one.row.criterion), one.parts)


def _short(one: Comparison) -> str:
    return short_label(str(one.row.criterion), one.parts)
