"""What every figure shares: colours, style, and how it is written to disk."""

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from swe_cli.files import write_bytes

# Okabe and Ito's colours, told apart by colour-blind readers; black is left to the controls.
# Six colours and seven markers only meet again after 42 lines, so grey print stays readable too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "svg.hashsalt": "swe",
}


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` (150 dpi) and ``name.svg``, atomically; same figure, same bytes."""
    metadata: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
    }
    paths = []
    for ending, nothing in metadata.items():
        buffer = BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=ending, dpi=150, metadata=nothing)
        path = folder / f"{name}.{ending}"
        write_bytes(path, buffer.getvalue())
        paths.append(path)
    return paths
