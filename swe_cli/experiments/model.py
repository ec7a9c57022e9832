"""A trained model, opened: what cells cut, and what they start from."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from swe_cli.config import ConfigRoot
from swe_cli.contracts import Lens, Model, PrunableSet, Setup, Split
from swe_cli.device import resolve
from swe_cli.errors import DataError, PruningError, RunError
from swe_cli.experiments.training import (
    ALWAYS_RECORDED,
    dataset_of_run,
    new_model,
    stored_component,
)
from swe_cli.pruning.prune import Scorer
from swe_cli.pruning.shrink import load
from swe_cli.records import Tensors
from swe_cli.store import Run
from swe_cli.training.checkpoint import Snapshot, missing_snapshots, read_snapshot
from swe_cli.training.recipe import Recipe, Trains, check_roles, freeze
from swe_cli.training.tracker import statistic_of

BASES = ("final", "best", "averaged")  # the weights that every training of ours leaves


@dataclass
class TrainedModel(Setup):
    """A model that one can cut, whoever trained it: its weights, and how it lived if that is known.

    ``bases``: what makes the weights of every base there is, ``final`` at least, by name.
    ``trajectory``: statistic → tensors by parameter name; empty of a model that was not tracked.
    ``recipe``: how it was trained, for what trains it on; without one ``batch_size`` tells.
    ``name``, ``model_name`` and ``data_name`` are the row's. ``scorers``: rankings of its weights,
    by what they are made of; every criterion scores once.
    """

    name: str
    bases: Mapping[str, Callable[[], Tensors]]
    trajectory: Mapping[str, Tensors] = field(default_factory=dict)
    recipe: Recipe | None = None
    batch_size: int = 8
    model_name: str = "model"
    data_name: str = "data"
    run: Run | None = None
    scorers: dict[str, Scorer] = field(default_factory=dict)
    _snapshots: dict[int, Snapshot] = field(default_factory=dict)

    @property
    def trains(self) -> Trains:
        """The roles that were trained."""
        return self.recipe.trains if self.recipe else "all"

    def weights(self, base: str) -> Tensors:
        """Parameters by name: ``final``, ``best`` (validation) or ``averaged`` (W̄)."""
        if base not in self.bases:
            raise RunError(
                f"{self.name} has no {base} weights.", f"It has {', '.join(self.bases)}."
            )
        return self.bases[base]()

    def after(self, step: int) -> Snapshot:
        """The training as it was after a step. RunError where that was not kept."""
        if self.run is None:
            raise RunError(f"{self.name} is no training: it has no step {step}.", "Cut it at once.")
        check_kept(self.run, [step])
        if step not in self._snapshots:
            self._snapshots = {step: read_snapshot(self.run, step)}  # one is enough to hold
        return self._snapshots[step]

    def starting_point(
        self, base: str, at_step: int | None
    ) -> tuple[Tensors, Mapping[str, Tensors]]:
        """The weights that are cut, at the end or after a step, and the trajectory up to then."""
        if at_step is None:
            return self.weights(base), self.trajectory
        snapshot = self.after(at_step)
        seen = snapshot.trajectory if snapshot.observations else {}
        if base != "averaged":
            return snapshot.weights, seen
        if not seen:
            raise PruningError(f"Nothing had been averaged by step {at_step}.", "Write base=final")
        return {**snapshot.weights, **seen[ALWAYS_RECORDED]}, seen

    def lens(self, which: PrunableSet, roles: str) -> Lens:
        """What may be cut: of one role, or with ``all`` of those that were trained."""
        check_roles(self.model.roles, [] if roles == "all" else [roles], "roles")
        trained = self.model.roles if self.trains == "all" else self.trains
        chosen = set(trained) if roles == "all" else {roles}

        def pick(tensors: Mapping[str, Tensor]) -> Tensors:
            views = self.model.prunable(tensors, which)
            return {n: view for n, view in views.items() if self.model.role_of(n) in chosen}

        return pick

    def load(self, weights: Tensors) -> None:
        """Give the live model a copy of ``weights``."""
        load(self.model, weights, self.name)

    def teacher(self, base: str) -> Model:
        """The dense model, apart from the live one. Of an early cut it is the one training ended
        with: what it was cut from had learned little.
        """
        teacher = deepcopy(self.model)
        load(teacher, self.weights(base), self.name)
        return teacher.eval().requires_grad_(False)

    def fingerprint(self, split: Split) -> str:
        """Of what it is measured on: rows that differ are not compared."""
        return self.dataset.fingerprint(split, context=self.model.context)


def check_kept(run: Run, steps: Iterable[int]) -> None:
    """Raise RunError, with the flag to train with, for a step that a run kept no snapshot of."""
    for step in missing_snapshots(run, [*steps]):
        raise RunError(
            f"{run.name} did not keep what it was after step {step}.",
            f"Train with tracking.snapshots=[{step}], or sweep schedule.at_step={step}.",
        )


@dataclass(frozen=True)
class TrainedRun:
    """Where a trained model is found, and what it is opened with. It can be pickled."""

    path: Path
    root: ConfigRoot
    device: str = "auto"
    threads: int | None = None

    def open(self) -> TrainedModel:
        """The model; the last one opened stays open in this process, while its run is the same."""
        manifest = self.path / "manifest.json"
        return _opened(self, manifest.stat().st_mtime_ns if manifest.is_file() else 0)


@lru_cache(maxsize=1)
def _opened(source: TrainedRun, written: int) -> TrainedModel:
    return open_run(Run(source.path), source.root, source.device, source.threads)


def open_run(
    run: Run, root: ConfigRoot, device: str = "auto", threads: int | None = None
) -> TrainedModel:
    """Open a finished training run. Its dtype and, unless given, its threads are those it had."""
    run.check_finished()
    described = run.config["identity"]
    trained_on = described["machine"]
    machine = resolve(device, trained_on["dtype"], threads or trained_on["threads"])
    dataset = dataset_of_run(run, root)
    model = new_model(stored_component(run, "model", root), dataset, seed=0)
    recipe: Recipe = stored_component(run, "training", root).instance
    model.to(machine.device)
    freeze(model, recipe.trains)
    expected = dataset.fingerprint("test", context=model.context)
    if run.manifest.get("fingerprint", expected) != expected:
        raise DataError(
            f"The data of {run.name} are now cut into other tokens than it was trained on.",
            "Put the old tokenizer (or its package's version) back, or train again.",
        )
    saved = run.tensors("trajectory.safetensors")
    statistics = run.manifest["tracker"]["statistics"]
    trajectory = {name: statistic_of(saved, name) for name in statistics}

    def averaged() -> Tensors:
        """What was frozen and not tracked stood still: it is its own average."""
        return {**run.tensors("model.safetensors"), **trajectory[ALWAYS_RECORDED]}

    return TrainedModel(
        model,
        dataset,
        machine,
        described["seed"],
        name=run.name,
        bases={
            "final": lambda: run.tensors("model.safetensors"),
            "best": lambda: run.tensors("best.safetensors"),
            "averaged": averaged,
        },
        trajectory=trajectory,
        recipe=recipe,
        batch_size=recipe.batch_size,
        model_name=described["model"]["name"],
        data_name=described["data"]["name"],
        run=run,
    )
