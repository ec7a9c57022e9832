"""How weights moved over training, before they were judged."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from swe_cli.reporting.figures import COLOURS, STYLE
from swe_cli.reporting.text import count, exact


def weight_evolution_figure(
    steps: Sequence[int], values: Any, kept: Any, *, criterion: str, ratio: float
) -> Figure:
    """A sample of weights over training, those kept beside those pruned.

    ``steps`` (observations,); ``values`` float (observations, n); ``kept`` bool (n,). Raises
    ValueError where the shapes do not agree.
    """
    if values.shape != (len(steps), len(kept)):
        raise ValueError(f"values {values.shape} are not ({len(steps)}, {len(kept)})")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.2), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        groups = (("kept", kept, COLOURS[0]), ("pruned", ~kept, COLOURS[1]))
        for axes, (name, chosen, colour) in zip(panels, groups, strict=True):
            axes.axhline(0.0, color="black", linewidth=0.8, zorder=3)
            if chosen.any():
                alpha = max(0.12, min(0.6, 12 / int(chosen.sum())))
                axes.plot(steps, values[:, chosen], color=colour, linewidth=0.6, alpha=alpha)
            axes.set_title(f"{name}: {count(int(chosen.sum()), 'weight')}")
            axes.set_xlabel("training step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[0].set_ylabel("weight value")
        figure.suptitle(
            f"Weights over training, judged by {criterion} at ratio {exact(ratio)}",
            fontsize=10,
            x=0.01,
            ha="left",
        )
    return figure
