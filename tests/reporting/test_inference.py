"""p, q and what could be seen, against scipy's own tests."""

import math

import numpy as np
import pytest
from scipy.stats import false_discovery_control, nct, norm, t, ttest_1samp

from swe_cli.report.inference import (
    detectable,
    p_value,
    q_values,
    seeds_for,
    spreads,
    t_interval,
)


def test_the_p_of_a_t_interval_is_that_of_the_paired_t_test() -> None:
    differences = [-0.02, 0.01, -0.03, -0.015]
    p = p_value(*t_interval(differences), len(differences))
    assert p == pytest.approx(ttest_1samp(differences, 0).pvalue)


def test_the_p_of_one_seed_reads_its_interval_as_a_normal_one() -> None:
    assert p_value(0.1, 0.0, 0.2, 1) == pytest.approx(0.05, abs=1e-9)
    assert p_value(-0.3, -0.5, -0.1, 1) == pytest.approx(2 * norm.cdf(-0.3 / (0.2 / 1.959964)))


@pytest.mark.parametrize(
    ("ends", "p"),
    [
        ((0.0, 0.0, 0.0), None),  # the same model: nothing to test
        ((-0.5, -0.5, -0.5), 0.0),  # in every window alike
        ((0.1, None, None), None),
        ((None, None, None), None),
        ((math.inf, math.inf, math.inf), None),
        ((math.nan, math.nan, math.nan), None),
    ],
)
def test_what_has_no_spread_or_no_number(ends: tuple[float, ...], p: float | None) -> None:
    found = p_value(*ends, 1)
    assert math.isnan(found) if p is None else found == p


def test_q_values_leave_out_what_was_not_tested() -> None:
    found = q_values([0.01, math.nan, 0.04, 0.03])
    assert math.isnan(found[1])
    tested = [found[0], *found[2:]]
    assert tested == pytest.approx(list(false_discovery_control([0.01, 0.04, 0.03])))
    assert tested == pytest.approx([0.03, 0.04, 0.04])
    assert q_values([]) == []


@pytest.mark.parametrize("seeds", [2, 3, 5, 12, 200])
def test_what_is_detectable_is_found_four_times_of_five(seeds: int) -> None:
    sd, critical = 0.011, t.ppf(0.975, seeds - 1)
    shift = detectable(sd, seeds) / (sd / math.sqrt(seeds))
    power = nct.sf(critical, seeds - 1, shift)
    assert power == pytest.approx(0.8, abs=1e-4)


def test_three_seeds_see_little_and_twelve_a_hundredth() -> None:
    seen = [round(detectable(0.011, seeds), 3) for seeds in (3, 5, 12)]
    assert seen == [0.036, 0.019, 0.010]
    assert math.isnan(detectable(0.011, 1))


def test_the_fewest_seeds_that_see_it() -> None:
    assert seeds_for(0.011, 0.01) == 12
    assert detectable(0.011, 12) <= 0.01 < detectable(0.011, 11)
    assert seeds_for(0.0, 0.01) == seeds_for(1e-6, 0.01) == 2
    # Of many seeds the normal approximation holds: ((1.96 + 0.84) · 100)².
    assert seeds_for(1.0, 0.01) == pytest.approx(((1.959964 + 0.841621) * 100) ** 2, rel=1e-3)
    with pytest.raises(ValueError, match="No number of seeds"):
        seeds_for(0.011, 0.0)
    with pytest.raises(ValueError, match="No number of seeds"):
        seeds_for(math.nan, 0.01)


def test_mild_cuts_share_their_spread_and_hard_ones_do_not() -> None:
    differences = {0.3: [0.0, 0.02], 0.6: [0.0, 0.04, 0.02], 0.9: [0.0, 1.0], 0.5: [0.1]}
    found = spreads(differences)
    # Σ of squares 0.0002 and 0.0008 over 1 and 2 degrees of freedom.
    pooled = math.sqrt((0.0002 + 0.0008) / 3)
    assert [found[at] for at in (0.3, 0.6)] == pytest.approx([pooled, pooled])
    assert found[0.9] == pytest.approx(np.std([0.0, 1.0], ddof=1))
    assert math.isnan(found[0.5])
    assert math.isnan(spreads({0.3: [math.inf, 0.0]})[0.3])
