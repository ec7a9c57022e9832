"""Every line compared with one criterion's line of the same settings: paired, cut by cut."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from swe_cli.controls import PRUNED
from swe_cli.evaluation.compare import paired_difference
from swe_cli.evaluation.loss import WindowLosses
from swe_cli.files import write_bytes
from swe_cli.report import tables, text
from swe_cli.report.console import GAP, WIDTH, chunks, print_table, say, title
from swe_cli.report.quantities import LOSS, bounds, sign
from swe_cli.report.summary import pooled
from swe_cli.report.text import MARKS, NOTHING, exact, markdown_table

# Of a cell's hash: its windows after recovery, and before it where there is one moment before.
Windows = Callable[[str], tuple[WindowLosses, WindowLosses | None]]
Rows = Sequence[Mapping[str, Any]]  # of one line
# Options of one criterion or allocation, which another cannot share.
OF_ITS_OWN = ("allocation", "criterion.", "allocation.", "calibration.")
AFTER, BEFORE = "difference_nats", "difference_before_recovery_nats"
STAGES = {"after recovery": AFTER, "before recovery": BEFORE}
STATES = {-1: "ahead", 1: "behind", None: "not compared", 0: "undecided"}
UNCORRECTED = (
    "The intervals are not corrected for their number: of forty true ties about two are marked."
)
_ENDS = [name for column in STAGES.values() for name in (column, *bounds(column))]
_SETTINGS = ["model", "data", "fingerprint", "criterion", *tables.SETTINGS]
_LINE = ["line", "label", "short", "compared_with"]
_COLUMN = 8  # signs of a difference with its mark, and the gap before it
_STYLES = {"▼": "green", "▲": "red"}
_INTERVALS = {"windows": "95% interval over test windows", "seeds": "95% t interval over seeds"}


def compare_with(table: pd.DataFrame, criterion: str, windows: Windows) -> pd.DataFrame:
    """All lines of a table of one protocol but ``criterion``'s own, a line for every cut.

    ``difference_nats`` (and ``…_low``, ``…_high``, ``difference_before_recovery_…``): the line
    minus the other at the same cut, nats per token, below 0 is ahead; empty where no seed has both,
    or where the line failed at any seed. One seed has a bootstrap over windows; several have a t
    interval over their differences. ``seeds``: how many. ``by`` and ``amount``: ratio or rate.
    ``line`` counts the lines, ``label`` and ``short`` name them; ``compared_with`` names the other.
    A line that has no other, or was not told how much to cut, has one line without ``amount``.
    """
    cuts = table[table["kind"] == PRUNED]
    place, settings = tables.lines_of(cuts), tables.settings_of(table)
    lines = [tables.records(group) for _, group in cuts.groupby(place, sort=False)]
    parts = tables.parts_of(cuts[~place.duplicated()], settings)
    others = [line for line in lines if line[0]["criterion"] == criterion]
    compared: list[dict[str, Any]] = []
    for at, line in enumerate(lines):
        first = line[0]
        if first["criterion"] == criterion:
            continue
        other = _closest(first, others, settings)
        by = "rate" if first["ratio"] is None else "ratio"
        about = {name: first.get(name) for name in [*_SETTINGS, *settings]} | {
            "line": at,
            "label": text.label(first["criterion"], parts[at]),
            "short": text.short_label(first["criterion"], parts[at]),
            "by": by,
            "other_allocation": other[0]["allocation"] if other else None,
            "compared_with": _name(other[0], first, settings) if other else None,
        }
        amounts = sorted({cut[by] for cut in line if cut[by] is not None}) if other else []
        for amount in amounts or [None]:
            of_line, of_other = ([c for c in of if c[by] == amount] for of in (line, other))
            difference = _difference(of_line, of_other, windows)
            compared.append({**about, "amount": amount, **difference})
    return pd.DataFrame(compared, columns=None if compared else _LINE)


def print_comparisons(
    console: Console,
    compared: pd.DataFrame,
    name: str,
    published: Mapping[str, str] | None = None,
) -> None:
    """Differences after and before recovery, line by cut, and a verdict a line."""
    widest = compared.dropna(subset="amount")["short"].map(len).max()
    most = max(3, int((WIDTH - GAP - np.nan_to_num(widest)) // _COLUMN))

    def marked(cell: str) -> Text:
        """Marks stand under marks."""
        style = _STYLES.get(cell[-1])
        return Text(cell if style else f"{cell} ", style or "")

    for stage, column in STAGES.items():
        title(console, f"Loss against {name}, {stage} (nats per token)")
        words = _words(compared, column, text.short)
        every: list[Any] = words.columns.tolist()
        for amounts in chunks(every, lambda part: len(part) <= most):
            rows = [
                [line[2], *map(marked, cells)]
                for line, *cells in words[amounts].itertuples(name=None)
            ]
            print_table(console, ["", *(exact(amount) for _, amount in amounts)], rows)
    say(console, _legend(compared, name), "dim")
    say(console, UNCORRECTED, "dim")
    for caveat in _caveats(compared, name, published):
        say(console, caveat, "yellow")
    title(console, f"Ahead of {name} or behind, after recovery")
    for sentence in _sentences(compared, name):
        say(console, sentence)


def write_comparisons(
    groups: Sequence[pd.DataFrame],
    folder: Path,
    name: str,
    published: Mapping[str, str] | None = None,
) -> list[Path]:
    """``against-<name>.csv`` and ``.md``, of all protocols."""
    pages = [_markdown(group, name, published) for group in groups if len(group)]
    every = pd.DataFrame([record for group in groups for record in tables.records(group)])
    contents = {"csv": tables.csv_bytes(_differences(every)), "md": "\n".join(pages).encode()}
    for ending, data in contents.items():
        write_bytes(folder / f"against-{name}.{ending}", data)
    return [folder / f"against-{name}.{ending}" for ending in contents]


def verdict(cuts: Rows) -> str:
    """``ahead at 0.7–0.9, behind at 0.3–0.5, undecided elsewhere``, after recovery."""
    states = [None if cut[AFTER] is None else sign(cut, AFTER) for cut in cuts]
    if len(set(states)) == 1:
        return f"{STATES[states[0]]} at every {cuts[0]['by']}"
    ranges: dict[int | None, list[str]] = {}
    # Neighbouring cuts as first–last: 0.1, 0.3 and 0.7–0.9.
    for state, run in groupby(zip(states, cuts, strict=True), key=lambda pair: pair[0]):
        ends = [exact(cut["amount"]) for _, cut in run]
        ranges.setdefault(state, []).append("–".join(dict.fromkeys((ends[0], ends[-1]))))
    where = {
        state: " and ".join(filter(None, [", ".join(of[:-1]), of[-1]]))
        for state, of in ranges.items()
    }
    return ", ".join(
        f"{words} elsewhere" if state == 0 else f"{words} at {where[state]}"
        for state, words in STATES.items()
        if state in where
    )


def _closest(row: Mapping[str, Any], others: Sequence[Rows], settings: Sequence[str]) -> Rows:
    """The line that differs in nothing; else in the allocation, for the global one if it is there,
    and in options that only one of the two has. Empty where there is none.
    """

    def distance(other: Rows) -> tuple[bool, int, bool]:
        differing, allocation = _differing(other[0], row, settings), other[0]["allocation"]
        return allocation != row["allocation"], len(differing), allocation != "global"

    fitting = [
        other
        for other in others
        if all(key.startswith(OF_ITS_OWN) for key in _differing(other[0], row, settings))
        and (row["ratio"] is None) == (other[0]["ratio"] is None)
    ]
    return min(fitting, key=distance, default=[])


def _differing(
    row: Mapping[str, Any], other: Mapping[str, Any], settings: Sequence[str]
) -> dict[str, Any]:
    """Settings of ``row`` that are not those of ``other``."""
    return {key: row[key] for key in settings if row[key] != other[key]}


def _name(row: Mapping[str, Any], beside: Mapping[str, Any], settings: Sequence[str]) -> str:
    """A line's criterion, and what it differs in from the one it is compared with."""
    differing = _differing(row, beside, settings).items()
    parts = [f"{key} {text.word(value)}" for key, value in differing if value is not None]
    return text.label(row["criterion"], parts)


