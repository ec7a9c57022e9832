"""Statistics against METHODS.md section 1, summed the slow way in float64."""

from itertools import pairwise

import pytest
import torch
from training.walks import PER_EPOCH, STEPS, after, amounts, observed, tracked, walk

from swe_cli.records import Tensors
from swe_cli.statistics.running import Mean, WeightedAverage
from swe_cli.training.tracker import Tracker


def naive(path: list[Tensors], steps: list[int], weighting: str) -> Tensors:
    """Σ a·W / Σ a in float64."""
    weights = amounts(weighting, len(steps))
    return {
        name: sum(a * path[step - 1][name].double() for a, step in zip(weights, steps, strict=True))
        / sum(weights)
        for name in path[0]
    }


def assert_close(found: Tensors, expected: Tensors) -> None:
    for name, tensor in expected.items():
        assert found[name].dtype is torch.float32
        torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighting", ["linear", "sqrt", "uniform", "exponential"])
@pytest.mark.parametrize(("every", "start"), [(1, 0), (3, 0), (1, 5), (3, 5), ("epoch", 0)])
def test_weighted_average_is_the_naive_sum(weighting, every, start):
    path = walk()
    tracker, state = tracked(path, every=every, start=start, weighting=weighting)
    steps = observed(PER_EPOCH if every == "epoch" else every, start)
    assert_close(state, naive(path, steps, weighting))
    info = tracker.info()
    assert info["count"] == len(steps)
    assert info["total_weight"] == pytest.approx(sum(amounts(weighting, len(steps))))
    assert (info["every"], info["start"], info["weighting"]) == (every, start, weighting)


def test_weightings_differ_from_each_other():
    path = walk()
    names = ("linear", "sqrt", "uniform", "exponential")
    averages = [tracked(path, weighting=name)[1]["matrix"] for name in names]
    for one, other in pairwise(averages):
        assert (one - other).abs().max() > 1e-3


def test_at_every_step_the_average_moves_by_the_papers_two_over_t_plus_one():
    path = walk()
    average = torch.zeros(3, 4, dtype=torch.float64)
    for step, weights in enumerate(path, start=1):
        average += 2 / (step + 1) * (weights["matrix"].double() - average)
    assert_close(tracked(path)[1], {"matrix": average})


@pytest.mark.parametrize("weighting", ["linear", "exponential"])
@pytest.mark.parametrize(("every", "start"), [(1, 0), (3, 5)])
def test_mean_counts_every_observation_the_same_whatever_the_weighting(weighting, every, start):
    path = walk()
    _, state = tracked(path, Mean, every=every, start=start, weighting=weighting)
    steps = observed(every, start)
    assert_close(
        state,
        {n: torch.stack([path[s - 1][n].double() for s in steps]).mean(0) for n in path[0]},
    )


def test_one_observation_is_the_weights_themselves():
    path = walk(1)
    _, state = tracked(path)
    assert torch.equal(state["matrix"], path[0]["matrix"])


def test_half_precision_weights_are_averaged_in_single_precision():
    path = walk()
    half = [{name: w.bfloat16() for name, w in weights.items()} for weights in path]
    _, state = tracked(half)
    assert_close(state, naive(half, observed(1, 0), "linear"))


@pytest.mark.parametrize("make", [WeightedAverage, Mean])
def test_memory_does_not_grow_with_observations(make):
    def held(steps: int) -> dict[str, tuple[torch.Size, torch.dtype]]:
        tracker, _ = tracked(walk(steps), make)
        return {name: (t.shape, t.dtype) for name, t in tracker.tensors().items()}

    assert held(5) == held(300)
    assert set(held(5)) == {"statistic/matrix", "statistic/vector"}  # one copy of the weights


def test_state_is_the_accumulator_itself_and_goes_on_after_load():
    path = walk()
    _, whole = tracked(path)
    tracker, state = tracked(path[:20])
    saved, info = {n: t.clone() for n, t in tracker.tensors().items()}, tracker.info()
    live = {name: torch.zeros_like(weight) for name, weight in path[0].items()}
    statistic = WeightedAverage(live)
    resumed = Tracker(
        live,
        {"statistic": statistic},
        live,
        tracker.tracking,
        steps=STEPS,
        steps_per_epoch=PER_EPOCH,
        seed=0,
    )
    resumed.load(saved, info)
    assert torch.equal(statistic.state()["matrix"], state["matrix"])
    for step, weights in enumerate(path[20:], start=21):
        for name, weight in weights.items():
            live[name].copy_(weight)
        resumed.after_step(after(step), {})
    assert torch.equal(statistic.state()["matrix"], whole["matrix"])
    assert torch.equal(statistic.state()["vector"], whole["vector"])
