"""Every line compared with one criterion's line of the same settings: paired, cut by cut."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from swe_cli.contracts import WindowLosses
from swe_cli.controls import PRUNED
from swe_cli.evaluation.compare import paired_difference
from swe_cli.files import write_bytes
from swe_cli.report import tables
from swe_cli.report.console import GAP, WIDTH, chunks, print_table, say, title
from swe_cli.report.quantities import LOSS, bounds, sign
from swe_cli.report.summary import over_seeds
from swe_cli.report.text import (
    MARKS,
    NOTHING,
    exact,
    label,
    markdown_table,
    number,
    short,
    short_label,
    word,
)

# Of a cell's hash: its windows after recovery, and before it where there is one moment before.
Windows = Callable[[str], tuple[WindowLosses, WindowLosses | None]]
Rows = Sequence[Mapping[str, Any]]  # of one line
# Options of one criterion or allocation, which another cannot share.
OF_ITS_OWN = ("allocation", "criterion.", "allocation.", "calibration.")
_signed = partial(number, signed=True)
AFTER, BEFORE = "difference_nats", "difference_before_recovery_nats"
STAGES = {"after recovery": AFTER, "before recovery": BEFORE}
STATES = {-1: "ahead", 1: "behind", None: "not compared", 0: "undecided"}
UNCORRECTED = (
    "The intervals are not corrected for their number: of forty true ties about two are marked."
)
_ENDS = [name for column in STAGES.values() for name in (column, *bounds(column))]
_SETTINGS = ["model", "data", "fingerprint", "criterion", *tables.SETTINGS]
_LINE = ["line", "label", "short", "compared_with"]
_CUT = ["line", "amount"]
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
    pairs: list[dict[str, Any]] = []
    for at, (first, *_) in enumerate(lines):
        if first["criterion"] == criterion:
            continue
        other = _closest(first, others, settings)
        by = "rate" if first["ratio"] is None else "ratio"
        about = {name: first.get(name) for name in [*_SETTINGS, *settings]} | {"line": at, "by": by}
        about["label"] = label(first["criterion"], parts[at])
        about["short"] = short_label(first["criterion"], parts[at])
        if other:
            about["other_allocation"] = other[0]["allocation"]
            about["compared_with"] = _name(criterion, first, other[0], settings)
        amounts = sorted({cut[by] for cut in lines[at] if cut[by] is not None}) if other else []
        compared += [{**about, "amount": amount} for amount in amounts or [None]]
        pairs += [{"line": at, **pair} for pair in _pairs(lines[at], other, by, windows)]
    about_cuts = pd.DataFrame(compared)
    if about_cuts.empty:
        return pd.DataFrame(columns=_LINE)
    by_seed = pd.DataFrame(pairs, columns=[*_CUT, *_ENDS])
    sizes = by_seed.groupby(_CUT).agg(seeds=(AFTER, "count"), before=(BEFORE, "count"))
    means = over_seeds(by_seed, _CUT, (AFTER, BEFORE)).join(sizes)
    means.loc[means["before"] < means["seeds"], [BEFORE, *bounds(BEFORE)]] = np.nan
    cuts = about_cuts.merge(means.drop(columns="before").reset_index(), "left", on=_CUT)
    absent = [name for name in ("other_allocation", "compared_with") if name not in cuts]
    return cuts.assign(seeds=cuts["seeds"].fillna(0).astype(int), **dict.fromkeys(absent))


def print_comparisons(
    console: Console,
    compared: pd.DataFrame,
    name: str,
    published: Mapping[str, str] | None = None,
) -> None:
    """Differences after and before recovery, line by cut, and a verdict a line."""
    widest = compared.dropna(subset="amount")["short"].map(len).max()
    most = max(3, int((WIDTH - GAP - np.nan_to_num(widest)) // _COLUMN))
    for stage, column in STAGES.items():
        title(console, f"Loss against {name}, {stage} (nats per token)")
        words = _words(compared, column, lambda mean, mark: f"{short(mean)}{mark or ' '}", "– ")
        every: list[Any] = words.columns.tolist()
        for amounts in chunks(every, lambda part: len(part) <= most):
            rows = [
                [line[2], *(Text(cell, _STYLES.get(cell[-1], "")) for cell in cells)]
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
    pages = [
        _markdown(group, name, _caveats(group, name, published)) for group in groups if len(group)
    ]
    every = pd.DataFrame([record for group in groups for record in tables.records(group)])
    contents = {"csv": tables.csv_bytes(_differences(every)), "md": "\n".join(pages).encode()}
    paths = [folder / f"against-{name}.{ending}" for ending in contents]
    for path, data in zip(paths, contents.values(), strict=True):
        write_bytes(path, data)
    return paths


def verdict(cuts: Rows) -> str:
    """``ahead at 0.7–0.9, behind at 0.3–0.5, undecided elsewhere``, after recovery."""
    states = [None if cut[AFTER] is None else sign(cut, AFTER) for cut in cuts]
    if len(set(states)) == 1:
        return f"{STATES[states[0]]} at every {cuts[0]['by']}"
    clauses = []
    for state in (state for state in STATES if state in states):
        # Neighbouring cuts as first–last: 0.1, 0.3 and 0.7–0.9.
        ranges = []
        for of, run in groupby(zip(states, cuts, strict=True), key=lambda pair: pair[0]):
            ends = [exact(cut["amount"]) for _, cut in run]
            ranges += [f"{ends[0]}–{ends[-1]}" if len(ends) > 1 else ends[0]] if of == state else []
        where = " and ".join(filter(None, [", ".join(ranges[:-1]), ranges[-1]]))
        clauses.append(f"{STATES[state]} {'elsewhere' if state == 0 else f'at {where}'}")
    return ", ".join(clauses)


def _closest(row: Mapping[str, Any], others: Sequence[Rows], settings: Sequence[str]) -> Rows:
    """The line that differs in nothing; else in the allocation, for the global one if it is there,
    and in options that only one of the two has. Empty where there is none.
    """

    def distance(other: Rows) -> tuple[bool, int, bool]:
        differing, allocation = _differing(row, other[0], settings), other[0]["allocation"]
        return allocation != row["allocation"], len(differing), allocation != "global"

    fitting = [
        other
        for other in others
        if all(key.startswith(OF_ITS_OWN) for key in _differing(row, other[0], settings))
        and (row["ratio"] is None) == (other[0]["ratio"] is None)
    ]
    return min(fitting, key=distance, default=[])


def _differing(
    row: Mapping[str, Any], other: Mapping[str, Any], settings: Sequence[str]
) -> dict[str, Any]:
    """Settings of ``other`` that are not those of ``row``."""
    return {key: other[key] for key in settings if row[key] != other[key]}


def _name(
    criterion: str, row: Mapping[str, Any], other: Mapping[str, Any], settings: Sequence[str]
) -> str:
    differing = _differing(row, other, settings).items()
    return label(criterion, [f"{key} {word(v)}" for key, v in differing if v is not None])


def _pairs(line: Rows, other: Rows, by: str, windows: Windows) -> Iterator[dict[str, Any]]:
    """Paired differences, cut by cut and seed by seed, of cuts that failed at no seed."""
    failed = {cut[by] for cut in line if cut["status"] == "failed"}
    references = {(cut[by], cut["seed"]): cut for cut in other if cut["status"] == "done"}
    for cut in line:
        reference = references.get((cut[by], cut["seed"]))
        if reference is None or cut[by] is None or cut[by] in failed:
            continue
        losses, others = (windows(row["config_hash"]) for row in (cut, reference))
        # Where recovery lies between cuts, no loss is one before it.
        single = cut[LOSS.before] is not None and reference[LOSS.before] is not None
        pair = {"amount": cut[by]}
        for column, one, two in zip(STAGES.values(), losses, others, strict=True):
            if one and two and (column == AFTER or single):
                ends = paired_difference(one, two)
                pair |= zip((column, *bounds(column)), ends, strict=True)
        yield pair


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


def _markdown(compared: pd.DataFrame, name: str, notes: Sequence[str]) -> str:
    first = compared.iloc[0]
    parts = [
        f"## {first['model']} on {first['data']}, every line against {name}",
        f"Difference in loss to {name} of the same settings, in nats per token; below 0 is better. "
        f"{_legend(compared, name)} {UNCORRECTED} Protocol {first['fingerprint']}.",
        *notes,
    ]
    for stage, column in STAGES.items():
        words = _words(compared, column, lambda mean, mark: f"{_signed(mean)} {mark}".strip())
        amounts: list[Any] = words.columns.tolist()
        by = ", then ".join(dict.fromkeys("rate" if rate else "ratio" for rate, _ in amounts))
        lines = [["line", "compared with", *(exact(amount) for _, amount in amounts)]]
        lines += [[line[1], line[3], *cells] for line, *cells in words.itertuples(name=None)]
        parts += [f"{stage.capitalize()}, by {by or 'ratio'}:", markdown_table(lines, left=2)]
    parts.append("\n".join(f"- {sentence}" for sentence in _sentences(compared, name)))
    return "\n\n".join(parts) + "\n"


def _words(
    compared: pd.DataFrame, column: str, spell: Callable[[float, str], str], missing: str = NOTHING
) -> pd.DataFrame:
    """A row for every line that is compared, a column for every cut: ratios, then rates."""
    cuts = compared.dropna(subset="amount")
    words = [
        missing if cut[column] is None else spell(cut[column], MARKS[sign(cut, column)])
        for cut in tables.records(cuts)
    ]
    cells = cuts.assign(words=words, rate=cuts["by"] == "rate")
    return cells.pivot(index=_LINE, columns=["rate", "amount"], values="words").fillna(missing)


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
