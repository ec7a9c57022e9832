"""Toys that every contract is tried on: a small model, its weights, a short life of them."""

from types import SimpleNamespace

import pytest
import torch

from swe_cli.config import Component, ConfigRoot, component, shipped_conf
from swe_cli.contracts import BLOCKS, GRADIENTS, DataShape, LayerInputs
from swe_cli.experiments import spec

ROOT = ConfigRoot()
VOCABULARY = 11
SHAPE = DataShape(VOCABULARY, image=(3, 4, 4))
SMALL = {"layers": 2, "heads": 2, "width": 8, "context": 10, "patch": 2}


def names(group: str) -> list[str]:
    """Every choice of a group: a new YAML is tested the moment it exists; what is made of a folder
    of transformers, in ``tests/models``.
    """
    every = {path.stem for path in (shipped_conf() / group).glob("*.yaml")}
    return sorted(every - {"huggingface", "pretrained"})


def small_model(name: str):
    """The model of a YAML, made small where its sizes go by the usual names."""
    torch.manual_seed(0)
    return component("model", name, ROOT, _smaller(component("model", name, ROOT))).build(SHAPE)


def _smaller(chosen: Component) -> dict:
    """Of a model, and of the towers inside it."""
    inside = {k: _smaller(v) for k, v in chosen.options.items() if isinstance(v, Component)}
    return {key: SMALL[key] for key in chosen.options if key in SMALL} | inside


def built(group: str, name: str, *runtime):
    return spec.built(component(group, name, ROOT), *runtime)


def observe(statistic, observations, start=1):
    """Steps of a training, as a tracker shows them."""
    for index, weights in enumerate(observations, start):
        gradients = {n: w.cos() for n, w in weights.items()}
        statistic.before_step(weights, gradients, 2 / (index + 1))
        statistic.update(weights, index, 2 / (index + 1))
        statistic.after_step({"exp_avg_sq": {n: g.square() for n, g in gradients.items()}})


@pytest.fixture
def life():
    """Weights, five observations of them, and every statistic of those."""
    generator = torch.Generator().manual_seed(7)
    shapes = {"a": (4, 6), "b": (5,), "c": (3, 2)}
    weights = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
    observations = []
    for _ in range(5):
        weights = {
            n: w + 0.1 * torch.randn(w.shape, generator=generator) for n, w in weights.items()
        }
        observations.append(weights)
    trajectory = {}
    for name in names("statistic"):
        statistic = built("statistic", name, observations[0])
        observe(statistic, observations)
        trajectory[name] = {n: t.clone() for n, t in statistic.state().items()}
    calibration = {
        of: {n: torch.randn(w.shape, generator=generator).abs() for n, w in weights.items()}
        for of in (*GRADIENTS, *BLOCKS)
    }
    return SimpleNamespace(
        observations=observations, weights=weights, trajectory=trajectory, calibration=calibration
    )


def fed(columns, seed=5, tokens=40):
    """What a layer of so many inputs was fed."""
    x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(seed))
    return LayerInputs(x.square().sum(0), x.T @ x, x.sum(0), len(x))
