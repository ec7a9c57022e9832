"""Averages of a real training: what they stand for, and that they go on where it was stopped."""

import pytest
import torch

from swe_cli.errors import Interrupted, UsageError
from swe_cli.statistics.running import WeightedAverage
from swe_cli.training.state import fit
from swe_cli.training.tracker import Tracker, Tracking

from .toys import (
    After,
    Steps,
    assert_same,
    contents,
    dataset,
    gpt,
    recipe,
    setup_of,
    spec_of,
    trained,
    write_text,
)
from .walks import after

AVERAGES = ("latest_average", "exponential_average")
EVERY_STEP = {"every": 1, "start": 0, "weighting": "linear", "decay": 0.9, "sample": 0}


def test_the_linear_average_is_the_recorded_updates_scaled_as_its_decay_says():
    """WSM (arXiv 2507.17634): of any optimizer, here Adam at a constant rate."""
    data, steps = dataset(), 12
    model = gpt(data.shape.vocabulary_size)
    state = recipe(schedule="constant", warmup_steps=0, steps=steps).begin(setup_of(model, data))
    live, path = model.weights(), []
    start = {name: weight.double().clone() for name, weight in live.items()}
    averages = WeightedAverage(live)
    tracker = Tracker(
        live, {"w": averages}, {}, Tracking(**EVERY_STEP), steps=steps, steps_per_epoch=1, seed=0
    )
    look = Steps(lambda _: path.append({n: w.double().clone() for n, w in live.items()}))
    fit(state, steps, [tracker, look])
    decayed = recipe(learning_rate=1.0, schedule="linear_average", warmup_steps=0, steps=steps)
    factors = [decayed.learning_rate_at(step) for step in range(1, steps + 1)]
    for name, average in averages.state().items():
        before = [start[name], *(weights[name] for weights in path[:-1])]
        updates = [weights[name] - old for weights, old in zip(path, before, strict=True)]
        scaled = start[name] + sum(f * u for f, u in zip(factors, updates, strict=True))
        torch.testing.assert_close(average.double(), scaled, rtol=1e-5, atol=1e-6)
        assert (path[-1][name] - scaled).abs().max() > 1e-4  # and is not where they lead


@pytest.mark.parametrize("step", [1, 5, 7])
def test_the_averages_of_a_training_that_was_stopped_are_the_same_bit_for_bit(step, tmp_path):
    text, cadence = write_text(tmp_path), ("tracking.start=25%", "tracking.weighting=exponential")
    plan = spec_of(text, *cadence, "tracking.decay=20%", statistics=AVERAGES)
    whole = contents(trained(plan, tmp_path / "whole"))
    with pytest.raises(Interrupted):
        trained(plan, tmp_path / "stopped", stop=After(step))
    again = contents(trained(plan, tmp_path / "stopped"))
    assert_same(again, whole)
    assert {name.partition("/")[0] for name in again[0]["trajectory.safetensors"]} >= {*AVERAGES}


# Parts of a training


def walked(steps: int, **options) -> Tracker:
    tracking = Tracking(**{**EVERY_STEP, **options})
    tracker = Tracker({}, {}, {}, tracking, steps=steps, steps_per_epoch=1, seed=0)
    for step in range(1, steps + 1):
        tracker.after_step(after(step), {})
    return tracker


@pytest.mark.parametrize(
    ("start", "steps", "count"), [("90%", 20, 2), ("12.5%", 16, 14), ("7%", 100, 93), (7, 20, 13)]
)
def test_a_start_is_steps_or_a_part_of_them(start, steps, count):
    assert walked(steps, start=start).info()["count"] == count


def test_a_decay_may_be_told_by_its_half_life():
    options = {"weighting": "exponential", "every": 5}
    found = walked(50, decay="10%", **options).info()["total_weight"]  # ten observations
    assert found == pytest.approx(sum(0.5**age for age in range(10)))
    assert walked(50, decay=0.5, **options).info()["total_weight"] == pytest.approx(found)


@pytest.mark.parametrize("value", ["0%", "100%", "200%", "-5%", "5", "%", "nan%", "half"])
@pytest.mark.parametrize("key", ["start", "decay"])
def test_what_is_no_part_of_a_training_is_refused_in_one_sentence(key, value):
    with pytest.raises(UsageError, match=f"tracking.{key}={value} is no part") as caught:
        Tracking(**{**EVERY_STEP, key: value})
    assert caught.value.hint == f"Write a percentage: tracking.{key}=10%"


def test_a_part_that_leaves_nothing_to_observe_is_refused():
    with pytest.raises(UsageError, match=r"from tracking\.start=96% observes nothing"):
        walked(10, start="96%")
