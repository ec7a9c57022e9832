"""Scores + allocation + pattern → masks, of one round of cuts. Read ``prune`` first."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import torch

from swe_cli.allocation.counts import Row
from swe_cli.conform import calling
from swe_cli.contracts import (
    BLOCKS,
    GRADIENTS,
    INPUTS,
    Allocation,
    AllocationContext,
    Criterion,
    DrawnCriterion,
    Evidence,
    LayerCriterion,
    Lens,
    Pattern,
    Setup,
    UnitKind,
    WeightCriterion,
)
from swe_cli.criteria.weights import Magnitude
from swe_cli.errors import PruningError, SweWarning
from swe_cli.patterns.shapes import Unstructured
from swe_cli.pruning.calibration import CalibratedModel, Calibration
from swe_cli.pruning.masks import UnitCut, cut_counts, jaccard_of_cuts
from swe_cli.ranking import Ranking, exact_count
from swe_cli.records import Counts, Masks, Scores

RANKED = 1 << 28  # scores that are kept, each twice: 2 GiB of float32


class Judge(NamedTuple):
    """A criterion by its name; ``key`` tells it from others, options included."""

    criterion: Criterion
    name: str
    key: str


MAGNITUDE = Judge(Magnitude(), "magnitude", '{"name":"magnitude"}')


@dataclass(frozen=True)
class Method:
    """One way to cut: by what, how much, shared out how, in which shapes.

    Exactly one of ``ratio`` and ``rate`` is given, unless the criterion or the pattern fixes how
    much. ``consulted``: those the allocation ranks by. ``updated``: an ``Update`` makes up for it.
    """

    judge: Judge
    ratio: float | None = None
    rate: float | None = None
    allocation: Allocation = field(default_factory=Row)  # where the pattern asks none
    pattern: Pattern = field(default_factory=Unstructured)
    consulted: Mapping[str, Judge] = field(default_factory=dict)
    updated: bool = False


@dataclass
class Scorer:
    """Ranks what may be cut of one model by any criterion; each scores once, whatever the ratios.

    ``lens`` picks what may be cut. Without a ``calibration`` only criteria that need none can be
    asked. ``earlier``: the masks of earlier rounds, if any; what they cut ranks before everything
    else. Of large models only the rankings that were read last are kept. ``spent``: what the first
    cut of each judge took, by its key, scoring included.
    """

    setup: Setup
    lens: Lens
    evidence: Evidence
    calibration: Calibration | None = None
    earlier: Masks = field(default_factory=dict)
    spent: dict[str, dict[str, float]] = field(default_factory=dict)
    _rankings: dict[tuple[str, UnitKind | None, bool], Ranking] = field(default_factory=dict)
    _units: dict[UnitKind, UnitCut] = field(default_factory=dict)

    @cached_property
    def calibrated(self) -> CalibratedModel:
        """The live model, for who needs a calibration set. PruningError where there is none."""
        if self.calibration is None:
            why = "This cut looks at a calibration set, and it was given none."
            named = "calibration=component('calibration', 'train', ConfigRoot())"
            raise PruningError(why, f"Name one in its Spec: {named}")
        return CalibratedModel(self.setup, self.calibration, self.lens)

    def units(self, kind: UnitKind) -> UnitCut:
        """The units of one kind that may be cut."""
        if kind not in self._units:
            self._units[kind] = UnitCut(self.setup.model, self.lens, kind, self.earlier)
        return self._units[kind]

    def rank(self, judge: Judge, of: Pattern | None = None) -> Ranking:
        """The ranking of weights, or of a pattern's units; by layers it is made when it is read."""
        unit, by_output = (of.unit, of.by_output) if of else (None, False)
        key = judge.key, unit, by_output or judge.criterion.by_output
        ranking = self._rankings.pop(key, None)
        if ranking is None and unit is not None:
            ranking = self.units(unit).ranking(self.rank(judge), by_output=key[2])
        elif ranking is None:
            late = judge.criterion.granularity == "layer"
            scores = partial(self._scores, judge)
            ranking = Ranking(scores if late else scores(), self.evidence.weights)
        self._rankings[key] = ranking  # the last of them
        while len(known := self._rankings) > 2 and sum(r.total for r in known.values()) > RANKED:
            del known[next(iter(known))]
        return ranking

    def evidence_for(self, criterion: Criterion) -> Evidence:
        """What a criterion may look at, with what it needs of the calibration set."""
        asked = [need for need in criterion.needs if need in (*GRADIENTS, *BLOCKS)]
        if not asked:
            return self.evidence
        live = self.calibrated
        told = {n: live.influence if n in BLOCKS else live.gradients[n] for n in asked}
        return replace(self.evidence, calibration=told)

    def _scores(self, judge: Judge) -> Scores:
        criterion = judge.criterion
        if isinstance(criterion, LayerCriterion):
            scores = self.calibrated.dense_scores(criterion)
        elif isinstance(criterion, WeightCriterion):
            with calling(f"criterion={judge.name}"):
                scores = criterion.score(self.evidence_for(criterion))
        else:
            raise PruningError(f"criterion={judge.name} draws its masks: it ranks nothing.")
        shapes = {name: weight.shape for name, weight in self.evidence.weights.items()}
        if {name: score.shape for name, score in scores.items()} != shapes:
            gave = "gave scores of other tensors, or of other shapes, than the prunable ones"
            raise PruningError(f"criterion={judge.name} {gave}.")
        if not self.earlier:
            return scores
        # What is cut already gets the lowest score. Its weights are zero: of equals it goes first.
        # (Zero rather than −∞, so that a tensor's spread is still one.)
        lowest = min(0.0, *(float(score.min()) for score in scores.values()))
        kept = {name: mask.to(scores[name].device) for name, mask in self.earlier.items()}
        return {name: score.masked_fill(~kept[name], lowest) for name, score in scores.items()}


