"""Every line compared with one criterion's line of the same settings: paired, cut by cut.

Exploratory: nobody said beforehand which difference counts. What is declared is in compare.py.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from rich.console import Console
from rich.text import Text

from swe_cli.evaluation.loss import Measured
from swe_cli.evaluation.measure import paired_difference
from swe_cli.files import write_files
from swe_cli.report import tables, text
from swe_cli.report.console import print_grid, say, title
from swe_cli.report.inference import detectable, q_values, spreads
from swe_cli.report.quantities import LOSS, bounds, p_of, q_of, sign
from swe_cli.report.summary import Line, Point, Summary, interval_words, pooled

T = TypeVar("T")
# Of a cell's hash: its windows after recovery, and before it.
Windows = Callable[[str], tuple[Measured, Measured]]
# Options of one criterion or allocation, which another cannot share.
OF_ITS_OWN = ("allocation", "criterion.", "calibration.")
AFTER, BEFORE = "difference_nats", "difference_before_recovery_nats"
STAGES = {"after recovery": AFTER, "before recovery": BEFORE}
STATES = {-1: "ahead", 1: "behind", None: "not compared", 2: "identical", 0: "undecided"}
_ENDS = [name for column in STAGES.values() for name in (column, *bounds(column))]


@dataclass(frozen=True)
class Compared:
    """A line, and the ``other`` that it is compared with, by ``name``; None where there is none.

    ``cuts``, from the mildest: ``ratio`` or ``rate``; ``difference_nats`` (and ``…_low``,
    ``…_high``, ``difference_before_recovery_…``): the line minus the other at the same cut, nats
    per token, below 0 is ahead; None where no seed has both, or where the line failed at any seed.
    One seed has a bootstrap over windows; several have a t interval over their differences
    (``interval``). ``seeds``: how many. ``difference_q``: Benjamini and Hochberg's, over all of the
    comparison. ``detectable_nats``: what so many seeds could have seen after recovery, one by one.
    """

    line: Line
    other: Line | None
    name: str | None
    cuts: Sequence[Point]


@dataclass(frozen=True)
class Comparison:
    """Every line of a summary but those of ``criterion`` itself."""

    summary: Summary
    criterion: str
    lines: Sequence[Compared]

    @property
    def legend(self) -> str:
        over = interval_words(cut["interval"] for compared in self.lines for cut in compared.cuts)
        tested = sum(of[AFTER] is not None for c in self.lines for of in c.cuts)
        marks = f"{text.MARKS[-1]} ahead of {self.criterion}, {text.MARKS[1]} behind"
        return (
            f"Exploratory: {marks} where q < 0.05 (Benjamini-Hochberg, over {tested} differences); "
            f"paired {over or '95% interval'}."
        )

    @property
    def stages(self) -> dict[str, str]:
        """Columns of differences, by when they were measured."""
        cut = self.summary.stage
        return STAGES if cut in STAGES else {cut: AFTER}

    @property
    def caveats(self) -> list[str]:
        """On the lines and on what they are compared with."""
        lines = [line for compared in self.lines for line in (compared.line, compared.other)]
        ran = [(line.criterion, line.points[0]["allocation"]) for line in lines if line]
        return tables.caveats(ran, self.summary.published)

    @property
    def sentences(self) -> Iterator[str]:
        """A verdict a line."""
        for compared in self.lines:
            if compared.other is compared.line:
                words = f"identical, the very same models as {self.criterion}'s"
            elif compared.other is None:
                words = f"not compared, {self.criterion} has no line of the same settings"
            elif not compared.cuts:
                words = "not compared, it is not told how much to cut"
            else:
                words = verdict(compared)
                seen = [d for cut in compared.cuts if not math.isnan(d := cut["detectable_nats"])]
                if seen and "undecided" in words:
                    ends = dict.fromkeys(f"{nats:.3f}" for nats in (min(seen), max(seen)))
                    words += f"; could have seen {' to '.join(ends)} nats"
                if compared.name != self.criterion:
                    words += f" (compared with {compared.name})"
            yield f"{compared.line.label}: {words}."

    @property
    def amounts(self) -> list[tuple[str, float]]:
        """What any line was cut by: ratios, then rates."""
        cuts = {(c.line.by, cut[c.line.by]) for c in self.lines for cut in c.cuts}
        return sorted(cuts, key=lambda amount: (amount[0] == "rate", amount[1]))

    def rows(
        self, column: str, spell: Callable[[float, int], T]
    ) -> Iterator[tuple[Compared, list[T | str]]]:
        """Lines with their differences below ``amounts``; ``spell`` is given one and its sign."""
        for compared in self.lines:
            by, measured = compared.line.by, [c for c in compared.cuts if c[column] is not None]
            cells = {(by, cut[by]): spell(cut[column], sign(cut, column)) for cut in measured}
            if compared.cuts:
                yield compared, [cells.get(amount, text.NOTHING) for amount in self.amounts]


def compare_with(summary: Summary, criterion: str, windows: Windows) -> Comparison:
    """Each line with that of ``criterion`` which it differs least from."""
    others = [line for line in summary.lines if criterion in line.criteria]
    compared = []
    for line in (line for line in summary.lines if line.criteria != (criterion,)):
        other = line if line in others else _closest(line, others, summary.settings)
        if other is None or other is line:
            compared.append(Compared(line, other, criterion if other else None, []))
            continue
        differing = _differing(other, line, summary.settings).items()
        parts = [f"{key} {text.word(value)}" for key, value in differing if value is not None]
        told = [point for point in line.points if point[line.by] is not None]
        references = {point[line.by]: point for point in other.points}
        cuts, each = [], {}
        for point in sorted(told, key=itemgetter(line.by)):
            pairs = _pairs(point, references.get(point[line.by]))
            each[point[line.by]], found = _difference(pairs, windows)
            cuts.append({line.by: point[line.by], **found})
        for cut, sd in zip(cuts, spreads(each).values(), strict=True):
            cut["detectable_nats"] = detectable(sd, cut["seeds"])
        compared.append(Compared(line, other, text.label(criterion, parts), cuts))
    cuts = [cut for of in compared for cut in of.cuts]
    for column in STAGES.values():
        q_s = q_values([p_of(cut, column, cut["seeds"]) for cut in cuts])
        for cut, q in zip(cuts, q_s, strict=True):
            cut[q_of(column)] = None if math.isnan(q) else q
    return Comparison(summary, criterion, compared)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Differences after and before recovery, line by cut, and a verdict a line, if any has one."""
    if not any(compared.other for compared in comparison.lines):
        return

    def marked(difference: float, way: int) -> Text:
        style = {-1: "green", 0: "", 1: "red"}[way]
        return Text(text.marked(difference, way), style)

    heads, name = [text.exact(amount) for _, amount in comparison.amounts], comparison.criterion
    for stage, column in comparison.stages.items():
        title(console, f"Loss against {name}, {stage} (nats per token)")
        rows = list(comparison.rows(column, marked))
        names = [of.line.short for of, _ in rows]
        print_grid(console, names, heads, [cells for _, cells in rows])
    say(console, comparison.legend, "dim")
    for caveat in comparison.caveats:
        say(console, caveat, "yellow")
    title(console, f"Ahead of {name} or behind, {comparison.summary.stage}")
    for sentence in comparison.sentences:
        say(console, sentence)


