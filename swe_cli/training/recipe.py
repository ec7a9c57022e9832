"""How a model is trained: the values, the optimizer and the learning rate they mean."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn

from swe_cli.contracts import Count, Fraction, Model, Setup
from swe_cli.errors import UsageError
from swe_cli.training.backward import Backward
from swe_cli.training.parallel import Parallel
from swe_cli.training.state import OnSpike, TrainState

Trains = Literal["all"] | list[str]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps, batch, optimizer and schedule; every ``…_every`` counts optimizer steps. Of 0 steps, a
    model is what it was before, and has no trajectory.

    ``trains``: the roles of the model whose weights move; the others are frozen. ``on_spike``: see
    ``TrainState``; ``backward``: see ``Backward``, of linear layers inside blocks. ``parallel``:
    how the processes of torchrun share a training, each a part of every batch; see ``Ranks``.
    """

    steps: NonNegativeInt
    batch_size: Count
    accumulation: Count
    optimizer: Literal["adamw", "adam"]
    learning_rate: PositiveFloat
    minimum_learning_rate: NonNegativeFloat
    schedule: Literal["cosine", "constant", "linear_average"]
    warmup_steps: NonNegativeInt
    beta1: Fraction
    beta2: Fraction
    weight_decay: NonNegativeFloat
    gradient_clip: NonNegativeFloat
    evaluate_every: Count
    checkpoint_every: Count
    compile: bool
    trains: Trains
    on_spike: OnSpike
    backward: Literal["dense", "ssprop", "random"]
    backward_keep: Annotated[float, Field(gt=0, le=1, description="The paper's: 0.2")]
    parallel: Parallel | None = None

    def __post_init__(self) -> None:
        if not self.trains:
            raise UsageError("training.trains names no role.", "Write training.trains=all")
        if self.schedule == "cosine" and self.minimum_learning_rate > self.learning_rate:
            why = f"training.learning_rate={self.learning_rate} is below where the cosine ends."
            raise UsageError(why, "Write training.minimum_learning_rate=0")
        if self.compile and self.backward != "dense":
            why = f"training.backward={self.backward} changes on the way what would be compiled."
            raise UsageError(why, "Write training.compile=false")
        alone = {"steps": self.steps == 0, "compile": self.compile}
        alone["backward"] = self.backward != "dense"
        for key in (key for key, found in alone.items() if found and self.parallel):
            why = f"training.parallel={self.parallel} does not go with {key}={getattr(self, key)}."
            raise UsageError(why, "Write training.parallel=null")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` (1-based): linear warm-up, then the schedule.

        ``linear_average`` decays as averaging all weights, step i counting i, reweights the updates
        of a constant rate: ``1 − i(i−1) / (T(T+1))`` (WSM, arXiv 2507.17634).
        """
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "linear_average":
            return self.learning_rate * (1.0 - step * (step - 1) / (self.steps * (self.steps + 1)))
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        span = self.learning_rate - self.minimum_learning_rate
        return self.minimum_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * done))

    def begin(self, setup: Setup) -> TrainState:
        """A training of ``setup``'s model by this recipe that has taken no step."""
        weights, betas = setup.model.parameters(), (self.beta1, self.beta2)
        optimizer = build_optimizer(weights, self.optimizer, self.weight_decay, betas)
        size = self.batch_size, self.accumulation, self.gradient_clip
        learner = torch.compile(setup.model) if self.compile else None
        state = TrainState(setup, optimizer, self.learning_rate_at, *size, learner)
        return replace(state, backward=self._backward(setup), on_spike=self.on_spike)

    def _backward(self, setup: Setup) -> Backward:
        """UsageError where none of its steps would be another than a dense one."""
        if self.backward == "dense":
            return Backward()
        layers = [m for m in setup.model.linear_layers().values() if isinstance(m, nn.Linear)]
        size = self.batch_size * self.accumulation
        epoch = setup.dataset.steps_per_epoch(size=size, context=setup.model.context)
        if not layers or epoch >= self.steps:
            what = f"{len(layers)} linear layers after an epoch of {epoch} steps"
            why = f"would thin {what}, and training.steps={self.steps} ends before."
            hint = f"Write training.steps={2 * epoch}, or training.backward=dense"
            raise UsageError(f"training.backward={self.backward} {why}", hint)
        seed = setup.seed if self.backward == "random" else None
        return Backward(layers, self.backward_keep, epoch, seed)


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    kind: Literal["adamw", "adam"],
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Adam or AdamW, fused, over what is not frozen. Weight decay spares vectors."""
    parameters = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    make = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return make([group for group in groups if group["params"]], betas=betas, fused=True)


def freeze(model: Model, trains: Trains) -> None:
    """Let only the roles that are trained have gradients. Raises UsageError for another's role."""
    check_roles(model.roles, trains, "training.trains")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains == "all" or model.role_of(name) in trains)


def check_roles(roles: Sequence[str] | None, asked: Trains | str, key: str) -> None:
    """Raise UsageError for a role that the model does not have, where its roles are known."""
    if roles is None or asked == "all":
        return
    for role in [asked] if isinstance(asked, str) else asked:
        if role not in roles:
            hint = f"Its roles are {', '.join(roles)}; or all."
            raise UsageError(f"{key}: this model has no {role}.", hint)
