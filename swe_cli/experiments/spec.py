"""What a cell does, typed: a cut, or a control. Its identity, and what cannot be said together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from swe_cli import contracts
from swe_cli.config import Component, Composed, ConfigRoot, component, source_of
from swe_cli.conform import conform
from swe_cli.contracts import Pattern, PrunableSet, criterion_of
from swe_cli.controls import PRUNED, Control
from swe_cli.errors import PruningError, UsageError
from swe_cli.experiments.model import AVERAGES
from swe_cli.files import canonical
from swe_cli.pruning.prune import Judge, Method, recorded_needs
from swe_cli.pruning.recover import Recovery
from swe_cli.pruning.schedule import Schedule
from swe_cli.records import SETTINGS, Scalar
from swe_cli.training.recipe import check_roles

MASK_GROUPS = ("criterion", "allocation", "pattern", "schedule", "calibration", "update")
CUT_GROUPS = (*MASK_GROUPS, "recovery", "transform", "evaluation")
NOT_SETTINGS = ("transform", "calibration", "evaluation", "consulted", "statistics")
OF_MASKS = {*MASK_GROUPS, "ratio", "rate", "fuse"}  # a transform takes none of it
# Groups that are called as their contract is; a schedule's lies elsewhere.
CONFORMING = ("allocation", "launcher", "model", "pattern", "statistic", "tracker", "transform")
CONTRACTS = {of: getattr(contracts, of.capitalize()) for of in (*CONFORMING, "update")}
CONTRACTS["schedule"] = Schedule


def built(chosen: Component, *runtime: Any) -> Any:
    """What a component builds, with the defaults of its contract; see ``conform``."""
    name = f"{chosen.group}={chosen.name}"
    made = chosen.build(*runtime) if runtime else chosen.instance
    if chosen.group == "criterion":
        return criterion_of(made, name)
    contract = CONTRACTS.get(chosen.group)
    return made if contract is None or made is None else conform(made, contract, name)


def judge_of(criterion: Component) -> Judge:
    """A criterion with its name and a key that tells it from others, options included."""
    return Judge(built(criterion), criterion.name, canonical(criterion.describe()))


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One cut and what is done around it, or a control. What does not apply is None: a control has
    nothing that cuts, a transform no criterion, a drawn mask no allocation, N:M no allocation.

    ``base``: whose weights it starts from. ``update``: what becomes of the weights that stay.
    ``fuse``: the fraction of zeros beyond which slices are cut whole afterwards. ``quantize``: to
    what matrices are rounded in the end. ``consulted``: criteria that the allocation asks.
    ``statistics``: the hashes of the code of those that a user wrote, since scores are made of
    them. ``roles``: where there are several.
    """

    control: Control | None = None
    transform: Component | None = None
    criterion: Component | None = None
    allocation: Component | None = None
    pattern: Component | None = None
    schedule: Component | None = None
    recovery: Component | None = None
    calibration: Component | None = None
    update: Component | None = None
    evaluation: Component
    consulted: Mapping[str, Component] = field(default_factory=dict)
    statistics: Mapping[str, str] = field(default_factory=dict)
    base: str = "final"
    prunable: PrunableSet = "linear"
    roles: str | None = None
    ratio: float | None = None
    rate: float | None = None
    fuse: float | None = None
    quantize: str | None = None

    @property
    def kind(self) -> str:
        """The kind of its row."""
        return PRUNED if self.control is None else self.control.kind

    @property
    def blind(self) -> bool:
        """Whether it is measured with the images shuffled."""
        return self.control is not None and self.control.blind

    def identity(self) -> dict[str, Any]:
        """What is stored and what a cell's name is made of: plain values, what is not left out."""
        return {"kind": self.kind, **{key: _plain(value) for key, value in self._said().items()}}

    def settings(self) -> dict[str, Scalar]:
        """The columns of a row that say how it was cut; what does not apply is left out."""
        said = {key: of for key, of in self._said().items() if key not in NOT_SETTINGS}
        settings = {k: of.name if isinstance(of, Component) else of for k, of in said.items()}
        if self.transform is not None:
            settings["criterion"] = self.method_name
        if settings.get("schedule") == "one_shot":
            del settings["schedule"]
        return settings

    def _said(self) -> dict[str, Any]:
        """What applies to it. The kind of a control says whose weights it has."""
        implied = ("control",) if self.control is None else ("control", "base", "prunable")
        values = {key: value for key, value in vars(self).items() if key not in implied}
        return {key: value for key, value in values.items() if value is not None and value != {}}

    @property
    def method_name(self) -> str:
        """What the row of a cut is named after: its transform, else its criterion."""
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
        updated = self.update is not None
        return Method(self.judge, ratio, self.rate, consulted=consulted, updated=updated, **parts)

    @property
    def plan(self) -> Schedule:
        """When the cut is made: at once, unless a schedule says otherwise."""
        schedule: Schedule = built(self.schedule) if self.schedule else Schedule(rounds=1)
        return schedule

    @property
    def recovery_steps(self) -> int:
        """Optimizer steps after the cut, before a fusion."""
        return int(self.recovery.instance.steps) if self.recovery else 0

    @property
    def needs(self) -> list[str]:
        """All that the criterion, and those its allocation asks, look at; and what the base is."""
        return [need for needs in self._asking().values() for need in needs]

    def _asking(self) -> dict[str, Sequence[str]]:
        """The same by who asks, in words."""
        asking: dict[str, Sequence[str]] = {}
        if self.base in AVERAGES:
            own = f"base={self.base}" if self.control is None else f"controls=[{self.kind}]"
            asking[own] = [AVERAGES[self.base]]
        if self.criterion is not None:
            asking[f"criterion={self.criterion.name}"] = built(self.criterion).needs
        for name, chosen in self.consulted.items():
            assert self.allocation is not None
            asks = f"allocation={self.allocation.name} ranks by {name}, which"
            asking[asks] = built(chosen).needs
        return asking

    @property
    def sources(self) -> dict[str, str | None]:
        """Of the statistics among them, the hash of the code where a user wrote it."""
        return {need: self.statistics.get(need) for need in recorded_needs(self.needs)}

    def judged_by(self, control: Control) -> "Spec":
        """A control that its cell is judged by: measured as it is, recovered as it is."""
        measured = Spec(control=control, evaluation=self.evaluation, base=control.base)
        # A fusion recovers a second time: so must what it is judged by.
        recovered = replace(measured, recovery=self.recovery, fuse=self.fuse)
        return recovered if control.recovered else measured

    def check_early(self, steps: int, came: bool = False) -> None:
        """Raise UsageError for a cut in the middle of a training that is over by then, or that has
        not begun, by what is seen of it; ``came``: whether a trajectory came with it.
        """
        at_step = self.plan.at_step
        if (at_step == 0 or not (steps or came)) and recorded_needs(self.needs):
            averaged = f"base={self.base} starts from" if self.base in AVERAGES else None
            asks = averaged or f"criterion={self.method_name} or its allocation judges by"
            when, later = "before the first step", "Cut later, schedule.at_step=100"
            if not steps:
                when, later = "in training.steps=0", "Train, or bring trajectory=FOLDER"
            hint = f"{later}, or cut by another: criterion=magnitude base=final"
            raise UsageError(f"{asks} how weights lived, and {when} they have not.", hint)
        if at_step is not None and at_step >= steps:
            why = f"schedule.at_step={at_step} is not before the end of training, step {steps}."
            raise UsageError(why, f"Write schedule.at_step={steps // 2}, or schedule=one_shot")

    def check_recorded(self, recorded: Collection[str], run: str) -> None:
        """Raise PruningError, with who asks and the flag to train with, for what is unrecorded."""
        for asks, needs in self._asking().items():
            if missing := ",".join(n for n in recorded_needs(needs) if n not in recorded):
                hint = f"Train with tracking.statistics=[{missing}], or sweep: it records what it "
                hint += "needs. Or tell WeightTracker."
                raise PruningError(f"{asks} needs {missing}, which {run} did not record.", hint)

    def note(self, typed: Collection[str]) -> str | None:
        """What to say of a layer-by-layer criterion that would be ranked over layers unasked: its
        scores are of one layer's inputs, and comparing them between layers is nobody's method.
        """
        if self.allocation is None or self.allocation.name != "global" or "allocation" in typed:
            return None
        criterion, here = self.judge.criterion, f"{self.method_name} ranks all layers together here"
        whole = f"{here}; as published, allocation={criterion.published}, it does not."
        return whole if criterion.granularity == "layer" else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return value.describe() if isinstance(value, Component) else value


