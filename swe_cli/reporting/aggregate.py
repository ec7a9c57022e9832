"""Rows of one protocol become a summary: means over seeds, with intervals."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from swe_cli.errors import SweError
from swe_cli.records import Kind, Row, Scalar
from swe_cli.reporting.estimate import Estimate, estimate
from swe_cli.reporting.order import KINDS, ordered
from swe_cli.reporting.quantity import OF_QUESTIONS
from swe_cli.reporting.summary import Control, Line, Point, Reading, Summary
from swe_cli.reporting.text import count, differences


def split_by_protocol(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups that may share a table of means or a figure: one fingerprint, model and data set each.

    A failed row, which has been measured by no protocol, joins the first group of its model and
    data.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    lines = ordered(rows)
    for row in lines:
        if row.status == "done":
            groups.setdefault((row.model, row.data, row.fingerprint), []).append(row)
    for row in lines:
        if row.status == "failed":
            home = next((key for key in groups if key[:2] == (row.model, row.data)), None)
            groups.setdefault(home or (row.model, row.data, row.fingerprint), []).append(row)
    return list(groups.values())


def summarise(rows: Iterable[Row]) -> Summary:
    """Means over seeds with 95 % intervals, each of which says what it is over.

    Raises SweError for no rows, for rows of several protocols, models or data sets, and for two
    rows that differ in nothing a table shows, since their mean would not be one over seeds.
    """
    lines = ordered(rows)
    done = [row for row in lines if row.status == "done"]
    if not lines:
        raise SweError("There is no row to report.", "Make some: swe sweep")
    _one(done, "fingerprint", "protocol")
    _one(done, "model", "model")
    _one(done, "data", "data set")
    first = (done or lines)[0]
    return Summary(
        model=first.model,
        data=first.data,
        fingerprint=first.fingerprint,
        seeds=tuple(sorted({row.seed for row in done})),
        controls=tuple(control for kind in KINDS[:-1] for control in _controls(done, kind)),
        lines=tuple(_lines([row for row in lines if row.kind == "pruned"])),
        failed=tuple(row for row in lines if row.status == "failed"),
        baselines=_baselines(done),
    )


def _baselines(rows: Sequence[Row]) -> dict[str, float]:
    means = {
        q.name: _mean(row.measures.get(q.baseline_measure) for row in rows) for q in OF_QUESTIONS
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def _one(rows: Sequence[Row], column: str, thing: str) -> None:
    found = sorted({str(getattr(row, column)) for row in rows})
    if len(found) > 1:
        raise SweError(
            f"Rows of {count(len(found), thing)} ({', '.join(found)}) are never averaged or drawn "
            "together.",
            f"Report each {thing} on its own.",
        )


def settings(row: Row) -> dict[str, Scalar]:
    """What tells lines of one criterion apart."""
    names = ("allocation", "pattern", "base", "prunable", "roles", "recovery", "schedule", "fuse")
    return {name: getattr(row, name) for name in names} | dict(sorted(row.axes.items()))


def grouped(rows: Iterable[Row]) -> list[tuple[tuple[str, ...], list[Row]]]:
    """Pruned rows line by line, and what tells each line from the others, in words.

    Where some lines were cut by ratio and others by rate, each says which; a criterion that finds
    its own sparsity was told neither.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.criterion, _by(row), *settings(row).items()), []).append(row)
    members = list(groups.values())
    both = {"ratio", "rate"} <= {_told(group[0]) for group in members}
    keys = [{"by": _told(group[0]) if both else None, **settings(group[0])} for group in members]
    return list(zip(differences(keys), members, strict=True))


def _by(row: Row) -> Literal["ratio", "rate"]:
    return "ratio" if row.ratio is not None else "rate"


def _told(row: Row) -> Scalar:
    """What said how much to cut; nothing where the criterion finds its own sparsity."""
    return None if (row.ratio, row.rate) == (None, None) else _by(row)


def _lines(rows: Sequence[Row]) -> list[Line]:
    return [
        Line(
            criterion=str(group[0].criterion),
            by=_by(group[0]),
            parts=parts,
            points=tuple(_points(group)),
            roles=group[0].roles,
        )
        for parts, group in grouped(rows)
    ]


def _controls(rows: Sequence[Row], kind: Kind) -> list[Control]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.kind == kind:
            groups.setdefault(tuple(settings(row).items()), []).append(row)
    distinct: dict[tuple[object, ...], tuple[Row, Point]] = {}
    for group in groups.values():
        point = _point(group)
        # An axis that does not touch a control repeats it; saying it once is enough.
        distinct.setdefault((point.seeds, point.loss, point.delta), (group[0], point))
    parts = differences([settings(row) for row, _ in distinct.values()])
    return [
        Control(kind=kind, parts=words, point=point)
        for (_, point), words in zip(distinct.values(), parts, strict=True)
    ]


def _points(rows: Sequence[Row]) -> list[Point]:
    groups: dict[tuple[float | None, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.ratio, row.rate), []).append(row)
    points = [_point(group) for group in groups.values()]
    return sorted(points, key=lambda point: (math.isnan(point.x), point.x))


def _point(rows: Sequence[Row]) -> Point:
    seeds = [row.seed for row in rows]
    if len(set(seeds)) < len(seeds):
        raise SweError(
            f"Two {rows[0].kind} rows ({rows[0].config_hash}, {rows[1].config_hash}) differ in "
            "nothing but settings that no column shows; their mean would not be one over seeds.",
            "Report the runs separately, or sweep the setting so that it becomes a column.",
        )
    failed = any(row.status == "failed" for row in rows)
    known = [] if failed else rows
    return Point(
        failed=failed,
        ratio=rows[0].ratio,
        rate=rows[0].rate,
        sparsity=_mean(row.sparsity for row in rows),
        seeds=tuple(sorted(row.seed for row in rows if row.status == "done")),
        loss=_estimate(known, "loss_nats", "loss_low", "loss_high"),
        before=_estimate(known, "loss_before_recovery_nats"),
        delta=_estimate(known, "delta_nats", "delta_low", "delta_high"),
        delta_before=_estimate(
            known,
            "delta_before_recovery_nats",
            "delta_before_recovery_low",
            "delta_before_recovery_high",
        ),
        delta_recovered=_estimate(
            known, "delta_recovered_nats", "delta_recovered_low", "delta_recovered_high"
        ),
        jaccard=_mean(row.jaccard_magnitude for row in known),
        accuracy=_reading(known, "accuracy"),
        mae=_reading(known, "mae"),
    )


def _reading(rows: Sequence[Row], name: str) -> Reading:
    def over_seeds(mean: str, *, bounds: bool = True) -> Estimate | None:
        names = (mean, f"{mean}_low", f"{mean}_high")
        found = [[row.measures.get(column) for column in names] for row in rows]
        return estimate([(m, low, high) if bounds else (m, None, None) for m, low, high in found])

    return Reading(
        mean=over_seeds(name),
        before=over_seeds(f"{name}_before_recovery", bounds=False),
        delta=over_seeds(f"delta_{name}"),
    )


def _estimate(
    rows: Sequence[Row], mean: str, low: str | None = None, high: str | None = None
) -> Estimate | None:
    def value(row: Row, column: str | None) -> float | None:
        return getattr(row, column) if column else None

    return estimate([(value(row, mean), value(row, low), value(row, high)) for row in rows])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
