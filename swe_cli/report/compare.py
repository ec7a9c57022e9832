"""The comparison that a sweep declares before it runs: one line of cuts against others, over seeds.

Paired t over seeds, Holm's correction in each family (Holm 1979), and what could have been seen.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from swe_cli.config import Declaration
from swe_cli.controls import PRUNED
from swe_cli.errors import UsageError
from swe_cli.files import write_files
from swe_cli.records import Interval, Scalar
from swe_cli.report.console import present
from swe_cli.report.inference import DIFFERENCE, LEVEL, MILD, paired, seeds_for
from swe_cli.report.tables import csv_bytes, records, settings_of
from swe_cli.report.text import MARKS, NOTHING, count, exact, word

SEE = 0.01  # nats: it is said how many seeds that takes
MEANS = ("loss_nats", "other_nats")
HEADS = ["ratio", "seeds", "loss", "other", "difference", "p", "could see", "takes", ""]
LEGEND = (
    "difference: the line less the other, nats per token, paired; mean and 95% t interval over "
    "seeds. p: Holm's, in its family. could see: what this test, at the family's strictest level, "
    f"finds four times of five (spread: pooled up to ratio {MILD}); takes: seeds that would see "
    f"{SEE:g} nats. {MARKS[-1]} better, {MARKS[1]} worse: p < {LEVEL:g}."
)


def check_declared(table: pd.DataFrame, declared: Declaration) -> set[str]:
    """The hashes of all cells that are compared. Raises UsageError as ``_rows`` does."""
    lines: list[Mapping[str, Scalar]] = [{}, *(other for _, other in _others(declared))]
    rows = (_rows(table, {**declared["line"], **line}, declared) for line in lines)
    return {cell for of_line in rows for cell in of_line["config_hash"]}


def compared(table: pd.DataFrame, declared: Declaration) -> pd.DataFrame:
    """What came of each other line at each ratio.

    ``family``, ``against``, ``ratio``; of the seeds at which one protocol measured both, the means
    ``loss_nats`` and ``other_nats`` and what ``paired`` has, at the family's strictest level;
    ``seeds_for``: how many would see ``SEE``; ``p_holm``. Of one seed only the means are known.
    """
    mine, found = _losses(table, declared["line"], declared), []
    for family, other in _others(declared):
        theirs = _losses(table, {**declared["line"], **other}, declared)
        size = len(declared["secondary"]) if family == "secondary" else 1
        level = LEVEL / (size * len(declared["ratios"]))
        pairs = {
            at: pd.concat([mine[at], theirs[at]], axis=1, join="inner", keys=MEANS).dropna()
            for at in declared["ratios"]
        }
        differences = {
            at: [Interval(one - two) for one, two in of.values] for at, of in pairs.items()
        }
        for (at, of), test in zip(pairs.items(), paired(differences, level), strict=True):
            about = {"family": family, "against": words_of(other), "ratio": at, **of.mean(), **test}
            takes = seeds_for(test["sd_nats"], SEE, level) if test["sd_nats"] >= 0 else math.nan
            found.append(about | {"seeds_for": takes})
    results = pd.DataFrame(found).astype(dict.fromkeys(DIFFERENCE, float))
    return results.assign(p_holm=results.groupby("family")["p"].transform(holm))


def holm(p: "pd.Series[float]") -> "pd.Series[float]":
    """Adjusted p values of one family (Holm 1979); what could not be tested counts among them."""
    order = p.sort_values(na_position="last")
    return (order * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0)


def words_of(settings: Mapping[str, Scalar]) -> str:
    """``fisher, allocation global``."""
    told = {key: value for key, value in settings.items() if key != "criterion"}
    rest = [f"no {key}" if of is None else f"{key} {word(of)}" for key, of in told.items()]
    return ", ".join([*([word(settings["criterion"])] if "criterion" in settings else []), *rest])


def present_declared(
    console: Console, table: pd.DataFrame, stored: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Print, and write as ``compare.csv`` and ``.md``, what came of what ``compare.json`` holds."""
    declared: Declaration = stored["declared"]
    results = compared(table, declared)
    heading = f"Declared: {words_of(declared['line'])}, by {declared['of']}"
    when = (
        f"Declared {stored['written'][:16].replace('T', ' ')} at commit {stored['commit']}, when "
        f"{stored['done']} of its {stored['cells']} cuts had been measured"
        f"{', after the fact.' if stored['done'] else '.'}"
    )
    if failed := int((table["status"] == "failed").sum()):
        when += f" {count(failed, 'row')} failed: seeds that survived may flatter a line."
    tables = [
        (f"{family}: against {against}", HEADS, [_spelt(row) for row in records(rows)])
        for (family, against), rows in results.groupby(["family", "against"], sort=False)
    ]
    page = present(console, heading, [when, LEGEND], tables)
    return write_files(folder, {"compare.csv": csv_bytes(results), "compare.md": page.encode()})


def _spelt(row: Mapping[str, Any]) -> list[str]:
    def spelt(name: str, spec: str) -> str:
        return NOTHING if row[name] is None else format(row[name], spec)

    low, high = (spelt(f"difference_{end}", "+.3f") for end in ("low", "high"))
    sure = row["p_holm"] is not None and row["p_holm"] < LEVEL
    return [
        exact(row["ratio"]),
        str(row["seeds"]),
        *(spelt(name, ".3f") for name in ("loss_nats", "other_nats")),
        f"{spelt('difference_nats', '+.3f')} [{low}, {high}]",
        *(spelt("p_holm", ".2g"), spelt("detectable_nats", ".3f"), spelt("seeds_for", ".0f")),
        MARKS[1 if row["difference_nats"] > 0 else -1] if sure else "",
    ]


def _others(declared: Declaration) -> Sequence[tuple[str, Mapping[str, Scalar]]]:
    secondary = [("secondary", other) for other in declared["secondary"]]
    return [("primary", declared["primary"]), *secondary]


def _losses(table: pd.DataFrame, line: Mapping[str, Scalar], declared: Declaration) -> pd.DataFrame:
    """What is compared of one line: seeds, each with its protocol, × ratios."""
    rows, of = _rows(table, line, declared), declared["of"]
    if of not in rows:  # of an older version
        rows = rows.assign(**{of: math.nan})
    return rows.pivot(index=["seed", "fingerprint"], columns="ratio", values=of)


def _rows(table: pd.DataFrame, line: Mapping[str, Scalar], declared: Declaration) -> pd.DataFrame:
    """The rows of one line that are compared. UsageError where the line is none, or several."""
    rows, settings = table[table["kind"] == PRUNED], settings_of(table)
    for key, value in line.items():
        if key not in ("criterion", *settings):
            known = ", ".join(["criterion", *settings])
            raise UsageError(f"compare: these rows have no {key}.", f"Name some of: {known}.")
        given = rows[key].notna()
        rows = rows[given & (rows[key].map(word) == word(value)) if value is not None else ~given]
    for ratio in declared["ratios"]:
        if not (rows["ratio"] == ratio).any():
            why = f"compare: no row is of {words_of(line)} at ratio {exact(ratio)}."
            raise UsageError(why, "Sweep it too, or declare what is swept.")
    rows = rows[rows["ratio"].isin(declared["ratios"])]
    told = [key for key in settings if rows[key].nunique(dropna=False) > 1]
    if told or rows.duplicated(["seed", "ratio"]).any():
        differ = f"differ in {', '.join(told)}" if told else "differ in nothing that has a column"
        why = f"compare: several lines are {words_of(line)}; they {differ}."
        raise UsageError(why, f"Say which, or null: compare.line.{(told or ['allocation'])[0]}=…")
    return rows
