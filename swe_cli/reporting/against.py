"""Every line compared with one criterion's line of the same settings: paired, cut by cut."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from swe_cli.contracts import WindowLosses
from swe_cli.evaluation.compare import paired_difference
from swe_cli.records import Row
from swe_cli.reporting.aggregate import grouped, settings
from swe_cli.reporting.estimate import Estimate, estimate
from swe_cli.reporting.order import ordered, rank
from swe_cli.reporting.text import exact, label

# A row's windows after recovery, and before it where there is one moment before.
Windows = Callable[[Row], tuple[WindowLosses, WindowLosses | None]]
# Options of one criterion or allocation, which another cannot share.
OF_ITS_OWN = ("criterion.", "allocation.", "calibration.")

State = Literal["ahead", "behind", "undecided", "not compared"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One cut of a line minus the same cut of the other; nats per token, below 0 is ahead.

    ``seeds``: those at which both were measured. None where there is none, or where the line
    failed at any seed.
    """

    by: Literal["ratio", "rate"]
    amount: float
    seeds: tuple[int, ...]
    after: Estimate | None
    before: Estimate | None

    @property
    def state(self) -> State:
        states: dict[int, State] = {-1: "ahead", 0: "undecided", 1: "behind"}
        return "not compared" if self.after is None else states[self.after.sign]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A line (``row`` is one of its rows) and what it is compared with, differences in words.

    ``other`` is one row of that, or None where the criterion has no line of the same settings.
    """

    row: Row
    parts: tuple[str, ...]
    other: Row | None
    compared_with: str
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> str:
        """``ahead at 0.7–0.9, behind at 0.3–0.5, undecided elsewhere``, after recovery."""
        places: dict[State, list[int]] = {}
        for place, difference in enumerate(self.differences):
            places.setdefault(difference.state, []).append(place)
        if len(places) <= 1:
            state = next(iter(places), "not compared")
            return f"{state} at every {self.differences[0].by}" if places else state
        order: tuple[State, ...] = ("ahead", "behind", "not compared")
        said = [f"{state} at {self._ranges(places[state])}" for state in order if state in places]
        return ", ".join([*said, *(["undecided elsewhere"] if "undecided" in places else [])])

    def _ranges(self, places: Sequence[int]) -> str:
        """Neighbouring cuts as ``first–last``: ``0.1, 0.3 and 0.7–0.9``."""
        found = []
        for _, run in groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
            ends = [exact(self.differences[place].amount) for _, place in run]
            found.append(ends[0] if len(ends) == 1 else f"{ends[0]}–{ends[-1]}")
        return " and ".join([", ".join(found[:-1]), found[-1]]) if found[1:] else found[0]


def compare_with(rows: Iterable[Row], criterion: str, windows: Windows) -> list[Comparison]:
    """All lines of rows of one protocol, but ``criterion``'s own.

    One seed has a bootstrap over windows; several have a t interval over their differences.
    """
    lines = grouped(row for row in ordered(rows) if row.kind == "pruned")
    others = [group for _, group in lines if group[0].criterion == criterion]
    found = []
    for parts, group in lines:
        if group[0].criterion == criterion:
            continue
        other = _closest(group[0], others)
        found.append(
            Comparison(
                row=group[0],
                parts=parts,
                other=other[0] if other else None,
                compared_with=_name(criterion, group[0], other[0]) if other else "",
                differences=tuple(_differences(group, other, windows)) if other else (),
            )
        )
    return found


def _closest(row: Row, others: Sequence[Sequence[Row]]) -> Sequence[Row] | None:
    """The line that differs in nothing; else in the allocation, for the global one if it is there,
    and in options that only one of the two has.
    """
    fitting = [
        group
        for group in others
        if all(_of_its_own(key) for key in _differing(row, group[0]))
        and (row.ratio is None) == (group[0].ratio is None)
    ]
    return min(
        fitting,
        key=lambda group: (
            group[0].allocation != row.allocation,
            len(_differing(row, group[0])),
            group[0].allocation != "global",
        ),
        default=None,
    )


def _differing(row: Row, other: Row) -> dict[str, Any]:
    """Settings of ``other`` that are not those of ``row``."""
    mine, theirs = settings(row), settings(other)
    keys = dict.fromkeys([*mine, *theirs])
    return {key: theirs.get(key) for key in keys if mine.get(key) != theirs.get(key)}


def _of_its_own(key: str) -> bool:
    return key == "allocation" or key.startswith(OF_ITS_OWN)


def _name(criterion: str, row: Row, other: Row) -> str:
    known = {key: value for key, value in _differing(row, other).items() if value is not None}
    return label(criterion, [f"{key} {value}" for key, value in known.items()])


def _differences(
    group: Sequence[Row], other: Sequence[Row], windows: Windows
) -> Iterable[Difference]:
    theirs = {_cut(row): row for row in other if row.status == "done"}
    amounts = {(row.ratio, row.rate) for row in group if _cut(row)[:2] != (None, None)}
    for ratio, rate in sorted(amounts, key=lambda pair: (rank(pair[0]), rank(pair[1]))):
        mine = [row for row in group if (row.ratio, row.rate) == (ratio, rate)]
        failed = any(row.status == "failed" for row in mine)
        pairs = [(row, theirs[_cut(row)]) for row in mine if not failed and _cut(row) in theirs]
        after, before = [], []
        for row, reference in pairs:
            (mine_after, mine_before), (other_after, other_before) = (
                windows(row),
                windows(reference),
            )
            after.append(paired_difference(mine_after, other_after))
            if mine_before and other_before:
                before.append(paired_difference(mine_before, other_before))
        yield Difference(
            by="ratio" if ratio is not None else "rate",
            amount=float(ratio if ratio is not None else rate or 0.0),
            seeds=tuple(sorted(row.seed for row, _ in pairs)),
            after=estimate(after),
            before=estimate(before) if len(before) == len(after) else None,
        )


def _cut(row: Row) -> tuple[float | None, float | None, int]:
    return row.ratio, row.rate, row.seed
