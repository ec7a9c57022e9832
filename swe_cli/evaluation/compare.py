"""Paired statistics over evaluation windows."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from swe_cli.errors import SweError
from swe_cli.evaluation.loss import Measured
from swe_cli.records import Interval

RESAMPLES = 9_999
FEWEST_WINDOWS = 2  # of one window, nothing tells how much another would differ
NORMAL_QUANTILE = 1.959963984540054  # of 97.5 %
CHUNK_BYTES = 64 * 2**20  # resampled window counts are drawn in pieces of at most this size


def paired_difference(
    measured: Measured, reference: Measured, of: str = "nats", per: str = "tokens"
) -> Interval:
    """``of`` less that of a reference, per token or question, paired window by window.

    Raises SweError where the two were not evaluated on the same windows.
    """
    if not np.array_equal(measured[per], reference[per]):
        raise SweError("Two models evaluated on different windows cannot be compared.")
    return mean_interval(measured[of] - reference[of], measured[per])


def mean_interval(sums: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> Interval:
    """Σ sums / Σ counts over windows (N,) with its 95 % percentile bootstrap interval.

    Efron & Tibshirani 1993, ch. 13; windows are resampled whole, so what they count (tokens,
    questions) keeps its weight. Zeros give [0, 0]; fewer than two windows no interval.

    Every comparison over the same number of windows uses the same resamples: rows of a table are
    compared on equal terms, and a resample becomes one row of a matrix product.
    """
    count = len(sums)
    mean = float(sums.sum() / counts.sum())
    if count < FEWEST_WINDOWS:
        return Interval(mean)
    means = np.concatenate([(drawn @ sums) / (drawn @ counts) for drawn in _resamples(count)])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def share_interval(hits: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> Interval:
    """Σ hits / Σ counts over windows (N,) with its 95 % Wilson interval (Wilson 1927).

    Unlike a bootstrap it has a width where nothing, or everything, is a hit. Answers about one
    window are not independent: n is divided by their design effect (Kish 1965), which is taken to
    be 1 where it would be smaller; with no or only hits n is the number of windows.
    """
    windows, n = len(hits), float(counts.sum())
    share = float(hits.sum()) / n
    if windows < FEWEST_WINDOWS:
        return Interval(share)
    spread = share * (1 - share)
    residuals = hits - share * counts
    variance = float(residuals @ residuals) / n**2 * windows / (windows - 1)
    if spread == 0:
        n = float(windows)
    elif variance > 0:
        n = min(n, spread / variance)
    z = NORMAL_QUANTILE**2 / n
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(NORMAL_QUANTILE**2 * (spread + z / 4) / n) / (1 + z)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def _resamples(count: int) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    rows = max(1, CHUNK_BYTES // (8 * count))
    starts = range(0, RESAMPLES, rows)
    draw = _draw if len(starts) <= 2 else _draw.__wrapped__  # more would not be kept
    for start in starts:
        yield draw(count, min(rows, RESAMPLES - start), start)


@lru_cache(maxsize=4)
def _draw(count: int, rows: int, start: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How often each window is drawn in each resample: (rows, count)."""
    generator = np.random.default_rng([count, start])
    picks = generator.integers(count, size=(rows, count))
    picks += np.arange(rows)[:, None] * count
    counts = np.bincount(picks.ravel(), minlength=rows * count)
    return counts.reshape(rows, count).astype(np.float64)
