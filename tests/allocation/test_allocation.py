"""Allocations: exact totals, nesting, and the paper's threshold to the last weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swe_cli.allocation.counts import (
    OWL,
    ECoFLaP,
    Global,
    Like,
    Row,
    Sigma,
    Uniform,
    counts_of_shares,
    kept_of_blocks,
    webster,
)
from swe_cli.errors import PruningError
from swe_cli.ranking import Ranking


class Context:
    """A context that answers by a table. A block is a name's first letter."""

    def __init__(self, sensitivities=None, **ranked):
        self._sensitivities, self.ranked = sensitivities, ranked

    def rank_by(self, name):
        assert name in self.ranked, f"asked for {name}"
        return self.ranked[name]

    def scores_by(self, name):
        return self.rank_by(name).scores

    def block_of(self, name):
        return name[0]

    def sensitivities(self):
        assert self._sensitivities is not None
        return self._sensitivities


refuse = Context()


def scores(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"w{i}": torch.rand(shape, generator=generator) for i, shape in enumerate(shapes)}


def test_global_takes_the_lowest_wherever_they_lie():
    ranked = Ranking({"low": torch.tensor([0.1, 0.2]), "high": torch.tensor([0.3, 0.4, 0.5])})
    assert Global().counts(ranked, 0.4, refuse) == {"low": 2, "high": 0}


def test_uniform_by_hand():
    assert webster({"a": 10, "b": 20, "c": 30}, 30) == {"a": 5, "b": 10, "c": 15}
    # Claims in order: 7/1 a, 5/1 b, 3/1 c, 7/3 a, 5/3 b, 7/5 a, then 7/7 a before 5/5 b and 3/3 c.
    assert webster({"a": 7, "b": 5, "c": 3}, 5) == {"a": 2, "b": 2, "c": 1}
    assert webster({"a": 7, "b": 5, "c": 3}, 6) == {"a": 3, "b": 2, "c": 1}
    assert webster({"a": 7, "b": 5, "c": 3}, 7) == {"a": 4, "b": 2, "c": 1}


@given(st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=8))
def test_webster_is_exact_monotone_and_never_overdraws(sizes):
    named = {str(i): size for i, size in enumerate(sizes)}
    before = dict.fromkeys(named, 0)
    for total in range(sum(sizes) + 1):
        counts = webster(named, total)
        assert sum(counts.values()) == total
        assert all(before[name] <= counts[name] <= named[name] for name in named)
        before = counts


def test_uniform_total_is_exact():
    ranked = Ranking(scores((3, 3), (5,), (7, 11)))
    for tenth in range(11):
        counts = Uniform().counts(ranked, tenth / 10, refuse)
        assert sum(counts.values()) == round(tenth / 10 * 91)


def test_sigma_by_rate_is_the_papers_threshold():
    average = {name: score - 0.5 for name, score in scores((40, 30), (200,), seed=3).items()}
    ranked = Ranking({name: a.abs() for name, a in average.items()})
    for rate in (0.0, 0.247, 1.0, 1.575, 3.2):
        masks = ranked.masks(Sigma().counts_at_rate(ranked, rate))
        for name, value in average.items():
            threshold = value.abs().std() * rate
            assert torch.equal(~masks[name], value.abs() < threshold)


def test_sigma_by_ratio_is_one_global_threshold_on_normalised_scores():
    values = {"narrow": scores((50,), seed=1)["w0"] * 0.01, "wide": scores((70,), seed=2)["w0"]}
    ranked = Ranking(values)
    counts = Sigma().counts(ranked, 0.5, refuse)
    assert sum(counts.values()) == 60
    normalised = torch.cat([v / v.std() for v in values.values()])
    threshold = normalised.sort().values[60]
    assert counts == {n: int((v / v.std() < threshold).sum()) for n, v in values.items()}


