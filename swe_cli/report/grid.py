"""The figure of many lines: a cell for every line and cut, coloured by its difference to dense."""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import altair as alt

from swe_cli.controls import BY_KIND, DENSE
from swe_cli.report.figures import data, exactly, round_up, titled
from swe_cli.report.quantities import BEFORE_RECOVERY, LOSS, sign
from swe_cli.report.summary import Point, Summary
from swe_cli.report.text import count, exact, number, short, short_label

PANELS = {"after recovery": LOSS.delta, "before recovery": BEFORE_RECOVERY}
GAP, SMALL_GAP = 0.5, 0.15  # rows: between controls and lines; between criteria
MOST_COLUMNS = 14  # with numbers in the cells; beyond, colour alone says it
CELL, ROW = 36, 16  # pixels: how wide a column is, and how high a row
_FAR = 1e9  # nats; JSON has no infinity
MISSING, FAILED = "#ededed", "×"
CORNER = "M-1,-1L1,-1L1,1Z"  # a triangle that fills the upper right

Column = tuple[str, float]  # ratio, rate or own sparsity, and how much; 0 of the last


def grid(summary: Summary) -> alt.HConcatChart:
    """Paired differences of loss to dense: a row for every line, a column for every cut.

    After recovery on the left, before it on the right; controls, which have one value, above. In
    nats per token, means over seeds where there are several. Colours end where ``colour_limit``
    says: beyond, they tell no more than the sign.
    """
    drawn = [p for p in PANELS if any(c[PANELS[p]] is not None for c in summary.cuts)]
    panels = [_panel(summary, panel) for panel in drawn or list(PANELS)[:1]]
    dense = [p for p in summary.controls if p["kind"] == DENSE.kind and p[LOSS.mean] is not None]
    against = f"dense ({number(dense[0][LOSS.mean])})" if len(dense) == 1 else "dense"
    failed = f"; {FAILED} failed" if any(point["failed"] for point in summary.cuts) else ""
    seeds = count(len(summary.seeds), "seed")
    words = f"{summary.model} on {summary.data}: loss against {against}; {seeds}"
    corner = f"corner: paired {summary.intervals} excludes 0; bold: lowest of its column{failed}"
    charts = alt.hconcat(*panels, spacing=12).resolve_scale(color="shared")
    return titled(charts, words, [corner, *summary.caveats], 100 * len(panels))


def columns_of(summary: Summary) -> list[Column]:
    """Every amount that any line was cut by: ratios, then rates, from mild to hard."""
    order = ("ratio", "rate", "own sparsity")
    return sorted(set(map(_column, summary.cuts)), key=lambda c: (order.index(c[0]), c[1]))


def colour_limit(summary: Summary) -> float:
    """Where colours end, in nats: a round number beyond the largest gain over dense.

    What is worse than dense grows without bound with the cut, and would leave everything else pale.
    Where nothing is better, half of all differences keep their colour.
    """
    values = [value for value in _differences(summary) if math.isfinite(value)]
    values += [p[LOSS.delta] for p in summary.controls if p[LOSS.delta] is not None]
    gain, least = -min(values, default=0.0), LOSS.tolerance
    limit = gain if gain > least else median([abs(value) for value in values] or [0.0])
    return round_up(max(limit, 2 * least))


def _differences(summary: Summary) -> list[float]:
    """Every difference of a cut that is drawn, of both panels."""
    values = (point[column] for column in PANELS.values() for point in summary.cuts)
    return [value for value in values if value is not None]


def _column(point: Point) -> Column:
    by = (by for by in ("ratio", "rate") if point[by] is not None)
    return next(((name, point[name]) for name in by), ("own sparsity", 0.0))


def _rows(summary: Summary) -> list[tuple[float, str, Sequence[Point]]]:
    """Top, name and points of every row: the controls, then the lines, a little apart by criterion.

    Without dense, whose difference to itself says nothing.
    """
    controls = [point for point in summary.controls if point["kind"] != DENSE.kind]
    rows: list[tuple[float, str, Sequence[Point]]] = [
        (float(place), point["label"], [point]) for place, point in enumerate(controls)
    ]
    top, last = len(controls) + (GAP if controls else 0.0), ""
    several = any(line.parts for line in summary.lines)
    for line in summary.lines:
        top += SMALL_GAP if several and last not in ("", line.criterion) else 0.0
        rows.append((round(top, 2), short_label(line.criterion, line.parts), line.points))
        top, last = top + 1, line.criterion
    return rows


