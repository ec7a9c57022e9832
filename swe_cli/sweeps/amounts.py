"""How much is cut, and by what: what may be said together, and what of it is identity."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swe_cli.compose import Composed, ConfigRoot, Part, default_part
from swe_cli.contracts import (
    DrawnCriterion,
    LayerwiseCriterion,
    RateAllocation,
    StandInAllocation,
    UnitPattern,
)
from swe_cli.errors import PruningError, UsageError
from swe_cli.pruning.cut import check_needs, recorded_needs
from swe_cli.pruning.schedule import Schedule
from swe_cli.sweeps.build import roles_of

CUT_GROUPS = ("criterion", "allocation", "pattern", "schedule", "recovery", "transform")
CALIBRATION = "calibration"
# What only masks have: a transform takes none of it.
OF_MASKS = (
    "criterion",
    "allocation",
    "pattern",
    "schedule",
    "calibration",
    "ratio",
    "rate",
    "fuse",
)


def settled(composed: Composed, root: ConfigRoot) -> Composed:
    """The same with the allocation that is meant in place of a word that stands for it."""
    allocation = composed["allocation"].build()
    if not isinstance(allocation, StandInAllocation):
        return composed
    meant = allocation.stands_for(composed["criterion"].build())
    parts = {**composed.parts, "allocation": default_part("allocation", meant, root)}
    return replace(composed, parts=parts)


def check_cut(
    composed: Composed,
    root: ConfigRoot,
    typed: Collection[str] = (),
    swept: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse, before any work, what cannot be said together. Raises UsageError.

    Exactly one of ratio and rate says how much is cut, unless the criterion, the pattern or a
    transform says it. ``typed``: keys that the user gave; ``swept``: those among them, or by
    default, that are axes, with their values: a criterion that takes no ratio has one cell on an
    axis of ratios.
    """
    swept = swept or {}
    for group in (*CUT_GROUPS, CALIBRATION, "evaluation"):
        composed[group].build()
    if composed["transform"].build() is not None:
        _check_transform(composed, typed, swept)
    elif isinstance(composed["criterion"].build(), DrawnCriterion):
        _check_drawn(composed, typed, swept)
    else:
        _check_amount(composed, swept)
        _check_consulted(composed, root)
    _check_schedule(composed)


def _check_consulted(composed: Composed, root: ConfigRoot) -> None:
    asked = _asked(composed)
    for name in asked.consults if asked is not None else ():
        if isinstance(default_part("criterion", name, root).build(), DrawnCriterion):
            raise UsageError(
                f"allocation={composed['allocation'].name} asks for a ranking, and criterion="
                f"{name} draws its masks.",
                "Name one that scores: allocation.criterion=swe",
            )


def _check_amount(composed: Composed, swept: Mapping[str, Sequence[str]]) -> None:
    ratio, rate = composed.values["ratio"], composed.values["rate"]
    fixed = composed["pattern"].build().ratio
    if fixed is not None:
        given = {"ratio": ratio if ratio != fixed else None, "rate": rate}
        if any(value is not None and key not in swept for key, value in given.items()):
            raise UsageError(
                f"pattern={composed['pattern'].name} cuts {fixed:g} of every row, no other amount.",
                f"Write ratio={fixed:g}, or choose another pattern.",
            )
        return
    if (ratio is None) == (rate is None):
        raise UsageError(
            "Say how much to cut: a ratio or a rate, not both.", "For example: ratio=0.5"
        )
    if rate is not None and not isinstance(composed["allocation"].build(), RateAllocation):
        raise UsageError(
            "A rate is a multiple of a standard deviation, which "
            f"allocation={composed['allocation'].name} does not know.",
            "Add allocation=sigma, or give a ratio.",
        )


