"""What a cell does, typed: a cut, or a control. Its identity, and what cannot be said together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from swe_cli.config import Component, Composed, ConfigRoot, component, source_of
from swe_cli.conform import conform
from swe_cli.contracts import (
    Allocation,
    Launcher,
    Model,
    Pattern,
    PrunableSet,
    Statistic,
    Transform,
    criterion_of,
)
from swe_cli.controls import PRUNED, Control
from swe_cli.errors import UsageError
from swe_cli.files import canonical
from swe_cli.pruning.prune import Judge, Method, check_needs, recorded_needs
from swe_cli.pruning.recover import Recovery
from swe_cli.pruning.schedule import Schedule
from swe_cli.records import Scalar

CUT_GROUPS = (
    *("criterion", "allocation", "pattern", "schedule", "recovery", "transform"),
    *("calibration", "evaluation"),
)
# What only masks have: a transform takes none of it.
OF_MASKS = {"criterion", "allocation", "pattern", "schedule", "calibration"}
OF_MASKS |= {"ratio", "rate", "fuse"}
CONTRACTS: Mapping[str, type] = {
    "allocation": Allocation,
    "pattern": Pattern,
    "transform": Transform,
    "statistic": Statistic,
    "launcher": Launcher,
    "model": Model,
}


def built(chosen: Component, *runtime: Any) -> Any:
    """What a component builds, with the defaults of its contract; see ``conform``."""
    name = f"{chosen.group}={chosen.name}"
    made = chosen.build(*runtime) if runtime else chosen.instance
    if chosen.group == "criterion":
        return criterion_of(made, name)
    contract = CONTRACTS.get(chosen.group)
    return made if contract is None or made is None else conform(made, contract, name)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every cell has: an evaluation, and a recovery where it is recovered.

    ``base``: whose weights it starts from. ``fuse``: the fraction of zeros beyond which slices are
    cut whole afterwards.
    """

    NOT_IDENTITY: ClassVar[Collection[str]] = ()
    NOT_SETTINGS: ClassVar[Collection[str]] = ("evaluation", "calibration")

    evaluation: Component
    recovery: Component | None = None
    base: str = "final"
    fuse: float | None = None

    @property
    def kind(self) -> str:
        """The kind of its row."""
        return PRUNED

    @property
    def blind(self) -> bool:
        """Whether it is measured with the images shuffled."""
        return False

    def identity(self) -> dict[str, Any]:
        """What is stored and what a cell's name is made of: plain values, what is not left out."""
        described: dict[str, Any] = {"kind": self.kind}
        for name, value in self._fields().items():
            if isinstance(value, Component):
                described[name] = value.describe()
            elif isinstance(value, Mapping):
                plain = {
                    n: v.describe() if isinstance(v, Component) else v for n, v in value.items()
                }
                described |= {name: plain} if plain else {}
            elif value is not None and name not in self.NOT_IDENTITY:
                described[name] = value
        return described

    def settings(self) -> dict[str, Scalar]:
        """The columns of a row that say how it was cut; what does not apply is left out."""
        return {
            name: value.name if isinstance(value, Component) else value
            for name, value in self._fields().items()
            if name not in self.NOT_SETTINGS and value is not None
        }

    @property
    def recovery_steps(self) -> int:
        """Optimizer steps after the cut, before a fusion."""
        steps: int = self.recovery.instance.steps if self.recovery else 0
        return steps

    def _fields(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True)
class ControlSpec(Spec):
    """A model that nothing is cut from."""

    NOT_IDENTITY = ("control", "base")
    NOT_SETTINGS = ("evaluation", *NOT_IDENTITY)

    control: Control

    @property
    def kind(self) -> str:
        return self.control.kind

    @property
    def blind(self) -> bool:
        return self.control.blind


