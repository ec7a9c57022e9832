"""What every figure shares: colours, style, and how it is written to disk."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from swe_cli.files import write_bytes
from swe_cli.report.text import count, exact

alt.data_transformers.disable_max_rows()
# Okabe and Ito's colours, told apart by colour-blind readers; black is left to the controls.
# Six colours and seven markers only meet again after 42 lines, so grey print stays readable too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-left")
GREY = "#666666"
DPI = 120


def data(records: Iterable[Mapping[str, Any]]) -> alt.Chart:
    """A chart of plain records, whose channels name their types."""
    return alt.Chart(pd.DataFrame(list(records)))


def exactly(start: float, end: float) -> dict[str, Any]:
    """A scale from ``start`` to ``end``, wherever the values lie."""
    return {"domain": [start, end], "nice": False, "zero": False}


def round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
    return float(f"{step * power:.1g}")


def titled(chart: Any, words: str, lines: Sequence[str], width: int) -> Any:
    """A figure with a title, ``lines`` of ``width`` signs below it, and the common style."""
    subtitle = [part for line in lines for part in textwrap.wrap(line, width)]
    title = alt.Title(words, subtitle=subtitle, anchor="start", frame="group", offset=12)
    return (
        chart.properties(title=title)
        .configure_view(stroke=None)
        .configure_axis(domainColor="black", tickColor="black", labelFontSize=11, titleFontSize=11)
        .configure_axis(titleFontWeight="normal", gridColor="#ebebeb")
        .configure_legend(labelLimit=0, titleFontWeight="normal", symbolStrokeWidth=1.5)
        .configure_title(fontSize=13, fontWeight="normal", subtitleFontSize=11)
    )


def write_figure(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` (120 dpi) and ``name.svg``, atomically; same figure, same bytes."""
    svg = vl_convert.vegalite_to_svg(figure.to_json(indent=None, validate=False))
    svg = re.sub(r"gradient_\d+", "gradient", svg)  # which counts the figures of this process
    contents = {"png": vl_convert.svg_to_png(svg, ppi=DPI), "svg": svg.encode()}
    for ending, data in contents.items():
        write_bytes(folder / f"{name}.{ending}", data)
    return [folder / f"{name}.{ending}" for ending in contents]


def weight_evolution(
    steps: Sequence[int], values: Any, kept: Any, *, criterion: str, ratio: float
) -> alt.HConcatChart:
    """A sample of weights over training, those kept beside those pruned.

    ``steps`` (observations,); ``values`` float (observations, n); ``kept`` bool (n,). Raises
    ValueError where the shapes do not agree.
    """
    if values.shape != (len(steps), len(kept)):
        raise ValueError(f"values {values.shape} are not ({len(steps)}, {len(kept)})")
    panels: list[Any] = []
    lowest, highest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    y = alt.Y("value:Q", scale=exactly(lowest, highest), axis={"grid": False})
    x = alt.X("step:Q", title="training step", axis={"grid": False, "tickCount": 5})
    zero = data([{"value": 0}]).mark_rule().encode(y=y)
    for name, chosen, colour in (("kept", kept, COLOURS[0]), ("pruned", ~kept, COLOURS[1])):
        size = int(chosen.sum())
        lines = data(
            {"step": step, "value": float(value), "weight": weight}
            for weight in chosen.nonzero()[0].tolist()
            for step, value in zip(steps, values[:, weight], strict=True)
        )
        opacity = max(0.12, min(0.6, 12 / max(1, size)))
        lines = lines.mark_line(strokeWidth=0.6, strokeOpacity=opacity, color=colour)
        title = None if panels else "weight value"
        panel = lines.encode(x=x, y=y.title(title), detail="weight:N") + zero
        panels.append(
            panel.properties(title=f"{name}: {count(size, 'weight')}", width=280, height=220)
        )
    words = f"Weights over training, judged by {criterion} at ratio {exact(ratio)}"
    return titled(alt.hconcat(*panels), words, [], 100)
