"""Rows of one protocol become a summary: means over seeds, with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # scipy.stats takes a second to import

from swe_cli.controls import KIND_NAMES, PRUNED
from swe_cli.errors import SweError
from swe_cli.report.quantities import ESTIMATED, LOSS, OF_QUESTIONS, Quantity, bounds
from swe_cli.report.tables import caveats, lines_of, parts_of, records, settings_of
from swe_cli.report.text import count, label

_OF_LINES = ("criterion", "by", "parts", "roles")
Point = dict[str, Any]  # one line of ``Summary.points``


@dataclass(frozen=True, kw_only=True)
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
    def lines(self) -> list[Line]:
        groups = [list(group) for _, group in groupby(self.cuts, itemgetter("line"))]
        return [Line(points=of, **{name: of[0][name] for name in _OF_LINES}) for of in groups]

    @cached_property
    def cuts(self) -> list[Point]:
        return records(self.points[self.points["kind"] == PRUNED])

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
    baselines = {
        q.name: float(done[q.baseline_column].mean())
        for q in OF_QUESTIONS
        if q.baseline_column in done and done[q.baseline_column].notna().any()
    }
    return Summary(
        model=first["model"],
        data=first["data"],
        fingerprint=first["fingerprint"],
        seeds=tuple(sorted(map(int, done["seed"].unique()))),
        points=_points(table[(table["kind"] == PRUNED) | (table["status"] == "done")]),
        failed=table[table["status"] == "failed"],
        baselines=baselines,
        caveats=caveats(zip(table["criterion"], table["allocation"], strict=True), published),
    )


def over_seeds(table: pd.DataFrame, by: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Means of groups over seeds, their 95 % intervals, and ``interval``, what those are over.

    One seed keeps its interval over windows, or none; several get ``t_interval``.
    """
    groups = table.groupby(by)
    names = {column: (column, *bounds(column)) for column in columns}
    numbers = table.reindex(columns=[name for three in names.values() for name in three])
    values = {str(name): of.to_numpy(float) for name, of in numbers.items()}

    def line(rows: Any) -> dict[str, Any]:
        ends: dict[str, Any] = {}
        for column, three in names.items():
            measured = rows[~np.isnan(values[column][rows])]
            over, interval = "seeds", t_interval(values[column][measured].tolist())
            if len(measured) == 1:
                mean, low, high = (float(values[name][measured[0]]) for name in three)
                over, interval = "windows", (mean, low, high)
            ends |= zip(three, interval, strict=True)
            ends.setdefault("interval", None if math.isnan(interval[1]) else over)
        return ends

    index = groups.size().index
    lines = [line(groups.indices[key]) for key in index]
    return pd.DataFrame(lines, index, columns=[*numbers, "interval"])


def t_interval(means: Sequence[float]) -> tuple[float, float, float]:
    """The mean over several seeds and its 95 % interval, ``mean ± t(0.975, n - 1) · s / √n``.

    Student's t, since a bootstrap over three seeds would cover only 76 %. What is not finite has no
    width; of fewer seeds the interval is NaN.
    """
    if len(means) < 2:
        return means[0] if means else math.nan, math.nan, math.nan
    n = len(means)
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
    firsts = rows[~cut.duplicated()].set_index(cut[~cut.duplicated()])
    points = firsts[list(dict.fromkeys(["kind", "criterion", *settings, "roles"]))].assign(
        line=firsts["line"],
        by=firsts["ratio"].notna().map({True: "ratio", False: "rate"}),
        ratio=firsts["ratio"],
        rate=firsts["rate"],
        sparsity=rows["sparsity"].groupby(cut).mean(),
        failed=(rows["status"] == "failed").groupby(cut).any(),
        seeds=rows["seed"].where(rows["status"] == "done").groupby(cut).agg(_sorted),
    )
    measured = over_seeds(rows, cut, ESTIMATED)
    measured["jaccard_magnitude"] = rows["jaccard_magnitude"].groupby(cut).mean()
    points = points.join(measured.mask(points["failed"]))
    # An axis that does not touch a control repeats it; saying it once is enough.
    same = [
        "kind",
        "seeds",
        *(c for name in (LOSS.mean, LOSS.delta) for c in (name, *bounds(name))),
    ]
    points = points[(points["kind"] == PRUNED) | ~points.duplicated(same)]
    points = points.assign(x=_places(points), parts=points["line"].map(_parts(points, settings)))
    names = points["criterion"].where(points["kind"] == PRUNED, points["kind"].map(KIND_NAMES))
    points["label"] = [label(*pair) for pair in zip(names, points["parts"], strict=True)]
    return points.sort_values(["line", "x"], kind="stable", ignore_index=True)


def _places(points: pd.DataFrame) -> "pd.Series[float]":
    """``x``. Tiny models miss a ratio by a weight or two, which is no other place."""
    ratio, sparsity = points["ratio"], points["sparsity"]
    as_asked = sparsity.isna() | ((sparsity - ratio).abs() < 0.01)
    return ratio.where(as_asked, sparsity.round(3)).where(ratio.notna(), sparsity)


def _parts(points: pd.DataFrame, settings: Sequence[str]) -> dict[int, tuple[str, ...]]:
    firsts = points[~points["line"].duplicated()]
    parts: dict[int, tuple[str, ...]] = {}
    for _, of in firsts.groupby("kind"):
        parts |= zip(of["line"], parts_of(of, settings), strict=True)
    return parts


def _refuse_twins(rows: pd.DataFrame, cut: "pd.Series[int]") -> None:
    twins = rows[pd.DataFrame({"cut": cut, "seed": rows["seed"]}).duplicated(keep=False)]
    if len(twins):
        one, other = twins[cut[twins.index] == cut[twins.index[0]]].iloc[:2].to_dict("records")
        raise SweError(
            f"Two {one['kind']} rows ({one['config_hash']}, {other['config_hash']}) differ in "
            "nothing but settings that no column shows; their mean would not be one over seeds.",
            "Report the runs separately, or sweep the setting so that it becomes a column.",
        )


def _sorted(seeds: "pd.Series[float]") -> tuple[int, ...]:
    return tuple(sorted(map(int, seeds.dropna())))
