"""Every line compared with one criterion's line of the same settings: paired, cut by cut.

Exploratory: nobody said beforehand which difference counts. What is declared is in compare.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from swe_cli.evaluation.loss import Measured
from swe_cli.evaluation.measure import paired_difference
from swe_cli.files import write_files
from swe_cli.records import Interval
from swe_cli.report import tables, text
from swe_cli.report.console import marked, present, print_grid
from swe_cli.report.inference import DIFFERENCE, paired, q_values
from swe_cli.report.quantities import LOSS, bounds, p_of, q_of, sign
from swe_cli.report.summary import Line, Point, Summary, interval_words

# Of a cell's hash: its windows after recovery, and before it.
Windows = Callable[[str], tuple[Measured, Measured]]
# Options of one criterion or allocation, which another cannot share.
OF_ITS_OWN = ("allocation", "criterion.", "calibration.")
AFTER, BEFORE = "difference_nats", "difference_before_recovery_nats"
STAGES = {"after recovery": AFTER, "before recovery": BEFORE}
STATES = {-1: "ahead", 1: "behind", None: "not compared", 2: "identical", 0: "undecided"}


@dataclass(frozen=True)
class Compared:
    """A line, and the ``other`` that it is compared with, by ``name``; None where there is none.

    ``cuts``, from the mildest: ``ratio`` or ``rate``; the line less the other at the same cut, as
    ``paired`` has it, and before recovery (``difference_before_recovery_…``), None where no seed
    has both, or where the line failed at any; ``interval``: over ``seeds``, or the ``windows`` of
    the only one; ``…_q``: Benjamini and Hochberg's, over all of the comparison.
    """

    line: Line
    other: Line | None
    name: str | None
    cuts: Sequence[Point]

    @property
    def sentence(self) -> str:
        """A verdict, or why there is none."""
        if self.other is self.line:
            words = "identical, the very same models"
        elif self.other is None:
            words = "not compared, no line of it has the same settings"
        elif not self.cuts:
            words = "not compared, it is not told how much to cut"
        else:
            words = verdict(self)
            seen = [d for cut in self.cuts if not math.isnan(d := cut["detectable_nats"])]
            if seen and "undecided" in words:
                ends = dict.fromkeys(f"{nats:.3f}" for nats in (min(seen), max(seen)))
                words += f"; alone, each could have seen {' to '.join(ends)} nats"
            if "(" in str(self.name):
                words += f" (compared with {self.name})"
        return f"{self.line.label}: {words}."


def compare_with(summary: Summary, criterion: str, windows: Windows) -> list[Compared]:
    """Each line that is not only ``criterion``'s, with that of it which it differs least from."""
    others = [line for line in summary.lines if criterion in line.criteria]
    compared = []
    for line in (line for line in summary.lines if line.criteria != (criterion,)):
        other = line if line in others else _closest(line, others, summary.settings)
        if other is None or other is line:
            compared.append(Compared(line, other, criterion if other else None, []))
            continue
        differing = _differing(other, line, summary.settings).items()
        parts = [f"{key} {text.word(value)}" for key, value in differing if value is not None]
        name, cuts = text.label(criterion, parts), _cuts(line, other, windows)
        compared.append(Compared(line, other, name, cuts))
    cuts = [cut for of in compared for cut in of.cuts]
    for column in STAGES.values():
        p = [p_of(cut, column, cut["seeds"]) for cut in cuts]
        for cut, q in zip(cuts, q_values(p), strict=True):
            cut[q_of(column)] = None if math.isnan(q) else q
    return compared


def _cuts(line: Line, other: Line, windows: Windows) -> list[Point]:
    """Differences at every amount that the line was told to cut, seed by seed at both stages."""
    references = {point[line.by]: point for point in other.points}
    stages: tuple[dict[float, list[Interval]], ...] = ({}, {})
    for point in sorted(line.points, key=lambda point: point[line.by] or 0.0):
        if (amount := point[line.by]) is None:
            continue
        cells = references[amount]["cells"] if amount in references else {}
        seeds = [seed for seed in point["seeds"] if seed in cells and not point["failed"]]
        rows = [(point["cells"][seed], cells[seed]) for seed in seeds]
        pairs = [(one["config_hash"], two["config_hash"]) for one, two in rows]
        # Where recovery lies between cuts, no loss is one before it.
        single = all(row[LOSS.before] is not None for pair in rows for row in pair)
        for stage, found in enumerate(stages):
            found[amount] = [
                paired_difference(windows(one)[stage], windows(other)[stage])
                for one, other in (pairs if single or not stage else ())
            ]
    cuts = []
    for amount, after, before in zip(stages[0], *map(paired, stages), strict=True):
        over = "seeds" if after["seeds"] > 1 else "windows"
        known = after[DIFFERENCE[1]] is not None
        cut = {line.by: amount, "seeds": after["seeds"], "interval": over if known else None}
        for column, stage in ((AFTER, after), (BEFORE, before)):
            cut |= zip((column, *bounds(column)), map(stage.get, DIFFERENCE), strict=True)
        cuts.append(cut | {"detectable_nats": after["detectable_nats"]})
    return cuts