def prune(method: Method, scorer: Scorer, at_round: int = 1) -> Masks:
    """The masks of one round, which hold those of earlier rounds.

    A criterion that judges layers prunes, and may update, the live model; others only look.
    """
    criterion, pattern, earlier = method.judge.criterion, method.pattern, scorer.earlier
    if isinstance(criterion, DrawnCriterion):
        with calling(f"criterion={method.judge.name}"):
            drawn = criterion.draw(scorer.evidence_for(criterion), at_round)
        _check_masks(drawn, scorer, f"criterion={method.judge.name}")
        return {n: m & earlier[n].to(m.device) if earlier else m for n, m in drawn.items()}
    ranking = scorer.rank(method.judge, pattern)
    if pattern.unit is not None:  # units are ranked, and counted, layer by layer
        units = scorer.units(pattern.unit)
        masks = units.masks(ranking.masks(_allocate(method, scorer, cut_counts(units.left))))
        if isinstance(criterion, LayerCriterion) and criterion.compensates and not method.updated:
            cut = {n: mask for n, mask in masks.items() if not mask.all()}
            read = {n: mask for n, mask in cut.items() if n.partition("[")[0] in units.outputs}
            scorer.calibrated.compensate(criterion, read)
        return masks
    counts, within = _allocate(method, scorer, cut_counts(earlier)), method.allocation.within
    who = f"The pattern {type(pattern).__name__}"
    if isinstance(criterion, LayerCriterion):  # whose masks are those it asked the pattern for
        who = f"criterion={method.judge.name} with {type(pattern).__name__}"
    with calling(who):
        if isinstance(criterion, LayerCriterion):
            masks = scorer.calibrated.prune(criterion, counts, pattern, within, earlier)
        else:
            masks = pattern.masks(ranking, counts, within)
    _check_masks(masks, scorer, who, counts)
    return masks


