"""The trajectory family against sums worked the slow way in float64, and by hand."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from training.walks import STEPS, amounts, observed, tracked, walk

from swe_cli.statistics.running import (
    AdamV,
    ExponentialAverage,
    InitialWeights,
    LatestAverage,
    MeanMagnitude,
    Movement,
    PathLength,
    SqrtAverage,
    SquareGradient,
    WeightedVariance,
)
from swe_cli.training.state import TrainState
from swe_cli.training.tracker import Tracker, Tracking

HAND = [{"w": torch.tensor([w])} for w in (1.0, -3.0, 2.0)]
CADENCES = pytest.mark.parametrize(("every", "start"), [(1, 0), (3, 5)])


def double(path, steps, name="matrix"):
    return torch.stack([path[step - 1][name].double() for step in steps])


def close(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_by_hand():
    found = {
        make.__name__: tracked(HAND, make)[1]["w"].item()
        for make in (SqrtAverage, MeanMagnitude, WeightedVariance, PathLength)
    }
    roots = (1.0, math.sqrt(2), math.sqrt(3))
    mean = (1 - 6 + 6) / 6
    variance = (1 * (1 - mean) ** 2 + 2 * (-3 - mean) ** 2 + 3 * (2 - mean) ** 2) / 6
    assert found == pytest.approx(
        {
            "SqrtAverage": (roots[0] - 3 * roots[1] + 2 * roots[2]) / sum(roots),
            "MeanMagnitude": 2.0,
            "WeightedVariance": variance,
            "PathLength": 1 + 4 + 5,  # from the weights before the first step, here 0
        },
        rel=1e-5,
    )


@CADENCES
@pytest.mark.parametrize("weighting", ["linear", "exponential"])
def test_sqrt_average_and_mean_magnitude_do_not_ask_the_weighting(every, start, weighting):
    path, steps = walk(), observed(every, start)
    values = double(path, steps)
    roots = torch.tensor(amounts("sqrt", len(steps)), dtype=torch.float64)[:, None, None]
    options = {"every": every, "start": start, "weighting": weighting}
    close(tracked(path, SqrtAverage, **options)[1]["matrix"], (roots * values).sum(0) / roots.sum())
    close(tracked(path, MeanMagnitude, **options)[1]["matrix"], values.abs().mean(0))


@CADENCES
@pytest.mark.parametrize("weighting", ["linear", "uniform", "exponential"])
def test_variance_is_that_of_the_weighted_average(every, start, weighting):
    path, steps = walk(), observed(every, start)
    values = double(path, steps)
    shares = torch.tensor(amounts(weighting, len(steps)), dtype=torch.float64)[:, None, None]
    mean = (shares * values).sum(0) / shares.sum()
    state = tracked(path, WeightedVariance, every=every, start=start, weighting=weighting)[1]
    close(state["matrix/mean"], mean)
    close(state["matrix"], (shares * (values - mean) ** 2).sum(0) / shares.sum())


def test_path_length_sums_every_turn():
    path = walk()
    values = torch.cat([torch.zeros(1, 3, 4, dtype=torch.float64), double(path, observed(1, 0))])
    close(tracked(path, PathLength)[1]["matrix"], values.diff(dim=0).abs().sum(0))


def test_initial_weights_stay():
    path = walk()
    live = {name: w.clone() for name, w in path[0].items()}
    statistic = InitialWeights(live)
    for index, weights in enumerate(path[1:], start=1):
        for name, weight in weights.items():
            live[name].copy_(weight)
        statistic.update(live, index, 1.0)
    assert torch.equal(statistic.state()["matrix"], path[0]["matrix"])


def test_the_total_of_a_resumed_sqrt_average_is_the_same_to_the_last_bit():
    path = walk()
    whole, half = SqrtAverage(path[0]), SqrtAverage(path[0])
    for index, weights in enumerate(path, start=1):
        whole.update(weights, index, 0.0)
    for index, weights in enumerate(path[:20], start=1):
        half.update(weights, index, 0.0)
    resumed = SqrtAverage(path[0])
    resumed.load(half.state())
    for index, weights in enumerate(path[20:], start=21):
        resumed.update(weights, index, 0.0)
    assert torch.equal(resumed.state()["matrix"], whole.state()["matrix"])


@pytest.mark.parametrize("weighting", ["linear", "exponential"])
@CADENCES
def test_square_gradient_weighs_steps_as_the_average_does(every, start, weighting):
    parameter = torch.nn.Parameter(torch.zeros(3))
    still = torch.nn.Parameter(torch.zeros(2))
    parameters = {"moves": parameter, "still": still}
    live = {name: p.detach() for name, p in parameters.items()}
    model = SimpleNamespace(named_parameters=parameters.items)
    statistic = SquareGradient(live)
    tracking = Tracking(every=every, start=start, weighting=weighting, decay=0.9, sample=0)
    tracker = Tracker(
        live, {"s": statistic}, live, tracking, steps=STEPS, steps_per_epoch=7, seed=0
    )
    for step in range(1, STEPS + 1):
        state = SimpleNamespace(step=step, setup=SimpleNamespace(model=model))
        parameter.grad = torch.tensor([1.0, -2.0, 0.5]) * step
        tracker.before_step(state)
        parameter.grad.zero_()  # as clipping would change it
        tracker.after_step(state, {})
    steps = observed(every, start)
    shares = amounts(weighting, len(steps))
    mean = sum(a * step**2 for a, step in zip(shares, steps, strict=True)) / sum(shares)
    expected = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64) * mean
    close(statistic.state()["moves"], expected)
    assert not statistic.state()["still"].any()  # nobody gave it a gradient


def test_adam_v_is_what_the_optimizer_keeps_at_the_last_observation():
    parameters = {
        "a": torch.nn.Parameter(torch.ones(3)),
        "frozen": torch.nn.Parameter(torch.ones(2)),
    }
    live = {name: p.detach() for name, p in parameters.items()}
    optimizer = torch.optim.Adam([parameters["a"]], betas=(0.9, 0.5), fused=True)
    model = SimpleNamespace(named_parameters=parameters.items)
    state = TrainState(SimpleNamespace(model=model), optimizer, lambda step: 0.1, 1)
    statistic = AdamV(live)
    tracking = Tracking(every=2, start=0, weighting="linear", decay=0.9, sample=0)
    tracker = Tracker(live, {"v": statistic}, live, tracking, steps=5, steps_per_epoch=1, seed=0)
    for state.step in range(1, 6):
        parameters["a"].grad = torch.full((3,), float(state.step))
        optimizer.step()
        tracker.after_step(state, {})
    # v ← v / 2 + g² / 2 of the steps 1 to 4; the fifth was not observed.
    close(statistic.state()["a"], torch.full((3,), 1 / 16 + 4 / 8 + 9 / 4 + 16 / 2).double())
    assert not statistic.state()["frozen"].any()


HALF = partial(LatestAverage, fraction=0.5)
QUARTER_LIFE = partial(ExponentialAverage, half_life=0.25)


def test_the_end_of_a_run_by_hand():
    path = [{"w": torch.tensor([w])} for w in (8.0, -1.0, 2.0, 5.0)]
    assert tracked(path, HALF)[1]["w"].item() == 3.5  # (2 + 5) / 2, the last half of four
    assert tracked(path, partial(LatestAverage, fraction=0.1))[1]["w"].item() == 5.0  # one at least
    # One step is a half-life: 1/8, 1/4, 1/2 and 1 of them, by their sum.
    found = tracked(path, QUARTER_LIFE)[1]["w"].item()
    assert found == pytest.approx((8 / 8 - 1 / 4 + 2 / 2 + 5) / (1 / 8 + 1 / 4 + 1 / 2 + 1))


@CADENCES
@pytest.mark.parametrize("weighting", ["linear", "exponential"])
def test_parts_are_of_the_whole_run_whatever_is_observed_of_it(every, start, weighting):
    path, steps = walk(), observed(every, start)
    options = {"every": every, "start": start, "weighting": weighting}
    latest = [s for s in steps if s > STEPS / 2] if every == 1 else steps[-round(STEPS / 6) :]
    close(tracked(path, HALF, **options)[1]["matrix"], double(path, latest).mean(0))
    ages = torch.tensor([steps[-1] - step for step in steps], dtype=torch.float64)
    shares = 0.5 ** (ages / (STEPS / 4))[:, None, None]
    expected = (shares * double(path, steps)).sum(0) / shares.sum()
    close(tracked(path, QUARTER_LIFE, **options)[1]["matrix"], expected)


def test_a_mean_of_more_than_was_observed_is_of_all_that_was():
    path = walk()
    whole = partial(LatestAverage, fraction=1.0)
    found = tracked(path, whole, start=30)[1]["matrix"]
    close(found, double(path, observed(1, 30)).mean(0))


def test_before_its_part_of_the_run_the_latest_average_is_the_weights_themselves():
    path = walk()
    statistic = LatestAverage(path[0], fraction=0.1)
    statistic.expect(STEPS, STEPS)
    for index, weights in enumerate(path[:37], start=1):
        statistic.update(weights, index, 0.3)
        if index < 37:
            assert torch.equal(statistic.state()["matrix"], weights["matrix"])
    assert torch.equal(statistic.state()["matrix"], path[36]["matrix"])  # the first of four
    statistic.update(path[37], 38, 0.3)
    close(statistic.state()["matrix"], double(path, [37, 38]).mean(0))


@CADENCES
def test_movement_takes_the_gradient_where_it_was_taken(every, start):
    path = walk()
    parameters = {name: torch.nn.Parameter(torch.zeros_like(w)) for name, w in path[0].items()}
    live = {name: parameter.detach() for name, parameter in parameters.items()}
    model = SimpleNamespace(named_parameters=parameters.items)
    statistic = Movement(live)
    tracking = Tracking(every=every, start=start, weighting="linear", decay=0.9, sample=0)
    tracker = Tracker(
        live, {"m": statistic}, live, tracking, steps=STEPS, steps_per_epoch=7, seed=0
    )
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for step, weights in enumerate(path, start=1):
        state = SimpleNamespace(step=step, setup=SimpleNamespace(model=model))
        parameters["matrix"].grad = torch.full((3, 4), float(step))
        if step in observed(every, start):
            expected -= live["matrix"].double() * step  # W before the step
        tracker.before_step(state)
        for name, weight in weights.items():
            live[name].copy_(weight)
        tracker.after_step(state, {})
    close(statistic.state()["matrix"], expected)
    assert not statistic.state()["vector"].any()  # nobody gave it a gradient
