"""The figure of many lines: a cell for every line and cut, coloured by its difference to dense."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from swe_cli.controls import BY_KIND, DENSE, PRUNED
from swe_cli.report.figures import SIGNED, named_models, spelt, squash, ticks, titled
from swe_cli.report.quantities import BEFORE_RECOVERY, LOSS, sign
from swe_cli.report.summary import Point, Summary, mean_ranks
from swe_cli.report.tables import records
from swe_cli.report.text import count, exact, number

PANELS = {"after recovery": LOSS.delta, "before recovery": BEFORE_RECOVERY}
MOST_COLUMNS = 14  # with numbers in the cells; beyond, colour alone says it
CELL, ROW = 40, 16  # pixels: how wide a column is, and how high a row
LABELS, LETTER = 240, 5.4  # pixels: about as wide as the names of lines, and a letter, are
FIRST_WORD = "split(datum.value, ' ')[0]"  # in Vega's language
FAILED = "×"
CORNER = "M-1,-1L1,-1L1,1Z"  # a triangle that fills the upper right
BARE = {"ticks": False, "domain": False, "labelLimit": 0, "labelAngle": 0}


def grid(summary: Summary) -> Any:
    """``cells`` for print, under a title that says what its marks mean."""
    dense = [p for p in summary.controls if p["kind"] == DENSE.kind and p[LOSS.mean] is not None]
    against = f"dense ({number(dense[0][LOSS.mean])})" if len(dense) == 1 else "dense"
    failed = f"; {FAILED} failed" if any(point["failed"] for point in summary.cuts) else ""
    seeds = count(len(summary.seeds), "seed")
    words = f"{summary.model} on {summary.data}: loss against {against}; {seeds}"
    corner = f"corner: q < 0.05 (paired {summary.intervals}); bold: lowest of its column{failed}"
    charts = cells(summary)
    signs = int((LABELS + len(charts.hconcat) * len(columns_of(summary)) * CELL) / LETTER)
    return titled(charts, words, [corner, *summary.caveats], signs)


def cells(summary: Summary) -> alt.HConcatChart:
    """Paired differences of loss to dense, in nats per token: a row a line, a column a cut.

    After recovery on the left, before it on the right, best mean rank first; controls, which have
    one value, above. Colours are on a symmetric log scale that ends at the largest. No theme.
    """
    table = pd.concat([_cells(summary, panel) for panel in PANELS])
    cuts = table.dropna(subset=["column", "value"])
    size, unit = table["value"].abs(), LOSS.tolerance
    limit = max(unit, size[size < math.inf].max())  # NaN, where there is none, is no larger
    scale = {"type": "symlog", "constant": unit, "domain": [-limit, limit], "clamp": True}
    legend = {
        "title": "difference to dense (nats per token, symmetric log scale), blue: better",
        "orient": "bottom",
        "gradientLength": 300,
        "titleLimit": 0,
        **SIGNED,
        "values": ticks(-limit, limit, unit, 300 / 36),
    }
    scale |= {"scheme": "redblue", "reverse": True}
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    table = table.assign(dark=squash(size, unit) > 0.7 * squash(limit, unit))
    columns, drawn = columns_of(summary), list(cuts["panel"].unique()) or list(PANELS)[:1]
    panels = [
        _panel(table[table["panel"] == panel], columns, colour, named=panel == drawn[0])
        for panel in drawn
    ]
    return alt.hconcat(*panels, spacing=12).resolve_scale(color="shared")


def columns_of(summary: Summary) -> list[str]:
    """Every amount that any line was cut by: ratios, then rates, from mild to hard."""
    amounts = summary.points[["ratio", "rate"]][summary.points["kind"] == PRUNED]
    return list(map(_column, records(amounts.drop_duplicates().sort_values(["ratio", "rate"]))))


def _column(point: Point) -> str:
    """What stands above a column, a space, and what that is: ``0.5 ratio``, ``1.5 rate``."""
    asked = (f"{exact(point[by])} {by}" for by in ("ratio", "rate") if point[by] is not None)
    return next(asked, "own own sparsity")


def _cells(summary: Summary, panel: str) -> pd.DataFrame:
    """What is drawn of every point, row by row: controls, then lines; a control has no column."""
    ranks, rows = mean_ranks(summary, LOSS), list[tuple[str, Sequence[Point]]]()
    # Without dense, whose difference to itself says nothing.
    rows += [(n, [p]) for n, p in named_models(summary) if p["kind"] != DENSE.kind]
    lines = sorted(summary.lines, key=lambda line: ranks[line.label])
    rows += [(line.short, line.points) for line in lines]
    found = []
    for row, points in rows:
        for point in points:
            control, measured = BY_KIND.get(point["kind"]), PANELS[panel]
            if control and not control.recovered and point[measured] is None:
                measured = LOSS.delta  # a model that is never recovered has one value
            value, absent = point[measured], FAILED if point["failed"] else ""
            found.append(
                {
                    "panel": panel,
                    "row": row,
                    "column": None if control else _column(point),
                    "value": math.nan if value is None else value,
                    "text": absent if value is None else spelt(value),
                    "certain": sign(point, measured) != 0,
                }
            )
    table = pd.DataFrame(found)
    return table.assign(bold=table["value"] == table.groupby("column")["value"].transform("min"))


def _panel(table: pd.DataFrame, columns: list[str], colour: Any, *, named: bool) -> Any:
    """Controls as bars over all columns; below, the lines."""
    controls, lines = table[table["column"].isna()], table[table["column"].notna()]
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
    charts = [_layers(lines, colour, y, right=x.bandPosition(1), x=x).properties(**size)]
    if len(controls):
        bars = _layers(controls, colour, y, right=alt.value("width"))
        charts.insert(0, bars.properties(**size))
    title = alt.Title(table["panel"].iloc[0], fontSize=12, fontWeight="normal", frame="group")
    return alt.vconcat(*charts, title=title, spacing=6)


def _layers(table: pd.DataFrame, colour: Any, y: Any, right: Any, **x: Any) -> alt.LayerChart:
    """Boxes, what is written in them, and their corners; without ``x`` over the whole width."""
    drawn = alt.Chart(table).encode(y=y, **x)
    ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value("black"))
    inked = drawn.encode(color=ink)
    weight = alt.expr("datum.bold ? 'bold' : 'normal'")
    corners = inked.transform_filter("datum.certain").encode(x=right, y=y.bandPosition(0))
    return alt.layer(
        drawn.mark_rect(stroke="white", strokeWidth=1).encode(color=colour),
        inked.mark_text(fontSize=10, fontWeight=weight).encode(text="text:N"),
        corners.mark_point(shape=CORNER, filled=True, opacity=1, size=12, xOffset=-3, yOffset=3),
    )
