"""A sweep on paper: its axes, trainings and cells, before anything runs."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path

from swe_cli.config import (
    Composed,
    ConfigRoot,
    Declaration,
    Tokens,
    choice_options,
    component,
    compose,
    expand_range,
    is_plain,
    read_tokens,
)
from swe_cli.contracts import Launcher
from swe_cli.controls import BY_KIND, DENSE, PRUNED, RECOVERED, controls_of
from swe_cli.errors import UsageError
from swe_cli.experiments.cell import Cell
from swe_cli.experiments.spec import Spec, built, check_spec, cut_spec
from swe_cli.experiments.training import (
    TRAINING_GROUPS,
    TrainingSpec,
    another,
    roles_of,
    training_spec,
)
from swe_cli.pruning.prune import recorded_needs
from swe_cli.records import SETTINGS, Scalar
from swe_cli.store import identity

# Keys whose axis has a column of its own in every table.
AXIS_COLUMNS = {"model", "data", "seed", "transform", *SETTINGS}


@dataclass(frozen=True)
class SweepPlan:
    """All of a sweep. Trainings come first, then cells; controls before what reads them.

    ``notes``: what a user should know of it before it runs. ``compare``: what it is to show.
    """

    name: str
    trainings: Sequence[TrainingSpec]
    cells: Sequence[Cell]
    launcher: Launcher
    notes: Sequence[str] = ()
    compare: Declaration | None = None

    @property
    def threads(self) -> int:
        """How many each job computes with: a part of what its results are."""
        return max(int(of.config["identity"]["machine"]["threads"]) for of in self.trainings)

    @property
    def hash(self) -> str:
        return identity({"cells": sorted(cell.hash for cell in self.cells)})


def plan_sweep(tokens: Tokens, root: ConfigRoot, results: Path, refresh: bool = False) -> SweepPlan:
    """Expand axes, compose every cell; UsageError before any work. ``refresh``: see ``Cell``."""
    composed = compose_point(tokens, root)
    axes, asked = axes_of(composed, tokens), [BY_KIND[k] for k in composed.values["controls"]]
    given = _values(tokens.overrides)
    typed = given.keys() | tokens.axes.keys()
    shared = cache(partial(compose_point, tokens, root))
    points = []
    for words in product(*axes.values()):
        # Of ten thousand points, most differ in plain values alone: their components are the same.
        chosen = tuple(word for word in words if not is_plain(word))
        point = shared(*chosen).at(word for word in words if word not in chosen)
        point = compose_point(tokens, root, *words) if point.refers else point
        spec = cut_spec(point, root, roles_of(point["model"]))
        check_spec(spec, point, typed, axes)
        measured = [spec, *map(spec.judged_by, asked)]
        for one in measured:
            came = point.values["trajectory"] is not None
            one.check_early(point["training"].instance.steps, came)
        points.append((_values(words), point, measured))
    every = [one for _, _, measured in points for one in measured]
    statistics = {need for one in every for need in recorded_needs(one.needs)}
    early = {step for one in every if (step := one.plan.at_step) is not None}
    # And whether its data are questions, and what is trained for the controls that are asked for.
    specified: dict[object, tuple[TrainingSpec, bool, Mapping[str, TrainingSpec]]] = {}
    trainings: dict[str, TrainingSpec] = {}
    judges: dict[object, dict[str, Cell]] = {}  # which all cuts of a training share
    cells: dict[str, Cell] = {}
    notes: list[str] = []
    for values, point, measured in points:
        spec = measured[0]
        values_of = (point.values[of] for of in ("seed", "device", "dtype", "threads"))
        key = (*(point[group] for group in TRAINING_GROUPS), *values_of)
        if key not in specified:  # which takes a look at the data: once for each
            training = training_spec(point, root, results, statistics, early)
            recipe, anew = point["training"], dict[str, TrainingSpec]()
            for control in asked:  # the same recipe where none of its options is another
                options = {**recipe.options, **control.training}
                changed = component("training", recipe.name, root, options)
                anew[control.kind] = training_spec(another(point, training=changed), root, results)
            specified[key] = training, training.dataset.questions, anew
            for other in (training, *anew.values()):
                same = trainings.setdefault(other.hash, other)
                steps = tuple(sorted({*same.snapshots, *other.snapshots}))
                both = dict(sorted({**same.statistics, **other.statistics}.items()))
                trainings[other.hash] = replace(same, snapshots=steps, statistics=both)
            notes += training.dataset.notes
        if point.values["trajectory"] is not None:
            training = specified[key][0]
            for one in measured:
                one.check_recorded(training.statistics, training.run.name)
        judged = key, spec.evaluation, spec.recovery, spec.fuse
        if judged not in judges:
            judges[judged] = controls_by(spec, *specified[key])
        for cell in cells_of(spec, specified[key][0], judges[judged]).values():
            if cell.kind == PRUNED or cell.hash not in cells:  # a cut's is taken once, below
                timed = point.values["costs"] == "measured" and cell.kind == PRUNED
                axes_of_it = _shown_axes(cell, values)
                cell = replace(cell, refresh=refresh, costs=timed, axes=axes_of_it)
                if point.values["keep"] == "models":
                    cell = replace(cell, model_to=cell.folder / "model.safetensors")
                cells.setdefault(cell.hash, cell)
    # Controls first: pruned cells read them. Then training by training, so that each is loaded,
    # and each of its criteria scored, once.
    places = {training: place for place, training in enumerate(trainings)}
    notes += [note for one in every if (note := one.note(typed))]
    name = str(given.get("experiment", composed["model"].name))
    order = sorted(cells.values(), key=lambda of: (of.kind == PRUNED, places[of.training.hash]))
    launcher, told = built(composed["launcher"]), tuple(dict.fromkeys(notes))
    compare = composed.values["compare"]
    return SweepPlan(name, [*trainings.values()], order, launcher, told, compare)


def preview(tokens: Tokens, root: ConfigRoot) -> Composed:
    """The first cell with all values as ``axes``; refuses what a plan would; reads no data."""
    axes = axes_of(compose_point(tokens, root), tokens)
    first = {key: words[0] for key, words in axes.items()}
    for key, words in axes.items():
        for word in words:
            compose_point(tokens, root, *{**first, key: word}.values())
    composed = compose_point(tokens, root, *first.values())
    spanned = {key: [_values((word,))[key] for word in words] for key, words in axes.items()}
    return replace(composed, values={**composed.values, "axes": spanned})


def controls_by(
    spec: Spec, training: TrainingSpec, questions: bool, asked: Mapping[str, TrainingSpec]
) -> dict[str, Cell]:
    """The cells of the controls that one cut is judged by, by kind.

    ``questions``: whether its data are. ``asked``: the controls that are asked for, and what is
    trained anew for each.
    """
    cells: dict[str, Cell] = {}
    controls = controls_of(training.bases, questions=questions, asked=asked)
    for control in sorted(controls, key=lambda control: control.recovered):
        reads = {} if control is DENSE else {DENSE.kind: cells[DENSE.kind]}
        of = asked[control.kind] if control.training else training
        cells[control.kind] = Cell(spec.judged_by(control), of, reads)
    return cells


def cells_of(spec: Spec, training: TrainingSpec, controls: Mapping[str, Cell]) -> dict[str, Cell]:
    """The cells of ``controls``, and that of the cut they judge, by kind."""
    reads = {kind: controls[kind] for kind in (DENSE.kind, RECOVERED.kind)}
    return {**controls, spec.kind: Cell(spec, training, reads)}


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
            known, key_of = {*chosen} & {*root.options(group)}, option.partition(".")[0]
            takers = {f"{group}={n}" for n in known if key_of in choice_options(group, n, root)}
            if not takers:
                names = ", ".join(chosen)
                raise UsageError(f"{key} is not a key of {names}.", f"Choose another {group}.")
            if takers.isdisjoint(point):
                continue
        words.append(word)
    return compose("sweep", (*words, *point), root)


def _shown_axes(cell: Cell, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Axis values without a column of their own that make a difference to this cell."""
    unused = {name for name, part in vars(cell.spec).items() if part is None}
    own = {key: value for key, value in values.items() if key not in AXIS_COLUMNS}
    own = {key: value for key, value in own.items() if key.partition(".")[0] not in unused}
    # The table's column of that name is the run.
    return {"training recipe" if key == "training" else key: value for key, value in own.items()}