def _check_drawn(
    composed: Composed, typed: Collection[str], swept: Mapping[str, Sequence[str]]
) -> None:
    if "criterion" in swept:
        return  # what is typed is for the others of the axis
    name = composed["criterion"].name
    for key in ("ratio", "rate"):
        if composed.values[key] is not None and key not in swept:
            raise UsageError(
                f"criterion={name} finds its own sparsity; it takes no {key}.",
                f"Leave {key} out, or choose another criterion. More rounds cut more: "
                "schedule=iterative",
            )
    for key in ("allocation", "pattern"):
        if key in typed and key not in swept:
            raise UsageError(
                f"criterion={name} draws its own masks; it takes no {key}.", f"Leave {key} out."
            )


def _check_transform(
    composed: Composed, typed: Collection[str], swept: Mapping[str, Sequence[str]]
) -> None:
    if "transform=none" in swept.get("transform", ()):
        return  # beside cells with masks, whose settings are typed for them
    for key in typed:
        if key.partition(".")[0] in OF_MASKS:
            raise UsageError(
                f"transform={composed['transform'].name} rewrites matrices and cuts nothing, so "
                f"{key} has no meaning beside it.",
                f"Leave {key} out, or write transform=none",
            )


def _check_schedule(composed: Composed) -> None:
    schedule: Schedule = composed["schedule"].build()
    named = f"schedule={composed['schedule'].name}"
    if schedule.rounds > 1:
        pattern = composed["pattern"].build()
        if not isinstance(pattern, UnitPattern) and pattern.ratio is not None:
            raise UsageError(
                f"pattern={composed['pattern'].name} cuts all it can at once; {named} has nothing "
                "to cut later.",
                "Write schedule=one_shot",
            )
        if composed.values["rate"] is not None:
            raise UsageError(f"{named} cuts parts of a ratio, not of a rate.", "Give a ratio.")
        if schedule.at_step is None and composed["recovery"].build().steps < schedule.rounds:
            raise UsageError(
                f"{named} trains between its {schedule.rounds} cuts by the recovery's steps, of "
                f"which recovery={composed['recovery'].name} has "
                f"{composed['recovery'].build().steps}.",
                "Write recovery=finetune, or raise recovery.steps, or write schedule=one_shot",
            )
    if schedule.at_step is not None and composed.values["base"] == "best":
        raise UsageError(
            f"{named} cuts what there is after step {schedule.at_step}, not the best of later.",
            "Write base=final or base=averaged",
        )


def note_on(composed: Composed, typed: Collection[str]) -> str | None:
    """What to say of a layer-by-layer criterion that would be ranked over layers unasked: its
    scores are of one layer's inputs, and comparing them between layers is nobody's method.
    """
    criterion, name = composed["criterion"].build(), composed["criterion"].name
    asked = _asked(composed)
    if asked is None or "allocation" in typed or not isinstance(criterion, LayerwiseCriterion):
        return None
    if composed["allocation"].name != "global":
        return None
    published = getattr(criterion, "published", "uniform")
    return (
        f"{name} ranks all layers together here; as published, allocation={published}, it does not."
    )


def check_early(composed: Composed, root: ConfigRoot, steps: int) -> None:
    """Raise UsageError for a cut in the middle of a training that is over by then, or that has not
    begun, by what a criterion would have seen of it.
    """
    at_step = composed["schedule"].build().at_step
    if at_step == 0 and needs_of(composed, root):
        raise UsageError(
            f"criterion={composed['criterion'].name} or its allocation judges by how weights "
            "lived, and before the first step they have not.",
            "Cut later, schedule.at_step=100, or by another: criterion=snip",
        )
    if at_step is not None and at_step >= steps:
        raise UsageError(
            f"schedule.at_step={at_step} is not before the end of training, step {steps}.",
            f"Write schedule.at_step={steps // 2}, or schedule=one_shot",
        )


def snapshots_of(composed: Composed) -> tuple[int, ...]:
    """The steps of training that a cut starts from: none, or one."""
    at_step = composed["schedule"].build().at_step
    return () if at_step is None or composed["transform"].build() is not None else (at_step,)


