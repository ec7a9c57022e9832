"""A sweep on paper: which trainings, which cells, before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from swe_cli.config import (
    Composed,
    ConfigRoot,
    Tokens,
    choice_options,
    compose,
    expand_range,
    read_tokens,
)
from swe_cli.contracts import Launcher
from swe_cli.controls import DENSE, PRUNED, RECOVERED, controls_of
from swe_cli.device import resolve
from swe_cli.errors import UsageError
from swe_cli.experiments.cell import Cell
from swe_cli.experiments.model import BASES, TrainedRun
from swe_cli.experiments.spec import (
    SETTING_KEYS,
    Spec,
    built,
    check_early,
    check_spec,
    control_spec,
    cut_spec,
    note_on,
)
from swe_cli.experiments.training import (
    TRAINING_GROUPS,
    TrainingSpec,
    check_roles_of,
    roles_of,
    training_spec,
)
from swe_cli.files import canonical
from swe_cli.records import Scalar
from swe_cli.store import identity

MACHINE_KEYS = ("seed", "device", "dtype", "threads")
TRAINING_KEYS = (*TRAINING_GROUPS, *MACHINE_KEYS)
# Keys whose axis has a column of its own in every table.
AXIS_COLUMNS = {"model", "data", "seed", "transform", *SETTING_KEYS}


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the axis values that a table shows beside it."""

    cell: Cell
    axes: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepPlan:
    """All of a sweep. Trainings come first, then cells; controls before what reads them.

    ``notes``: what a user should know of it before it runs.
    """

    name: str
    trainings: Sequence[TrainingSpec]
    cells: Sequence[PlannedCell]
    launcher: Launcher
    notes: Sequence[str] = ()

    @property
    def hash(self) -> str:
        return identity({"cells": sorted(planned.cell.hash for planned in self.cells)})


def plan_sweep(tokens: Tokens, root: ConfigRoot, results: Path) -> SweepPlan:
    """Expand the axes and compose every cell from scalars. Raises UsageError before any work."""
    composed = compose_point(tokens, root)
    axes = axes_of(composed, tokens)
    typed = {word.partition("=")[0] for word in tokens.overrides} | tokens.axes.keys()
    points = []
    for words in product(*axes.values()):
        point = compose_point(tokens, root, *words)
        spec = cut_spec(point, root, roles_of(point["model"]))
        check_spec(spec, point, typed, axes)
        check_early(spec, point["training"].instance.steps)
        points.append((_values(words), point, spec))
    statistics = sorted({need for _, _, spec in points for need in spec.recorded_needs})
    specified: dict[str, TrainingSpec] = {}  # which takes a look at the data: once for each
    trainings: dict[str, TrainingSpec] = {}
    cells: dict[str, PlannedCell] = {}
    for values, point, spec in points:
        check_roles_of(point["model"], point.values["roles"], "roles")
        described = [point[group].describe() for group in TRAINING_GROUPS]
        key = canonical([*described, *(point.values[key] for key in MACHINE_KEYS)])
        if key not in specified:
            specified[key] = training_spec(point, root, results, statistics)
        training = specified[key]
        same = trainings.setdefault(training.hash, training)
        early = [step for step in (spec.plan.at_step,) if step is not None]
        kept = {*same.snapshots, *training.snapshots, *early}
        recorded = dict(sorted({**same.statistics, **training.statistics}.items()))
        trainings[training.hash] = replace(same, snapshots=tuple(sorted(kept)), statistics=recorded)
        for cell in cells_of(
            spec,
            TrainedRun(training.run.path, root, point.values["device"], point.values["threads"]),
            training.config["identity"],
            questions=training.questions,
        ).values():
            if point.values["keep"] == "models":
                cell = replace(cell, model_to=cell.folder / "model.safetensors")
            cells.setdefault(cell.hash, PlannedCell(cell, _shown_axes(cell, values)))
    # Controls first: pruned cells read them. Then training by training, so that each is loaded,
    # and each of its criteria scored, once.
    places = {training.run.path: place for place, training in enumerate(trainings.values())}
    experiment = next((w for w in tokens.overrides if w.startswith("experiment=")), None)
    notes = [note for training in trainings.values() for note in training.notes]
    notes += [note for _, _, spec in points if (note := note_on(spec, typed))]
    return SweepPlan(
        experiment.partition("=")[2] if experiment else composed["model"].name,
        [*trainings.values()],
        sorted(cells.values(), key=lambda p: (p.cell.kind == PRUNED, places[p.cell.source.path])),
        built(composed["launcher"]),
        tuple(dict.fromkeys(notes)),
    )