def test_sigma_never_cuts_a_tensor_without_spread():
    ranked = Ranking(
        {"flat": torch.full((4,), 0.01), "one": torch.tensor([0.0]), "w": torch.rand(5)}
    )
    counts = Sigma().counts(ranked, 0.5, refuse)
    assert counts == {"flat": 0, "one": 0, "w": 5}
    assert Sigma().counts_at_rate(ranked, 100.0) == {"flat": 0, "one": 0, "w": 5}
    signed = Ranking({"flat": torch.full((3,), -1.0), "spread": torch.tensor([1.0, torch.inf])})
    assert Sigma().counts_at_rate(signed, 0.1) == {"flat": 0, "spread": 0}
    with pytest.raises(PruningError, match="can cut 5 of 10"):
        Sigma().counts(ranked, 0.6, refuse)


def test_like_takes_anothers_counts():
    own, other = Ranking(scores((8,), (8,), seed=5)), Ranking(scores((8,), (8,), seed=6))
    like = Like(criterion="swe")
    counts = like.counts(own, 0.5, Context(swe=other))
    assert counts == other.lowest(8)
    assert like.consults == ("swe",)


@pytest.mark.parametrize("allocation", [Global(), Uniform(), Sigma()])
def test_masks_nest_as_the_ratio_grows(allocation):
    ranked = Ranking(scores((13, 7), (31,), (5, 5, 2), seed=9))
    before = ranked.masks(dict.fromkeys(ranked.sizes, 0))
    for percent in range(0, 100, 7):
        masks = ranked.masks(allocation.counts(ranked, percent / 100, refuse))
        assert all(not (mask & ~before[name]).any() for name, mask in masks.items())
        before = masks


def test_row_counts_as_uniform_does_and_looks_inside_rows():
    ranked = Ranking(scores((4, 10), (3, 7)))
    assert Row().counts(ranked, 0.5, refuse) == Uniform().counts(ranked, 0.5, refuse)
    assert (Row().within, Uniform().within) == ("row", "tensor")


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(-0.5, 1.5)), min_size=1, max_size=6),
    st.data(),
)
def test_counts_of_shares_are_exact_whatever_the_shares(tensors, data):
    sizes = {str(i): size for i, (size, _) in enumerate(tensors)}
    shares = {str(i): share for i, (_, share) in enumerate(tensors)}
    total = data.draw(st.integers(0, sum(sizes.values())))
    counts = counts_of_shares(sizes, shares, total)
    assert sum(counts.values()) == total
    assert all(0 <= counts[name] <= sizes[name] for name in sizes)


def test_counts_of_shares_by_hand():
    assert counts_of_shares({"a": 10, "b": 10}, {"a": 0.3, "b": 0.7}, 10) == {"a": 3, "b": 7}
    # b wants 12 of its 10: what is too much goes to a, which has room.
    assert counts_of_shares({"a": 10, "b": 10}, {"a": 0.2, "b": 1.2}, 14) == {"a": 4, "b": 10}


def owl(**options):
    return OWL(**{"outlier": 5.0, "strength": 0.08, "within": "row", **options})


def test_owl_by_hand():
    # Block a: one score of ten is 100, the mean 10.9: above 5 means lies 1 of 10. Block b: none.
    one = torch.ones(10)
    one[3] = 100.0
    wanda = Ranking({"a": one, "b": torch.ones(30)})
    mine = Ranking(scores((10,), (30,)) | {})
    ranked = Ranking({"a": mine.scores["w0"], "b": mine.scores["w1"]})
    # d = 2·0.08·(1, 0) = (0.16, 0), its mean weighted by size 0.04: S = 0.5 − (0.12, −0.04).
    assert owl().counts(ranked, 0.5, Context(wanda=wanda)) == {"a": 4, "b": 16}
    wider = owl(strength=0.5)  # d = (1, 0), mean 0.25: S = 0.5 − (0.75, −0.25), clamped at 0
    assert wider.counts(ranked, 0.5, Context(wanda=wanda)) == {"a": 0, "b": 20}


