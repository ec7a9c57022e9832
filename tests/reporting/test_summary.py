from dataclasses import replace

import pytest

from swe_cli.errors import SweError
from swe_cli.reporting.aggregate import split_by_protocol, summarise
from swe_cli.reporting.estimate import Estimate, estimate

from .toys import controls, curve, pruned


def test_three_seeds_give_the_t_interval_of_the_tables() -> None:
    # Mean 2, s = 1, t(0.975, 2) = 4.30265: half width 4.30265 / √3 = 2.48414.
    found = estimate([(1.0, 0.9, 1.1), (2.0, 1.9, 2.1), (3.0, 2.9, 3.1)])
    assert found is not None
    assert found.interval == "seeds"
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, -0.48414, 4.48414), abs=1e-5)


def test_one_seed_keeps_its_interval_over_windows() -> None:
    assert estimate([(2.0, 1.9, 2.2), (None, None, None)]) == Estimate(2.0, 1.9, 2.2, "windows")
    assert estimate([(None, None, None)]) is None


def test_an_infinite_loss_stays_infinite() -> None:
    found = estimate([(1.0, None, None), (float("inf"), None, None)])
    assert found is not None
    assert found.mean == found.high == float("inf")


def test_lines_share_everything_but_seed_and_ratio() -> None:
    rows = [
        *curve("swe"),
        *curve("swe", seed=1, shift=0.02, training="other"),
        *curve("swe", base="averaged"),
        *curve("random"),
    ]
    lines = summarise([*controls(), *rows]).lines
    assert [line.label for line in lines] == [
        "random (base final)",
        "swe (base averaged)",
        "swe (base final)",
    ]
    point = lines[2].points[0]
    assert point.seeds == (0, 1)
    assert point.loss is not None
    assert point.loss.mean == pytest.approx(2.07)
    assert point.loss.interval == "seeds"
    assert lines[1].points[0].loss == Estimate(2.06, 2.055, 2.065, "windows")


def test_axes_make_lines_and_rates_make_their_own() -> None:
    rows = [
        *curve(axes={"tracking.every": 1}),
        *curve(axes={"tracking.every": 10}),
        pruned(None, 1.9, rate=1.575, sparsity=0.601, axes={"tracking.every": 1}),
    ]
    lines = summarise(rows).lines
    assert {line.label for line in lines} == {
        "swe (by ratio, tracking.every 1)",
        "swe (by ratio, tracking.every 10)",
        "swe (by rate, tracking.every 1)",
    }
    assert [line.points[0].x for line in lines if line.by == "rate"] == [0.601]


def test_chance_overlap_and_lowest_point() -> None:
    (line,) = summarise(curve()).lines
    assert line.best is line.points[2]
    assert line.points[2].chance == pytest.approx(0.6 / 1.4)
    assert line.points[2].jaccard == 0.5


def test_controls_are_averaged_in_order_and_not_repeated_per_axis() -> None:
    repeated = [*controls(), *controls(1)]
    summary = summarise([*repeated, *curve(axes={"tracking.every": 1})])
    assert [control.label for control in summary.controls] == [
        "dense",
        "dense best",
        "dense recovered",
        "dense averaged",
    ]
    assert summary.controls[0].point.seeds == (0, 1)


def test_an_axis_is_said_only_of_the_controls_that_it_changes() -> None:
    ten = [replace(row, axes={"every": 10}) for row in controls()]
    ten[3] = replace(ten[3], loss_nats=1.9)
    one = [replace(row, axes={"every": 1}) for row in controls()]
    assert [control.label for control in summarise([*one, *ten]).controls] == [
        "dense",
        "dense best",
        "dense recovered",
        "dense averaged (every 1)",
        "dense averaged (every 10)",
    ]


def test_a_cut_that_failed_at_one_seed_has_no_mean_over_the_others() -> None:
    failed = pruned(0.9, 99.0, status="failed", error="boom", seed=1)
    summary = summarise([*curve(), failed])
    assert summary.failed == (failed,)
    last = summary.lines[0].points[-1]
    assert last.failed
    assert last.seeds == (0,)
    assert last.loss is None
    assert [point.failed for point in summary.lines[0].points[:-1]] == [False] * 4


def test_two_protocols_are_refused_and_can_be_split() -> None:
    failed = pruned(0.5, 2.0, status="failed", fingerprint="")
    rows = [*curve(), *curve(fingerprint="f2"), failed]
    with pytest.raises(SweError, match="2 protocols"):
        summarise(rows)
    groups = split_by_protocol(rows)
    assert [summarise(group).fingerprint for group in groups] == ["f1", "f2"]
    assert [len(summarise(group).failed) for group in groups] == [1, 0]


def test_models_are_not_mixed_and_nothing_is_an_error() -> None:
    with pytest.raises(SweError, match="2 models"):
        summarise([*curve(), *curve(model="gpt_tiny")])
    with pytest.raises(SweError, match="no row"):
        summarise([])


def test_two_different_rows_for_one_seed_are_refused() -> None:
    with pytest.raises(SweError, match="no column shows"):
        summarise([pruned(0.1, 2.0), pruned(0.1, 2.1, config_hash="other")])
    assert summarise([pruned(0.1, 2.0), pruned(0.1, 2.0)]).lines[0].points[0].seeds == (0,)


def test_the_band_is_the_paired_interval_around_the_loss() -> None:
    rows = [*controls(), pruned(0.5, 1.9, delta_nats=-0.2, delta_low=-0.23, delta_high=-0.18)]
    (line,) = summarise(rows).lines
    assert line.points[0].band == pytest.approx((1.87, 1.92))


def test_a_cut_stands_where_it_got_where_a_ratio_is_of_something_else():
    """Half of the heads is not half of the weights; a weight or two of a tiny model is rounding."""
    heads = replace(pruned(0.5, 2.1), sparsity=1 / 6, pattern="head")
    (line,) = summarise([heads]).lines
    assert [point.x for point in line.points] == [0.167]
    (line,) = summarise([replace(pruned(0.5, 2.1), sparsity=0.4998)]).lines
    assert [point.x for point in line.points] == [0.5]