@dataclass(frozen=True, kw_only=True)
class CutSpec(Spec):
    """One cut and what is done around it. What does not apply is None: a transform has no
    criterion, a drawn mask no allocation, N:M no allocation either.

    ``consulted``: criteria that the allocation asks. ``statistics``: the hashes of the code of
    those that a user wrote, since scores are made of them. ``roles``: where there are several.
    """

    NOT_SETTINGS = ("evaluation", "calibration", "consulted", "statistics", "transform")

    transform: Component | None = None
    criterion: Component | None = None
    allocation: Component | None = None
    pattern: Component | None = None
    schedule: Component | None = None
    calibration: Component | None = None
    consulted: Mapping[str, Component] = field(default_factory=dict)
    statistics: Mapping[str, str] = field(default_factory=dict)
    prunable: PrunableSet = "linear"
    roles: str | None = None
    ratio: float | None = None
    rate: float | None = None

    def settings(self) -> dict[str, Scalar]:
        settings = {**super().settings(), "criterion": self.method_name}
        if settings.get("schedule") == "one_shot":
            del settings["schedule"]
        return settings

    @property
    def method_name(self) -> str:
        """What a row is named after: the transform where there is one, else the criterion."""
        chosen = self.transform or self.criterion
        assert chosen is not None
        return chosen.name

    @property
    def judge(self) -> Judge:
        """The criterion, where masks are cut."""
        assert self.criterion is not None
        return judge_of(self.criterion)

    def method(self, at_round: int) -> Method:
        """What a round of the schedule cuts, and how."""
        ratio = None if self.ratio is None else self.ratio * self.plan.fraction(at_round)
        chosen = {"allocation": self.allocation, "pattern": self.pattern}
        parts = {group: built(part) for group, part in chosen.items() if part is not None}
        consulted = {name: judge_of(criterion) for name, criterion in self.consulted.items()}
        return Method(self.judge, ratio, self.rate, consulted=consulted, **parts)

    @property
    def plan(self) -> Schedule:
        """When the cut is made: at once, unless a schedule says otherwise."""
        schedule: Schedule = self.schedule.instance if self.schedule else Schedule(rounds=1)
        return schedule

    @property
    def unit(self) -> str | None:
        """What the pattern takes out whole, if it does."""
        return built(self.pattern).unit if self.pattern else None

    @property
    def recorded_needs(self) -> set[str]:
        """Statistics that the criterion, and those its allocation asks, must find recorded."""
        return set(recorded_needs(_needs(self.criterion, self.consulted)))


# Every key that has a column of its own.
SETTING_KEYS = {f.name for f in fields(CutSpec)} - set(CutSpec.NOT_SETTINGS)


def judge_of(chosen: Component) -> Judge:
    """A criterion with its name and a key that tells it from others, options included."""
    return Judge(built(chosen), chosen.name, canonical(chosen.describe()))


def cut_spec(composed: Composed, root: ConfigRoot, roles: Sequence[str] | None) -> CutSpec:
    """The cut that a configuration means. ``roles``: those of its model, where they are known.

    A model of one role has nothing to choose from: its cells do not tell roles apart.
    """
    chosen = composed.components
    spec: dict[str, Any] = {key: composed.values[key] for key in SETTING_KEYS & {*composed.values}}
    spec |= {key: chosen[key] for key in ("evaluation", "recovery")}
    if len(roles or ()) == 1:
        spec["roles"] = None
    if built(chosen["transform"]) is not None:
        spec |= dict.fromkeys(OF_MASKS & spec.keys())
        return CutSpec(transform=chosen["transform"], **spec)
    spec |= {key: chosen[key] for key in ("criterion", "schedule")}
    probes, consulted = False, {}
    if built(chosen["criterion"]).granularity == "mask":
        spec |= {"ratio": None, "rate": None}
    elif (ratio := built(chosen["pattern"]).ratio) is not None:
        spec |= {"pattern": chosen["pattern"], "ratio": ratio}  # no allocation is asked
    else:
        allocation = resolve_allocation(composed, root)
        probes, consults = built(allocation).probes, built(allocation).consults
        consulted = {name: component("criterion", name, root) for name in consults}
        spec |= {"pattern": chosen["pattern"], "allocation": allocation, "consulted": consulted}
    needs = _needs(chosen["criterion"], consulted)
    recorded = recorded_needs(needs)
    if root.extra is not None:  # else all statistics are ours
        names = sorted({*recorded} & {*root.options("statistic")})
        sources = {name: source_of(component("statistic", name, root)) for name in names}
        spec["statistics"] = {name: source for name, source in sources.items() if source}
    if probes or len(recorded) < len(needs):
        spec["calibration"] = chosen["calibration"]
    return CutSpec(**spec)


