"""Rows of one protocol become a summary: lines of means over seeds, and how far each can be cut."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # scipy.stats takes a second to import

from swe_cli.controls import KIND_NAMES, PRUNED
from swe_cli.errors import SweError
from swe_cli.report.quantities import (
    BEFORE_RECOVERY,
    ESTIMATED,
    LOSS,
    OF_QUESTIONS,
    TO_RECOVERED,
    Quantity,
    bounds,
)
from swe_cli.report.tables import caveats, lines_of, parts_of, records, settings_of
from swe_cli.report.text import NOTHING, count, label, percent

Point = dict[str, Any]  # one line of ``Summary.points``
# What a loss is compared with: in a sentence, above a column, and its difference's column.
REFERENCES = (
    ("against dense", "against\ndense", LOSS.delta),
    ("against dense recovered", "dense\nrecovered", TO_RECOVERED),
    ("before recovery", "before\nrecovery", BEFORE_RECOVERY),
)


@dataclass(frozen=True)
class Line:
    """Cuts that share everything but seed and ratio (or rate), from the mildest to the hardest."""

    criterion: str
    by: str
    parts: tuple[str, ...]
    roles: str | None
    points: Sequence[Point]

    @property
    def label(self) -> str:
        return label(self.criterion, self.parts)

    @property
    def without_roles(self) -> str:
        """What the label says beside the modules that could be cut."""
        return label(self.criterion, [p for p in self.parts if p != f"roles {self.roles}"])

    def best(self, quantity: Quantity) -> Point | None:
        """The point of the best mean after recovery; of equals the mildest cut."""
        measured = [point for point in self.points if point[quantity.mean] is not None]
        return min(measured, key=lambda p: -quantity.better * p[quantity.mean], default=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """All that a report draws, of one model, one data set and one protocol fingerprint.

    ``points``: a line for every control and every cut of every line, over its seeds, in columns
    named as the table's; ``seeds``, ``interval`` (over ``seeds``, or over the ``windows`` of the
    only one), ``x`` (where it stands: the ratio asked for, or the sparsity achieved where that is
    another: by rate, where a ratio is of neurons or heads, where slices were fused), ``failed`` (at
    any seed: a mean over the seeds that survived would flatter it), ``line``, ``by``, ``parts``
    (what tells it from the others) and ``label``. ``baselines``: of what is always answered the
    same, by the name of the quantity. ``caveats``: sentences to be said with the numbers.
    """

    model: str
    data: str
    fingerprint: str
    seeds: tuple[int, ...]
    points: pd.DataFrame
    failed: pd.DataFrame
    baselines: Mapping[str, float]
    caveats: Sequence[str] = ()

    @cached_property
    def controls(self) -> list[Point]:
        return records(self.points[self.points["kind"] != PRUNED])

    @cached_property
    def cuts(self) -> list[Point]:
        return records(self.points[self.points["kind"] == PRUNED])

    @cached_property
    def lines(self) -> list[Line]:
        groups = [list(points) for _, points in groupby(self.cuts, itemgetter("line"))]
        names = ("criterion", "by", "parts", "roles")
        return [Line(points=of, **{name: of[0][name] for name in names}) for of in groups]

    @property
    def several_roles(self) -> bool:
        """Whether lines differ in the modules that could be cut."""
        return len({line.roles for line in self.lines}) > 1

    @property
    def intervals(self) -> str:
        """What the intervals are over, in words."""
        words = {
            "seeds": "95% t interval over seeds",
            "windows": f"95% interval over test {'images' if self.baselines else 'windows'}",
        }
        over = set(self.points["interval"].dropna())
        return " or ".join(words[name] for name in words if name in over)


def summarise(table: pd.DataFrame, published: Mapping[str, str] | None = None) -> Summary:
    """Means over seeds with 95 % intervals, each of which says what it is over.

    ``published``: criterion → the allocation it was published with, where that is known.

    Raises SweError for no rows, for rows of several protocols, models or data sets, and for two
    rows that differ in nothing a table shows, since their mean would not be one over seeds.
    """
    done = table[table["status"] == "done"]
    if table.empty:
        raise SweError("There is no row to report.", "Make some: swe sweep")
    for column, thing in (("fingerprint", "protocol"), ("model", "model"), ("data", "data set")):
        values = sorted(map(str, done[column].unique()))
        if len(values) > 1:
            raise SweError(
                f"Rows of {count(len(values), thing)} ({', '.join(values)}) are never averaged or "
                "drawn together.",
                f"Report each {thing} on its own.",
            )
    first = (table if done.empty else done).iloc[0]
    worth = {q.name: done.get(q.baseline_column, pd.Series(dtype=float)) for q in OF_QUESTIONS}
    return Summary(
        model=first["model"],
        data=first["data"],
        fingerprint=first["fingerprint"],
        seeds=tuple(sorted(map(int, done["seed"].unique()))),
        points=_points(table[(table["kind"] == PRUNED) | (table["status"] == "done")]),
        failed=table[table["status"] == "failed"],
        baselines={name: float(of.mean()) for name, of in worth.items() if of.notna().any()},
        caveats=caveats(zip(table["criterion"], table["allocation"], strict=True), published),
    )


def pooled(intervals: "np.ndarray[Any, Any]") -> tuple[float, float, float]:
    """Mean, low and high over seeds, of (seeds, 3) of them; NaN where nothing is known.

    One seed keeps its interval over windows, or none; several get ``t_interval``.
    """
    measured = intervals[~np.isnan(intervals[:, 0])].tolist()
    if len(measured) == 1:
        mean, low, high = measured[0]
        return mean, low, high
    return t_interval([mean for mean, _, _ in measured])


def t_interval(means: Sequence[float]) -> tuple[float, float, float]:
    """The mean over several seeds and its 95 % interval, ``mean ± t(0.975, n - 1) · s / √n``.

    Student's t, since a bootstrap over three seeds would cover only 76 %. What is not finite has no
    width; of fewer seeds the interval is NaN.
    """
    n = len(means)
    if n < 2:
        return means[0] if means else math.nan, math.nan, math.nan
    mean = math.fsum(means) / n
    if not math.isfinite(mean):
        return mean, mean, mean
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in means) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """``Summary.points`` of the rows of one protocol."""
    settings = settings_of(rows)
    absent = [name for name in (*ESTIMATED, "roles") if name not in rows]
    rows = rows.assign(line=lines_of(rows), **dict.fromkeys(absent, np.nan))
    cut = rows.groupby(["line", "ratio", "rate"], sort=False, dropna=False).ngroup()
    _refuse_twins(rows, cut)
    firsts = rows.groupby(cut).head(1).set_index(cut.drop_duplicates())
    cuts, seeds = rows.groupby(cut), rows["seed"].where(rows["status"] == "done")
    points = firsts[list(dict.fromkeys(["kind", "criterion", *settings, "roles", "line"]))].assign(
        by=firsts["ratio"].notna().map({True: "ratio", False: "rate"}),
        ratio=firsts["ratio"],
        rate=firsts["rate"],
        sparsity=cuts["sparsity"].mean(),
        failed=(rows["status"] == "failed").groupby(cut).any(),
        seeds=seeds.groupby(cut).agg(lambda of: tuple(sorted(map(int, of.dropna())))),
    )
    measured = _over_seeds(rows, cut).assign(jaccard_magnitude=cuts["jaccard_magnitude"].mean())
    points = points.join(measured.mask(points["failed"]))
    # An axis that does not touch a control repeats it; saying it once is enough.
    compared = [c for name in (LOSS.mean, LOSS.delta) for c in (name, *bounds(name))]
    points = points[(points["kind"] == PRUNED) | ~points.duplicated(["kind", "seeds", *compared])]
    # Tiny models miss a ratio by a weight or two, which is no other place.
    ratio, sparsity = points["ratio"], points["sparsity"]
    as_asked = sparsity.isna() | ((sparsity - ratio).abs() < 0.01)
    points["x"] = ratio.where(as_asked, sparsity.round(3)).where(ratio.notna(), sparsity)
    parts: dict[int, tuple[str, ...]] = {}
    for _, of in points.drop_duplicates("line").groupby("kind"):
        parts |= zip(of["line"], parts_of(of, settings), strict=True)
    points["parts"] = points["line"].map(parts)
    names = points["criterion"].where(points["kind"] == PRUNED, points["kind"].map(KIND_NAMES))
    points["label"] = [label(*pair) for pair in zip(names, points["parts"], strict=True)]
    return points.sort_values(["line", "x"], kind="stable", ignore_index=True)


def _over_seeds(rows: pd.DataFrame, cut: "pd.Series[int]") -> pd.DataFrame:
    """What is ``ESTIMATED`` of every cut, and ``interval``: what the one of its loss is over."""
    three = {column: [column, *bounds(column)] for column in ESTIMATED}
    values = {c: rows.reindex(columns=names).to_numpy(float) for c, names in three.items()}
    groups = rows.groupby(cut).indices
    pools = {c: [pooled(of[groups[at]]) for at in range(len(groups))] for c, of in values.items()}
    made = pd.concat([pd.DataFrame(pools[c], columns=names) for c, names in three.items()], axis=1)
    several = rows[LOSS.mean].groupby(cut).count() > 1
    over = several.map({True: "seeds", False: "windows"})
    return made.assign(interval=over.where(made[bounds(LOSS.mean)[0]].notna(), None))


def _refuse_twins(rows: pd.DataFrame, cut: "pd.Series[int]") -> None:
    twins = rows[rows.assign(cut=cut).duplicated(["cut", "seed"], keep=False)]
    if len(twins):
        one, other = twins[cut[twins.index] == cut[twins.index[0]]].iloc[:2].to_dict("records")
        raise SweError(
            f"Two {one['kind']} rows ({one['config_hash']}, {other['config_hash']}) differ in "
            "nothing but settings that no column shows; their mean would not be one over seeds.",
            "Report the runs separately, or sweep the setting so that it becomes a column.",
        )


class BreakPoint(NamedTuple):
    """The largest fraction cut below the first one that costs more than the tolerance.

    ``outcome``: ``found``; ``at_once``, when the smallest cut tried already costs more (``ratio``
    None); ``not_reached``, when no cut tried does (``ratio`` is the largest); ``unknown``, when no
    bound was measured. ``first_over`` is the cut that costs more. For lines cut by rate both are
    achieved sparsities.
    """

    outcome: Literal["found", "at_once", "not_reached", "unknown"]
    ratio: float | None = None
    first_over: float | None = None

    def words(self, against: str, by: str = "ratio") -> str:
        """``holds to 60% against dense``; ``against`` is said where it reads best."""
        cut = self._cut(by)
        return {
            "found": f"holds to {cut} {against}",
            "at_once": f"fails already at {cut} {against}",
            "not_reached": f"holds at every cut tried {against} (not reached up to {cut})",
            "unknown": f"was not compared {against}",
        }[self.outcome]

    def short(self, by: str = "ratio") -> str:
        """``60%``; ``<30%`` where the smallest cut costs too much, ``≥90%`` where none does."""
        return {"at_once": "<", "not_reached": "≥"}.get(self.outcome, "") + self._cut(by)

    def _cut(self, by: str) -> str:
        cut = self.first_over if self.ratio is None else self.ratio
        return NOTHING if cut is None else fraction(cut, by)


def break_point(line: Line, column: str = LOSS.delta, quantity: Quantity = LOSS) -> BreakPoint:
    """Where the bound of a paired difference (``column``) first is worse than the tolerance.

    A later cut that happens to be fine again does not count. A cut that failed does not hold, nor
    one whose loss is no finite number; other points without a bound are passed over.
    """
    held: float | None = None
    if all(point["failed"] for point in line.points):
        return BreakPoint("unknown")  # nothing was measured, so nothing was found wanting
    for point in line.points:
        low, high = (point[bound] for bound in bounds(column))
        cost = high if quantity.better < 0 or low is None else -low
        if point["failed"] or point[LOSS.mean] is None or not math.isfinite(point[column] or 0.0):
            cost = math.inf
        if cost is None:
            continue
        if quantity.percent:  # of counts: a point lost must not become 0.010000000000000009
            cost = round(cost, 9)
        if cost > quantity.tolerance:
            return BreakPoint("at_once" if held is None else "found", held, point["x"])
        held = point["x"]
    return BreakPoint("unknown") if held is None else BreakPoint("not_reached", held)


def sentence(line: Line, quantity: Quantity = LOSS) -> str:
    """How far a line holds against dense (a loss also against dense recovered, and before
    recovery), and its best cut.
    """
    references = REFERENCES if quantity is LOSS else [("against dense", "", quantity.delta)]
    verdicts = [(words, break_point(line, column, quantity)) for words, _, column in references]
    known = [v.words(words, line.by) for words, v in verdicts if v.outcome != "unknown"]
    text = ", and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))
    text = f"{line.label} {text or 'was not compared with dense'}"
    best = line.best(quantity)
    if best is None:
        return f"{text}."
    at = fraction(best["x"], line.by)
    if quantity is LOSS:
        return f"{text}; its lowest loss is {LOSS.phrase(best, LOSS.mean)} at {at}."
    return f"{text}; at best {quantity.spell(best[quantity.mean])}, at {at}."


def fraction(x: float, by: str) -> str:
    """A fraction cut: ``62.5%``, or ``60.1%`` of one that was achieved."""
    return percent(x, decimals=1 if by == "rate" else None)
