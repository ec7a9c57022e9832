"""What to ship: the cheapest cut that surely costs no more than one allows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swe_cli.controls import KIND_NAMES
from swe_cli.errors import RunError
from swe_cli.evaluation.loss import Measured
from swe_cli.evaluation.measure import paired_difference
from swe_cli.records import Interval
from swe_cli.report.against import Windows
from swe_cli.report.inference import pooled
from swe_cli.report.summary import Point, Summary, cut_of
from swe_cli.report.text import count

# What can be minimised, the column it is read from, and whether that is timed.
COSTS = {
    "bytes": "bytes_compressed",
    "flops": "flops_per_token",
    "latency": "latency_p50_ms",
    "energy": "joules_per_million_tokens",
}
TIMED = ("latency", "energy")
LOSSES = ("nats", "calibrated")


@dataclass(frozen=True, eq=False)
class Option:
    """A cut: its mean cost and ``share`` of dense's; ``cheaper``: surely, where it is timed.

    ``chosen_by``, ``held``: by loss (``LOSSES``), its paired differences to the best control on one
    half of the windows and on the other, nats per token.
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
        return worst(self.chosen_by)[1]


@dataclass(frozen=True)
class Recommendation:
    """``eligible``: options within the tolerance, the cheapest first; ``others``: the rest, the
    closest first. ``control``: the kind of the best control, by loss. ``seeds``: how many.
    """

    eligible: Sequence[Option]
    others: Sequence[Option]
    control: Mapping[str, str]
    seeds: int

    @property
    def front(self) -> Iterator[Option]:
        """Those than which none costs less and is surely as good: from the cheapest."""
        best = math.inf
        for option in sorted([*self.eligible, *self.others], key=lambda o: (o.share, o.bound)):
            if option.bound < best:
                best = option.bound
                yield option


def worst(differences: Mapping[str, Interval]) -> tuple[float, float]:
    """What is lost and what may be, raw or calibrated, whichever is more."""
    highs = (math.inf if of.high is None else of.high for of in differences.values())
    return max(of.mean for of in differences.values()), max(highs)


def choose(
    summary: Summary, windows: Windows, costs: Mapping[str, Mapping[str, Any]], by: str, most: float
) -> Recommendation:
    """Choose among all cuts of a summary by one half of the windows: every other one.

    ``windows``: of a cell's hash. ``costs``: what was timed, by hash. ``by``: of ``COSTS``.
    ``most``: what may be lost against the best control, which that half chooses, too; nats per
    token. Over several seeds bounds are of a t interval, over one of a bootstrap over windows.

    Raises RunError where there is no such cost, no control, or an older version measured less.
    """
    column = COSTS[by]
    seeds = sorted({seed for point in summary.cuts for seed in point["seeds"]})

    def halves(point: Point) -> list[list[Measured]]:
        """Its windows of each half, seed by seed."""
        found = [windows(point["cells"][seed]["config_hash"])[0] for seed in seeds]
        some = [{n: w for n, w in of.items() if not n.startswith("token_")} for of in found]
        return [[{n: w[half::2] for n, w in of.items()} for of in some] for half in (0, 1)]

    controls = {p["kind"]: p for p in summary.controls if set(seeds) <= set(p["seeds"])}
    if not controls:
        raise RunError("No control was measured at every seed.", "Type the same swe sweep again.")
    theirs = {kind: halves(point) for kind, point in controls.items()}
    if any("calibrated" not in of for chosen_by, _ in theirs.values() for of in chosen_by):
        why = "Some rows are of an older version, without a calibrated loss."
        raise RunError(why, "Type the same swe sweep with --refresh")

    def mean(kind: str, name: str) -> float:
        return math.fsum(of[name].sum() / of["tokens"].sum() for of in theirs[kind][0])

    best = {name: min(theirs, key=lambda kind: mean(kind, name)) for name in LOSSES}
    dense = _cost(controls["dense"], column, costs) if "dense" in controls else math.nan
    options = list[Option]()
    for point in summary.cuts:
        if point["failed"] or not set(seeds) <= set(point["seeds"]):
            continue
        cost, beside = (_cost(point, f"{of}{column}", costs) for of in ("", "dense_"))
        if math.isnan(cost):
            continue
        share = cost / (dense if math.isnan(beside) else beside)
        # What is timed must surely differ, and not by the noise of the very same products.
        faster = _cost(point, "saved_low", costs) > 0 and not _cost(point, "only_masked", costs)
        saves = share < 1 and (faster or by not in TIMED)
        held = list[dict[str, Interval]]()
        for half, mine in enumerate(halves(point)):
            pairs = {name: zip(mine, theirs[best[name]][half], strict=True) for name in LOSSES}
            found = {n: pooled([paired_difference(*p, n) for p in of]) for n, of in pairs.items()}
            held.append({name: Interval(*ends) for name, ends in found.items()})
        options.append(Option(point, cost, share, saves, *held))
    if not options:
        hint = "Type the same swe sweep with costs=measured" if by in TIMED else "Add --refresh"
        if any(not math.isnan(_cost(cut, "latency_p50_ms", costs)) for cut in summary.cuts):
            hint = "No counter was read. Say what the machine draws: energy.watts=…"
        raise RunError(f"No row tells its {by}.", hint)
    fits = [option for option in options if option.bound <= most and option.cheaper]
    eligible = sorted(fits, key=lambda option: (option.share, option.bound))
    others = sorted((o for o in options if o not in fits), key=lambda option: option.bound)
    return Recommendation(eligible, others, best, len(seeds))


def _cost(point: Point, column: str, costs: Mapping[str, Mapping[str, Any]]) -> float:
    rows = point["cells"].values()
    found = [costs.get(row["config_hash"], {}).get(column, row.get(column)) for row in rows]
    return math.nan if None in found else math.fsum(found) / len(found)


def sentences(found: Recommendation, most: float) -> Iterator[str]:
    """The choice, or none and why; in words. Windows are held out, trainings are not."""
    against = " and ".join(dict.fromkeys(KIND_NAMES[kind] for kind in found.control.values()))
    where = "this training only" if found.seeds == 1 else f"these {found.seeds} trainings"
    if found.eligible:
        option = found.eligible[0]
        loss, high = worst(option.held)
        held = "it holds there" if high <= most else "there it may cost more than that"
        cuts = count(len(found.eligible) + len(found.others), "cut")
        said = f"On the other half of the windows it costs {loss:+.3f} nats, at most {high:+.3f}, "
        said += f"against {against}: {held} ({where}, chosen of {cuts})."
        yield said.replace(" -", " −")
        return
    cheaper = [option for option in found.others if option.cheaper]
    if not cheaper:
        yield "None: no cut is surely cheaper than dense; a mask alone makes nothing faster."
        return
    closest = cheaper[0]
    cut, (loss, high) = cut_of(closest.point), worst(closest.chosen_by)
    yield (
        f"None: the closest, {closest.point['label']} at {cut}, costs {loss:+.3f} nats against "
        f"{against}, and may cost {high:+.3f}; {most:g} is allowed ({where}).".replace(" -", " −")
    )
