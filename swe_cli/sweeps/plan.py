"""A sweep on paper: which trainings, which cells, before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from swe_cli.compose import (
    Composed,
    ConfigRoot,
    Part,
    Tokens,
    compose,
    default_part,
    expand_range,
    read_tokens,
)
from swe_cli.contracts import RateAllocation
from swe_cli.errors import UsageError
from swe_cli.machine import resolve
from swe_cli.pruning.cut import recorded_needs
from swe_cli.records import AXIS_COLUMNS, Kind, Scalar
from swe_cli.runs import identity
from swe_cli.sweeps.build import (
    TRAINING_GROUPS,
    TrainingPlan,
    check_roles_of,
    plan_training,
    roles_of,
)
from swe_cli.sweeps.cells import Cell

CUT_GROUPS = ("criterion", "allocation", "pattern", "recovery")
CALIBRATION = "calibration"
TRAINING_KEYS = (*TRAINING_GROUPS, "seed", "device", "dtype", "threads")


@dataclass(frozen=True)
class PlannedCell:
    """A cell and the axis values that a table shows beside it."""

    cell: Cell
    axes: Mapping[str, Scalar]


@dataclass(frozen=True)
class SweepPlan:
    """All of a sweep. Trainings come first, then cells; controls before what reads them."""

    name: str
    trainings: tuple[TrainingPlan, ...]
    cells: tuple[PlannedCell, ...]
    launcher: Any
    results_dir: str | None

    @property
    def hash(self) -> str:
        return identity({"cells": sorted(planned.cell.hash for planned in self.cells)})


def plan_sweep(tokens: Tokens, root: ConfigRoot, results: Path) -> SweepPlan:
    """Expand the axes and compose every cell from scalars. Raises UsageError before any work."""
    composed = compose("sweep", tokens.overrides, root)
    axes = _axes(composed, tokens)
    points = [
        (_values(point), compose("sweep", (*tokens.overrides, *point), root))
        for point in product(*axes.values())
    ]
    for _, cell in points:
        check_cut(cell)
    statistics = _needed_statistics([cell for _, cell in points], root)
    trainings: dict[str, TrainingPlan] = {}
    cells: dict[str, PlannedCell] = {}
    for values, point in points:
        roles = point.values["roles"]
        check_roles_of(point["model"], [] if roles == "all" else [roles], "roles")
        training = plan_training(point, root, results, statistics)
        trainings.setdefault(training.hash, training)
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
    )


def check_cut(composed: Composed) -> None:
    """Exactly one of ratio and rate says how much is cut, and the allocation knows what it is.

    Options that cannot be (``recovery.steps=-1``) are refused here, before any work.
    """
    for group in (*CUT_GROUPS, CALIBRATION, "evaluation"):
        composed[group].build()
    ratio, rate = composed.values["ratio"], composed.values["rate"]
    fixed = composed["pattern"].build().ratio
    if fixed is not None:
        if rate is not None or ratio not in (None, fixed):
            raise UsageError(
                f"pattern={composed['pattern'].name} cuts {fixed:g} of every row, no other amount.",
                f"Write ratio={fixed:g}, or choose another pattern.",
            )
    elif (ratio is None) == (rate is None):
        raise UsageError(
            "Say how much to cut: a ratio or a rate, not both.", "For example: ratio=0.5"
        )
    if rate is not None and not isinstance(composed["allocation"].build(), RateAllocation):
        raise UsageError(
            "A rate is a multiple of a standard deviation, which "
            f"allocation={composed['allocation'].name} does not know.",
            "Add allocation=sigma, or give a ratio.",
        )


def describe_cut(composed: Composed, root: ConfigRoot, model: Part) -> dict[str, Any]:
    """The part of a cell's identity that says what is cut and how it is measured.

    A model of one role has nothing to choose from: its cells do not tell roles apart.
    """
    described: dict[str, Any] = {group: composed[group].describe() for group in CUT_GROUPS}
    consulted = composed["allocation"].build().consults
    if consulted:
        described["consulted"] = {
            name: default_part("criterion", name, root).describe() for name in consulted
        }
    if calibrates(composed, root):
        described[CALIBRATION] = composed[CALIBRATION].describe()
    described["evaluation"] = composed["evaluation"].describe()
    one_role = len(roles_of(model) or ()) == 1
    for key in ("base", "prunable", *(() if one_role else ("roles",)), "ratio", "rate"):
        if composed.values[key] is not None:
            described[key] = composed.values[key]
    fixed = composed["pattern"].build().ratio
    return described if fixed is None else {**described, "ratio": fixed}


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


def _needed_statistics(points: list[Composed], root: ConfigRoot) -> tuple[str, ...]:
    needed: set[str] = set()
    for point in points:
        needed |= needs_of(point, root)
    return tuple(sorted(needed))


def needs_of(composed: Composed, root: ConfigRoot) -> set[str]:
    """Statistics that the criterion, and those its allocation consults, must find recorded."""
    return set(recorded_needs(tuple(_all_needs(composed, root))))


def calibrates(composed: Composed, root: ConfigRoot) -> bool:
    """Whether a cut looks at a calibration set."""
    needs = _all_needs(composed, root)
    return composed["allocation"].build().probes or bool(needs - needs_of(composed, root))


def _all_needs(composed: Composed, root: ConfigRoot) -> set[str]:
    needs: set[str] = set(composed["criterion"].build().needs)
    for name in composed["allocation"].build().consults:
        needs |= set(default_part("criterion", name, root).build().needs)
    return needs
