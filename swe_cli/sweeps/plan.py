"""A sweep on paper: which trainings, which cells, before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from swe_cli.compose import (
    Composed,
    ConfigRoot,
    Tokens,
    choice_options,
    compose,
    expand_range,
    read_tokens,
)
from swe_cli.errors import UsageError
from swe_cli.machine import resolve
from swe_cli.records import AXIS_COLUMNS, Kind, Scalar
from swe_cli.runs import identity
from swe_cli.sweeps.amounts import (
    check_cut,
    check_early,
    describe_cut,
    needs_of,
    note_on,
    settled,
    snapshots_of,
)
from swe_cli.sweeps.build import (
    TRAINING_GROUPS,
    TrainingPlan,
    check_roles_of,
    plan_training,
)
from swe_cli.sweeps.cell import Cell

TRAINING_KEYS = (*TRAINING_GROUPS, "seed", "device", "dtype", "threads")


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the axis values that a table shows beside it."""

    cell: Cell
    axes: Mapping[str, Scalar]


@dataclass(frozen=True)
class SweepPlan:
    """All of a sweep. Trainings come first, then cells; controls before what reads them.

    ``notes``: what a user should know of it before it runs.
    """

    name: str
    trainings: tuple[TrainingPlan, ...]
    cells: tuple[PlannedCell, ...]
    launcher: Any
    results_dir: str | None
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        return identity({"cells": sorted(planned.cell.hash for planned in self.cells)})


def plan_sweep(tokens: Tokens, root: ConfigRoot, results: Path) -> SweepPlan:
    """Expand the axes and compose every cell from scalars. Raises UsageError before any work."""
    common = shared_overrides(tokens, root)
    composed = compose("sweep", common, root)
    axes = _axes(composed, tokens)
    points = [
        (
            _values(point),
            compose("sweep", (*common, *point, *_options_of(point, tokens, root)), root),
        )
        for point in product(*axes.values())
    ]
    typed = {word.partition("=")[0] for word in tokens.overrides} | tokens.axes.keys()
    points = [(values, settled(point, root)) for values, point in points]
    for _, point in points:
        check_cut(point, root, typed, axes)
        check_early(point, root, point["training"].options["steps"])
    statistics = sorted({need for _, point in points for need in needs_of(point, root)})
    trainings: dict[str, TrainingPlan] = {}
    cells: dict[str, PlannedCell] = {}
    for values, point in points:
        roles = point.values["roles"]
        check_roles_of(point["model"], [] if roles == "all" else [roles], "roles")
        training = plan_training(point, root, results, statistics, snapshots_of(point))
        same = trainings.setdefault(training.hash, training)
        kept = tuple(sorted({*same.snapshots, *training.snapshots}))
        trainings[training.hash] = replace(same, snapshots=kept)
        for planned in _cells(point, training, values, root, results):
            cells.setdefault(planned.cell.hash, planned)
    # Controls first: pruned cells read them. Then training by training, so that each is loaded,
    # and each of its criteria scored, once.
    places = {training.run(results).path: i for i, training in enumerate(trainings.values())}
    ordered = sorted(
        cells.values(), key=lambda p: (p.cell.kind == "pruned", places[p.cell.training])
    )
    experiment = next((w for w in tokens.overrides if w.startswith("experiment=")), None)
    name = experiment.partition("=")[2] if experiment else composed["model"].name
    return SweepPlan(
        name,
        tuple(trainings.values()),
        tuple(ordered),
        composed["launcher"].build(),
        composed.values["results_dir"],
        tuple(dict.fromkeys(note for _, point in points if (note := note_on(point, typed)))),
    )


def shared_overrides(tokens: Tokens, root: ConfigRoot) -> tuple[str, ...]:
    """Overrides that every cell takes: all but options of what only some points of an axis choose.

    ``criteria=swe,sparsegpt criterion.damping=0.1`` sets the damping where there is one. Raises
    UsageError for an option that none of an axis's choices has.
    """
    owned = {word: _takers(word, tokens, root) for word in tokens.overrides}
    for word, takers in owned.items():
        if takers is not None and not takers:
            key = word.partition("=")[0]
            group = key.partition(".")[0]
            choices = ", ".join(value.partition("=")[2] for value in tokens.axes[group])
            raise UsageError(f"{key} is not a key of {choices}.", f"Choose another {group}.")
    return tuple(word for word, takers in owned.items() if takers is None)


def _takers(word: str, tokens: Tokens, root: ConfigRoot) -> list[str] | None:
    """The choices of an axis that have the option that ``word`` sets; None where it is no such."""
    group, _, option = word.partition("=")[0].partition(".")
    if not option or group not in tokens.axes or not root.options(group):
        return None
    chosen = [value.partition("=")[2] for value in tokens.axes[group]]
    return [
        name
        for name in chosen
        if name in root.options(group)
        and option.partition(".")[0] in choice_options(group, name, root)
    ]