def cut_spec(composed: Composed, root: ConfigRoot, roles: Sequence[str] | None) -> Spec:
    """The cut that a configuration means. ``roles``: those of its model, where they are known.

    A model of one role has nothing to choose from: its cells do not tell roles apart. Raises
    UsageError for a role that the model does not have.
    """
    chosen, values = composed.components, composed.values
    said: dict[str, Any] = {key: values[key] for key in SETTINGS if key in values}
    said |= {key: chosen[key] for key in ("evaluation", "recovery")}
    check_roles(roles, said["roles"], "roles")
    if len(roles or ()) == 1:
        said["roles"] = None
    if values["quantize"] != "none":
        said["quantize"] = values["quantize"]
    if built(chosen["transform"]) is not None:
        said |= dict.fromkeys(OF_MASKS & said.keys())
        return Spec(transform=chosen["transform"], **said)
    said |= {key: chosen[key] for key in ("criterion", "schedule")}
    if built(chosen["update"]) is not None:
        said["update"] = chosen["update"]
    probes = False
    if built(chosen["criterion"]).granularity == "mask":
        said |= {"ratio": None, "rate": None}
    elif (ratio := built(chosen["pattern"]).ratio) is not None:
        # No allocation is asked, and no rate: there is one cell on an axis of them.
        said |= {"pattern": chosen["pattern"], "ratio": ratio, "rate": None}
    else:
        allocation = chosen["allocation"]
        if meant := built(allocation).stands_for(built(chosen["criterion"])):
            allocation = component("allocation", meant, root)
        probes, consults = built(allocation).probes, built(allocation).consults
        consulted = {name: component("criterion", name, root) for name in consults}
        said |= {"pattern": chosen["pattern"], "allocation": allocation, "consulted": consulted}
    spec = Spec(**said)
    recorded = recorded_needs(spec.needs)
    if probes or spec.update is not None or len(recorded) < len(spec.needs):
        spec = replace(spec, calibration=chosen["calibration"])
    if root.extra is None:  # all statistics are ours
        return spec
    names = sorted({*recorded} & {*root.options("statistic")})
    sources = {name: source_of(component("statistic", name, root)) for name in names}
    return replace(spec, statistics={name: source for name, source in sources.items() if source})


