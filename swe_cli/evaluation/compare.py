"""Paired statistics over evaluation windows."""

from functools import lru_cache
from typing import Any

import numpy as np

from swe_cli.contracts import WindowLosses
from swe_cli.errors import SweError
from swe_cli.records import Interval

RESAMPLES = 9_999
CHUNK_BYTES = 64 * 2**20  # resampled window counts are drawn in pieces of at most this size


def loss_interval(losses: WindowLosses) -> Interval:
    """Mean loss in nats per token with a 95 % percentile bootstrap over windows."""
    return mean_interval(losses.nats, losses.tokens)


def paired_difference(losses: WindowLosses, reference: WindowLosses) -> Interval:
    """Mean of ``losses − reference`` in nats per token, window by window, with its 95 % interval.

    Raises SweError where the two were not evaluated on the same windows.
    """
    if not np.array_equal(losses.tokens, reference.tokens):
        raise SweError("Two models evaluated on different windows cannot be compared.")
    return mean_interval(losses.nats - reference.nats, losses.tokens)


def mean_interval(sums: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> Interval:
    """Σ sums / Σ counts over windows (N,) with its 95 % percentile bootstrap interval.

    Efron & Tibshirani 1993, ch. 13; windows are resampled whole, so what they count (tokens,
    questions) keeps its weight. Zeros give [0, 0].

    Every comparison over the same number of windows uses the same resamples: rows of a table are
    compared on equal terms, and a resample becomes one row of a matrix product.
    """
    count = len(sums)
    means = np.concatenate(
        [(drawn @ sums) / (drawn @ counts) for drawn in _resamples(count, RESAMPLES)]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def _resamples(count: int, resamples: int) -> Any:
    rows = max(1, CHUNK_BYTES // (8 * count))
    pieces = range(0, resamples, rows)
    if len(pieces) <= 2:
        return [_drawn(count, min(rows, resamples - start), start) for start in pieces]
    return (_draw(count, min(rows, resamples - start), start) for start in pieces)


def _draw(count: int, rows: int, start: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How often each window is drawn in each resample: (rows, count)."""
    generator = np.random.default_rng([count, start])
    picks = generator.integers(count, size=(rows, count))
    picks += np.arange(rows)[:, None] * count
    counts = np.bincount(picks.ravel(), minlength=rows * count)
    return counts.reshape(rows, count).astype(np.float64)


_drawn = lru_cache(maxsize=4)(_draw)