def preview(tokens: Tokens, root: ConfigRoot) -> Composed:
    """The first cell of a sweep with, as ``axes``, the values of all. Raises UsageError for a value
    that cannot be, as planning would, but reads no data.
    """
    axes = axes_of(compose_point(tokens, root), tokens)
    first = {key: words[0] for key, words in axes.items()}
    for key, words in axes.items():
        for word in words:
            compose_point(tokens, root, *{**first, key: word}.values())
    composed = compose_point(tokens, root, *first.values())
    spanned = {key: [_values((word,))[key] for word in words] for key, words in axes.items()}
    return replace(composed, values={**composed.values, "axes": spanned})


def cells_of(
    spec: Spec, source: TrainedRun, trained: Mapping[str, Any], *, questions: bool = False
) -> dict[str, Cell]:
    """The cell of one cut and those of the controls it is judged by, by kind.

    ``trained``: the identity of the training. Where the device and threads that are asked for come
    out different from its own, they are part of the cells' identity.
    """
    trained_on = trained["machine"]
    threads = source.threads or trained_on["threads"]
    used = resolve(source.device, trained_on["dtype"], threads).identity()
    machine = used if used != trained_on else None
    cell = partial(Cell, source=source, training=identity(trained), machine=machine)
    cells: dict[str, Cell] = {}
    controls = controls_of(BASES, questions=questions)
    for control in sorted(controls, key=lambda control: control.recovered):
        reads = {} if control is DENSE else {DENSE.kind: cells[DENSE.kind]}
        cells[control.kind] = cell(control_spec(control, spec), reads=reads)
    reads = {kind: cells[kind] for kind in (DENSE.kind, RECOVERED.kind)}
    return {**cells, spec.kind: cell(spec, reads=reads)}


def compose_point(tokens: Tokens, root: ConfigRoot, *point: str) -> Composed:
    """The configuration at one point of the axes; without one, what all of them have in common.

    An option that only some choices of an axis have goes to those: ``criteria=swe,sparsegpt
    criterion.damping=0.1`` sets the damping where there is one. Raises UsageError for an option
    that none of them has.
    """
    words = []
    for word in tokens.overrides:
        key = word.partition("=")[0]
        group, _, option = key.partition(".")
        if option and group in tokens.axes and root.options(group):
            chosen = [choice.partition("=")[2] for choice in tokens.axes[group]]
            takers = {
                f"{group}={name}"
                for name in chosen
                if name in root.options(group)
                and option.partition(".")[0] in choice_options(group, name, root)
            }
            if not takers:
                names = ", ".join(chosen)
                raise UsageError(f"{key} is not a key of {names}.", f"Choose another {group}.")
            if takers.isdisjoint(point):
                continue
        words.append(word)
    return compose("sweep", (*words, *point), root)


def _shown_axes(cell: Cell, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Axis values without a column of their own that make a difference to this cell."""
    own = {key: value for key, value in values.items() if key not in AXIS_COLUMNS}
    unused = {name for name, part in vars(cell.spec).items() if part is None}
    own = {key: value for key, value in own.items() if key.partition(".")[0] not in unused}
    if cell.kind != PRUNED:
        matter = {*TRAINING_KEYS, "evaluation", *(["recovery"] * (cell.kind == RECOVERED.kind))}
        own = {key: value for key, value in own.items() if key.partition(".")[0] in matter}
    # The table's column of that name is the run.
    return {"training recipe" if key == "training" else key: value for key, value in own.items()}


def axes_of(composed: Composed, tokens: Tokens) -> dict[str, tuple[str, ...]]:
    """Axes of the configuration, each replaced by what was typed for its key."""
    fixed = {word.partition("=")[0] for word in tokens.overrides}
    axes: dict[str, tuple[str, ...]] = {}
    for key, node in composed.values["axes"].items():
        if node is not None and key not in fixed and key not in tokens.axes:
            items = node if isinstance(node, list) else [node]
            elements = [text for item in items for text in expand_range(str(item))]
            axes |= read_tokens([f"{key}={','.join(elements)}"]).axes or {
                key: (f"{key}={elements[0]}",)
            }
    typed = fixed | tokens.axes.keys()
    for one, other in (("rate", "ratio"), ("ratio", "rate")):
        if one in typed:
            axes.pop(other, None)
    return {**axes, **tokens.axes}


def _values(point: tuple[str, ...]) -> dict[str, Scalar]:
    """Axis key → value of one point, numbers as numbers."""
    return {word.partition("=")[0]: _number_or_text(word.partition("=")[2]) for word in point}


def _number_or_text(text: str) -> Scalar:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