# What cannot be said together


def check_spec(
    spec: Spec,
    composed: Composed,
    typed: Collection[str] = (),
    swept: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse, before any work, what cannot be said together. Raises UsageError.

    ``typed``: keys that the user gave; ``swept``: those among them, or by default, that are axes,
    with their values: a criterion that takes no ratio has one cell on an axis of ratios.
    """
    values, swept = composed.values, swept or {}
    for group in CUT_GROUPS:  # options that cannot be are refused, used or not
        built(composed[group])
    given = [key for key in ("ratio", "rate") if values[key] is not None and key not in swept]
    if spec.transform is not None:
        of_masks = [key for key in typed if key.partition(".")[0] in OF_MASKS]
        # Beside cells with masks, their settings are typed for them.
        if of_masks and "transform=none" not in swept.get("transform", ()):
            so = f"so {of_masks[0]} has no meaning beside it"
            why = f"transform={spec.method_name} rewrites matrices and cuts nothing, {so}."
            raise UsageError(why, f"Leave {of_masks[0]} out, or write transform=none")
    elif spec.judge.criterion.granularity == "mask":
        shapes = [key for key in ("allocation", "pattern") if key in typed and key not in swept]
        refused = [*given, *shapes]
        if refused and "criterion" not in swept:  # else it is typed for the others of the axis
            own = "finds its own sparsity" if given else "draws its own masks"
            more = ", or choose another criterion. More rounds cut more: schedule=iterative"
            why = f"criterion={spec.method_name} {own}; it takes no {refused[0]}."
            raise UsageError(why, f"Leave {refused[0]} out{more if given else '.'}")
    elif spec.update is not None and built(composed["pattern"]).unit == "block":
        why = f"update={spec.update.name} changes what stays of a matrix; of a block all stays."
        raise UsageError(why, "Write update=none, or choose another pattern.")
    elif (unit := spec.judge.criterion.unit) not in (None, built(composed["pattern"]).unit):
        raise UsageError(f"criterion={spec.method_name} judges {unit}s.", f"Add pattern={unit}")
    elif spec.allocation is None:
        if any((key, values[key]) != ("ratio", spec.ratio) for key in given):
            pattern = composed["pattern"].name
            why = f"pattern={pattern} cuts {spec.ratio:g} of every row, no other amount."
            raise UsageError(why, f"Write ratio={spec.ratio:g}, or choose another pattern.")
    elif (values["ratio"] is None) == (values["rate"] is None):
        why = "Say how much to cut: a ratio or a rate, not both."
        raise UsageError(why, "For example: ratio=0.5")
    elif values["rate"] is not None and not built(spec.allocation).takes_rate:
        unknown = f"which allocation={spec.allocation.name} does not know"
        why = f"A rate is a multiple of a standard deviation, {unknown}."
        raise UsageError(why, "Add allocation=sigma, or give a ratio.")
    for name, chosen in spec.consulted.items():
        if built(chosen).granularity == "mask":
            assert spec.allocation is not None
            asks = f"allocation={spec.allocation.name} asks for a ranking"
            why = f"{asks}, and criterion={name} draws its masks."
            raise UsageError(why, "Name one that scores: allocation.criterion=swe")
    _check_schedule(spec, composed)


def _check_schedule(spec: Spec, composed: Composed) -> None:
    schedule: Schedule = built(composed["schedule"])
    pattern: Pattern = built(composed["pattern"])
    recovery: Recovery = composed["recovery"].instance
    named = f"schedule={composed['schedule'].name}"
    if schedule.rounds > 1:
        if pattern.ratio is not None:
            cuts = f"pattern={composed['pattern'].name} cuts all it can at once"
            why = f"{cuts}; {named} has nothing to cut later."
            raise UsageError(why, "Write schedule=one_shot")
        if composed.values["rate"] is not None:
            raise UsageError(f"{named} cuts parts of a ratio, not of a rate.", "Give a ratio.")
        if schedule.at_step is None and recovery.steps < schedule.rounds:
            has = f"recovery={composed['recovery'].name} has {recovery.steps}"
            trains = f"{named} trains between its {schedule.rounds} cuts by the recovery's steps"
            more = "Raise recovery.steps" if recovery.steps else "Write recovery=finetune"
            raise UsageError(f"{trains}, of which {has}.", f"{more}, or write schedule=one_shot")
    base = composed.values["base"]
    if schedule.at_step is not None and base in ("best", "latest"):
        why = f"{named} cuts what there is after step {schedule.at_step}, not the {base} of later."
        raise UsageError(why, "Write base=final or base=averaged")
