"""What to ship: the cheapest cut that surely costs no more than one allows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swe_cli.controls import KIND_NAMES
from swe_cli.errors import RunError
from swe_cli.evaluation.loss import Measured
from swe_cli.evaluation.measure import paired_difference
from swe_cli.records import Interval
from swe_cli.report.inference import pooled
from swe_cli.report.summary import Point, Summary

Windows = Callable[[str], Measured]
# What can be minimised, the column it is read from, and whether that is timed.
COSTS = {
    "bytes": "bytes_compressed",
    "flops": "flops_per_token",
    "latency": "latency_p50_ms",
    "energy": "joules_per_million_tokens",
}
TIMED = ("latency", "energy")
LOSSES = ("nats", "calibrated")


@dataclass(frozen=True)
class Option:
    """A cut, of all its seeds. ``cost``: mean over seeds; ``share``: of dense's; ``cheaper``:
    surely, where it is timed. ``chosen_by``: by loss (``LOSSES``), its paired differences to the
    best control on one half of the windows, nats per token; ``held``: on the other half.
    """

    point: Point
    cost: float
    share: float
    cheaper: bool
    chosen_by: Mapping[str, Interval]
    held: Mapping[str, Interval]

    @property
    def bound(self) -> float:
        """What it costs at most, raw or calibrated: upper end of a 95 % interval."""
        ends = (of.high for of in self.chosen_by.values())
        return max(math.inf if end is None or math.isnan(end) else end for end in ends)

    @property
    def mean(self) -> float:
        return max(of.mean for of in self.chosen_by.values())


@dataclass(frozen=True)
class Recommendation:
    """``eligible``: options within the tolerance, the cheapest first; ``others``: the rest, the
    closest first. ``control``: the kind of the best control, by loss.
    """

    eligible: Sequence[Option]
    others: Sequence[Option]
    control: Mapping[str, str]

    @property
    def front(self) -> Iterator[Option]:
        """Those than which none costs less and is surely as good: from the cheapest."""
        best = math.inf
        for option in sorted([*self.eligible, *self.others], key=lambda o: (o.share, o.bound)):
            if option.bound < best:
                best = option.bound
                yield option


def choose(
    summary: Summary, windows: Windows, costs: Mapping[str, Mapping[str, Any]], by: str, most: float
) -> Recommendation:
    """Choose among all cuts of a summary by one half of the windows: every other one.

    ``windows``: of a cell's hash. ``costs``: what was timed, by hash. ``by``: of ``COSTS``.
    ``most``: what may be lost against the best control, which that half chooses, too; nats per
    token. Over several seeds bounds are of a t interval, over one of a bootstrap over windows.

    Raises RunError where there is no such cost, no control, or an older version measured less.
    """
    column, seeds = COSTS[by], summary.seeds
    controls = {p["kind"]: p for p in summary.controls if set(seeds) <= set(p["seeds"])}
    if not controls:
        raise RunError("No control was measured at every seed.", "Type the same swe sweep again.")

    def losses(point: Point, half: int) -> dict[int, Measured]:
        found = {seed: windows(point["cells"][seed]["config_hash"]) for seed in seeds}
        return {seed: _half(of, half) for seed, of in found.items()}

    of_controls = [{k: losses(p, half) for k, p in controls.items()} for half in (0, 1)]
    if any("calibrated" not in of for kind in of_controls[0].values() for of in kind.values()):
        why = "Some rows are of an older version, without a calibrated loss."
        raise RunError(why, "Type the same swe sweep with --refresh")
    best = {
        name: min(of_controls[0], key=lambda kind: _mean(of_controls[0][kind], name))
        for name in LOSSES
    }

    def differences(point: Point, half: int) -> dict[str, Interval]:
        mine, theirs = losses(point, half), of_controls[half]
        found = dict[str, Interval]()
        for name in LOSSES:
            other = theirs[best[name]]
            mean, *ends = pooled([paired_difference(mine[s], other[s], name) for s in seeds])
            found[name] = Interval(math.nan if mean is None else mean, *ends)
        return found

    dense = _cost(controls["dense"], column, costs) if "dense" in controls else math.nan
    options, timed = list[Option](), False
    for point in summary.cuts:
        if point["failed"] or not set(seeds) <= set(point["seeds"]):
            continue
        cost = _cost(point, column, costs)
        if math.isnan(cost):
            continue
        timed, against = True, _cost(point, f"dense_{column}", costs)
        share = cost / (dense if math.isnan(against) else against)
        saves = _cost(point, "saved_low", costs) > 0 if by in TIMED else share < 1
        of_halves = differences(point, 0), differences(point, 1)
        options.append(Option(point, cost, share, saves, *of_halves))
    if not timed:
        hint = "Type the same swe sweep with costs=measured" if by in TIMED else "Add --refresh"
        raise RunError(f"No row tells its {by}.", hint)
    fits = [option for option in options if option.bound <= most and option.cheaper]
    eligible = sorted(fits, key=lambda option: (option.share, option.bound))
    others = sorted((o for o in options if o not in fits), key=lambda option: option.bound)
    return Recommendation(eligible, others, best)


def _half(measured: Measured, half: int) -> Measured:
    return {name: of[half::2] for name, of in measured.items() if not name.startswith("token_")}


def _mean(of_seeds: Mapping[int, Measured], name: str) -> float:
    means = [float(of[name].sum() / of["tokens"].sum()) for of in of_seeds.values()]
    return math.fsum(means) / len(means)


def _cost(point: Point, column: str, costs: Mapping[str, Mapping[str, Any]]) -> float:
    rows = point["cells"].values()
    found = [costs.get(row["config_hash"], {}).get(column, row.get(column)) for row in rows]
    known = [float(value) for value in found if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(found) else math.nan


def sentences(found: Recommendation, most: float, seeds: int) -> Iterator[str]:
    """The choice, or none and why; in words."""
    against = " and ".join(dict.fromkeys(KIND_NAMES[kind] for kind in found.control.values()))
    where = "this training only" if seeds == 1 else f"{seeds} seeds"
    if found.eligible:
        option = found.eligible[0]
        loss, high = max((of.mean, of.high or math.nan) for of in option.held.values())
        held = "it holds there" if high <= most else "there it may cost more than that"
        yield (
            f"On the other half of the windows it costs {loss:+.3f} nats, at most {high:+.3f}, "
            f"against {against}: {held} ({where})."
        )
        return
    cheaper = [option for option in found.others if option.cheaper]
    if not cheaper:
        yield "None: no cut is surely cheaper than dense; a mask alone makes nothing faster."
        return
    closest = cheaper[0]
    yield (
        f"None: the closest, {closest.point['label']}, costs {closest.mean:+.3f} nats against "
        f"{against}, and may cost {closest.bound:+.3f}; {most:g} is allowed ({where})."
    )
