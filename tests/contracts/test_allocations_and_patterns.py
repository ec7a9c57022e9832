"""Every allocation gives exact totals, every pattern masks that cut exactly as many."""

from itertools import pairwise
from typing import get_args

import pytest
import torch

from swe_cli.contracts import Evidence, Pattern, UnitKind
from swe_cli.errors import UsageError
from swe_cli.ranking import Ranking

from .conftest import built, fed, names

RATIOS = [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.77, 0.9]
NOT_NESTING = {"owl", "ecoflap"}  # exact, but they promise no more
MAGNITUDE = built("criterion", "magnitude")
STAND_INS = [n for n in names("allocation") if built("allocation", n).stands_for(MAGNITUDE)]
OWN = [name for name in names("allocation") if name not in STAND_INS]
ALLOCATIONS = pytest.mark.parametrize("allocation", OWN)


class Everything:
    """A context that answers any question; a tensor is its own block."""

    def __init__(self, life):
        self.life, self.asked, self.probed = life, set(), False

    def rank_by(self, name):
        self.asked.add(name)
        criterion, weights = built("criterion", name), self.life.weights
        if criterion.granularity == "layer":
            scores = {n: w.abs() * fed(w.shape[-1]).norm for n, w in weights.items()}
        else:
            scores = criterion.score(Evidence(weights, self.life.trajectory, 3))
        return Ranking(scores, weights)

    def scores_by(self, name):
        return self.rank_by(name).scores

    def block_of(self, name):
        return name

    def sensitivities(self):
        self.probed = True
        return {name: float(1 + index) for index, name in enumerate(self.life.weights)}


@pytest.fixture
def context(life):
    return Everything(life)


@pytest.fixture
def rank_by(context):
    return context.rank_by


@pytest.mark.parametrize("stand_in", STAND_INS)
@pytest.mark.parametrize("criterion", names("criterion"))
def test_a_word_stands_for_an_allocation_of_its_own(stand_in, criterion):
    assert built("allocation", stand_in).stands_for(built("criterion", criterion)) in OWN


@ALLOCATIONS
@pytest.mark.parametrize("ratio", RATIOS)
def test_counts_sum_to_exactly_the_ratio(allocation, ratio, rank_by, context):
    ranked = rank_by("magnitude")
    counts = built("allocation", allocation).counts(ranked, ratio, context)
    assert list(counts) == list(ranked.sizes)
    assert all(0 <= counts[n] <= ranked.sizes[n] for n in counts)
    assert sum(counts.values()) == round(ratio * ranked.total)


@pytest.mark.parametrize("allocation", [a for a in OWN if a not in NOT_NESTING])
def test_a_larger_ratio_takes_no_less_from_any_tensor(allocation, rank_by, context):
    ranked, chosen = rank_by("swe"), built("allocation", allocation)
    cuts = [chosen.counts(ranked, k / ranked.total, context) for k in range(ranked.total)]
    for fewer, more in pairwise(cuts):
        assert all(fewer[n] <= more[n] for n in fewer)


@ALLOCATIONS
def test_it_asks_just_what_it_says_it_does(allocation, rank_by, context):
    chosen = built("allocation", allocation)
    assert set(chosen.consults) <= set(names("criterion"))

    ranked = rank_by("magnitude")
    context.asked.clear()
    chosen.counts(ranked, 0.5, context)
    assert context.asked == set(chosen.consults)
    assert context.probed == chosen.probes
    assert chosen.within in ("tensor", "row")


@ALLOCATIONS
def test_a_larger_rate_takes_no_less(allocation, rank_by):
    chosen, ranked = built("allocation", allocation), rank_by("magnitude")
    if not chosen.takes_rate:
        with pytest.raises(UsageError, match="shares out a ratio, not a rate"):
            chosen.counts_at_rate(ranked, 1.0)
        return
    cut = [sum(chosen.counts_at_rate(ranked, rate).values()) for rate in (0, 0.5, 1, 2, 100)]
    assert cut[0] == 0
    assert cut == sorted(cut)
    assert cut[-1] == ranked.total


UNITS = [name for name in names("pattern") if built("pattern", name).unit]
FREE = [name for name in names("pattern") if name not in UNITS and not built("pattern", name).ratio]
FIXED = [name for name in names("pattern") if name not in (*UNITS, *FREE)]


@pytest.mark.parametrize("pattern", FREE)
@pytest.mark.parametrize("within", ["tensor", "row"])
@ALLOCATIONS
def test_masks_cut_exactly_what_was_allocated(pattern, within, allocation, rank_by, context):
    ranked = rank_by("magnitude")
    for ratio in RATIOS:
        counts = built("allocation", allocation).counts(ranked, ratio, context)
        masks = built("pattern", pattern).masks(ranked, counts, within)
        assert list(masks) == list(ranked.scores)
        for name, mask in masks.items():
            score = ranked.scores[name]
            assert (mask.dtype, mask.shape) == (torch.bool, score.shape)
            assert int((~mask).sum()) == counts[name]
            flat = within == "tensor" or mask.dim() == 1
            rows = (mask[None], score[None]) if flat else (mask, score)
            for kept, of in zip(*rows, strict=True):
                if kept.any() and not kept.all() and pattern == "unstructured":
                    assert of[~kept].max() <= of[kept].min()


@pytest.mark.parametrize("pattern", names("pattern"))
def test_every_pattern_declares_what_it_is(pattern):
    chosen = built("pattern", pattern)
    assert isinstance(chosen, Pattern)
    assert chosen.unit in (None, *get_args(UnitKind))
    assert chosen.unit or not chosen.by_output
    assert (chosen.group is None) == (chosen.ratio is None)


@pytest.mark.parametrize("pattern", FIXED)
def test_a_fixed_pattern_cuts_its_own_ratio_of_every_group(pattern):
    chosen = built("pattern", pattern)
    scores = {"w": torch.rand(5, 24, generator=torch.Generator().manual_seed(1))}
    counts = {"w": round(chosen.ratio * 5 * 24)}
    mask = chosen.masks(Ranking(scores), counts, "tensor")["w"]
    groups = mask.view(5, -1, chosen.group)
    assert ((~groups).float().mean(2) == chosen.ratio).all()
    values = scores["w"].view_as(groups)
    lowest_kept = values.masked_fill(~groups, 2).amin(2)
    assert (lowest_kept >= values.masked_fill(groups, -1).amax(2)).all()
