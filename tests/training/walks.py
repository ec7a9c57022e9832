"""A random walk of weights, as a tracker sees it."""

import math
from types import SimpleNamespace

import torch

from swe_cli.records import Tensors
from swe_cli.statistics.running import WeightedAverage
from swe_cli.training.tracker import Tracker, Tracking

STEPS, PER_EPOCH, DECAY = 40, 7, 0.9


def walk(steps: int = STEPS) -> list[Tensors]:
    """Weights after every step: a random walk of a matrix and a vector."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"matrix": (3, 4), "vector": (5,)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    path = []
    for _ in range(steps):
        weights = {
            name: weight + 0.1 * torch.randn(weight.shape, generator=generator)
            for name, weight in weights.items()
        }
        path.append(weights)
    return path


def tracked(path: list[Tensors], make=WeightedAverage, **options) -> tuple[Tracker, Tensors]:
    """A tracker that has seen the walk in live weights, as it sees a model's; and its statistic."""
    defaults = {"every": 1, "start": 0, "weighting": "linear", "decay": DECAY, "sample": 0}
    live = {name: torch.zeros_like(weight) for name, weight in path[0].items()}
    statistic = make(live)
    tracker = Tracker(
        live,
        {"statistic": statistic},
        live,
        Tracking(**{**defaults, **options}),
        steps=len(path),
        steps_per_epoch=PER_EPOCH,
        seed=0,
    )
    for step, weights in enumerate(path, start=1):
        for name, weight in weights.items():
            live[name].copy_(weight)
        tracker.after_step(after(step), {})
    return tracker, statistic.state()


def after(step: int) -> SimpleNamespace:
    """All that a tracker asks of a training after a step."""
    return SimpleNamespace(step=step)


def observed(every: int, start: int) -> list[int]:
    """Steps that are observed, 1-based: after ``start``, every ``every``-th."""
    return [step for step in range(1, STEPS + 1) if step > start and (step - start) % every == 0]


def amounts(weighting: str, count: int) -> list[float]:
    """a_1 … a_count as they stand after the last observation."""
    return {
        "linear": [float(i) for i in range(1, count + 1)],
        "sqrt": [math.sqrt(i) for i in range(1, count + 1)],
        "uniform": [1.0] * count,
        "exponential": [DECAY ** (count - i) for i in range(1, count + 1)],
    }[weighting]
