"""What a report draws: controls and lines of points, each a mean over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from swe_cli.records import Kind, Row
from swe_cli.reporting.estimate import Estimate
from swe_cli.reporting.text import KIND_NAMES, label


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One quantity of a point, in its unit; ``delta`` is paired, against dense, after recovery."""

    mean: Estimate | None
    before: Estimate | None = None
    delta: Estimate | None = None

    @property
    def band(self) -> tuple[float, float] | None:
        """The paired interval of the difference to dense, laid around the mean; None without one.

        Windows, and seeds, differ far more from each other than two models do on one of them; an
        interval of the mean itself would hide differences that are certain.
        """
        if self.mean is None or self.delta is None:
            return None
        if self.delta.low is None or self.delta.high is None:
            return None
        below, above = self.delta.low - self.delta.mean, self.delta.high - self.delta.mean
        return self.mean.mean + below, self.mean.mean + above


NO_READING = Reading(mean=None)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One cut of a line (or one control), over its seeds. Losses and deltas in nats per token.

    ``delta`` is against dense, ``delta_recovered`` against dense recovered, both after recovery;
    ``delta_before`` is against dense, before it. ``jaccard``: mean overlap of what is cut with
    what magnitude cuts. None where no row holds the value, and where the cut ``failed`` at any
    seed: a mean over the seeds that survived would flatter it. ``accuracy`` is a fraction; ``mae``,
    of numbers, is in their unit.
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
    accuracy: Reading = NO_READING
    mae: Reading = NO_READING

    @property
    def x(self) -> float:
        """The fraction asked for; the fraction achieved where that is another: by rate, where a
        ratio is of neurons or heads, where slices were fused.
        """
        if self.ratio is None:
            return float("nan") if self.sparsity is None else self.sparsity
        if self.sparsity is None or self._as_asked:
            return self.ratio
        return round(self.sparsity, 3)  # a place of its own beside ratios, to be read as one

    @property
    def _as_asked(self) -> bool:
        """Tiny models miss a ratio by a weight or two."""
        assert self.ratio is not None
        assert self.sparsity is not None
        return abs(self.sparsity - self.ratio) < 0.01

    @property
    def losses(self) -> Reading:
        """Loss, as every other quantity is read; nats per token."""
        return Reading(mean=self.loss, before=self.before, delta=self.delta)

    @property
    def band(self) -> tuple[float, float] | None:
        """The paired interval of the difference to dense, laid around the loss; nats per token."""
        return self.losses.band

    @property
    def chance(self) -> float:
        """Jaccard overlap expected of two independent random cuts of this size: r / (2 - r)."""
        return self.x / (2 - self.x)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Cuts that share everything but seed and ratio (or rate), from the mildest to the hardest.

    ``parts`` holds only what tells this line from the others of its summary; ``roles`` the modules
    that could be cut, where the model has several.
    """

    criterion: str
    by: Literal["ratio", "rate"]
    parts: tuple[str, ...]
    points: tuple[Point, ...]
    roles: str | None = None

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
    """All that a report draws, of one model, one data set and one protocol fingerprint.

    ``baselines``: ``accuracy`` (a fraction) of always giving the commonest training answer, and
    ``mae`` of always giving the median one, where the rows are of questions.
    """

    model: str
    data: str
    fingerprint: str
    seeds: tuple[int, ...]
    controls: tuple[Control, ...]
    lines: tuple[Line, ...]
    failed: tuple[Row, ...]
    baselines: Mapping[str, float] = field(default_factory=dict)

    @property
    def several_roles(self) -> bool:
        """Whether lines differ in the modules that could be cut."""
        return len({line.roles for line in self.lines}) > 1

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
            "windows": f"95% interval over test {'images' if self.baselines else 'windows'}",
            "seeds": "95% t interval over seeds",
        }
        return " or ".join(words[name] for name in ("seeds", "windows") if name in over)
