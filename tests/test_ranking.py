"""Exact selection: toys by hand, and properties on whatever hypothesis invents."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training.toys import dataset, gpt, setup_of

from swe_cli.allocation.counts import Global, Row, Uniform
from swe_cli.contracts import Evidence
from swe_cli.criteria.layers import SparseGPT, Wanda
from swe_cli.errors import PruningError
from swe_cli.patterns.shapes import NOfM
from swe_cli.pruning.calibration import Calibration
from swe_cli.pruning.masks import cut_counts
from swe_cli.pruning.prune import Judge, Method, Scorer, prune
from swe_cli.ranking import Ranking, exact_count

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


@settings(deadline=None)  # threads have to wait for busy cores
@given(tensors, st.floats(min_value=0, max_value=1))
def test_counts_are_exact_even_when_everything_ties(lists, ratio):
    ranked = ranking(lists)
    count = exact_count(ratio, ranked.total)
    counts = ranked.lowest(count)
    masks = ranked.masks(counts)
    assert sum(counts.values()) == cut(masks) == count


@settings(deadline=None)  # threads have to wait for busy cores
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


@settings(deadline=None)  # threads have to wait for busy cores
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


class Lazy:
    """Scores that cost something; ``made`` counts how often they were paid for."""

    def __init__(self, scores):
        self.scores, self.made = scores, 0

    def __call__(self):
        self.made += 1
        return self.scores


def test_scores_are_not_made_for_counts_by_size_and_once_for_all_else():
    weights = {"a": torch.tensor([[0.5, -1.0, 2.0, 3.0]]), "b": torch.tensor([0.1, 0.2])}
    lazy = Lazy({name: weight.abs() for name, weight in weights.items()})
    ranking = Ranking(lazy, weights)
    assert (ranking.total, ranking.sizes) == (6, {"a": 4, "b": 2})
    for allocation in (Uniform(), Row()):
        assert allocation.counts(ranking, 0.5, None) == {"a": 2, "b": 1}
    assert lazy.made == 0
    eager = Ranking(lazy.scores, weights)
    assert ranking.lowest(3) == eager.lowest(3)
    scaled = ranking.divided_by({"a": 100.0, "b": 1.0})
    assert scaled.lowest(4) == {"a": 4, "b": 0}
    expected = eager.masks({"a": 1, "b": 1})
    for same in (ranking, scaled):
        masks = same.masks({"a": 1, "b": 1})
        assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())
    assert lazy.made == 1


@pytest.mark.parametrize("criterion", [Wanda(), SparseGPT(damping=0.01, block=128)])
@pytest.mark.parametrize(
    ("method", "made"),
    [
        ({"pattern": NOfM(keep=2, of=4)}, 0),
        ({"ratio": 0.5, "allocation": Uniform()}, 0),
        ({"ratio": 0.5, "allocation": Global()}, 1),
    ],
)
def test_layers_are_scored_all_together_only_for_who_compares_them(criterion, method, made):
    """Scores of dense layers take a pass over the calibration set of their own."""
    data = dataset()
    model = gpt(data.shape.vocabulary_size)

    def lens(tensors):
        return model.prunable(tensors, "linear")

    setup = setup_of(model, data)
    calibration = Calibration(samples=4, batch_size=4, inputs="pruned")
    weights = {name: weight.clone() for name, weight in lens(model.weights()).items()}
    scorer = Scorer(setup, lens, Evidence(weights), calibration)
    score, calls = scorer.calibrated.dense_scores, []

    def counted(*arguments):
        calls.append(arguments)
        return score(*arguments)

    scorer.calibrated.dense_scores = counted
    for _ in range(2):
        masks = prune(Method(Judge(criterion, "layers", "layers"), **method), scorer)
        assert sum(cut_counts(masks).values()) == sum(w.numel() for w in weights.values()) // 2
    assert len(calls) == made


def test_nan_in_scores_made_late_is_refused_by_name():
    ranking = Ranking(Lazy({"w": torch.tensor([float("nan"), 1.0])}), {"w": torch.ones(2)})
    with pytest.raises(PruningError, match=r"w.*NaN"):
        ranking.lowest(1)


@pytest.mark.parametrize("count", range(9))
def test_ties_in_rows_go_by_magnitude_then_index_whatever_their_value(count):
    scores = torch.tensor([[-torch.inf, 0.0, -0.0, -torch.inf], [1.0, 1.0, torch.inf, 1.0]])
    magnitudes = torch.tensor([[2.0, 1.0, 1.0, 1.0], [3.0, 1.0, 0.0, 2.0]])
    kept = Ranking({"w": scores}, {"w": magnitudes}).masks({"w": count}, "row")["w"]
    order = [[3, 0, 1, 2], [1, 3, 0, 2]]
    for row, lost in enumerate([(count + 1) // 2, count // 2]):
        assert sorted(order[row][lost:]) == kept[row].nonzero().flatten().tolist()
