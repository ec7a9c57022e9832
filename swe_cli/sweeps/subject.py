"""A finished training, opened again: what cells cut, and what they start from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from swe_cli.compose import ConfigRoot
from swe_cli.contracts import Dataset, Lens, Model, PrunableSet, Tensors
from swe_cli.errors import DataError, RunError
from swe_cli.machine import Machine, resolve
from swe_cli.pruning.cut import Scoring
from swe_cli.pruning.shrink import load
from swe_cli.runs import Run
from swe_cli.sweeps.build import ALWAYS_RECORDED, dataset_of_run, new_model, stored_part
from swe_cli.training.checkpoint import Snapshot, missing_snapshots, read_snapshot
from swe_cli.training.loop import as_module, check_roles, freeze
from swe_cli.training.recipe import Recipe
from swe_cli.training.tracker import statistic_of


@dataclass
class Subject:
    """A finished training, loaded: the weights one can cut, the trajectory, the data."""

    run: Run
    identity: dict[str, Any]
    model: Model
    dataset: Dataset
    machine: Machine
    trajectory: dict[str, Tensors]
    recipe: Recipe
    scorings: dict[str, Scoring] = field(default_factory=dict)
    _snapshots: dict[int, Snapshot] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        seed: int = self.identity["seed"]
        return seed

    def after(self, step: int) -> Snapshot:
        """The training as it was after a step. RunError where that was not kept."""
        check_kept(self.run, [step])
        if step not in self._snapshots:
            self._snapshots = {step: read_snapshot(self.run, step)}  # one is enough to hold
        return self._snapshots[step]

    def weights(self, base: str) -> Tensors:
        """Parameters by name: ``final``, ``best`` (validation) or ``averaged`` (W̄).

        What was frozen and not tracked stood still: it is its own average.
        """
        if base == "averaged":
            final = self.run.tensors("model.safetensors")
            return {
                name: self.trajectory[ALWAYS_RECORDED].get(name, w) for name, w in final.items()
            }
        return self.run.tensors({"final": "model", "best": "best"}[base] + ".safetensors")

    def lens(self, which: PrunableSet, roles: str) -> Lens:
        """What may be cut: of one role, or with ``all`` of those that were trained."""
        check_roles(self.model.roles, [] if roles == "all" else [roles], "roles")
        trained = self.identity["training"].get("trains", "all")
        wanted = (
            {roles} if roles != "all" else set(self.model.roles if trained == "all" else trained)
        )

        def pick(tensors: Mapping[str, Tensor]) -> Tensors:
            views = self.model.prunable(tensors, which)
            return {n: view for n, view in views.items() if self.model.role_of(n) in wanted}

        return pick

    def load(self, weights: Tensors) -> Model:
        """The one model of this subject, holding a copy of ``weights``."""
        load(as_module(self.model), weights, self.run.name)
        return self.model


def check_kept(run: Run, steps: Iterable[int]) -> None:
    """Raise RunError, with the flag to train with, for a step that a run kept no snapshot of."""
    for step in missing_snapshots(run, [*steps]):
        raise RunError(
            f"{run.name} did not keep what it was after step {step}.",
            f"Train with tracking.snapshots=[{step}], or sweep schedule.at_step={step}.",
        )


def load_subject(
    run: Run, root: ConfigRoot, device: str = "auto", threads: int | None = None
) -> Subject:
    """Open a finished training run. Its dtype and, unless given, its threads are those it had."""
    if not run.finished:
        raise RunError(
            f"{run.name} is {run.status}: it has no final weights yet.",
            "Type the command that trains it again: it resumes.",
        )
    stored = run.config
    described = stored["identity"]
    machine = resolve(device, described["machine"]["dtype"], threads or _threads(described))
    dataset = dataset_of_run(run, root)
    model = new_model(stored_part("model", described, stored["paths"], root), dataset, seed=0)
    as_module(model).to(machine.device)
    freeze(model, described["training"].get("trains", "all"))
    expected = dataset.fingerprint("test", context=model.context)
    if run.manifest.get("fingerprint", expected) != expected:
        raise DataError(
            f"The data of {run.name} are now cut into other tokens than it was trained on.",
            "Put the old tokenizer (or its package's version) back, or train again.",
        )
    saved = run.tensors("trajectory.safetensors")
    statistics = run.manifest["tracker"]["statistics"]
    trajectory = {name: statistic_of(saved, name) for name in statistics}
    recipe: Recipe = stored_part("training", described, stored["paths"], root).build()
    return Subject(run, described, model, dataset, machine, trajectory, recipe)


def _threads(described: Mapping[str, Any]) -> int | None:
    threads: int | None = described["machine"]["threads"]
    return threads
