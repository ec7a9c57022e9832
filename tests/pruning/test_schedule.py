import pytest

from swe_cli.pruning.schedule import Schedule


def schedule(rounds=1, ramp="cubic", at_step=None):
    return Schedule(rounds=rounds, ramp=ramp, at_step=at_step)


def test_the_cubic_ramp_by_hand():
    # 1 − (1 − k/4)³, k = 1..4 (Zhu & Gupta 2018, from s₀ = 0).
    fractions = [schedule(4).fraction(k) for k in (1, 2, 3, 4)]
    assert fractions == [1 - 27 / 64, 1 - 1 / 8, 1 - 1 / 64, 1.0]


def test_the_linear_ramp_and_one_cut():
    assert [schedule(4, "linear").fraction(k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule().fraction(1) == 1.0


@pytest.mark.parametrize("steps", [0, 1, 7, 50])
@pytest.mark.parametrize("rounds", [1, 3, 5, 7])
def test_steps_between_cuts_sum_to_all_and_differ_by_one_at_most(rounds, steps):
    shares = [schedule(rounds).steps_of(k, steps) for k in range(1, rounds + 1)]
    assert sum(shares) == steps
    assert max(shares) - min(shares) <= 1
