"""What a report draws: controls and lines of points, each a mean over seeds."""

from dataclasses import dataclass
from typing import Literal

from swe_cli.records import Kind, Row
from swe_cli.reporting.estimate import Estimate
from swe_cli.reporting.text import KIND_NAMES, label


@dataclass(frozen=True, kw_only=True)
class Point:
    """One cut of a line (or one control), over its seeds. Losses and deltas in nats per token.

    ``delta`` is against dense, ``delta_recovered`` against dense recovered, both after recovery;
    ``delta_before`` is against dense, before it. ``jaccard``: mean overlap of what is cut with
    what magnitude cuts. None where no row holds the value, and where the cut ``failed`` at any
    seed: a mean over the seeds that survived would flatter it.
    """

    failed: bool
    ratio: float | None
    rate: float | None
    sparsity: float | None
    seeds: tuple[int, ...]
    loss: Estimate | None
    before: Estimate | None
    delta: Estimate | None
    delta_before: Estimate | None
    delta_recovered: Estimate | None
    jaccard: float | None

    @property
    def x(self) -> float:
        """The fraction asked for; the fraction achieved where the cut was asked for by rate."""
        if self.ratio is not None:
            return self.ratio
        return float("nan") if self.sparsity is None else self.sparsity

    @property
    def band(self) -> tuple[float, float] | None:
        """The paired interval of the difference to dense, laid around the loss; None without one.

        Windows, and seeds, differ far more from each other than two models do on one of them; an
        interval of the loss itself would hide differences that are certain.
        """
        if self.loss is None or self.delta is None:
            return None
        if self.delta.low is None or self.delta.high is None:
            return None
        below, above = self.delta.low - self.delta.mean, self.delta.high - self.delta.mean
        return self.loss.mean + below, self.loss.mean + above

    @property
    def chance(self) -> float:
        """Jaccard overlap expected of two independent random cuts of this size: r / (2 - r)."""
        return self.x / (2 - self.x)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Cuts that share everything but seed and ratio (or rate), from the mildest to the hardest.

    ``parts`` holds only what tells this line from the others of its summary.
    """

    criterion: str
    by: Literal["ratio", "rate"]
    parts: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        return label(self.criterion, self.parts)

    @property
    def best(self) -> Point | None:
        """The point of lowest loss."""
        measured = [(point.loss.mean, point) for point in self.points if point.loss]
        return min(measured, key=lambda pair: pair[0])[1] if measured else None


@dataclass(frozen=True, kw_only=True)
class Control:
    """A model nothing was cut from."""

    kind: Kind
    parts: tuple[str, ...]
    point: Point

    @property
    def label(self) -> str:
        return label(KIND_NAMES[self.kind], self.parts)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that a report draws, of one model, one data set and one protocol fingerprint."""

    model: str
    data: str
    fingerprint: str
    seeds: tuple[int, ...]
    controls: tuple[Control, ...]
    lines: tuple[Line, ...]
    failed: tuple[Row, ...]

    @property
    def points(self) -> list[Point]:
        """Every point of every control and line."""
        return [control.point for control in self.controls] + [
            point for line in self.lines for point in line.points
        ]

    @property
    def intervals(self) -> str:
        """What the intervals are over, in words."""
        over = {point.loss.interval for point in self.points if point.loss}
        words = {
            "windows": "95% interval over test windows",
            "seeds": "95% t interval over seeds",
        }
        return " or ".join(words[name] for name in ("seeds", "windows") if name in over)