def _difference(cuts: Rows, others: Rows, windows: Windows) -> dict[str, Any]:
    """One cut paired seed by seed, and over its seeds; nothing where it failed at one."""
    references = {cut["seed"]: cut for cut in others if cut["status"] == "done"}
    pairs = [(cut, references[cut["seed"]]) for cut in cuts if cut["seed"] in references]
    if any(cut["status"] == "failed" for cut in cuts):
        pairs = []
    losses = [[windows(row["config_hash"]) for row in pair] for pair in pairs]
    after = [paired_difference(one, other) for (one, _), (other, _) in losses]
    before = [paired_difference(one, other) for (_, one), (_, other) in losses if one and other]
    # Where recovery lies between cuts, no loss is one before it.
    single = all(row[LOSS.before] is not None for pair in pairs for row in pair)
    if not single or len(before) < len(after):
        before = []
    ends = [*pooled(np.array(after).reshape(-1, 3)), *pooled(np.array(before).reshape(-1, 3))]
    over = None if math.isnan(ends[1]) else "seeds" if len(pairs) > 1 else "windows"
    return {**dict(zip(_ENDS, ends, strict=True)), "seeds": len(pairs), "interval": over}


def _differences(compared: pd.DataFrame) -> pd.DataFrame:
    """The table of differences; columns that are empty everywhere but in axes stay."""
    if compared.empty or compared["amount"].isna().all():
        return pd.DataFrame()
    cuts = compared.dropna(subset="amount")
    first, *rest = cuts["by"].unique()
    ours = [*_SETTINGS, *_LINE, *_ENDS, "other_allocation", "by", "amount", "seeds", "interval"]
    axes = sorted(set(map(str, cuts)) - set(ours))
    cuts = cuts.assign(**{by: cuts["amount"].where(cuts["by"] == by) for by in (first, *rest)})
    return cuts[[*_SETTINGS, *axes, "compared_with", first, "seeds", "interval", *_ENDS, *rest]]