def _needs(criterion: Component | None, consulted: Mapping[str, Component]) -> list[str]:
    """All that a criterion, and those its allocation consults, look at."""
    judged = [*([criterion] if criterion else []), *consulted.values()]
    return [need for chosen in judged for need in built(chosen).needs]


def resolve_allocation(composed: Composed, root: ConfigRoot) -> Component:
    """The allocation that is meant, in place of a word that stands for it."""
    chosen = composed["allocation"]
    meant = built(chosen).stands_for(built(composed["criterion"]))
    return chosen if meant is None else component("allocation", meant, root)


def control_spec(control: Control, spec: Spec) -> ControlSpec:
    """The control that a cell is judged by: measured as it is, recovered as it is."""
    measured = ControlSpec(control=control, evaluation=spec.evaluation, base=control.base)
    # A fusion recovers a second time: so must what it is judged by.
    recovered = replace(measured, recovery=spec.recovery, fuse=spec.fuse)
    return recovered if control.recovered else measured


# What cannot be said together


def check_spec(
    spec: CutSpec,
    composed: Composed,
    typed: Collection[str] = (),
    swept: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse, before any work, what cannot be said together. Raises UsageError.

    Exactly one of ratio and rate says how much is cut, unless the criterion, the pattern or a
    transform says it. ``typed``: keys that the user gave; ``swept``: those among them, or by
    default, that are axes, with their values: a criterion that takes no ratio has one cell on an
    axis of ratios.
    """
    values, swept = composed.values, swept or {}
    for group in CUT_GROUPS:  # options that cannot be are refused, used or not
        built(composed[group])
    given = [key for key in ("ratio", "rate") if values[key] is not None and key not in swept]
    if spec.transform is not None:
        of_masks = [key for key in typed if key.partition(".")[0] in OF_MASKS]
        # Beside cells with masks, their settings are typed for them.
        if of_masks and "transform=none" not in swept.get("transform", ()):
            raise UsageError(
                f"transform={spec.method_name} rewrites matrices and cuts nothing, so "
                f"{of_masks[0]} has no meaning beside it.",
                f"Leave {of_masks[0]} out, or write transform=none",
            )
    elif spec.judge.criterion.granularity == "mask":
        shapes = [key for key in ("allocation", "pattern") if key in typed and key not in swept]
        if "criterion" in swept:
            pass  # what is typed is for the others of the axis
        elif given:
            raise UsageError(
                f"criterion={spec.method_name} finds its own sparsity; it takes no {given[0]}.",
                f"Leave {given[0]} out, or choose another criterion. More rounds cut more: "
                "schedule=iterative",
            )
        elif shapes:
            raise UsageError(
                f"criterion={spec.method_name} draws its own masks; it takes no {shapes[0]}.",
                f"Leave {shapes[0]} out.",
            )
    elif spec.allocation is None:
        if any((key, values[key]) != ("ratio", spec.ratio) for key in given):
            pattern = composed["pattern"].name
            raise UsageError(
                f"pattern={pattern} cuts {spec.ratio:g} of every row, no other amount.",
                f"Write ratio={spec.ratio:g}, or choose another pattern.",
            )
    elif (values["ratio"] is None) == (values["rate"] is None):
        raise UsageError(
            "Say how much to cut: a ratio or a rate, not both.", "For example: ratio=0.5"
        )
    elif values["rate"] is not None and not built(spec.allocation).takes_rate:
        raise UsageError(
            "A rate is a multiple of a standard deviation, which "
            f"allocation={spec.allocation.name} does not know.",
            "Add allocation=sigma, or give a ratio.",
        )
    for name, chosen in spec.consulted.items():
        if built(chosen).granularity == "mask":
            assert spec.allocation is not None
            raise UsageError(
                f"allocation={spec.allocation.name} asks for a ranking, and criterion={name} draws "
                "its masks.",
                "Name one that scores: allocation.criterion=swe",
            )
    _check_schedule(spec, composed)


def _check_schedule(spec: CutSpec, composed: Composed) -> None:
    schedule: Schedule = composed["schedule"].instance
    pattern: Pattern = built(composed["pattern"])
    recovery: Recovery = composed["recovery"].instance
    named = f"schedule={composed['schedule'].name}"
    if schedule.rounds > 1:
        if pattern.ratio is not None:
            raise UsageError(
                f"pattern={composed['pattern'].name} cuts all it can at once; {named} has nothing "
                "to cut later.",
                "Write schedule=one_shot",
            )
        if composed.values["rate"] is not None:
            raise UsageError(f"{named} cuts parts of a ratio, not of a rate.", "Give a ratio.")
        if schedule.at_step is None and recovery.steps < schedule.rounds:
            raise UsageError(
                f"{named} trains between its {schedule.rounds} cuts by the recovery's steps, of "
                f"which recovery={composed['recovery'].name} has {recovery.steps}.",
                ("Raise recovery.steps" if recovery.steps else "Write recovery=finetune")
                + ", or write schedule=one_shot",
            )
    if schedule.at_step is not None and composed.values["base"] == "best":
        raise UsageError(
            f"{named} cuts what there is after step {schedule.at_step}, not the best of later.",
            "Write base=final or base=averaged",
        )


def check_early(spec: CutSpec, steps: int) -> None:
    """Raise UsageError for a cut in the middle of a training that is over by then, or that has not
    begun, by what a criterion would have seen of it.
    """
    at_step = spec.plan.at_step
    if at_step == 0 and spec.recorded_needs:
        raise UsageError(
            f"criterion={spec.method_name} or its allocation judges by how weights "
            "lived, and before the first step they have not.",
            "Cut later, schedule.at_step=100, or by another: criterion=snip",
        )
    if at_step is not None and at_step >= steps:
        raise UsageError(
            f"schedule.at_step={at_step} is not before the end of training, step {steps}.",
            f"Write schedule.at_step={steps // 2}, or schedule=one_shot",
        )


def check_recorded(spec: CutSpec, recorded: Collection[str], run: str) -> None:
    """Raise PruningError, naming who asks, for a statistic that a run did not record."""
    if spec.criterion is not None:
        check_needs(f"criterion={spec.criterion.name}", spec.judge.criterion, recorded, run)
    for name, chosen in spec.consulted.items():
        assert spec.allocation is not None
        asks = f"allocation={spec.allocation.name} ranks by {name}, which"
        check_needs(asks, built(chosen), recorded, run)


def note_on(spec: CutSpec, typed: Collection[str]) -> str | None:
    """What to say of a layer-by-layer criterion that would be ranked over layers unasked: its
    scores are of one layer's inputs, and comparing them between layers is nobody's method.
    """
    if spec.allocation is None or spec.allocation.name != "global" or "allocation" in typed:
        return None
    criterion = spec.judge.criterion
    if criterion.granularity != "layer":
        return None
    return (
        f"{spec.method_name} ranks all layers together here; as published, "
        f"allocation={criterion.published}, it does not."
    )
