"""Allocations: exact totals, nesting, and the paper's threshold to the last weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swe_cli.allocation.global_ import Global
from swe_cli.allocation.like import Like
from swe_cli.allocation.sigma import Sigma
from swe_cli.allocation.uniform import Uniform, webster
from swe_cli.errors import PruningError
from swe_cli.masks.rank import Ranking


def refuse(name):
    raise AssertionError(f"asked for {name}")


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
    counts = like.counts(own, 0.5, {"swe": other}.__getitem__)
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