def present_against(
    console: Console, summaries: Sequence[Summary], criterion: str, windows: Windows, folder: Path
) -> list[Path]:
    """Print every line against ``criterion``, and write ``against-<criterion>.csv`` and ``.md``."""
    pages, rows = list[str](), list[dict[str, Any]]()
    for summary in summaries:
        if compared := compare_with(summary, criterion, windows):
            pages.append(_present(console, summary, criterion, compared))
        axes = [name for name in summary.settings if name not in tables.OF_LINE]
        for of in compared:
            first = of.line.points[0]
            about = {name: getattr(summary, name) for name in ("model", "data", "fingerprint")}
            about |= {name: first.get(name) for name in ("criterion", *tables.OF_LINE, *axes)}
            rows += (about | {"compared_with": of.name} | cut for cut in of.cuts)
    name, data = f"against-{criterion}", tables.csv_bytes(pd.DataFrame(rows))
    return write_files(folder, {f"{name}.csv": data, f"{name}.md": "\n".join(pages).encode()})


def _present(
    console: Console, summary: Summary, criterion: str, compared: Sequence[Compared]
) -> str:
    """Differences after and before recovery, line by cut, and a verdict a line."""
    cuts = [(of.line.by, cut) for of in compared for cut in of.cuts]
    amounts = sorted({(by, cut[by]) for by, cut in cuts}, key=lambda at: (at[0] == "rate", at[1]))
    heads = ["", *(f"{'rate ' * (by == 'rate')}{text.exact(amount)}" for by, amount in amounts)]
    grids = []
    for stage, column in (STAGES if summary.stage in STAGES else {summary.stage: AFTER}).items():
        rows = []
        for of in (of for of in compared if of.cuts):
            by = of.line.by
            told = {(by, cut[by]): marked(cut, column) for cut in of.cuts}
            rows.append([of.line.short, *(told.get(at, text.NOTHING) for at in amounts)])
        if rows:
            grids.append((f"Loss {stage}, less {criterion}'s (nats per token)", heads, rows))
    count = sum(cut[AFTER] is not None for _, cut in cuts)
    over = interval_words(cut["interval"] for _, cut in cuts) or "95% interval"
    legend = (
        f"Exploratory: {text.MARKS[-1]} ahead of {criterion}, {text.MARKS[1]} behind where "
        f"q < 0.05 (Benjamini-Hochberg, over {count} differences); paired {over}."
    )
    lines = [line for of in compared for line in (of.line, of.other) if line]
    ran = [(line.criterion, line.points[0]["allocation"]) for line in lines]
    return present(
        console,
        f"{summary.model} on {summary.data}: every line against {criterion}",
        [f"{legend} Protocol {summary.fingerprint}.", *tables.caveats(ran, summary.published)],
        grids,
        [of.sentence for of in compared],
        print_grid,
    )


def state_of(cut: Point) -> int | None:
    """What ``STATES`` has a word for."""
    if any(cut[name] != 0 for name in DIFFERENCE):
        return None if cut[AFTER] is None else sign(cut, AFTER)
    return 2


def verdict(compared: Compared) -> str:
    """``ahead at 0.7–0.9, behind at 0.3–0.5, undecided elsewhere``, after recovery."""
    by, where = compared.line.by, dict[int | None, list[str]]()
    # Neighbouring cuts as first–last: 0.1, 0.3 and 0.7–0.9.
    for state, run in groupby(compared.cuts, key=state_of):
        ends = [text.exact(cut[by]) for cut in run]
        where.setdefault(state, []).append("–".join(dict.fromkeys((ends[0], ends[-1]))))
    if len(where) == 1:
        return f"{STATES[next(iter(where))]} at every {by}"
    at = {s: " and ".join(filter(None, [", ".join(of[:-1]), of[-1]])) for s, of in where.items()}
    told = {state: words for state, words in STATES.items() if state in where}
    return ", ".join(f"{told[s]} at {at[s]}" if s != 0 else f"{told[s]} elsewhere" for s in told)


def _closest(line: Line, others: Sequence[Line], settings: Sequence[str]) -> Line | None:
    """The line that differs in nothing; else in the allocation, for the global one if it is there,
    and in options that only one of the two has. None where there is none.
    """

    differing = [(other, _differing(other, line, settings)) for other in others]
    fitting = [
        ("allocation" in of, len(of), other.points[0]["allocation"] != "global", place)
        for place, (other, of) in enumerate(differing)
        if line.by == other.by and all(key.startswith(OF_ITS_OWN) for key in of)
    ]
    return others[min(fitting)[-1]] if fitting else None


def _differing(line: Line, other: Line, settings: Sequence[str]) -> dict[str, Any]:
    """Settings of ``line`` that are not those of ``other``."""
    one, two = line.points[0], other.points[0]
    return {key: one[key] for key in settings if one[key] != two[key]}
