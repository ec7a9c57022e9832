"""What to ship, from windows made up: a choice that holds elsewhere, or none and why."""

import math

import numpy as np
import pytest

from swe_cli.errors import RunError
from swe_cli.report.inference import t_interval
from swe_cli.report.recommend import choose, sentences, worst

from .toys import controls, pruned, summed

RATIOS = (0.2, 0.4, 0.6, 0.8)
WINDOWS = 80


def losses(rng, truth, seed):
    """Of every cell, windows of 32 tokens around its true loss, paired through their texts."""
    text = np.random.default_rng(seed).normal(0, 0.2, WINDOWS)
    noise = rng.normal(0, 0.02, WINDOWS)
    nats = 32 * (truth + text + noise)
    return {"nats": nats, "calibrated": nats - 3.2, "tokens": np.full(WINDOWS, 32)}


def world(costs_more, seeds=(0,), dice=0):
    """A summary, its windows by hash: dense at 2.0, cuts worse than that by ``costs_more``."""
    rng, rows, windows = np.random.default_rng(dice), [], {}
    for seed in seeds:
        rows += controls(seed)
        for row in rows[-4:]:
            at = 2.0 if row.kind == "dense" else 2.1
            windows[row.config_hash] = losses(rng, at, seed)
        for ratio, more in costs_more.items():
            measures = {"bytes_compressed": 1000 * (1 - ratio), "flops_per_token": 10.0}
            row = pruned(ratio, 2.0 + more, seed=seed, measures=measures)
            rows.append(row)
            windows[row.config_hash] = losses(rng, 2.0 + more, seed)
    for place, row in enumerate(rows):
        if row.kind == "dense":
            values = row.to_json()
            values["measures"] = {"bytes_compressed": 1000.0, "flops_per_token": 10.0}
            rows[place] = type(row).from_json(values)
    return summed(rows), lambda cell: (windows[cell], windows[cell])


def test_the_smallest_that_is_surely_good_enough():
    summary, windows = world({0.2: -0.01, 0.4: 0.0, 0.6: 0.005, 0.8: 0.5})
    found = choose(summary, windows, {}, "bytes", 0.02)
    assert [option.point["ratio"] for option in found.eligible] == [0.6, 0.4, 0.2]
    assert set(found.control.values()) == {"dense"}
    assert found.eligible[0].share == pytest.approx(0.4)
    said = " ".join(sentences(found, 0.02))
    assert "it holds there (this training only, chosen of 4 cuts)" in said
    assert [option.point["ratio"] for option in found.front][:2] == [0.8, 0.6]


def test_none_and_why():
    summary, windows = world({0.5: 0.1})
    found = choose(summary, windows, {}, "bytes", 0.01)
    assert not found.eligible
    assert "None: the closest, swe at 0.5, costs +0.1" in " ".join(sentences(found, 0.01))
    found = choose(summary, windows, {}, "flops", 0.5)
    assert "no cut is surely cheaper than dense" in " ".join(sentences(found, 0.5))


def test_what_is_timed_must_be_surely_faster():
    summary, windows = world({0.2: 0.0, 0.4: 0.0})
    timed = {
        f"swe-{ratio}-0": {
            "latency_p50_ms": 1.0,
            "dense_latency_p50_ms": 2.0,
            "saved_low": low,
            "only_masked": False,
        }
        for ratio, low in ((0.2, -1.0), (0.4, 1.0))
    }
    found = choose(summary, windows, timed, "latency", 0.05)
    assert [option.point["ratio"] for option in found.eligible] == [0.4]
    with pytest.raises(RunError, match="No row tells its latency"):
        choose(summary, windows, {}, "latency", 0.05)


def test_over_seeds_the_bound_is_of_seeds():
    summary, windows = world({0.4: 0.0}, seeds=(0, 1))
    option = choose(summary, windows, {}, "bytes", 10.0).eligible[0]
    means = []
    for seed in (0, 1):
        more = windows(f"swe-0.4-{seed}")[0]["nats"] - windows(f"dense{seed}")[0]["nats"]
        means.append(float(more[::2].sum()) / (32 * WINDOWS / 2))
    assert option.bound == pytest.approx(t_interval(means)[2])


def test_it_seldom_breaks_the_tolerance():
    """Cuts at and around what is allowed: by the bound few choices are truly worse than that."""
    truth = {0.2: 0.0, 0.4: 0.006, 0.6: 0.011, 0.8: 0.013}
    broken = by_mean = 0
    for dice in range(40):
        found = choose(*world(truth, dice=dice), {}, "bytes", 0.01)
        if found.eligible:
            broken += truth[found.eligible[0].point["ratio"]] > 0.01
        means = [o for o in (*found.eligible, *found.others) if worst(o.chosen_by)[0] <= 0.01]
        by_mean += truth[min(means, key=lambda o: o.share).point["ratio"]] > 0.01
    assert broken <= 4 < by_mean


def test_older_rows_are_told_of():
    summary, windows = world({0.4: 0.0})
    with pytest.raises(RunError, match="older version"):
        choose(
            summary,
            lambda of: [{n: each[n] for n in ("nats", "tokens")} for each in windows(of)],
            {},
            "bytes",
            1,
        )
    assert math.isfinite(choose(summary, windows, {}, "bytes", 1).eligible[0].bound)
