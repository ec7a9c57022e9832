from dataclasses import replace

import pytest

from swe_cli.report.answer import break_point, break_range, holding
from swe_cli.report.quantities import LOSS

from .toys import curve, pruned, upper_bounds
from .toys import only as line

TO_DENSE, TO_RECOVERED, BEFORE_RECOVERY, _ = holding().values()


def test_the_largest_ratio_below_the_first_that_exceeds() -> None:
    # 0.4 is over, so that 0.5, which is fine again, does not count.
    toy = line(upper_bounds({0.2: -0.02, 0.3: 0.009, 0.4: 0.011, 0.5: -0.05, 0.6: 0.2}))
    assert break_point(toy, TO_DENSE) == "0.3"


def test_exactly_the_tolerance_still_holds() -> None:
    toy = line(upper_bounds({0.2: 0.01, 0.3: 0.02}))
    assert break_point(toy, TO_DENSE) == "0.2"
    stricter, laxer = (replace(LOSS, tolerance=nats) for nats in (0.009, 0.03))
    assert break_point(toy, stricter) == "<0.2"
    assert break_point(toy, laxer) == "≥0.3"


def test_each_reference_has_its_own() -> None:
    toy = line(upper_bounds({0.2: -0.02, 0.3: 0.0}))
    assert break_point(toy, TO_DENSE) == "≥0.3"
    assert break_point(toy, TO_RECOVERED) == "0.2"
    assert break_point(toy, BEFORE_RECOVERY) == "–"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_no_number_is_a_failure_and_a_missing_bound_is_passed_over(loss: float) -> None:
    rows = [pruned(0.1, 2.0, delta_high=0.0), pruned(0.2, 2.0, delta_low=None, delta_high=None)]
    assert break_point(line(rows), TO_DENSE) == "≥0.1"
    toy = line([*rows, pruned(0.3, loss)])
    assert break_point(toy, TO_DENSE) == "0.1"


def test_before_recovery_reads_its_own_columns() -> None:
    rows = [pruned(0.1, 2.0, delta_before_recovery_nats=0.5, delta_before_recovery_high=0.6)]
    assert break_point(line(rows), BEFORE_RECOVERY) == "<0.1"


def test_rates_are_placed_by_the_sparsity_they_achieved() -> None:
    rows = [
        pruned(None, 2.0, rate=1.0, sparsity=0.4, delta_high=0.0),
        pruned(None, 2.0, rate=1.575, sparsity=0.6012, delta_high=0.5),
    ]
    assert break_point(line(rows), TO_DENSE) == "40.0%"


def test_what_holds_at_every_cut_tried_at_none_and_what_was_not_compared() -> None:
    # Deltas + 0.005: -0.005, -0.065, -0.155, 0.125, …; against dense recovered, 0.02 more.
    assert break_point(line(curve()), TO_DENSE) == "0.6"
    assert break_point(line(curve()), TO_RECOVERED) == "<0.1"
    assert break_point(line([pruned(0.625, 2.0)]), TO_DENSE) == "≥0.625"
    bare = pruned(0.1, 2.0, delta_low=None, delta_high=None, delta_nats=None)
    assert break_point(line([bare]), TO_DENSE) == "–"


def test_a_cut_that_failed_does_not_hold() -> None:
    rows = [pruned(r, 2.0, delta_high=0.0) for r in (0.1, 0.3)]
    failed = pruned(0.2, 2.0, delta_high=0.0, status="failed", error="not finite")
    assert break_point(line([*rows, failed]), TO_DENSE) == "0.1"


def test_a_tolerance_is_a_parameter() -> None:
    toy = line(upper_bounds({0.2: 0.01, 0.3: 0.02}))
    found = [break_point(toy, holding(nats)["dense"]) for nats in (0.005, 0.01, 0.03)]
    assert found == ["<0.2", "0.2", "≥0.3"]


def test_over_seeds_the_bound_is_of_t_and_single_seeds_give_the_range() -> None:
    # At 0.2 the seeds differ by 0.02: t(0.975, 1) · 0.01 is far above what a cut may cost.
    bounds = [({0.1: -0.10, 0.2: -0.02}, -0.12), ({0.1: -0.10, 0.2: 0.02}, -0.10)]
    rows = [
        pruned(ratio, 2.0, seed=seed, delta_high=high, delta_nats=-0.1 if ratio < 0.2 else delta)
        for seed, (highs, delta) in enumerate(bounds)
        for ratio, high in highs.items()
    ]
    toy = line(rows)
    assert break_point(toy, TO_DENSE) == "0.1"
    assert break_range(toy, TO_DENSE) == "0.1–≥0.2"
    assert break_range(line(curve()), TO_DENSE) == ""
    same = [row for seed in range(2) for row in curve(seed=seed)]
    assert break_range(line(same), TO_DENSE) == "0.6"
