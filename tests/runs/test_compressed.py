"""Weights without their zeros, in a file: bit for bit what they were."""

import pytest
import torch

from swe_cli.errors import CorruptFileError
from swe_cli.files import compressed, decompressed, write_bytes, write_tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9, 1.0])
def test_there_and_back(tmp_path, dtype, zeros):
    torch.manual_seed(0)
    weight = torch.randn(60, 47).mul(20)
    weight[torch.rand_like(weight) < zeros] = 0
    weight[0, :2] = torch.tensor([-0.0, 0.0])
    tensors = {
        "w": weight.to(dtype),
        "b": torch.zeros(5),
        "none": torch.empty(0, 3),
        "one": torch.tensor(2.0),
    }
    write_bytes(tmp_path / "m.safetensors", compressed(tensors))
    back = decompressed(tmp_path / "m.safetensors")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
        bits = {1: torch.int8, 2: torch.int16, 4: torch.int32}[tensor.element_size()]
        assert torch.equal(back[name].view(bits), tensor.view(bits))


def test_its_size_at_half_and_at_nine_tenths():
    torch.manual_seed(0)
    weight = torch.randn(512, 512) * 0.02
    sizes = {}
    for zeros in (0.5, 0.9):
        cut = weight.clone()
        cut[torch.rand_like(cut) < zeros] = 0
        sizes[zeros] = len(compressed({"w": cut})) / weight.nbytes
    assert 0.40 < sizes[0.5] < 0.50
    assert 0.08 < sizes[0.9] < 0.12


def test_another_file_is_refused(tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"w": torch.zeros(2)})
    with pytest.raises(CorruptFileError, match="is not compressed"):
        decompressed(tmp_path / "m.safetensors")
