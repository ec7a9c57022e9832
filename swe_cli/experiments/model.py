"""A model that one can cut, whoever trained it, and what it can start from."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from swe_cli.contracts import Lens, Model, PrunableSet, Setup
from swe_cli.errors import PruningError, RunError
from swe_cli.evaluation.loss import Evaluation
from swe_cli.files import dequantized
from swe_cli.pruning.prune import Scorer
from swe_cli.pruning.shrink import load
from swe_cli.records import Tensors
from swe_cli.store import Run
from swe_cli.training.recipe import Recipe, check_roles
from swe_cli.training.run import Snapshot, read_snapshot

ALWAYS_RECORDED = "weighted_average"  # the dense_averaged control and base=averaged need it
# Bases that are a statistic of the training: which one.
AVERAGES = {"averaged": ALWAYS_RECORDED, "latest": "latest_average", "ema": "exponential_average"}


def _average(statistic: str, run: Run, trajectory: Mapping[str, Tensors]) -> Tensors:
    """What was frozen and not tracked stood still: it is its own average."""
    return {**run.tensors("model.safetensors"), **trajectory[statistic]}


# The weights that a training of ours leaves, each made of its run and trajectory.
BASES: Mapping[str, Callable[[Run, Mapping[str, Tensors]], Tensors]] = {
    "final": lambda run, trajectory: run.tensors("model.safetensors"),
    "best": lambda run, trajectory: run.tensors("best.safetensors"),
    **{base: partial(_average, statistic) for base, statistic in AVERAGES.items()},
}


@dataclass
class TrainedModel(Setup):
    """A model that one can cut, whoever trained it: its weights, and how it lived if that is known.

    ``bases``: what makes the weights of every base there is, ``final`` at least, by name.
    ``trajectory``: statistic → tensors by parameter name; empty of a model that was not tracked.
    ``recipe`` and ``run``: how it was trained, and where that is kept; None of a stranger.
    ``scorers``: rankings of its weights, by what they are made of; every criterion scores once.
    """

    name: str
    bases: Mapping[str, Callable[[], Tensors]]
    trajectory: Mapping[str, Tensors] = field(default_factory=dict)
    recipe: Recipe | None = None
    run: Run | None = None
    scorers: dict[object, Scorer] = field(default_factory=dict)
    _snapshots: dict[int, Snapshot] = field(default_factory=dict)

    def weights(self, base: str) -> Tensors:
        """Parameters by name: ``final``, ``best`` (validation) or one of ``AVERAGES``."""
        if base not in self.bases:
            there = f"It has {', '.join(self.bases)}."
            raise RunError(f"{self.name} has no {base} weights.", there)
        return self.bases[base]()

    def after(self, step: int) -> Snapshot:
        """The training as it was after a step. RunError where that was not kept."""
        if self.run is None:
            raise RunError(f"{self.name} is no training: it has no step {step}.", "Cut it at once.")
        if step not in self._snapshots:
            self._snapshots = {step: read_snapshot(self.run, step)}  # one is enough to hold
        return self._snapshots[step]

    def starting_point(self, base: str, step: int | None) -> tuple[Tensors, Mapping[str, Tensors]]:
        """The weights that are cut, at the end or after a step, and the trajectory up to then."""
        if step is None:
            return self.weights(base), self.trajectory
        snapshot = self.after(step)
        seen = snapshot.trajectory
        if base not in AVERAGES:
            return snapshot.weights, seen
        if not seen:
            raise PruningError(f"Nothing had been averaged by step {step}.", "Write base=final")
        return {**snapshot.weights, **seen[AVERAGES[base]]}, seen

    def lens(self, which: PrunableSet, roles: str) -> Lens:
        """What may be cut: of one role, or with ``all`` of those that were trained."""
        check_roles(self.model.roles, roles, "roles")
        trains = self.recipe.trains if self.recipe else "all"
        trained = self.model.roles if trains == "all" else trains
        chosen = set(trained) if roles == "all" else {roles}

        def pick(tensors: Mapping[str, Tensor]) -> Tensors:
            views = self.model.prunable(tensors, which)
            return {n: view for n, view in views.items() if self.model.role_of(n) in chosen}

        return pick

    def load(self, weights: Tensors) -> None:
        """Give the live model a copy of ``weights``, of int8 what it stands for."""
        load(self.model, dequantized(weights), self.name)

    def teacher(self, base: str) -> Model:
        """The dense model, apart; of an early cut, too, as training ended: it had learned more."""
        teacher = deepcopy(self.model)
        load(teacher, self.weights(base), self.name)
        return teacher.eval().requires_grad_(False)

    def fingerprint(self, protocol: Evaluation) -> str:
        """Of what it is measured on: rows that differ are not compared."""
        return self.dataset.fingerprint(protocol.split, **self.cut(**protocol.cut))
