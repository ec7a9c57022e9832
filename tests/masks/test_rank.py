"""Exact selection: toys by hand, and properties on whatever hypothesis invents."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swe_cli.errors import PruningError
from swe_cli.masks.rank import Ranking, exact_count

floats = st.floats(min_value=-4, max_value=4, width=32).map(lambda x: round(x * 2) / 2)  # many ties
tensors = st.lists(st.lists(floats, min_size=1, max_size=12), min_size=1, max_size=4)


def ranking(lists, magnitudes=None):
    scores = {f"w{i}": torch.tensor(values) for i, values in enumerate(lists)}
    ties = {f"w{i}": torch.tensor(values) for i, values in enumerate(magnitudes or lists)}
    return Ranking(scores, ties)


def cut(masks):
    return sum(int((~mask).sum()) for mask in masks.values())


def test_a_toy_by_hand():
    ranked = ranking([[0.3, 0.1], [0.2, 0.4, 0.5]])
    assert ranked.lowest(3) == {"w0": 2, "w1": 1}
    masks = ranked.masks(ranked.lowest(3))
    assert masks["w0"].tolist() == [False, False]
    assert masks["w1"].tolist() == [False, True, True]


def test_ties_go_by_magnitude_then_by_index():
    ranked = ranking([[1.0, 1.0, 1.0]], magnitudes=[[-0.5, 0.2, 0.5]])
    assert ranked.masks({"w0": 1})["w0"].tolist() == [True, False, True]
    assert ranked.masks({"w0": 2})["w0"].tolist() == [False, False, True]


def test_ties_across_tensors_go_by_magnitude_then_by_tensor():
    ranked = ranking([[1.0, 1.0], [1.0, 0.0]], magnitudes=[[0.4, 0.1], [0.1, 9.0]])
    assert ranked.lowest(1) == {"w0": 0, "w1": 1}
    assert ranked.lowest(2) == {"w0": 1, "w1": 1}
    assert ranked.lowest(3) == {"w0": 1, "w1": 2}


@given(tensors, st.floats(min_value=0, max_value=1))
def test_counts_are_exact_even_when_everything_ties(lists, ratio):
    ranked = ranking(lists)
    count = exact_count(ratio, ranked.total)
    counts = ranked.lowest(count)
    masks = ranked.masks(counts)
    assert sum(counts.values()) == cut(masks) == count


@given(tensors)
def test_masks_nest_and_match_a_stable_sort(lists):
    ranked = ranking(lists)
    flat = np.concatenate([np.asarray(values, dtype=np.float32) for values in lists])
    order = np.lexsort((np.arange(len(flat)), np.abs(flat), flat))
    for count in range(ranked.total + 1):
        masks = torch.cat([m.flatten() for m in ranked.masks(ranked.lowest(count)).values()])
        expected = np.ones(len(flat), dtype=bool)
        expected[order[:count]] = False
        assert masks.tolist() == expected.tolist()


@given(tensors, floats)
def test_below_counts_strictly_below(lists, threshold):
    ranked = ranking(lists)
    expected = {f"w{i}": sum(x < threshold for x in values) for i, values in enumerate(lists)}
    assert ranked.below(dict.fromkeys(ranked.sizes, threshold)) == expected


def test_double_precision_and_infinities_keep_their_order():
    scores = torch.tensor([1.0, 1.0 + 1e-12, -torch.inf, torch.inf], dtype=torch.float64)
    ranked = Ranking({"w": scores})
    assert ranked.masks(ranked.lowest(2))["w"].tolist() == [False, True, False, True]
    ranked = Ranking({"a": scores[:2], "b": scores[2:]})
    assert ranked.lowest(3) == {"a": 2, "b": 1}


def test_negative_zero_is_zero():
    ranked = Ranking({"a": torch.tensor([-0.0, 1.0]), "b": torch.tensor([0.0, -1.0])})
    assert ranked.lowest(2) == {"a": 1, "b": 1}


def test_divisors_rescale_and_a_divisor_of_zero_is_last():
    ranked = ranking([[1.0, 2.0], [3.0, 4.0]]).divided_by({"w0": 1.0, "w1": 10.0})
    assert ranked.lowest(2) == {"w0": 0, "w1": 2}
    ranked = ranking([[1.0, 2.0], [3.0, 4.0]]).divided_by({"w0": 0.0, "w1": 1.0})
    assert ranked.lowest(2) == {"w0": 0, "w1": 2}


def test_nan_is_refused_by_name():
    with pytest.raises(PruningError, match=r"w1.*NaN"):
        ranking([[1.0], [float("nan")]])


def test_nothing_to_prune_is_an_error():
    with pytest.raises(PruningError, match="nothing to prune"):
        Ranking({})


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(PruningError, match="ratio"):
        exact_count(ratio, 10)


def test_impossible_counts_are_refused():
    ranked = ranking([[1.0, 2.0]])
    with pytest.raises(PruningError, match="Cannot cut 3 of 2"):
        ranked.lowest(3)
    with pytest.raises(PruningError, match="w0"):
        ranked.masks({"w0": 3})