def axes_of(composed: Composed, tokens: Tokens) -> dict[str, tuple[str, ...]]:
    """Axes of the configuration, each replaced by what was typed for its key."""
    if names := [word.partition("=")[2].strip("[]") for word in tokens.axes.get("controls", ())]:
        hint = f"Write controls=[{','.join(names)}]"
        raise UsageError("The controls are one list, of all cells.", hint)
    typed = _values(tokens.overrides).keys() | tokens.axes.keys()
    axes: dict[str, tuple[str, ...]] = {}
    for key, node in composed.values["axes"].items():
        if node is not None and key not in typed:
            items = node if isinstance(node, list) else [node]
            elements = [text for item in items for text in expand_range(str(item))]
            one_value = {key: (f"{key}={elements[0]}",)}
            axes |= read_tokens([f"{key}={','.join(elements)}"]).axes or one_value
    for one, other in (("rate", "ratio"), ("ratio", "rate")):
        if one in typed:
            axes.pop(other, None)
    return {**axes, **tokens.axes}


def _values(words: Iterable[str]) -> dict[str, Scalar]:
    """Key → value of overrides, numbers as numbers."""
    values: dict[str, Scalar] = {}
    for key, _, text in (word.partition("=") for word in words):
        values[key] = text
        for kind in (float, int):  # int where it is one
            with suppress(ValueError):
                values[key] = kind(text)
    return values