def write_comparisons(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """``against-<criterion>.csv`` and ``.md``, of all protocols."""
    pages = [_markdown(comparison) for comparison in comparisons if comparison.lines]
    records = [record for comparison in comparisons for record in _records(comparison)]
    name = f"against-{comparisons[0].criterion}"
    data = tables.csv_bytes(pd.DataFrame(records))
    return write_files(folder, {f"{name}.csv": data, f"{name}.md": "\n".join(pages).encode()})


def state_of(cut: Point) -> int | None:
    """What ``STATES`` has a word for."""
    if any(cut[name] != 0 for name in (AFTER, *bounds(AFTER))):
        return None if cut[AFTER] is None else sign(cut, AFTER)
    return 2


def verdict(compared: Compared) -> str:
    """``ahead at 0.7–0.9, behind at 0.3–0.5, undecided elsewhere``, after recovery."""
    cuts, by = compared.cuts, compared.line.by
    states = [state_of(cut) for cut in cuts]
    if len(set(states)) == 1:
        return f"{STATES[states[0]]} at every {by}"
    ranges: dict[int | None, list[str]] = {}
    # Neighbouring cuts as first–last: 0.1, 0.3 and 0.7–0.9.
    for state, run in groupby(zip(states, cuts, strict=True), key=itemgetter(0)):
        ends = [text.exact(cut[by]) for _, cut in run]
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


def _closest(line: Line, others: Sequence[Line], settings: Sequence[str]) -> Line | None:
    """The line that differs in nothing; else in the allocation, for the global one if it is there,
    and in options that only one of the two has. None where there is none.
    """

    def distance(other: Line) -> tuple[bool, int, bool]:
        differing, allocation = _differing(other, line, settings), other.points[0]["allocation"]
        return "allocation" in differing, len(differing), allocation != "global"

    fitting = [
        other
        for other in others
        if all(key.startswith(OF_ITS_OWN) for key in _differing(other, line, settings))
        and line.by == other.by
    ]
    return min(fitting, key=distance, default=None)


def _differing(line: Line, other: Line, settings: Sequence[str]) -> dict[str, Any]:
    """Settings of ``line`` that are not those of ``other``."""
    one, two = line.points[0], other.points[0]
    return {key: one[key] for key in settings if one[key] != two[key]}


def _pairs(point: Point, other: Point | None) -> list[tuple[Point, Point]]:
    """Its rows with the other's, seed by seed; none where it failed at one."""
    if other is None or point["failed"]:
        return []
    shared = [seed for seed in point["seeds"] if seed in other["seeds"]]
    return [(point["cells"][seed], other["cells"][seed]) for seed in shared]


def _difference(
    pairs: Sequence[tuple[Point, Point]], windows: Windows
) -> tuple[list[float], Point]:
    """Of every seed after recovery; and over them, at both stages."""
    losses = [(windows(one["config_hash"]), windows(other["config_hash"])) for one, other in pairs]
    after = [paired_difference(one, other) for (one, _), (other, _) in losses]
    before = [paired_difference(one, other) for (_, one), (_, other) in losses]
    # Where recovery lies between cuts, no loss is one before it.
    single = all(row[LOSS.before] is not None for pair in pairs for row in pair)
    ends = [*pooled(after), *pooled(before if single else [])]
    over = None if ends[1] is None else "seeds" if len(pairs) > 1 else "windows"
    found = {"seeds": len(pairs), "interval": over, **dict(zip(_ENDS, ends, strict=True))}
    return [of.mean for of in after], found


def _records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """The lines of the table of differences; columns that are empty everywhere stay."""
    summary = comparison.summary
    axes = [name for name in summary.settings if name not in tables.OF_LINE]
    for compared in comparison.lines:
        first = compared.line.points[0]
        about = {name: getattr(summary, name) for name in ("model", "data", "fingerprint")}
        about |= {name: first.get(name) for name in ("criterion", *tables.OF_LINE, *axes)}
        yield from (about | {"compared_with": compared.name} | cut for cut in compared.cuts)


def _markdown(comparison: Comparison) -> str:
    def spelt(difference: float, way: int) -> str:
        return f"{text.number(difference, signed=True)} {text.MARKS[way]}".strip()

    summary, name = comparison.summary, comparison.criterion
    parts = [
        f"## {summary.model} on {summary.data}, every line against {name}",
        f"Difference in loss to {name} of the same settings, in nats per token; below 0 is better. "
        f"{comparison.legend} Protocol {summary.fingerprint}.",
        *comparison.caveats,
    ]
    amounts = comparison.amounts
    by = ", then ".join(dict.fromkeys(by for by, _ in amounts)) or "ratio"
    head = ["line", "compared with", *(text.exact(amount) for _, amount in amounts)]
    for stage, column in comparison.stages.items():
        rows = comparison.rows(column, spelt)
        lines = [[of.line.label, str(of.name), *cells] for of, cells in rows]
        parts += [f"{stage.capitalize()}, by {by}:", text.markdown_table([head, *lines], left=2)]
    parts.append("\n".join(f"- {sentence}" for sentence in comparison.sentences))
    return "\n\n".join(parts) + "\n"