def _options_of(point: tuple[str, ...], tokens: Tokens, root: ConfigRoot) -> Iterator[str]:
    for word in tokens.overrides:
        takers = _takers(word, tokens, root)
        group = word.partition(".")[0]
        if takers and any(f"{group}={name}" in point for name in takers):
            yield word


def cells_of(
    described: Mapping[str, Any],
    training_hash: str,
    training: Path,
    root: ConfigRoot,
    machine: Mapping[str, Any],
    trained_on: Mapping[str, Any],
    more_controls: Sequence[Kind] = (),
) -> dict[str, Cell]:
    """The pruned cell of one cut and the dense ones it is judged by, by kind.

    ``machine``: the device and threads asked for; ``trained_on``: the training's. Where they come
    out different, they are part of the cells' identity.
    """
    measured = {"training": training_hash, "evaluation": described["evaluation"]}
    threads = machine["threads"] or trained_on["threads"]
    used = resolve(machine["device"], trained_on["dtype"], threads).identity()
    if used != trained_on:
        measured["machine"] = used
    shared = {"training": training, "root": root, **machine}
    dense = Cell("dense", config={**measured, "kind": "dense"}, **shared)
    cells = {"dense": dense}
    for kind in ("dense_best", "dense_averaged", *more_controls):
        config = {**measured, "kind": kind}
        cells[kind] = Cell(kind, config=config, reads={"dense": dense}, **shared)
    recovered_config = {**measured, "kind": "dense_recovered", "recovery": described["recovery"]}
    if "fuse" in described:  # which recovers a second time: so must what it is judged by
        recovered_config["fuse"] = described["fuse"]
    recovered = Cell("dense_recovered", config=recovered_config, reads={"dense": dense}, **shared)
    cells["dense_recovered"] = recovered
    cells["pruned"] = Cell(
        "pruned",
        config={**measured, "kind": "pruned", **described},
        reads={"dense": dense, "dense_recovered": recovered},
        **shared,
    )
    return cells


def _cells(
    composed: Composed,
    training: TrainingPlan,
    values: Mapping[str, Scalar],
    root: ConfigRoot,
    results: Path,
) -> Iterator[PlannedCell]:
    machine = {key: composed.values[key] for key in ("device", "threads")}
    cells = cells_of(
        describe_cut(composed, root, composed["model"]),
        training.hash,
        training.run(results).path,
        root,
        machine,
        training.config["identity"]["machine"],
        training.controls,
    )
    for kind, cell in cells.items():
        if composed.values["keep"] == "models":
            cell = replace(cell, model_to=cell.folder / "model.safetensors")
        yield PlannedCell(cell, _shown_axes(kind, values))


def _shown_axes(kind: str, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Axis values without a column of their own that make a difference to this kind of row."""
    own = {key: value for key, value in values.items() if key not in AXIS_COLUMNS}
    if kind != "pruned":
        matter = {*TRAINING_KEYS, "evaluation", *(["recovery"] * (kind == "dense_recovered"))}
        own = {key: value for key, value in own.items() if key.partition(".")[0] in matter}
    # The table's column of that name is the run.
    return {"training recipe" if key == "training" else key: value for key, value in own.items()}


def _axes(composed: Composed, tokens: Tokens) -> dict[str, tuple[str, ...]]:
    """Axes of the configuration, each replaced by what was typed for its key."""
    fixed = {word.partition("=")[0] for word in tokens.overrides}
    axes: dict[str, tuple[str, ...]] = {}
    for key, node in composed.values["axes"].items():
        if node is not None and key not in fixed and key not in tokens.axes:
            elements = [text for item in _as_list(node) for text in expand_range(str(item))]
            axes |= read_tokens([f"{key}={','.join(elements)}"]).axes or {
                key: (f"{key}={elements[0]}",)
            }
    typed = fixed | tokens.axes.keys()
    if typed & {"rate"}:
        axes.pop("ratio", None)
    if typed & {"ratio"}:
        axes.pop("rate", None)
    return {**axes, **tokens.axes}


def _as_list(node: Any) -> list[Any]:
    return node if isinstance(node, list) else [node]


def _values(point: tuple[str, ...]) -> dict[str, Scalar]:
    """Axis key → value of one point, numbers as numbers."""
    values: dict[str, Scalar] = {}
    for word in point:
        key, _, text = word.partition("=")
        try:
            values[key] = int(text)
        except ValueError:
            try:
                values[key] = float(text)
            except ValueError:
                values[key] = text
    return values