def _cells(summary: Summary, panel: str) -> list[dict[str, Any]]:
    """Where every value stands (columns and rows of a panel) and what is written there."""
    columns, delta, cells = columns_of(summary), PANELS[panel], []
    measured = [point for point in summary.cuts if point[delta] is not None]
    best = {_column(p): p[delta] for p in sorted(measured, key=lambda p: -p[delta])}
    for top, _, points in _rows(summary):
        for point in points:
            control, column = BY_KIND.get(point["kind"]), delta
            if control and not control.recovered and point[delta] is None:
                column = LOSS.delta  # a model that is never recovered has one value
            value = point[column]
            if value is None and not point["failed"]:
                continue
            left = 0 if control else columns.index(_column(point))
            right = len(columns) if control else left + 1
            words = FAILED if value is None else short(value)
            cells.append(
                {
                    "left": left,
                    "middle": (left + right) / 2,
                    "right": right,
                    "top": top,
                    "centre": top + 0.5,
                    "bottom": top + 1,
                    "value": None if value is None else max(-_FAR, min(_FAR, value)),
                    "text": words if control or len(columns) <= MOST_COLUMNS else "",
                    "bold": not control and value is not None and value == best[_column(point)],
                    "certain": sign(point, column) != 0,
                }
            )
    return cells


def _panel(summary: Summary, panel: str) -> alt.LayerChart:
    rows, columns, limit = _rows(summary), columns_of(summary), colour_limit(summary)
    names = {top + 0.5: name for top, name, _ in rows} if panel == next(iter(PANELS)) else {}
    heads = {
        place + 0.5: "own" if by == "own sparsity" else exact(amount)
        for place, (by, amount) in enumerate(columns)
        if place % -(-len(columns) // MOST_COLUMNS) == 0
    }
    height = rows[-1][0] + 1
    cuts = " | ".join(dict.fromkeys(by for by, _ in columns))
    x = {"axis": _axis(heads, cuts, orient="top"), "scale": exactly(0, len(columns))}
    y = {"axis": _axis(names, None), "scale": exactly(height, 0)}
    outside = any(not -limit <= value <= limit for value in _differences(summary))
    clipped = f"; colours are clipped at ±{limit:g}" if outside else ""
    legend = {
        "title": f"difference to dense (nats per token), blue: better{clipped}",
        "orient": "bottom",
        "gradientLength": 300,
        "titleLimit": 0,
        "format": "+~g",
        "values": [-limit, -limit / 2, 0, limit / 2, limit],
    }
    scale = {"scheme": "redblue", "reverse": True, "domain": [-limit, limit], "clamp": True}
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    ink = alt.when(f"abs(datum.value) > {0.72 * limit}").then(alt.value("white"))
    cells = data(_cells(summary, panel))
    ends = {"x2": "right:Q", "y2": "bottom:Q"}
    boxes = cells.mark_rect(stroke="white", strokeWidth=1).encode(
        x=alt.X("left:Q", **x),
        y=alt.Y("top:Q", **y),
        color=alt.when("isValid(datum.value)").then(colour).otherwise(alt.value(MISSING)),
        **ends,
    )
    inked = cells.encode(color=ink.otherwise(alt.value("black")))
    written = inked.encode(x=alt.X("middle:Q", **x), y=alt.Y("centre:Q", **y), text="text:N")
    corners = inked.transform_filter("datum.certain").encode(
        x=alt.X("right:Q", **x), y=alt.Y("top:Q", **y)
    )
    return alt.layer(
        boxes,
        written.transform_filter("!datum.bold").mark_text(fontSize=9),
        written.transform_filter("datum.bold").mark_text(fontSize=9, fontWeight="bold"),
        corners.mark_point(shape=CORNER, filled=True, opacity=1, size=12, xOffset=-3, yOffset=3),
        title=alt.Title(panel, fontSize=12, fontWeight="normal"),
        width=CELL * max(4, min(len(columns), MOST_COLUMNS)),
        height=ROW * height,
    )


def _axis(names: Mapping[float, str], title: str | None, **options: Any) -> dict[str, Any]:
    """Names at places."""
    labels = f"{json.dumps({f'{place:g}': name for place, name in names.items()})}[datum.value]"
    plain = {"grid": False, "ticks": False, "domain": False, "labelLimit": 0, "labelAngle": 0}
    return {"values": list(names), "labelExpr": labels, "title": title, **plain, **options}