def _markdown(compared: pd.DataFrame, name: str, published: Mapping[str, str] | None) -> str:
    first = compared.iloc[0]
    parts = [
        f"## {first['model']} on {first['data']}, every line against {name}",
        f"Difference in loss to {name} of the same settings, in nats per token; below 0 is better. "
        f"{_legend(compared, name)} {UNCORRECTED} Protocol {first['fingerprint']}.",
        *_caveats(compared, name, published),
    ]
    for stage, column in STAGES.items():
        words = _words(compared, column, lambda mean: f"{text.number(mean, signed=True)} ")
        amounts: list[Any] = words.columns.tolist()
        by = ", then ".join(dict.fromkeys("rate" if rate else "ratio" for rate, _ in amounts))
        lines = [["line", "compared with", *(exact(amount) for _, amount in amounts)]]
        lines += [[line[1], line[3], *cells] for line, *cells in words.itertuples(name=None)]
        parts += [f"{stage.capitalize()}, by {by or 'ratio'}:", markdown_table(lines, left=2)]
    parts.append("\n".join(f"- {sentence}" for sentence in _sentences(compared, name)))
    return "\n\n".join(parts) + "\n"


def _words(compared: pd.DataFrame, column: str, spell: Callable[[float], str]) -> pd.DataFrame:
    """A row for every line that is compared, a column for every cut: ratios, then rates."""
    cuts = compared.dropna(subset="amount")
    words = [
        NOTHING
        if cut[column] is None
        else f"{spell(cut[column])}{MARKS[sign(cut, column)]}".strip()
        for cut in tables.records(cuts)
    ]
    cells = cuts.assign(words=words, rate=cuts["by"] == "rate")
    return cells.pivot(index=_LINE, columns=["rate", "amount"], values="words").fillna(NOTHING)


def _sentences(compared: pd.DataFrame, name: str) -> Iterator[str]:
    for _, line in compared.groupby("line", sort=False):
        cuts = tables.records(line)
        other = cuts[0]["compared_with"]
        if other is None:
            words = f"not compared, {name} has no line of the same settings"
        elif cuts[0]["amount"] is None:
            words = "not compared, it is not told how much to cut"
        else:
            words = verdict(cuts) + ("" if other == name else f" (compared with {other})")
        yield f"{cuts[0]['label']}: {words}."


def _legend(compared: pd.DataFrame, name: str) -> str:
    over = set(compared["interval"].dropna())
    intervals = " or ".join(words for key, words in _INTERVALS.items() if key in over)
    sure = f"the paired {intervals or '95% interval'} excludes 0"
    return f"{MARKS[-1]} ahead of {name}, {MARKS[1]} behind: {sure}."


def _caveats(compared: pd.DataFrame, name: str, published: Mapping[str, str] | None) -> list[str]:
    """On the lines and on what they are compared with."""
    ran = {*zip(compared["criterion"], compared["allocation"], strict=True)}
    ran |= {(name, allocation) for allocation in compared["other_allocation"]}
    return tables.caveats(ran, published)
