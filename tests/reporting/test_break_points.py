from dataclasses import replace

import pytest

from swe_cli.report.quantities import BEFORE_RECOVERY, LOSS, TO_RECOVERED
from swe_cli.report.summary import BreakPoint, break_point, sentence

from .toys import curve, pruned, upper_bounds
from .toys import only as line


def test_the_largest_ratio_below_the_first_that_exceeds() -> None:
    # 0.4 is over, so that 0.5, which is fine again, does not count.
    toy = line(upper_bounds({0.2: -0.02, 0.3: 0.009, 0.4: 0.011, 0.5: -0.05, 0.6: 0.2}))
    assert break_point(toy) == BreakPoint("found", 0.3, 0.4)


def test_exactly_the_tolerance_still_holds() -> None:
    toy = line(upper_bounds({0.2: 0.01, 0.3: 0.02}))
    assert break_point(toy) == BreakPoint("found", 0.2, 0.3)
    stricter, laxer = (replace(LOSS, tolerance=nats) for nats in (0.009, 0.03))
    assert break_point(toy, quantity=stricter) == BreakPoint("at_once", None, 0.2)
    assert break_point(toy, quantity=laxer) == BreakPoint("not_reached", 0.3)


def test_each_reference_has_its_own() -> None:
    toy = line(upper_bounds({0.2: -0.02, 0.3: 0.0}))
    assert break_point(toy) == BreakPoint("not_reached", 0.3)
    assert break_point(toy, TO_RECOVERED) == BreakPoint("found", 0.2, 0.3)
    assert break_point(toy, BEFORE_RECOVERY) == BreakPoint("unknown")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_no_number_is_a_failure_and_a_missing_bound_is_passed_over(loss: float) -> None:
    rows = [pruned(0.1, 2.0, delta_high=0.0), pruned(0.2, 2.0, delta_low=None, delta_high=None)]
    assert break_point(line(rows)) == BreakPoint("not_reached", 0.1)
    toy = line([*rows, pruned(0.3, loss)])
    assert break_point(toy) == BreakPoint("found", 0.1, 0.3)


def test_before_recovery_reads_its_own_columns() -> None:
    rows = [pruned(0.1, 2.0, delta_before_recovery_nats=0.5, delta_before_recovery_high=0.6)]
    assert break_point(line(rows), BEFORE_RECOVERY) == BreakPoint("at_once", None, 0.1)


def test_rates_are_placed_by_the_sparsity_they_achieved() -> None:
    rows = [
        pruned(None, 2.0, rate=1.0, sparsity=0.4, delta_high=0.0),
        pruned(None, 2.0, rate=1.575, sparsity=0.6012, delta_high=0.5),
    ]
    assert break_point(line(rows)) == BreakPoint("found", 0.4, 0.6012)
    assert "holds to 40.0% against dense" in sentence(line(rows))


def test_sentences() -> None:
    # Deltas + 0.005: -0.005, -0.065, -0.155, 0.125, …; against dense recovered, 0.02 more.
    assert sentence(line(curve())) == (
        "swe holds to 60% against dense, and fails already at 10% against dense recovered; "
        "its lowest loss is 1.9100 [1.9050, 1.9150] at 60%."
    )
    assert "holds at every cut tried against dense (not reached up to 62.5%)" in sentence(
        line([pruned(0.625, 2.0)])
    )
    bare = pruned(0.1, 2.0, delta_nats=None, delta_recovered_nats=None)
    assert sentence(line([bare])).startswith("swe was not compared with dense; its lowest loss")


def test_break_points_in_a_table_are_short() -> None:
    assert break_point(line(curve())).short() == "60%"
    assert break_point(line(curve()), TO_RECOVERED).short() == "<10%"
    assert break_point(line([pruned(0.625, 2.0)])).short() == "≥62.5%"
    assert BreakPoint("unknown").short() == "–"


def test_a_cut_that_failed_does_not_hold() -> None:
    rows = [pruned(r, 2.0, delta_high=0.0) for r in (0.1, 0.3)]
    failed = pruned(0.2, 2.0, delta_high=0.0, status="failed", error="not finite")
    assert break_point(line([*rows, failed])) == BreakPoint("found", 0.1, 0.2)
