"""How a model is trained: the values, the optimizer and the learning rate they mean."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from swe_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps, batch, optimizer and schedule; every ``…_every`` counts optimizer steps.

    ``trains``: the roles of the model whose weights move; the others are frozen.
    """

    steps: int
    batch_size: int
    accumulation: int
    optimizer: Literal["adamw", "adam"]
    learning_rate: float
    minimum_learning_rate: float
    schedule: Literal["cosine", "constant"]
    warmup_steps: int
    beta1: float
    beta2: float
    weight_decay: float
    gradient_clip: float
    evaluate_every: int
    checkpoint_every: int
    compile: bool
    trains: Literal["all"] | list[str]

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "accumulation", "evaluate_every", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise UsageError(f"training.{key}={getattr(self, key)} must be at least 1.")
        for key in ("warmup_steps", "weight_decay", "gradient_clip", "minimum_learning_rate"):
            if getattr(self, key) < 0:
                raise UsageError(f"training.{key}={getattr(self, key)} must not be negative.")
        for key in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, key) < 1.0:
                raise UsageError(f"training.{key}={getattr(self, key)} is not in [0, 1).")
        if not self.trains:
            raise UsageError("training.trains names no role.", "Write training.trains=all")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"training.learning_rate={self.learning_rate} must be positive.")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` (1-based): linear warm-up, then the schedule."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        span = self.learning_rate - self.minimum_learning_rate
        return self.minimum_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * done))

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return build_optimizer(
            parameters,
            self.optimizer,
            self.learning_rate,
            betas=(self.beta1, self.beta2),
            weight_decay=self.weight_decay,
        )


def no_pretraining() -> None:
    """What ``pretraining=none`` builds: the model is trained in one stage."""


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    kind: Literal["adamw", "adam"],
    learning_rate: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Adam or AdamW, fused, over what is not frozen. Weight decay spares vectors."""
    parameters = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[kind](
        [group for group in groups if group["params"]], lr=learning_rate, betas=betas, fused=True
    )
    return optimizer
