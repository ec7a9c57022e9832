"""Matrices in int8: by hand, and as a file that is read back as what was measured."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training.toys import gpt

from swe_cli.contracts import Model
from swe_cli.errors import PruningError
from swe_cli.files import SCALE, dequantized, read_tensors, write_tensors
from swe_cli.pruning.shrink import quantized


class Plain(Model):
    """One linear layer (``layer``), or something that is none."""

    context = 1

    def __init__(self, weight=None):
        super().__init__()
        if weight is None:
            self.embedding = nn.Embedding(2, 3)
        else:
            self.layer = nn.Linear(*reversed(weight.shape))
            self.layer.weight.data = weight

    def forward(self, batch):
        raise NotImplementedError


def test_by_hand():
    """The largest weight of a row is 127 steps; of the second a step is 2, and 3 is 1.5 of them."""
    weight = torch.tensor([[127.0, -63.4, 0.0], [254, -254, 3], [0, 0, 0]])
    stored = quantized(Plain(weight))
    assert stored["layer.weight"].dtype == torch.int8
    assert stored["layer.weight"].tolist() == [[127, -63, 0], [127, -127, 2], [0, 0, 0]]
    assert stored[f"layer.weight{SCALE}"].tolist() == [1.0, 2.0, 0.0]
    assert stored["layer.bias"].dtype == torch.float32
    plain = dequantized(stored)
    assert plain.keys() == {"layer.weight", "layer.bias"}
    assert plain["layer.weight"].tolist() == [[127, -63, 0], [254, -254, 4], [0, 0, 0]]


def test_a_matrix_of_which_nothing_is_left_stays_as_it_is():
    model = nn.ModuleDict({"some": Plain(torch.ones(2, 2)), "none": Plain(torch.ones(2, 2))})
    model["none"].layer.weight.data = torch.ones(2, 0)
    model.weights = lambda: {name: p.detach() for name, p in model.named_parameters()}
    stored = quantized(model)
    assert stored["some.layer.weight"].dtype == torch.int8
    assert stored["none.layer.weight"].shape == (2, 0)
    assert f"none.layer.weight{SCALE}" not in stored


def test_no_weight_moves_by_more_than_half_a_step_and_zeros_stay():
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)).exp()
    weight *= torch.rand(40, 30, generator=torch.Generator().manual_seed(1)) > 0.5
    moved = (dequantized(quantized(Plain(weight)))["layer.weight"] - weight).abs()
    assert (moved <= weight.abs().amax(1, keepdim=True) / 127 * 0.5001).all()
    assert (moved[weight == 0] == 0).all()
    assert moved.max() > 0


def test_all_linear_layers_of_a_model_and_nothing_else():
    model = gpt(11, layers=2, tied_head=False, head_bias=True, bias=True)
    stored = quantized(model)
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert len(linear) == 2 * 4 + 1
    assert {name for name, tensor in stored.items() if tensor.dtype == torch.int8} == linear
    assert {name.removesuffix(SCALE) for name in stored if name.endswith(SCALE)} == linear
    tied = quantized(gpt(11))
    assert tied["token_embedding.weight"].dtype == torch.float32  # a look-up, too


def test_a_file_is_smaller_and_read_back_as_what_it_stands_for(tmp_path):
    model = gpt(11, layers=2, width=64)
    stored, whole, small = quantized(model), tmp_path / "whole", tmp_path / "small"
    write_tensors(whole, model.weights())
    write_tensors(small, stored)
    assert small.stat().st_size < 0.35 * whole.stat().st_size  # width 64: embeddings are a part
    back, expected = read_tensors(small), dequantized(stored)
    assert back.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(back[name], expected[name]) for name in back)
    assert load_file(small)["layers.0.mlp.expand.weight"].dtype == torch.int8


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(PruningError, match="no linear layer") as error:
        quantized(Plain())
    assert error.value.hint
