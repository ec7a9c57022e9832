"""One look everywhere: a criterion has its colour in every figure, on white and on black alike."""

from zlib import crc32

# At least 3.6 : 1 against white and against #14171a. SWE's is the strongest.
COLOURS = {
    "swe": "#e0245e",
    "magnitude": "#1f77d0",
    "random": "#7a8288",
    "wanda": "#2b9348",
    "sparsegpt": "#8a5cf0",
    "swe_obd": "#b4551d",
    "fisher": "#0f8b8d",
    "obd_sqrt": "#a07800",
    "obd": "#b5488f",
    "ria": "#5f7a1f",
}
OTHERS = ("#3d7ea6", "#8d6e63", "#c2548c", "#c4661f", "#5b7f95", "#7d6bb0")
GREY = "#8b9196"


def colour_of(criterion: str) -> str:
    """Its own; those that have none share a few, which never change either."""
    return COLOURS.get(criterion) or OTHERS[crc32(criterion.encode()) % len(OTHERS)]
