"""Every allocation gives exact totals, every pattern masks that cut exactly as many."""

from itertools import pairwise

import pytest
import torch

from swe_cli.contracts import Evidence, RateAllocation
from swe_cli.masks.rank import Ranking

from .conftest import built, names

RATIOS = [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.77, 0.9]
ALLOCATIONS = pytest.mark.parametrize("allocation", names("allocation"))


@pytest.fixture
def rank_by(life):
    def rank(criterion):
        scores = built("criterion", criterion).score(Evidence(life.weights, life.trajectory, 3))
        return Ranking(scores, life.weights)

    return rank


@ALLOCATIONS
@pytest.mark.parametrize("ratio", RATIOS)
def test_counts_sum_to_exactly_the_ratio(allocation, ratio, rank_by):
    ranked = rank_by("magnitude")
    counts = built("allocation", allocation).counts(ranked, ratio, rank_by)
    assert list(counts) == list(ranked.sizes)
    assert all(0 <= counts[n] <= ranked.sizes[n] for n in counts)
    assert sum(counts.values()) == round(ratio * ranked.total)


@ALLOCATIONS
def test_a_larger_ratio_takes_no_less_from_any_tensor(allocation, rank_by):
    ranked, chosen = rank_by("swe"), built("allocation", allocation)
    cuts = [chosen.counts(ranked, k / ranked.total, rank_by) for k in range(ranked.total)]
    for fewer, more in pairwise(cuts):
        assert all(fewer[n] <= more[n] for n in fewer)


@ALLOCATIONS
def test_it_consults_only_criteria_that_exist(allocation, rank_by):
    chosen = built("allocation", allocation)
    assert set(chosen.consults) <= set(names("criterion"))

    def only_named(criterion):
        assert criterion in chosen.consults
        return rank_by(criterion)

    chosen.counts(rank_by("magnitude"), 0.5, only_named)


@ALLOCATIONS
def test_a_larger_rate_takes_no_less(allocation, rank_by):
    chosen = built("allocation", allocation)
    if not isinstance(chosen, RateAllocation):
        assert not hasattr(chosen, "counts_at_rate")
        return
    ranked = rank_by("magnitude")
    cut = [sum(chosen.counts_at_rate(ranked, rate).values()) for rate in (0, 0.5, 1, 2, 100)]
    assert cut[0] == 0
    assert cut == sorted(cut)
    assert cut[-1] == ranked.total


@pytest.mark.parametrize("pattern", names("pattern"))
@ALLOCATIONS
def test_masks_cut_exactly_what_was_allocated_and_the_lowest_of_it(pattern, allocation, rank_by):
    ranked = rank_by("magnitude")
    for ratio in RATIOS:
        counts = built("allocation", allocation).counts(ranked, ratio, rank_by)
        masks = built("pattern", pattern).masks(ranked, counts)
        assert list(masks) == list(ranked.scores)
        for name, mask in masks.items():
            score = ranked.scores[name]
            assert (mask.dtype, mask.shape) == (torch.bool, score.shape)
            assert int((~mask).sum()) == counts[name]
            if mask.any() and not mask.all() and pattern == "unstructured":
                assert score[~mask].max() <= score[mask].min()
