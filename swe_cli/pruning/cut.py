"""Scores + allocation + pattern → masks → a pruned model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from swe_cli.contracts import (
    GRADIENTS,
    INPUTS,
    Allocation,
    Counts,
    Criterion,
    Evidence,
    LayerwiseCriterion,
    Lens,
    Masks,
    Model,
    Pattern,
    RankedScores,
    RateAllocation,
    Scores,
    Tensors,
    UnitPattern,
    Within,
)
from swe_cli.errors import PruningError, UsageError
from swe_cli.masks import masks as masking
from swe_cli.masks.rank import Ranking
from swe_cli.pruning.calibrate import Calibrated
from swe_cli.pruning.units import UnitCut
from swe_cli.training.loop import as_module


@dataclass
class Scoring:
    """Ranks the same weights by any criterion; each is scored once, whatever the ratios.

    ``calibrated`` holds the live model; without it only criteria that need none can be asked.
    ``kept``: the masks of earlier rounds, if any; what they cut ranks before everything else.
    """

    evidence: Evidence
    calibrated: Calibrated | None = None
    kept: Masks = field(default_factory=dict)
    _ranked: dict[str, RankedScores] = field(default_factory=dict)

    def rank(self, key: str, criterion: Criterion | LayerwiseCriterion) -> RankedScores:
        """The ranking by ``criterion``; ``key`` tells it from others, options included."""
        if key not in self._ranked:
            if isinstance(criterion, LayerwiseCriterion):
                sizes = {name: w.numel() for name, w in self.evidence.weights.items()}
                scores = self._layer_scores(key, criterion)
                self._ranked[key] = Deferred(sizes, scores)
            else:
                self._ranked[key] = self._ranking(key, criterion.score(self._shown(criterion)))
        return self._ranked[key]

    def _layer_scores(self, key: str, criterion: LayerwiseCriterion) -> Callable[[], Ranking]:
        def make() -> Ranking:
            assert self.calibrated is not None
            return self._ranking(key, self.calibrated.dense_scores(key, criterion))

        return make

    def _shown(self, criterion: Criterion) -> Evidence:
        asked = [need for need in criterion.needs if need in GRADIENTS]
        if not asked:
            return self.evidence
        assert self.calibrated is not None
        found = self.calibrated.gradients
        return replace(self.evidence, calibration={need: found[need] for need in asked})

    def _ranking(self, key: str, scores: Scores) -> Ranking:
        _check_scores(key, scores, self.evidence.weights)
        return Ranking(_gone_first(scores, self.kept), self.evidence.weights)


@dataclass
class Deferred:
    """A ranking whose scores cost passes over the calibration set: made if they are asked for.

    An allocation that looks at sizes only never does.
    """

    sizes: dict[str, int]
    make: Callable[[], Ranking]

    @cached_property
    def ranking(self) -> Ranking:
        return self.make()

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    @property
    def scores(self) -> Scores:
        return self.ranking.scores

    def lowest(self, count: int) -> Counts:
        return self.ranking.lowest(count)

    def below(self, thresholds: Mapping[str, float]) -> Counts:
        return self.ranking.below(thresholds)

    def divided_by(self, divisors: Mapping[str, float]) -> RankedScores:
        return self.ranking.divided_by(divisors)

    def masks(self, counts: Counts, within: Within = "tensor") -> Masks:
        return self.ranking.masks(counts, within)

    def best_of(self, keep: int, of: int) -> Masks:
        return self.ranking.best_of(keep, of)


@dataclass(frozen=True)
class Around:
    """What an allocation may ask about; see ``contracts.Surroundings``."""

    rank: Callable[[str], RankedScores]
    scores: Callable[[str], Scores]
    blocks: Sequence[str]
    probe: Callable[[], Mapping[str, float]]

    def rank_by(self, criterion: str) -> RankedScores:
        return self.rank(criterion)

    def scores_by(self, criterion: str) -> Scores:
        return self.scores(criterion)

    def block_of(self, name: str) -> str:
        inside = (block for block in self.blocks if f"{name}.".startswith(f"{block}."))
        return next(inside, name)

    def sensitivities(self) -> Mapping[str, float]:
        return self.probe()


@dataclass(frozen=True)
class Cut:
    """One way to cut: how much, shared out how, in which shapes.

    Exactly one of ``ratio`` and ``rate`` is given. ``rank_by`` ranks the same weights by another
    criterion, for allocations that consult one.
    """

    model: Model
    lens: Lens
    allocation: Allocation
    pattern: Pattern | UnitPattern
    ratio: float | None
    rate: float | None
    rank_by: Callable[[str], RankedScores]
    calibrated: Calibrated | None = None
    kept: Masks = field(default_factory=dict)  # by earlier rounds: what they cut stays cut

    def masks(self, ranked: RankedScores) -> Masks:
        """Masks of scores that are free of the ratio."""
        if isinstance(self.pattern, UnitPattern):
            return self._unit_masks(ranked)
        return self.pattern.masks(ranked, self._counts(ranked), self.allocation.within)

    def prune(self, criterion: LayerwiseCriterion, ranked: RankedScores) -> Masks:
        """Masks of a criterion that goes block by block, which prunes the live model on its way.

        ``ranked``: its scores on dense inputs, by which the ratio is shared out between layers, and
        units are judged.
        """
        if isinstance(self.pattern, UnitPattern):
            return self._unit_masks(ranked)
        assert self.calibrated is not None
        counts = self._counts(ranked)
        return self.calibrated.prune(
            criterion, counts, self.pattern, self.allocation.within, self.kept
        )

    def _counts(self, ranked: RankedScores) -> Counts:
        if not isinstance(self.pattern, UnitPattern) and self.pattern.ratio is not None:
            # Every group loses the same: there is nothing to share out.
            return {n: round(self.pattern.ratio * size) for n, size in ranked.sizes.items()}
        gone = {n: mask.numel() - int(mask.sum()) for n, mask in self.kept.items()}
        return self._allocated(ranked, self.rank_by, gone)

    def _allocated(
        self, ranked: RankedScores, rank_by: Callable[[str], RankedScores], gone: Counts
    ) -> Counts:
        """``gone``: how many of each earlier rounds have cut."""
        if self.rate is not None:
            if not isinstance(self.allocation, RateAllocation):
                raise UsageError(
                    "A rate is a multiple of a standard deviation, which only allocation=sigma "
                    "knows.",
                    "Add allocation=sigma, or give a ratio.",
                )
            return self.allocation.counts_at_rate(ranked, self.rate)
        assert self.ratio is not None
        counts = self.allocation.counts(ranked, self.ratio, self._around(rank_by))
        return at_least(counts, gone)

    def _unit_masks(self, ranked: RankedScores) -> Masks:
        assert isinstance(self.pattern, UnitPattern)
        whole = UnitCut(self.model, self.lens, self.pattern.unit, self.kept)
        layers = whole.layers(ranked)
        by_unit = whole.ranking(layers, ranked)
        counts = self._allocated(
            by_unit,
            lambda name: whole.ranking(layers, self.rank_by(name)),
            {units.layer: int(whole.gone(units).sum()) for units in layers},
        )
        return whole.masks(layers, by_unit.masks(counts))

    def _around(self, rank_by: Callable[[str], RankedScores]) -> Around:
        names = {module: name for name, module in as_module(self.model).named_modules()}
        blocks = [names[block] for block in self.model.blocks()]
        return Around(rank_by, lambda name: self.rank_by(name).scores, blocks, self._probe)

    def _probe(self) -> Mapping[str, float]:
        assert self.calibrated is not None
        return self.calibrated.sensitivities


def at_least(counts: Counts, floors: Counts) -> Counts:
    """``counts``, none below its floor; what that adds is taken from the others, so that the sum
    stays. An allocation that does not nest may want to give weights back from round to round.
    """
    raised = {name: max(count, floors.get(name, 0)) for name, count in counts.items()}
    surplus = sum(raised.values()) - sum(counts.values())
    for name in sorted(raised, key=lambda n: floors.get(n, 0) - raised[n]):
        given = min(surplus, raised[name] - floors.get(name, 0))
        raised[name] -= given
        surplus -= given
    return raised


def _gone_first(scores: Scores, kept: Masks) -> Scores:
    """Scores of which what is cut already holds the lowest. Its weights are zero: of equals it goes
    first. (Zero rather than −∞, so that a tensor's spread is still one.)
    """
    if not kept:
        return scores
    lowest = min(0.0, *(float(score.min()) for score in scores.values()))
    return {n: score.masked_fill(~kept[n].to(score.device), lowest) for n, score in scores.items()}


@torch.no_grad()
def cut(parameters: Tensors, masks: Masks, lens: Lens) -> None:
    """Zero what the masks cut, in the live parameters."""
    masking.apply(masks, lens(parameters))


def zeros(parameters: Tensors) -> int:
    """Exact zeros among all parameters: the numerator of compression."""
    return sum(p.numel() - int(torch.count_nonzero(p)) for p in parameters.values())


def recorded_needs(needs: Sequence[str]) -> tuple[str, ...]:
    """Of what a criterion needs, the statistics of training: not what a calibration set tells."""
    return tuple(need for need in needs if need not in (*GRADIENTS, *INPUTS))


def check_needs(criterion: str, needs: Sequence[str], recorded: Sequence[str], run: str) -> None:
    """Raise PruningError, with the flag to train with, for a statistic that was not recorded."""
    missing = [name for name in recorded_needs(needs) if name not in recorded]
    if missing:
        raise PruningError(
            f"criterion={criterion} needs {', '.join(missing)}, which {run} did not record.",
            f"Train with tracking.statistics=[{','.join(missing)}], or sweep criteria={criterion}.",
        )


def _check_scores(criterion: str, scores: Tensors, weights: Tensors) -> None:
    if scores.keys() != weights.keys():
        raise PruningError(f"criterion={criterion} scored other tensors than the prunable ones.")
    for name, score in scores.items():
        if score.shape != weights[name].shape:
            raise PruningError(f"criterion={criterion} gave {name} scores of another shape.")
