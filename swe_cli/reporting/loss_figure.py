"""The figure that every sweep has: loss against sparsity."""

from matplotlib.figure import Figure

from swe_cli.reporting.curve_figure import curve_figure
from swe_cli.reporting.quantity import LOSS
from swe_cli.reporting.summary import Summary


def loss_figure(summary: Summary, *, elsewhere: str = "grid.png") -> Figure:
    """Loss in nats per token against the percentage cut; see ``curve_figure``."""
    return curve_figure(summary, LOSS, elsewhere=elsewhere)
