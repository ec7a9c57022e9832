"""The figure of many lines: a cell for every line and cut, coloured by its difference to dense."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from swe_cli.controls import BY_KIND, DENSE, PRUNED
from swe_cli.report.figures import round_up, titled
from swe_cli.report.quantities import BEFORE_RECOVERY, LOSS, sign
from swe_cli.report.summary import Point, Summary
from swe_cli.report.tables import records
from swe_cli.report.text import count, exact, number, short, short_label

PANELS = {"after recovery": LOSS.delta, "before recovery": BEFORE_RECOVERY}
MOST_COLUMNS = 14  # with numbers in the cells; beyond, colour alone says it
CELL, ROW = 36, 16  # pixels: how wide a column is, and how high a row
LABELS, SIGN = 240, 6  # pixels: about as wide as the names of lines, and a sign of a subtitle, are
FIRST_WORD = "split(datum.value, ' ')[0]"  # in Vega's language
FAILED = "×"
CORNER = "M-1,-1L1,-1L1,1Z"  # a triangle that fills the upper right
BARE = {"ticks": False, "domain": False, "labelLimit": 0, "labelAngle": 0}


def grid(summary: Summary) -> alt.HConcatChart:
    """Paired differences of loss to dense: a row for every line, a column for every cut.

    After recovery on the left, before it on the right; controls, which have one value, above. In
    nats per token, means over seeds where there are several. Colours end where ``colour_limit``
    says: beyond, they tell no more than the sign.
    """
    cells = pd.concat([_cells(summary, panel) for panel in PANELS])
    cuts = cells.dropna(subset=["column", "value"])
    limit = colour_limit(cells["value"])
    clipped = f"; colours are clipped at ±{limit:g}" if (cuts["value"].abs() > limit).any() else ""
    legend = {
        "title": f"difference to dense (nats per token), blue: better{clipped}",
        "orient": "bottom",
        "gradientLength": 300,
        "titleLimit": 0,
        "format": "+~g",
        "values": [-limit, -limit / 2, 0, limit / 2, limit],
    }
    scale = {"scheme": "redblue", "reverse": True, "domain": [-limit, limit]}
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    dark = cells["value"].abs() > 0.72 * limit
    cells = cells.assign(value=cells["value"].clip(-limit, limit), dark=dark)
    columns, drawn = columns_of(summary), list(cuts["panel"].unique()) or list(PANELS)[:1]
    panels = [
        _panel(cells[cells["panel"] == panel], columns, colour, named=panel == drawn[0])
        for panel in drawn
    ]
    dense = [p for p in summary.controls if p["kind"] == DENSE.kind and p[LOSS.mean] is not None]
    against = f"dense ({number(dense[0][LOSS.mean])})" if len(dense) == 1 else "dense"
    failed = f"; {FAILED} failed" if any(point["failed"] for point in summary.cuts) else ""
    seeds = count(len(summary.seeds), "seed")
    words = f"{summary.model} on {summary.data}: loss against {against}; {seeds}"
    corner = f"corner: paired {summary.intervals} excludes 0; bold: lowest of its column{failed}"
    charts = alt.hconcat(*panels, spacing=12).resolve_scale(color="shared")
    signs = (LABELS + len(panels) * len(columns) * CELL) // SIGN
    return titled(charts, words, [corner, *summary.caveats], signs)


def columns_of(summary: Summary) -> list[str]:
    """Every amount that any line was cut by: ratios, then rates, from mild to hard."""
    amounts = summary.points[["ratio", "rate"]][summary.points["kind"] == PRUNED]
    return list(map(_column, records(amounts.drop_duplicates().sort_values(["ratio", "rate"]))))


def colour_limit(differences: "pd.Series[float]") -> float:
    """Where colours end, in nats: a round number beyond the largest gain over dense.

    What is worse than dense grows without bound with the cut, and would leave everything else pale.
    Where nothing is better, half of all differences keep their colour.
    """
    finite = differences.replace([math.inf, -math.inf], math.nan).dropna()
    gain, least = -finite.min(), LOSS.tolerance
    return round_up(max(2 * least, gain if gain > least else finite.abs().median()))


def _column(point: Point) -> str:
    """What stands above a column, a space, and what that is: ``0.5 ratio``, ``1.5 rate``."""
    asked = (f"{exact(point[by])} {by}" for by in ("ratio", "rate") if point[by] is not None)
    return next(asked, "own own sparsity")


def _cells(summary: Summary, panel: str) -> pd.DataFrame:
    """What is drawn of every point, row by row: controls, then lines; a control has no column."""
    # Without dense, whose difference to itself says nothing.
    rows: list[tuple[str, Sequence[Point]]]
    rows = [(p["label"], [p]) for p in summary.controls if p["kind"] != DENSE.kind]
    rows += [(short_label(line.criterion, line.parts), line.points) for line in summary.lines]
    cells = []
    for row, points in rows:
        for point in points:
            control, measured = BY_KIND.get(point["kind"]), PANELS[panel]
            if control and not control.recovered and point[measured] is None:
                measured = LOSS.delta  # a model that is never recovered has one value
            value, absent = point[measured], FAILED if point["failed"] else ""
            cells.append(
                {
                    "panel": panel,
                    "row": row,
                    "criterion": point["criterion"],
                    "column": None if control else _column(point),
                    "value": math.nan if value is None else value,
                    "text": absent if value is None else short(value),
                    "certain": sign(point, measured) != 0,
                }
            )
    table = pd.DataFrame(cells)
    return table.assign(bold=table["value"] == table.groupby("column")["value"].transform("min"))


def _panel(cells: pd.DataFrame, columns: list[str], colour: Any, *, named: bool) -> Any:
    """Controls as bars over all columns; below, the lines, a little apart by criterion."""
    controls, lines = cells[cells["column"].isna()], cells[cells["column"].notna()]
    if len(columns) > MOST_COLUMNS:
        lines = lines.assign(text=lines["text"].where(lines["value"].isna(), ""))
    x = alt.X(
        "column:N",
        sort=columns,
        title=" | ".join(dict.fromkeys(column.partition(" ")[2] for column in columns)),
        axis={"orient": "top", "labelOverlap": True, **BARE, "labelExpr": FIRST_WORD},
        scale={"padding": 0},
    )
    y = alt.Y("row:N", sort=None, title=None, axis=BARE if named else None, scale={"padding": 0})
    size = {"width": CELL * max(4, min(len(columns), MOST_COLUMNS)), "height": {"step": ROW}}
    grouped = alt.Row("criterion:N", sort=list(dict.fromkeys(lines["criterion"])), header=None)
    below = _layers(lines, colour, y, right=x.bandPosition(1), x=x).properties(**size)
    charts = [below.facet(row=grouped, spacing=2).resolve_scale(y="independent")]
    if len(controls):
        bars = _layers(controls, colour, y, right=alt.value("width"))
        charts.insert(0, bars.properties(**size))
    title = alt.Title(cells["panel"].iloc[0], fontSize=12, fontWeight="normal", frame="group")
    return alt.vconcat(*charts, title=title, spacing=6)


def _layers(cells: pd.DataFrame, colour: Any, y: Any, right: Any, **x: Any) -> alt.LayerChart:
    """Boxes, what is written in them, and their corners; without ``x`` over the whole width."""
    drawn = alt.Chart(cells).encode(y=y, **x)
    ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value("black"))
    inked = drawn.encode(color=ink)
    weight = alt.expr("datum.bold ? 'bold' : 'normal'")
    corners = inked.transform_filter("datum.certain").encode(x=right, y=y.bandPosition(0))
    return alt.layer(
        drawn.mark_rect(stroke="white", strokeWidth=1).encode(color=colour),
        inked.mark_text(fontSize=9, fontWeight=weight).encode(text="text:N"),
        corners.mark_point(shape=CORNER, filled=True, opacity=1, size=12, xOffset=-3, yOffset=3),
    )
