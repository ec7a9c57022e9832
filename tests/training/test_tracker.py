import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from swe_cli.errors import UsageError
from swe_cli.experiments.ensure import build
from swe_cli.training.run import train_run
from swe_cli.training.tracker import SAMPLE_POINTS, Tracker, Tracking, gather

from .toys import (
    FILES,
    assert_same_tensors,
    contents,
    metrics,
    never,
    run_of,
    spec_of,
    trained,
    write_text,
)
from .walks import after

TRACKING = {"every": 1, "start": 0, "weighting": "linear", "decay": 0.999, "sample": 6}


def sampler(steps: int, **options) -> tuple[Tracker, dict[str, torch.Tensor]]:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(6.0, 10.0)}
    tracking = Tracking(**{**TRACKING, **options})
    tracker = Tracker(weights, {}, weights, tracking, steps=steps, steps_per_epoch=1, seed=0)
    return tracker, weights


@pytest.mark.parametrize("steps", [1, 199, 200, 399, 400, 5000])
def test_the_sample_is_bounded_in_moments_and_weights(steps):
    tracker, _ = sampler(steps)
    for step in range(1, steps + 1):
        tracker.after_step(after(step), {})
    values = tracker.tensors()["sample/values"]
    assert values.shape[1] == 6
    assert min(steps, SAMPLE_POINTS) <= len(values) <= 2 * SAMPLE_POINTS
    assert tracker.tensors()["sample/steps"][0] == 1


def test_the_sample_holds_the_weights_of_its_moment():
    tracker, weights = sampler(2)
    tracker.after_step(after(1), {})
    weights["a"] += 100.0
    tracker.after_step(after(2), {})
    first, second = tracker.tensors()["sample/values"]
    index = tracker.tensors()["sample/index"]
    assert first.tolist() == index.float().tolist()  # weights are numbered by their own values
    assert second.tolist() == torch.where(index < 6, first + 100, first).tolist()


def test_the_sample_is_drawn_from_the_seed_without_repeats():
    index = sampler(1)[0].tensors
    assert "sample/index" not in index()  # nothing was seen yet
    one, other = (sampler(1)[0] for _ in range(2))
    one.after_step(after(1), {})
    other.after_step(after(1), {})
    drawn = one.tensors()["sample/index"]
    assert torch.equal(drawn, other.tensors()["sample/index"])
    assert len(set(drawn.tolist())) == 6


def test_gather_lays_tensors_end_to_end():
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(6.0, 10.0)}
    assert gather(tensors, torch.tensor([0, 5, 6, 9])).tolist() == [0.0, 5.0, 6.0, 9.0]
    assert gather(tensors, torch.tensor([7])).tolist() == [7.0]
    assert gather(tensors, torch.tensor([], dtype=torch.long)).tolist() == []


@pytest.mark.parametrize("options", [{"every": 11}, {"start": 10}, {"every": 6, "start": 5}])
def test_a_cadence_that_observes_nothing_is_refused(options):
    with pytest.raises(UsageError, match=r"observes nothing in training\.steps=10"):
        sampler(10, **options)


@pytest.mark.parametrize("options", [{"every": 10}, {"start": 9}, {"every": 5, "start": 5}])
def test_a_cadence_that_observes_once_is_not(options):
    tracker, _ = sampler(10, **options)
    for step in range(1, 11):
        tracker.after_step(after(step), {})
    assert tracker.info()["count"] == 1


def test_tracking_leaves_the_weights_bit_identical(tmp_path):
    text = write_text(tmp_path, words=90)  # an epoch is shorter than the training
    variants = {
        "every step": spec_of(text, statistics=("mean",)),
        "one statistic": spec_of(text, statistics=()),
        "every third": spec_of(text, "tracking.every=3", "tracking.sample=0"),
        "late": spec_of(text, "tracking.start=5", "tracking.weighting=exponential"),
        "every epoch": spec_of(text, "tracking.every=epoch"),
    }
    runs = {name: trained(p, tmp_path / name.replace(" ", "_")) for name, p in variants.items()}
    expected, losses = contents(runs["every step"])
    for name, run in runs.items():
        for file in FILES[:2]:
            assert_same_tensors(contents(run)[0][file], expected[file], f"{name} {file}")
        assert metrics(run) == losses
    averages = {n: contents(r)[0]["trajectory.safetensors"] for n, r in runs.items()}
    key = next(k for k in averages["late"] if k.startswith("weighted_average/"))
    assert not torch.equal(averages["late"][key], averages["every step"][key])
    assert runs["every epoch"].manifest["tracker"]["every_steps"] < 8


def test_without_any_statistic_the_weights_are_the_same_too(tmp_path):
    text = write_text(tmp_path)
    tracked, bare = spec_of(text), spec_of(text)
    with_statistics = trained(tracked, tmp_path / "with")
    training = replace(build(bare), statistics={})
    run = run_of(bare, tmp_path / "without")
    train_run(run, training, [], never)
    assert_same_tensors(
        run.tensors("model.safetensors"), with_statistics.tensors("model.safetensors")
    )


def test_cadence_count_and_total_weight_are_in_the_files_metadata(tmp_path):
    plan = spec_of(write_text(tmp_path), "tracking.every=3", "tracking.start=1")
    run = trained(plan, tmp_path / "results")
    with safe_open(run.path / "trajectory.safetensors", "pt") as file:
        info = json.loads(file.metadata()["swe"])
    assert info == run.manifest["tracker"]
    assert (info["every"], info["start"], info["count"]) == (3, 1, 2)  # steps 4 and 7 of 8
    assert info["total_weight"] == 1.0 + 2.0
    assert info["statistics"] == ["mean", "weighted_average"]
