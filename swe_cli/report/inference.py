"""What the seeds at hand can tell: p values, q values, and what they could have seen."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit  # scipy.stats takes half a second to import

from swe_cli.records import Interval

# A difference and its interval, as columns.
DIFFERENCE = ("difference_nats", "difference_low", "difference_high")
POWER, LEVEL = 0.8, 0.05
MILD = 0.6  # up to this ratio differences spread alike, and their spread is pooled
MOST_SEEDS = 10**6


def p_value(mean: float | None, low: float | None, high: float | None, seeds: int) -> float:
    """Two-sided p of no difference, from its 95 % interval; NaN where there is none, or no spread.

    Over seeds, whose interval is a t interval, it is that of the paired t test. Of one seed the
    interval is a bootstrap's over windows; its half width is taken for 1.96 standard errors.
    """
    if mean is None or low is None or high is None or not math.isfinite(high - low):
        return math.nan
    if low == high:  # of counts seeds may agree by chance, which is no spread of 0
        return 0.0 if mean and seeds == 1 else math.nan
    freedom = seeds - 1 if seeds > 1 else math.inf
    error = (high - low) / 2 / float(stdtrit(freedom, 1 - LEVEL / 2))
    return 2 * float(stdtr(freedom, -abs(mean) / error))


def q_values(p: Sequence[float]) -> list[float]:
    """Of every p the share of false ones among those as small (Benjamini & Hochberg 1995).

    NaN, which was not tested, stays NaN and counts for nothing.
    """
    from scipy.stats import false_discovery_control

    q = np.array(p, dtype=float)
    tested = ~np.isnan(q)
    q[tested] = false_discovery_control(q[tested])
    return list(q)


def detectable(sd: float, seeds: int, level: float = LEVEL) -> float:
    """The difference that a paired t test over so many seeds finds four times of five.

    ``sd``: of the differences, over seeds; two-sided at ``level``. NaN of fewer than two seeds.
    """
    if seeds < 2:
        return math.nan
    critical = float(stdtrit(seeds - 1, 1 - level / 2))
    return sd / math.sqrt(seeds) * float(nctdtrinc(seeds - 1, 1 - POWER, critical))


def seeds_for(sd: float, difference: float, level: float = LEVEL) -> int:
    """The fewest seeds that could see a ``difference``, if differences spread by ``sd``.

    At least 2, at most a million. Raises ValueError for a difference or a spread that is none.
    """
    if not (difference > 0 and sd >= 0):
        raise ValueError(f"No number of seeds sees {difference} where the spread is {sd}.")
    counts = range(2, MOST_SEEDS)
    return 2 + bisect_left(counts, True, key=lambda n: detectable(sd, n, level) <= difference)


def spreads(differences: Mapping[float, Sequence[float]]) -> dict[float, float]:
    """The SD over seeds of a line's paired differences, cut by cut, from their values by ratio.

    Ratios up to ``MILD`` share theirs, pooled, since that of three seeds is mostly noise; harder
    cuts spread more, each for itself. NaN of one seed and of what is not finite.
    """
    some = {at: of for at, of in differences.items() if len(of) > 1 and np.isfinite(of).all()}
    variances = {at: float(np.var(of, ddof=1)) for at, of in some.items()}
    mild = [at for at in some if at <= MILD]
    if freedom := sum(len(some[at]) - 1 for at in mild):
        pooled = sum((len(some[at]) - 1) * variances[at] for at in mild) / freedom
        variances |= dict.fromkeys(mild, pooled)
    return {at: math.sqrt(variances.get(at, math.nan)) for at in differences}


def pooled(intervals: Sequence[Interval]) -> tuple[Any, Any, Any]:
    """Mean, low and high over seeds, of one interval each; None where nothing is known.

    One seed keeps its interval over windows, or none; several get ``t_interval``.
    """
    if len(intervals) < 2:
        return intervals[0] if intervals else (None, None, None)
    return t_interval([of.mean for of in intervals])


def t_interval(means: Sequence[float]) -> tuple[float, float, float]:
    """The mean over several seeds and its 95 % interval, ``mean ± t(0.975, n - 1) · s / √n``.

    Student's t, since a bootstrap over three seeds would cover only 76 %. What is not finite has no
    width; of one seed the interval is NaN.
    """
    n = len(means)
    mean = math.fsum(means) / n
    if n < 2:
        return mean, math.nan, math.nan
    if not math.isfinite(mean):
        return mean, mean, mean
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in means) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


def paired(
    differences: Mapping[float, Sequence[Interval]], level: float = LEVEL
) -> Iterator[dict[str, Any]]:
    """What is known of a line's paired differences, cut by cut, from those of every seed by ratio.

    ``seeds``: how many; ``DIFFERENCE``: as ``pooled``; ``p``; ``sd_nats``: as ``spreads``;
    ``detectable_nats``: at ``level``.
    """
    sds = spreads({at: [each.mean for each in of] for at, of in differences.items()})
    for at, of in differences.items():
        n, ends = len(of), pooled(of)
        known = dict(zip(DIFFERENCE, ends, strict=True))
        seen = {"sd_nats": sds[at], "detectable_nats": detectable(sds[at], n, level)}
        yield {"seeds": n, **known, "p": p_value(*ends, n), **seen}
