"""Neurons taken out beside torch-pruning: the same sizes, the same outputs.

Run by hand where the extra ``peers`` is installed: pytest -m peers.
"""

import copy

import pytest
import torch
from torch.nn import functional as F

from swe_cli.contracts import Model
from swe_cli.models.transformer import MLP
from swe_cli.pruning.shrink import load, shrink

pytestmark = pytest.mark.peers
tp = pytest.importorskip("torch_pruning", reason="the optional package torch-pruning is missing")


class Net(Model):
    """Two MLPs in a row, as a model whose units can be taken out."""

    def __init__(self):
        super().__init__()
        self.first = MLP(16, 0.0, "gelu", bias=True)
        self.second = MLP(16, 0.0, "gelu", bias=True)

    def forward(self, x):
        return self.second(F.layer_norm(self.first(x), (16,)))

    def units(self, kind):
        if kind != "neuron":
            return []
        return [self.first.units("first"), self.second.units("second")]


def test_the_same_neurons_out_the_same_network_remains():
    torch.manual_seed(0)
    ours, x = Net().eval(), torch.randn(5, 16)
    theirs = copy.deepcopy(ours)
    gone = {"first": [3, 8, 41, 63], "second": list(range(0, 64, 2))}
    graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=x)
    for name, units in gone.items():
        group = graph.get_pruning_group(
            getattr(theirs, name).expand, tp.prune_linear_out_channels, idxs=units
        )
        group.prune()
        with torch.no_grad():  # a mask of ours cuts the row and the column
            getattr(ours, name).expand.weight[units] = 0
            getattr(ours, name).contract.weight[:, units] = 0
    small = shrink(ours, ours.weights())
    load(ours, small)
    assert sum(t.numel() for t in small.values()) == sum(p.numel() for p in theirs.parameters())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