def describe_cut(composed: Composed, root: ConfigRoot, model: Part) -> dict[str, Any]:
    """The part of a cell's identity that says what is cut and how it is measured.

    A model of one role has nothing to choose from: its cells do not tell roles apart.
    """
    if composed["transform"].build() is not None:
        described = {g: composed[g].describe() for g in ("transform", "recovery")}
        keys: tuple[str, ...] = ("base", "prunable")
    else:
        described, keys = _describe_masks(composed, root)
    described["evaluation"] = composed["evaluation"].describe()
    one_role = len(roles_of(model) or ()) == 1
    for key in (*keys, *(() if one_role else ("roles",))):
        if composed.values[key] is not None:
            described[key] = composed.values[key]
    return described


def _describe_masks(composed: Composed, root: ConfigRoot) -> tuple[dict[str, Any], tuple[str, ...]]:
    groups: tuple[str, ...] = ("criterion", "allocation", "pattern", "schedule", "recovery")
    keys: tuple[str, ...] = ("base", "prunable", "ratio", "rate", "fuse")
    if isinstance(composed["criterion"].build(), DrawnCriterion):
        groups, keys = ("criterion", "schedule", "recovery"), ("base", "prunable", "fuse")
    fixed = composed["pattern"].build().ratio if "pattern" in groups else None
    if fixed is not None:  # every group loses the same: no allocation is asked
        groups = tuple(group for group in groups if group != "allocation")
        keys = tuple(key for key in keys if key != "ratio")
    described: dict[str, Any] = {group: composed[group].describe() for group in groups}
    consulted = _asked(composed).consults if "allocation" in groups else ()
    if consulted:
        described["consulted"] = {
            name: default_part("criterion", name, root).describe() for name in consulted
        }
    if calibrates(composed, root):
        described[CALIBRATION] = composed[CALIBRATION].describe()
    return described | ({} if fixed is None else {"ratio": fixed}), keys


def needs_of(composed: Composed, root: ConfigRoot) -> set[str]:
    """Statistics that the criterion, and those its allocation consults, must find recorded."""
    return set(recorded_needs(tuple(_all_needs(composed, root))))


def check_recorded(composed: Composed, root: ConfigRoot, recorded: Sequence[str], run: str) -> None:
    """Raise PruningError, naming who asks, for a statistic that a run did not record."""
    check_needs(composed["criterion"].name, composed["criterion"].build().needs, recorded, run)
    asked = _asked(composed)
    for name in asked.consults if asked is not None else ():
        needs = default_part("criterion", name, root).build().needs
        missing = [need for need in recorded_needs(needs) if need not in recorded]
        if missing:
            raise PruningError(
                f"allocation={composed['allocation'].name} ranks by {name}, which needs "
                f"{', '.join(missing)}; {run} did not record it.",
                f"Train with tracking.statistics=[{','.join(missing)}].",
            )


def calibrates(composed: Composed, root: ConfigRoot) -> bool:
    """Whether a cut looks at a calibration set."""
    asked = _asked(composed)
    told = _all_needs(composed, root) - needs_of(composed, root)
    return bool(told) or (asked is not None and asked.probes)


def _asked(composed: Composed) -> Any:
    """The allocation, where one is asked: it is not of drawn masks, of transforms and of N:M."""
    drawn = isinstance(composed["criterion"].build(), DrawnCriterion)
    fixed = composed["pattern"].build().ratio is not None
    transformed = composed["transform"].build() is not None
    return None if drawn or fixed or transformed else composed["allocation"].build()


def _all_needs(composed: Composed, root: ConfigRoot) -> set[str]:
    if composed["transform"].build() is not None:
        return set()
    needs: set[str] = set(composed["criterion"].build().needs)
    asked = _asked(composed)
    for name in asked.consults if asked is not None else ():
        needs |= set(default_part("criterion", name, root).build().needs)
    return needs
