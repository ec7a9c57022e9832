import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from swe_cli.errors import SweError
from swe_cli.evaluation import measure
from swe_cli.evaluation.loss import mean_of
from swe_cli.evaluation.measure import mean_interval, paired_difference, share_interval

COUNT = 60


def windows(nats, tokens):
    return {"nats": nats, "tokens": tokens}


def loss_interval(measured):
    return mean_interval(measured["nats"], measured["tokens"])


def losses(seed=0, count=COUNT, shift=0.0):
    """Windows of 16 tokens, the last of 5, around 2 nats a token."""
    random = np.random.default_rng(seed)
    tokens = np.full(count, 16)
    tokens[-1] = 5
    return windows(tokens * (2.0 + shift + 0.3 * random.standard_normal(count)), tokens)


def of_scipy(nats, tokens):
    found = bootstrap(
        (nats, tokens),
        lambda n, t, axis: n.sum(axis=axis) / t.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=9_999,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    return found.confidence_interval


def test_the_interval_is_the_percentile_bootstrap_of_scipy():
    one = losses()
    found, expected = loss_interval(one), of_scipy(one["nats"], one["tokens"])
    width = expected.high - expected.low
    assert found.mean == mean_of(one, "nats")
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)


def test_a_difference_is_paired_window_by_window():
    dense = losses()
    noise = 0.01 * np.random.default_rng(3).standard_normal(COUNT)
    pruned = windows(dense["nats"] + dense["tokens"] * (0.05 + noise), dense["tokens"])
    found = paired_difference(pruned, dense)
    expected = of_scipy(pruned["nats"] - dense["nats"], dense["tokens"])
    assert found.mean == pytest.approx(mean_of(pruned, "nats") - mean_of(dense, "nats"))
    assert found.low == pytest.approx(expected.low, abs=0.0002)
    assert found.high == pytest.approx(expected.high, abs=0.0002)
    # Unpaired, the spread between windows would hide it.
    unpaired = loss_interval(pruned).high - loss_interval(pruned).low
    assert found.high - found.low < 0.1 * unpaired
    assert 0 < found.low < found.mean < found.high


def test_no_difference_is_exactly_zero():
    assert paired_difference(losses(), losses()) == (0.0, 0.0, 0.0)


def test_the_same_comparison_gives_the_same_interval():
    assert loss_interval(losses()) == loss_interval(losses())
    reverse = paired_difference(losses(1), losses(0))
    there = paired_difference(losses(0), losses(1))
    assert there.mean == -reverse.mean
    assert (there.low, there.high) == pytest.approx((-reverse.high, -reverse.low))


@pytest.mark.parametrize("pieces", [1, 2, 3, 57])
def test_resamples_may_be_drawn_in_pieces(pieces, monkeypatch):
    one = losses()
    expected = of_scipy(one["nats"], one["tokens"])
    width = expected.high - expected.low
    rows = -(-measure.RESAMPLES // pieces)
    monkeypatch.setattr(measure, "CHUNK_BYTES", rows * 8 * COUNT)
    drawn = [(counts.shape, counts.sum(axis=1)) for counts in measure._resamples(COUNT)]
    assert len(drawn) == pieces
    assert sum(shape[0] for shape, _ in drawn) == 9_999
    assert all((total == COUNT).all() for _, total in drawn)
    found = loss_interval(one)
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)


def test_pieces_are_not_the_same_resamples_again(monkeypatch):
    monkeypatch.setattr(measure, "CHUNK_BYTES", 100 * 8 * COUNT)
    first, second, *_ = measure._resamples(COUNT)
    assert not np.array_equal(first, second)


def test_even_windows_larger_than_a_piece_are_drawn(monkeypatch):
    monkeypatch.setattr(measure, "CHUNK_BYTES", 1)
    monkeypatch.setattr(measure, "RESAMPLES", 50)
    found = loss_interval(losses())
    assert found.low < found.mean < found.high


def test_the_last_window_counts_by_its_tokens():
    even = windows(np.array([16.0] * 9 + [50.0]), np.array([16] * 9 + [5]))
    assert loss_interval(even).mean == pytest.approx((9 * 16 + 50) / (9 * 16 + 5))


def test_below_two_windows_there_is_no_interval():
    one = windows(np.array([3.0]), np.array([2]))
    assert loss_interval(one) == paired_difference(one, windows(0 * one["nats"], one["tokens"]))
    assert loss_interval(one) == (1.5, None, None)
    assert share_interval(np.array([1.0]), np.array([4.0])) == (0.25, None, None)
    assert None not in loss_interval(losses(count=2))
    assert None not in share_interval(np.array([1.0, 0.0]), np.array([1.0, 1.0]))


def test_windows_of_unequal_length_keep_their_weight_in_every_resample():
    """Unweighted means of windows would lie elsewhere, and so would their interval."""
    random = np.random.default_rng(4)
    tokens = np.array([2, 500] * 20)
    nats = tokens * (np.where(tokens == 2, 9.0, 1.0) + 0.1 * random.standard_normal(40))
    pruned, dense = windows(nats, tokens), windows(np.zeros(40), tokens)
    for found in (loss_interval(pruned), paired_difference(pruned, dense)):
        expected = of_scipy(nats, tokens)
        width = expected.high - expected.low
        assert found.mean == pytest.approx(nats.sum() / tokens.sum())
        assert found.low == pytest.approx(expected.low, abs=0.05 * width)
        assert found.high == pytest.approx(expected.high, abs=0.05 * width)
        assert found.high < 2 < 4 < np.mean(nats / tokens)


@pytest.mark.parametrize(("k", "n"), [(0, 2), (2, 2), (0, 50), (40, 40)])
def test_of_nothing_and_of_all_the_interval_is_wilsons(k, n):
    found = share_interval(np.full(n, k / n), np.ones(n))
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert found == pytest.approx((k / n, expected.low, expected.high))
    assert found.high - found.low > 0


@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 30), (7, 20)])
def test_a_share_has_wilsons_interval(k, n):
    """Its bounds p solve (k/n − p)² = z² p (1 − p) / m, here m = n − 1: windows are a sample."""
    found = share_interval(np.arange(n) < k, np.ones(n))
    assert found.mean == k / n
    assert 0 < found.low < found.mean < found.high < 1
    for p in (found.low, found.high):
        assert (k / n - p) ** 2 / (p * (1 - p)) == pytest.approx(1.959964**2 / (n - 1))


def test_answers_about_one_window_count_for_less_than_as_many_windows():
    apart = share_interval(np.tile([1.0, 0.0], 50), np.ones(100))
    together = share_interval(np.tile([10.0, 0.0], 5), np.full(10, 10.0))
    assert apart.mean == together.mean == 0.5
    ten = share_interval(np.tile([1.0, 0.0], 5), np.ones(10))
    assert together == pytest.approx(ten)  # ten windows, whatever the number of questions
    assert together.high - together.low > 2.5 * (apart.high - apart.low)
    sure = share_interval(np.full(10, 10.0), np.full(10, 10.0))
    assert sure == pytest.approx(share_interval(np.ones(10), np.ones(10)))


def test_different_windows_are_not_compared():
    with pytest.raises(SweError, match="different windows"):
        paired_difference(losses(count=60), losses(count=61))
    shifted = losses()
    moved = windows(shifted["nats"], shifted["tokens"][::-1].copy())
    with pytest.raises(SweError, match="different windows"):
        paired_difference(moved, shifted)
