"""The rest of a training, from the step at which it was cut, with the mask enforced."""

from dataclasses import dataclass

import torch

from swe_cli.contracts import Dataset, Lens, Masks, Model
from swe_cli.errors import Interrupted
from swe_cli.machine import Machine
from swe_cli.pruning.recover import UNWATCHED, Enforced, Watch
from swe_cli.training.loop import as_module, training_step
from swe_cli.training.recipe import Recipe


@dataclass
class Continued:
    """A training that goes on from ``step`` in place: its own optimizer, batches and schedule.

    With nothing cut it ends where the training itself ended, bit for bit.
    """

    model: Model
    dataset: Dataset
    lens: Lens
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    seed: int
    machine: Machine
    watch: Watch = UNWATCHED
    step: int = 0

    @property
    def left(self) -> int:
        """Steps to the end of the training."""
        return self.recipe.steps - self.step

    def run(self, steps: int, masks: Masks) -> None:
        """Take ``steps`` more, the mask put on again after each.

        Raises TrainingError, naming the step, for a loss or a gradient that is not finite.
        """
        as_module(self.model).train()
        enforce = Enforced.on(self.model, self.lens, masks)
        for step in range(self.step + 1, self.step + steps + 1):
            training_step(
                self.model,
                self.dataset,
                self.recipe,
                self.optimizer,
                step,
                seed=self.seed,
                machine=self.machine,
            )
            enforce()
            self.step = step
            self.watch.after_step(step)
            if self.watch.stop():
                raise Interrupted("Stopped in the rest of training; finished cells are safe.")
