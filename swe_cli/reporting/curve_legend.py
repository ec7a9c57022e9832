"""How the lines of a figure are told apart, and the legend that says so."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from swe_cli.records import Kind
from swe_cli.reporting.figures import COLOURS, MARKERS
from swe_cli.reporting.quantity import Quantity
from swe_cli.reporting.selection import without_roles
from swe_cli.reporting.summary import Summary

BEFORE = (0, (4, 2))
BASELINE_STYLE: dict[str, Any] = {"color": "0.1", "linestyle": (0, (1, 4)), "linewidth": 1.6}
CONTROL_STYLES: dict[Kind, tuple[str, Any]] = {
    "dense": ("black", "-"),
    "dense_best": ("0.25", (0, (7, 2, 1, 2))),
    "dense_recovered": ("0.45", (0, (1, 1.5))),
    "dense_averaged": ("0.25", (0, (9, 3))),
    "dense_blind": ("0.6", (0, (3, 1, 1, 1, 1, 1))),
}
# A module keeps its colour from report to report, whichever others were cut.
_ROLES = ("vision", "projector", "language", "all")
_CRITERIA = ("magnitude", "random", "swe")
# After recovery; the dashes of BEFORE are left out.
_DASHES: tuple[Any, ...] = ("-", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))
_MODULES = {"all": "all modules"}
_MANY = 4


@dataclass(frozen=True)
class Stroke:
    """The look of one line; ``before`` and ``band`` are opacities between 0 and 1."""

    colour: str
    marker: str
    dashes: Any = "-"
    open: bool = False
    before: float = 0.8
    band: float = 0.15

    @property
    def look(self) -> dict[str, Any]:
        """Keywords of a line after recovery, markers left out."""
        look: dict[str, Any] = {"color": self.colour}
        if self.dashes != "-":
            look["linestyle"] = self.dashes
        if self.open:
            look["markerfacecolor"] = "white"
        return look


def strokes_of(summary: Summary) -> list[Stroke]:
    """One look a line; with several roles colour says the module and marker and dashes the rest."""
    if not summary.several_roles:
        return [
            Stroke(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
            for place in range(len(summary.lines))
        ]
    roles, rest = _roles(summary), _rests(summary)
    many = len(summary.lines) > _MANY
    strokes = []
    for line in summary.lines:
        place = rest.index(without_roles(line))
        strokes.append(
            Stroke(
                colour=COLOURS[roles.index(str(line.roles)) % len(COLOURS)],
                marker=MARKERS[place % len(MARKERS)],
                dashes=_DASHES[place % len(_DASHES)],
                open=place % 2 == 1,
                before=0.4 if many else 0.8,
                band=0.1 if many else 0.15,
            )
        )
    return strokes


def legend_of(summary: Summary, quantity: Quantity, strokes: Sequence[Stroke]) -> list[Artist]:
    """Lines (by role and by the rest, where roles differ), what a stroke means, the controls."""
    handles = _by_role(summary) if summary.several_roles else _by_line(summary, strokes)
    read = [quantity.read(point) for point in summary.points]
    handles += [_gap(), Line2D([], [], color="0.4", linewidth=1.6, label="after recovery")]
    if any(quantity.read(point).before for line in summary.lines for point in line.points):
        handles.append(
            Line2D([], [], color="0.4", linestyle=BEFORE, linewidth=1, label="before recovery")
        )
    if any(reading.band for reading in read):
        handles.append(Patch(color="0.4", alpha=0.15, linewidth=0, label="95% interval, paired"))
    handles.append(_gap())
    for control in summary.controls:
        mean = quantity.read(control.point).mean
        if mean:
            colour, dashes = CONTROL_STYLES[control.kind]
            text = _wrapped(f"{control.label} {quantity.spell(mean.mean)}")
            handles.append(
                Line2D([], [], color=colour, linestyle=dashes, linewidth=1.2, label=text)
            )
    if quantity.name in summary.baselines:
        value = quantity.spell(summary.baselines[quantity.name])
        text = _wrapped(f"always the {quantity.baseline} {value}")
        handles.append(Line2D([], [], **BASELINE_STYLE, label=text))
    return handles


def _by_line(summary: Summary, strokes: Sequence[Stroke]) -> list[Artist]:
    return [
        Line2D(
            [],
            [],
            color=stroke.colour,
            marker=stroke.marker,
            markersize=4.5,
            label=_wrapped(line.label),
        )
        for line, stroke in zip(summary.lines, strokes, strict=True)
    ]


def _by_role(summary: Summary) -> list[Artist]:
    strokes = strokes_of(summary)
    looks = {
        without_roles(line): stroke for line, stroke in zip(summary.lines, strokes, strict=True)
    }
    handles: list[Artist] = [
        Patch(color=COLOURS[place % len(COLOURS)], label=f"{_MODULES.get(role, role)} cut")
        for place, role in enumerate(_roles(summary))
        if any(str(line.roles) == role for line in summary.lines)
    ]
    handles.append(_gap())
    for rest in (known for known in _rests(summary) if known in looks):
        look = looks[rest].look | {"color": "0.2"}
        handles.append(
            Line2D([], [], marker=looks[rest].marker, markersize=4.5, label=_wrapped(rest), **look)
        )
    return handles


def _roles(summary: Summary) -> list[str]:
    return list(dict.fromkeys([*_ROLES, *(str(line.roles) for line in summary.lines)]))


def _rests(summary: Summary) -> list[str]:
    """Places by the rest of the label: a criterion keeps its look from report to report."""
    return list(dict.fromkeys([*_CRITERIA, *(without_roles(line) for line in summary.lines)]))


def _gap() -> Artist:
    return Line2D([], [], color="none", label="")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 30, break_long_words=False, break_on_hyphens=False)
