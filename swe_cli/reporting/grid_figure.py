"""The figure of many lines: a cell for every line and cut, coloured by its difference to dense."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from swe_cli.reporting.figures import STYLE
from swe_cli.reporting.grid_cells import (
    PANELS,
    Cell,
    Column,
    cells_of,
    colour_limit,
    columns_of,
    names_of,
    points_of,
    tops_of,
    values_of,
    word_of,
)
from swe_cli.reporting.summary import Summary
from swe_cli.reporting.text import count, number, short

MOST_COLUMNS = 14  # with numbers in the cells; beyond, colour alone says it
CELL, ROW = 0.42, 0.19  # inches: how wide a column is, and how high a row
# Blue is better than dense; told apart by colour-blind readers. Its darkest ends swallow numbers.
COLOURS = ListedColormap(colormaps["RdBu_r"](np.linspace(0.08, 0.92, 255)))
MISSING, FAILED = "0.93", "×"


def grid_figure(summary: Summary) -> Figure:
    """Paired differences of loss to dense: a row for every line, a column for every cut.

    After recovery on the left, before it on the right; controls, which have one value, above. In
    nats per token, means over seeds where there are several. Colours end where ``colour_limit``
    says: beyond, they tell no more than the sign.
    """
    columns, tops = columns_of(summary), tops_of(summary)
    limit = colour_limit(summary)
    norm = Normalize(-limit, limit)
    drawn = [panel for panel in PANELS if any(map(panel[1], points_of(summary)))] or PANELS[:1]
    names = names_of(summary)
    height = tops[-1] + 1
    with matplotlib.rc_context(STYLE):
        width = CELL * max(4, min(len(columns), MOST_COLUMNS)) * len(drawn)
        size = (max(6.0, 0.6 + 0.068 * max(map(len, names)) + width), 1.6 + ROW * height)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, (title, read) in zip(panels, drawn, strict=True):
            _draw(axes, cells_of(summary, tops, columns, read), len(columns), norm)
            _label(axes, title, columns)
        panels[0].set_yticks([top + 0.5 for top in tops], names)
        panels[0].set_ylim(height, 0)
        _colour_bar(figure, panels, summary, norm, width)
        figure.suptitle(_title(summary, int(13.3 * size[0])), fontsize=10, x=0.01, ha="left")
    return figure


def _draw(axes: Axes, cells: Sequence[Cell], columns: int, norm: Normalize) -> None:
    faces, inks = [], []
    for cell in cells:
        place = float(norm(cell.value.mean)) if cell.value else 0.5
        faces.append(COLOURS(place) if cell.value else MISSING)
        inks.append("white" if abs(place - 0.5) > 0.36 else "black")
        if cell.right - cell.left > 1 or columns <= MOST_COLUMNS:
            axes.text(
                (cell.left + cell.right) / 2 - 0.03,
                cell.top + 0.54,
                short(cell.value.mean) if cell.value else FAILED,
                ha="center",
                va="center",
                fontsize=7.5,
                color=inks[-1],
                fontweight="bold" if cell.bold else "normal",
            )
    boxes = PolyCollection(list(map(_box, cells)), facecolors=faces, edgecolors="white")
    axes.add_collection(boxes)
    certain = [(cell, ink) for cell, ink in zip(cells, inks, strict=True) if cell.certain]
    corners = [_corner(cell) for cell, _ in certain]
    axes.add_collection(
        PolyCollection(corners, facecolors=[ink for _, ink in certain], linewidths=0)
    )
    axes.set_xlim(0, columns)


def _label(axes: Axes, title: str, columns: Sequence[Column]) -> None:
    axes.set_title(title)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    step = -(-len(columns) // MOST_COLUMNS)
    ticks = range(0, len(columns), step)
    axes.set_xticks([place + 0.5 for place in ticks], [word_of(columns[p]) for p in ticks])
    axes.set_xlabel(" | ".join(dict.fromkeys(by for by, _ in columns)))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _box(cell: Cell) -> list[tuple[float, float]]:
    low, high = cell.top, cell.top + 1
    return [(cell.left, low), (cell.right, low), (cell.right, high), (cell.left, high)]


def _corner(cell: Cell) -> list[tuple[float, float]]:
    """A small triangle in the upper right, of the same size in narrow and wide cells."""
    right, top, across, down = cell.right - 0.03, cell.top + 0.05, 0.11, 0.25
    return [(right - across, top), (right, top), (right, top + down)]


def _colour_bar(
    figure: Figure, panels: Any, summary: Summary, norm: Normalize, width: float
) -> None:
    """Below the panels, which are ``width`` inches wide together."""
    limit, values = float(norm.vmax or 0.0), values_of(summary)
    above, below = any(not value <= limit for value in values), any(v < -limit for v in values)
    extend = {(True, True): "both", (True, False): "max", (False, True): "min"}
    bar = figure.colorbar(
        ScalarMappable(norm, COLOURS),
        ax=list(panels),
        location="bottom",
        extend=extend.get((above, below), "neither"),
        aspect=50,
        fraction=0.04,
        pad=0.02,
    )
    clipped = f"; colours are clipped at ±{limit:g}" if above or below else ""
    words = f"difference to dense (nats per token), blue: better{clipped}"
    bar.set_label(textwrap.fill(words, int(16 * width)), fontsize=8)
    bar.set_ticks(
        [-limit, -limit / 2, 0, limit / 2, limit],
        labels=[
            f"{tick:+g}" if tick else "0" for tick in (-limit, -limit / 2, 0, limit / 2, limit)
        ],
    )
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _title(summary: Summary, width: int) -> str:
    dense = [c.point.loss for c in summary.controls if c.kind == "dense" and c.point.loss]
    against = f"dense ({number(dense[0].mean)})" if len(dense) == 1 else "dense"
    failed = f"; {FAILED} failed" if any(point.failed for point in points_of(summary)) else ""
    said = (
        f"{summary.model} on {summary.data}: loss against {against}; "
        f"{count(len(summary.seeds), 'seed')}",
        f"◥ paired {summary.intervals} excludes 0; bold: lowest of its column{failed}",
    )
    return "\n".join(textwrap.fill(words, width) for words in said)
