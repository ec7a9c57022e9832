"""Rows of one protocol become a summary: lines of means over seeds, and how far each can be cut."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from swe_cli.controls import KIND_NAMES, PRUNED
from swe_cli.errors import SweError
from swe_cli.evaluation.loss import SHARPNESSES
from swe_cli.records import COSTS, Interval
from swe_cli.report.inference import pooled, q_values
from swe_cli.report.quantities import (
    CALIBRATED,
    DELTAS,
    ESTIMATED,
    LOSS,
    OF_QUESTIONS,
    Quantity,
    bounds,
    p_of,
    q_of,
)
from swe_cli.report.tables import caveats, records, settings_of
from swe_cli.report.text import count, exact, label, short_label, word

Point = dict[str, Any]  # one line of ``Summary.points``
OVERLAP, MOVED, VALIDATION = "jaccard_magnitude", "weights_moved", "validation_loss_nats"
# What has a mean over seeds, and no interval.
TOLD = (OVERLAP, MOVED, VALIDATION, "bits_per_character", "top1", "temperature", *COSTS)
# Models of which these agree to the last bit are the same model.
LOSSES = (LOSS.mean, LOSS.before, CALIBRATED.mean)
FIRST = "swe"  # whose settings and colour a line keeps that is another's, too
RIVAL = "magnitude"
ALWAYS = (FIRST, RIVAL, "random")  # shown, wherever not all lines are
DRAWN = 100  # amounts of a figure, a few pixels each
SAME = 0.99  # from here on a criterion does not tell itself from magnitude


@dataclass(frozen=True)
class Line:
    """Cuts that share everything but seed and ratio (or rate), from the mildest to the hardest.

    ``criteria``: ``criterion``, and others that made the very same models.
    """

    criterion: str
    criteria: tuple[str, ...]
    by: str
    parts: tuple[str, ...]
    roles: str | None
    label: str
    points: Sequence[Point]

    @property
    def without_roles(self) -> str:
        """What the label says beside the modules that could be cut."""
        return label(joined(self.criteria), [p for p in self.parts if p != f"roles {self.roles}"])

    @property
    def short(self) -> str:
        return short_label(joined(self.criteria), self.parts)


def chosen(points: Sequence[Point], quantity: Quantity) -> Point | None:
    """The point of the lowest mean loss on validation; of equals the first, the mildest cut.

    Where one has none, the one that is best on test, which flatters it.
    """
    measured = [point for point in points if point[quantity.mean] is not None]
    if on_validation(measured):
        return min(measured, key=itemgetter(VALIDATION), default=None)
    return min(measured, key=lambda p: -quantity.better * p[quantity.mean], default=None)


def cut_of(point: Point) -> str:
    """The ratio asked for, or the sparsity achieved; of a rate that failed, the rate."""
    if point["x"] is None:
        return exact(point["rate"])
    return exact(point["ratio"]) if point["x"] == point["ratio"] else f"{point['x']:.1%}"


def on_validation(points: Iterable[Point]) -> bool:
    """Whether all that was measured can be chosen among without the test split."""
    return all(p.get(VALIDATION) is not None for p in points if p[LOSS.mean] is not None)


def joined(criteria: Iterable[str]) -> str:
    """``swe = magnitude``."""
    return " = ".join(criteria)


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """All that a report draws, of one model, one data set and one protocol fingerprint.

    ``points``: a line for every control and every cut of every line, over its seeds, in columns
    named as the table's; ``interval`` (over ``seeds``, or over the ``windows`` of the only one),
    ``x`` (the ratio asked for, or the sparsity achieved where that is another: by rate, of units,
    of fused slices), ``failed`` (at any seed: a mean over the seeds that survived would flatter
    it), ``cells`` (its rows, by seed), ``parts`` (what tells its line from the others), and of
    differences the q values, over all points (``q_of``). Lines of the very same models are one,
    of several ``criteria``. ``uncalibrated``: how many rows fitted no temperature. ``baselines``:
    what is always answered the same is worth, by quantity. ``published``: criterion → allocation.
    ``left_out``: how many of the amounts that were cut it does not have, ``thinned``.
    """

    model: str
    data: str
    fingerprint: str
    seeds: tuple[int, ...]
    points: pd.DataFrame
    failed: pd.DataFrame
    uncalibrated: int
    settings: Sequence[str]
    baselines: Mapping[str, float]
    published: Mapping[str, str]
    left_out: int = 0

    def thinned(self) -> "Summary":
        """For a figure, which shows no more: of the amounts that were cut evenly ``DRAWN``, with
        the first and the last.
        """
        amounts = self.points["ratio"].fillna(self.points["rate"])
        levels = np.sort(amounts.dropna().unique())
        if len(levels) <= DRAWN:
            return self
        drawn = levels[np.linspace(0, len(levels) - 1, DRAWN).round().astype(int)]
        points = self.points[amounts.isna() | amounts.isin(drawn)]
        return replace(self, points=points, left_out=len(levels) - DRAWN)

    @cached_property
    def controls(self) -> list[Point]:
        return records(self.points[self.points["kind"] != PRUNED])

    @cached_property
    def cuts(self) -> list[Point]:
        return records(self.points[self.points["kind"] == PRUNED])

    @cached_property
    def lines(self) -> list[Line]:
        groups = [list(points) for _, points in groupby(self.cuts, itemgetter("line"))]
        names = ("criterion", "criteria", "by", "parts", "roles", "label")
        return [Line(points=of, **{name: of[0][name] for name in names}) for of in groups]

    @property
    def several_roles(self) -> bool:
        """Whether lines differ in the modules that could be cut."""
        return len({line.roles for line in self.lines}) > 1

    @property
    def intervals(self) -> str:
        """What the intervals are over, in words."""
        return interval_words(self.points["interval"], "images" if self.baselines else "windows")

    @property
    def caveats(self) -> list[str]:
        """To be said with the numbers."""
        ran = zip(self.points["criterion"], self.points["allocation"], strict=True)
        drawn = [f"{count(self.left_out, 'amount')} of {self.left_out + DRAWN} not drawn."]
        return [*drawn[: self.left_out], *caveats(ran, self.published), *self._doubtful()]

    @cached_property
    def models(self) -> list[list[Point]]:
        """Controls, those of the very same weights together."""
        found = defaultdict[Any, list[Point]](list)
        for control in self.controls:
            found[_losses_of(control, [LOSS.mean])].append(control)
        return [*found.values()]

    @property
    def equal(self) -> dict[str, str]:
        """Controls that are the same model as an earlier one, and which, by their labels."""
        return {other["label"]: of[0]["label"] for of in self.models for other in of[1:]}

    @property
    def stage(self) -> str:
        """When losses were measured, in words."""
        cuts = [cut for cut in self.cuts if cut["recovery"] not in (None, "none")]
        trained = any(cut[LOSS.before] != cut[LOSS.mean] for cut in cuts)
        return "after recovery" if trained else "without recovery"

    def _doubtful(self) -> Iterator[str]:
        # How far training on moved the weights, and who then cuts what magnitude cuts.
        if MOVED in self.points and (moved := self.points[MOVED].dropna()).any():
            far = dict.fromkeys(f"{100 * value:.2g} %" for value in (moved.min(), moved.max()))
            yield f"Training moved the weights by {' to '.join(far)} of their norm."
        same = self.points[OVERLAP].gt(SAME) & self.points["base"].eq("final")
        if names := sorted({*self.points["criterion"][same]} - {"magnitude"}):
            which = f"{', '.join(names)} cut{'s' * (len(names) == 1)}"
            yield f"{which} what magnitude cuts (overlap above {SAME}): judge by something else."
        for name, other in self.equal.items():
            yield f"{name} = {other}: the same weights."
        rows = [row for point in (*self.controls, *self.cuts) for row in point["cells"].values()]
        bounds = [1 / max(SHARPNESSES), 1 / min(SHARPNESSES)]
        at = np.array([row.get("temperature") or math.nan for row in rows], float)
        if ends := int(np.isclose(at[:, None], bounds).any(1).sum()):
            yield (
                f"The temperature of {count(ends, 'row')} stands at its bound "
                f"({' or '.join(map(exact, bounds))}): calibrated, they say little."
            )


def mean_ranks(summary: Summary, quantity: Quantity) -> "pd.Series[float]":
    """Label → its mean rank over all cuts that others share, 0 best and 1 worst; failed is last.

    A mean of losses would only tell which line explodes last.
    """
    cuts = summary.points[summary.points["kind"] == PRUNED]
    amount = cuts["ratio"].fillna(cuts["rate"])  # of its own sparsity, none
    of_cut = cuts.groupby([cuts["by"], amount])[quantity.mean]
    rank = of_cut.rank("min", ascending=quantity.better < 0, na_option="bottom")
    size = of_cut.transform("size")
    ranks = (rank - 1) / (size - 1).where(size > 1)  # alone, it is neither best nor worst
    return ranks.groupby(cuts["label"]).mean().fillna(math.inf)


def interval_words(over: Iterable[str | None], windows: str = "windows") -> str:
    """What intervals over ``windows``, ``seeds``, or both, are called.

    Those over windows are four to six times too narrow about another training.
    """
    words = {
        "windows": f"interval over test {windows} of this training only",
        "seeds": "t interval over seeds",
    }
    found = set(over)
    return " or ".join(f"95% {words[name]}" for name in words if name in found)


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
    first, settings = (table if done.empty else done).iloc[0], settings_of(table)
    worth = {q.name: done.get(q.baseline_column, pd.Series(dtype=float)) for q in OF_QUESTIONS}
    return Summary(
        model=first["model"],
        data=first["data"],
        fingerprint=first["fingerprint"],
        seeds=tuple(sorted(map(int, done["seed"].unique()))),
        points=_points(table[(table["kind"] == PRUNED) | (table["status"] == "done")], settings),
        failed=table[table["status"] == "failed"],
        uncalibrated=int(done.get(CALIBRATED.mean, pd.Series(index=done.index)).isna().sum()),
        settings=settings,
        baselines={name: float(of.mean()) for name, of in worth.items() if of.notna().any()},
        published=published or {},
    )


def means(summaries: Sequence[Summary]) -> pd.DataFrame:
    """``Summary.points``, of all protocols; ``seeds`` is how many: ``summary.csv``."""
    points = []
    for summary in summaries:
        about = {name: getattr(summary, name) for name in ("model", "data", "fingerprint")}
        points += [about | point for point in (*summary.controls, *summary.cuts)]
    table = pd.DataFrame(points).drop(columns=["line", "by", "parts", "criteria", "x", "cells"])
    return table.assign(seeds=table["seeds"].map(len)).dropna(axis=1, how="all")


def _points(rows: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """``Summary.points`` of the rows of one protocol."""
    rows = rows.assign(by=rows["ratio"].notna().map({True: "ratio", False: "rate"}))
    of_line = rows.groupby(["kind", "criterion", "by", *settings], sort=False, dropna=False)
    rows = rows.assign(line=of_line.ngroup())
    cut = rows.groupby(["line", "ratio", "rate"], sort=False, dropna=False).ngroup()
    cells, cuts = _cells(rows, cut), rows.groupby(cut)
    about = ["kind", "criterion", *settings, "roles", "line", "by", "ratio", "rate"]
    firsts = cuts.head(1).reset_index(drop=True)
    points = firsts.reindex(columns=list(dict.fromkeys(about)))
    points["sparsity"] = cuts["sparsity"].mean()
    estimates = [name for column in ESTIMATED for name in (column, *bounds(column))]
    columns = ["failed", "seeds", "cells", *estimates, "interval"]
    measured = pd.DataFrame(map(_over_seeds, cells), columns=columns)
    points = points.join(measured.astype(dict.fromkeys(estimates, float)))
    for told in (name for name in TOLD if name in rows):
        points[told] = cuts[told].mean().mask(measured["failed"])
    # An axis that does not touch a control repeats it; saying it once is enough.
    compared = [c for name in (LOSS.mean, LOSS.delta) for c in (name, *bounds(name))]
    points = points[(points["kind"] == PRUNED) | ~points.duplicated(["kind", "seeds", *compared])]
    # Tiny models miss a ratio by a weight or two, which is no other place.
    ratio, sparsity = points["ratio"], points["sparsity"]
    as_asked = sparsity.isna() | ((sparsity - ratio).abs() < 0.01)
    points["x"] = ratio.where(as_asked, sparsity.round(3)).where(ratio.notna(), sparsity)
    parts: dict[int, tuple[str, ...]] = {}
    for _, of in points.drop_duplicates("line").groupby("kind"):
        parts |= zip(of["line"], _parts(of, settings), strict=True)
    points = _named(points.sort_values(["line", "x"], kind="stable"), parts)
    for column in (name for name in DELTAS if points[name].notna().any()):
        tested = records(points[[column, *bounds(column), "cells"]])
        known = [sum(of.get(column) is not None for of in p["cells"].values()) for p in tested]
        p = [p_of(point, column, seeds) for point, seeds in zip(tested, known, strict=True)]
        points[q_of(column)] = q_values(p)
    return points


def _named(points: pd.DataFrame, parts: Mapping[int, tuple[str, ...]]) -> pd.DataFrame:
    """With ``parts``, ``criteria`` and ``label``; of lines that made the same models, cut by cut
    and seed by seed, only one, ``FIRST``'s if it is among them.
    """
    models, twins = defaultdict[int, list[Any]](list), defaultdict[Any, list[int]](list)
    names = dict(zip(points["line"], points["criterion"], strict=True))
    cuts = points[points["kind"] == PRUNED]
    for point in records(cuts[["line", "ratio", "rate", "cells"]]):
        models[point["line"]].append((point["ratio"], point["rate"], _losses_of(point)))
    for line in sorted(models, key=lambda line: names[line] != FIRST):
        twins[tuple(models[line])].append(line)
    same = {lines[0]: lines for lines in twins.values()}
    criteria = {one: tuple(dict.fromkeys(names[at] for at in lines)) for one, lines in same.items()}
    shared = {
        one: tuple(p for p in parts[one] if all(p in parts[line] for line in lines))
        for one, lines in same.items()
    }
    points = points[(points["kind"] != PRUNED) | points["line"].isin(same)].reset_index(drop=True)
    points["parts"] = points["line"].map({**parts, **shared})
    points["criteria"] = points["line"].map(criteria)
    of = zip(points["line"], points["kind"], strict=True)
    spelt = [joined(criteria[line]) if line in criteria else KIND_NAMES[kind] for line, kind in of]
    points["label"] = list(map(label, spelt, points["parts"]))
    return points


def _losses_of(point: Point, columns: Sequence[str] = LOSSES) -> Any:
    """Of every seed, equal to those of the same models; of one that has none, to nothing."""
    cells = sorted(point["cells"].items())
    known = all(row["status"] == "done" and row[LOSS.mean] is not None for _, row in cells)
    return tuple((seed, *map(row.get, columns)) for seed, row in cells) if known else object()


def _parts(firsts: pd.DataFrame, settings: Sequence[str]) -> list[tuple[str, ...]]:
    """What tells each line from the others: ``("base final", "tracking.every 10")``.

    From one point of each, all of one kind. Only what differs is said. What draws its own masks has
    no allocation or pattern: that others have one tells nothing of them. Where some lines were cut
    by ratio and others by rate, each says which; what finds its own sparsity was told neither.
    """
    told = firsts["by"].where(firsts["ratio"].notna() | firsts["rate"].notna())
    said = firsts[list(settings)].assign(by=told if told.nunique() > 1 else None)
    keys = []
    for key in ("by", *settings):
        values = said[key].dropna() if key in ("allocation", "pattern") else said[key]
        if len({None if pd.isna(value) else word(value) for value in values}) > 1:
            keys.append(key)
    return [
        tuple(f"{key} {word(v)}" for key, v in zip(keys, values, strict=True) if not pd.isna(v))
        for values in said[keys].itertuples(index=False, name=None)
    ]


def _cells(rows: pd.DataFrame, cut: "pd.Series[int]") -> list[dict[int, Point]]:
    """The rows of every cut, by seed. SweError where two are of the same."""
    cells: list[dict[int, Point]] = [{} for _ in range(cut.nunique())]
    for of, row in zip(map(cells.__getitem__, cut), records(rows), strict=True):
        other = of.setdefault(row["seed"], row)
        if other is not row:
            raise SweError(
                f"Two {row['kind']} rows ({other['config_hash']}, {row['config_hash']}) differ in "
                "nothing but settings that no column shows; their mean would not be one over "
                "seeds.",
                "Report the runs separately, or sweep the setting so that it becomes a column.",
            )
    return cells


def _over_seeds(cells: Mapping[int, Point]) -> Point:
    """What is ``ESTIMATED`` of one cut, if no seed failed, and what its loss's interval is over."""
    seeds = tuple(sorted(seed for seed, row in cells.items() if row["status"] == "done"))
    failed = len(seeds) < len(cells)
    point: Point = {"failed": failed, "seeds": seeds, "cells": cells}
    rows = [] if failed else list(cells.values())
    for column in ESTIMATED:
        names = (column, *bounds(column))
        ends = [[row.get(name) for name in names] for row in rows]
        known = [Interval(mean, low, high) for mean, low, high in ends if mean is not None]
        point |= zip(names, pooled(known), strict=True)
    losses = [row for row in rows if row[LOSS.mean] is not None]
    over = "seeds" if len(losses) > 1 else "windows"
    return point | {"interval": None if point[bounds(LOSS.mean)[0]] is None else over}