def _check_masks(masks: Masks, scorer: Scorer, who: str, counts: Counts | None = None) -> None:
    """Raise PruningError, naming ``who`` made them, for masks that are not what was asked for."""
    shapes = {name: (weight.shape, torch.bool) for name, weight in scorer.evidence.weights.items()}
    if {name: (mask.shape, mask.dtype) for name, mask in masks.items()} != shapes:
        gave = "gave masks of other tensors, shapes or types than bool ones of the prunable"
        raise PruningError(f"{who} {gave}.")
    if counts is not None and cut_counts(masks) != counts:
        cut, asked = sum(cut_counts(masks).values()), sum(counts.values())
        raise PruningError(f"{who} cut {cut} weights, or others, where exactly {asked} had to go.")


def overlap_with_magnitude(method: Method, scorer: Scorer, masks: Masks) -> float | None:
    """Jaccard overlap of what ``masks`` cut with what magnitude would cut the same way.

    None where nothing was cut, of drawn masks, and of a later round of another criterion: what is
    left of one's cut says little of another's.
    """
    if all(mask.all() for mask in masks.values()):
        return None
    if method.judge.name == MAGNITUDE.name:
        return 1.0
    if scorer.earlier or method.judge.criterion.granularity == "mask":
        return None
    return jaccard_of_cuts(masks, prune(replace(method, judge=MAGNITUDE), scorer))


def _allocate(method: Method, scorer: Scorer, gone: Counts) -> Counts:
    """Exact counts per tensor, or of units per layer, none below what earlier rounds have cut."""
    pattern, judges = method.pattern, method.consulted
    ranking = scorer.rank(method.judge, pattern)
    if pattern.ratio is not None:  # every group loses the same: there is nothing to share out
        return {name: round(pattern.ratio * size) for name, size in ranking.sizes.items()}
    who = f"The allocation {type(method.allocation).__name__}"
    if method.rate is not None:
        with calling(who):
            return method.allocation.counts_at_rate(ranking, method.rate)
    assert method.ratio is not None
    model = scorer.setup.model
    names = {module: name for name, module in model.named_modules()}
    context = AllocationContext(
        rank_by=lambda name: scorer.rank(judges[name], pattern),
        scores_by=lambda name: scorer.rank(judges[name]).scores,
        blocks=[names[block] for block in model.blocks()],
        sensitivities=lambda: scorer.calibrated.sensitivities,
    )
    with calling(who):
        counts = method.allocation.counts(ranking, method.ratio, context)
    asked = exact_count(method.ratio, ranking.total)
    if counts.keys() != ranking.sizes.keys() or sum(counts.values()) != asked:
        raise PruningError(f"{who} did not share out {asked} of {ranking.total} among all tensors.")
    return at_least(counts, gone)


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


def recorded_needs(needs: Sequence[str]) -> tuple[str, ...]:
    """Of what a criterion needs, the statistics of training: not what a calibration set tells."""
    return tuple(need for need in needs if need not in (*GRADIENTS, *INPUTS, *BLOCKS))


def check_evidence(
    judge: Judge, evidence: Evidence, run: str, at_step: int | None, received: Collection[str] = ()
) -> None:
    """Raise PruningError where a criterion would judge what was not observed, and warn where it
    judges by statistics of gradients as an optimizer ``received`` them.
    """
    judges = f"criterion={judge.name} judges by"
    if known := sorted({*judge.criterion.needs} & {*received}):
        what = f"{', '.join(known)} of gradients as the optimizer received them"
        hint = "Where the loop clips, call tracker.before_clip() first."
        warnings.warn(f"{judges} {what}. {hint}", SweWarning, stacklevel=2)
    for statistic in recorded_needs(judge.criterion.needs):
        if statistic not in evidence.trajectory:
            why = f"{judges} {statistic}, and by step {at_step} nothing had been observed."
            hint = "Cut later, schedule.at_step=…, or by another criterion: criterion=snip"
            raise PruningError(why, hint)
        if evidence.trajectory[statistic].keys() < evidence.weights.keys():
            why = f"{judges} {statistic}, and {run} recorded none of parts that it froze."
            hint = "Train with tracking.frozen=true, or leave them out: roles=all"
            raise PruningError(why, hint)