def test_owls_mean_is_weighted_by_what_blocks_hold():
    # One score of ten is an outlier in a, none in b, which is nine times as large.
    outliers = torch.ones(100)
    outliers[::10] = 100.0
    wanda = Ranking({"a": outliers, "b": torch.ones(900)})
    ranked = Ranking({"a": torch.rand(100), "b": torch.rand(900)})
    # d = (0.4, 0), its mean 0.04: S = (0.14, 0.54). By half of 0.4: (0.3, 0.7), 160 too many.
    counts = owl(strength=0.2).counts(ranked, 0.5, Context(wanda=wanda))
    assert counts == {"a": 14, "b": 486}


def test_owl_is_uniform_where_no_block_has_more_outliers():
    wanda = Ranking({"a": torch.ones(10), "b": torch.ones(30)})
    ranked = Ranking({"a": torch.rand(10), "b": torch.rand(30)})
    assert owl().counts(ranked, 0.5, Context(wanda=wanda)) == {"a": 5, "b": 15}


def test_a_block_of_owl_is_all_of_its_tensors():
    wanda = Ranking({"a1": torch.full((10,), 50.0), "a2": torch.ones(90), "b": torch.ones(100)})
    ranked = Ranking({"a1": torch.rand(10), "a2": torch.rand(90), "b": torch.rand(100)})
    counts = owl().counts(ranked, 0.5, Context(wanda=wanda))
    assert counts == {"a1": 4, "a2": 38, "b": 58}  # 0.42, 0.42 and 0.58


def test_ecoflap_by_hand():
    sizes = {"a": 100, "b": 100}
    # p = 0.5, at most 0.6 sparse: floors 40 and 40, 20 left, given out 3 : 1.
    assert kept_of_blocks(sizes, {"a": 3.0, "b": 1.0}, 100, 0.6) == {"a": 55, "b": 45}
    # a cannot hold more than it has; the rest goes to b.
    assert kept_of_blocks(sizes, {"a": 99.0, "b": 1.0}, 190, 0.15) == {"a": 100, "b": 90}
    # Nothing is felt: evenly.
    assert kept_of_blocks({"a": 100, "b": 101}, {"a": 0.0, "b": 0.0}, 101, 0.6) == {
        "a": 50,
        "b": 51,
    }


def test_what_ecoflap_rounds_up_too_much_is_taken_from_the_largest_that_have_it():
    # Floors 40 and 80, 5 left: 2.5 each, rounded up to 3. One too many: of 43 and 83 from 83.
    sizes, felt = {"a": 100, "b": 200}, {"a": 1.0, "b": 1.0}
    assert kept_of_blocks(sizes, felt, 125, 0.6) == {"a": 43, "b": 82}
    # c is the largest, but at its floor of 400; of 42 and 82 it is 82 that gives.
    sizes, felt = sizes | {"c": 1000}, felt | {"c": 0.0}
    assert kept_of_blocks(sizes, felt, 523, 0.6) == {"a": 42, "b": 81, "c": 400}


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 10)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_ecoflap_keeps_exactly_what_it_should(blocks, ratio):
    ranked = Ranking({f"{chr(97 + i)}": torch.rand(size) for i, (size, _) in enumerate(blocks)})
    felt = {chr(97 + i): value for i, (_, value) in enumerate(blocks)}
    allocation = ECoFLaP(slack=0.1, within="row")
    counts = allocation.counts(ranked, ratio, Context(sensitivities=felt))
    assert sum(counts.values()) == round(ratio * ranked.total)


def test_what_the_loss_feels_more_keeps_more():
    ranked = Ranking({"a": torch.rand(100), "b": torch.rand(100)})
    counts = ECoFLaP(slack=0.1, within="row").counts(ranked, 0.5, Context({"a": 3.0, "b": 1.0}))
    assert counts == {"a": 45, "b": 55}
