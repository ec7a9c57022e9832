"""Alternating measurements: A B A B …, medians, and the ratio pair by pair."""

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    work()
    return clock() - started


def alternate(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Median seconds of each and the median of the paired ratios first / second.

    The order flips every round, so that neither always comes after the other. On a shared
    machine a ``clock`` of CPU time, ``time.process_time``, tells more.
    """
    pairs = []
    for number in range(rounds):
        if number % 2:
            b, a = seconds(second, clock), seconds(first, clock)
        else:
            a, b = seconds(first, clock), seconds(second, clock)
        pairs.append((a, b))
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )
