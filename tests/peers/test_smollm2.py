"""Wanda and SparseGPT beside llmcompressor's own on a real model, every layer on the same inputs.

SWE_SMOLLM2=smollm2 pytest -m peers tests/peers/test_smollm2.py    (scripts/make_smollm2 smollm2)
"""

import os

import pytest
import torch

pytest.importorskip("llmcompressor", reason="the optional package llmcompressor is missing")

from test_llmcompressor import OneMore, setup_of, sparsegpt, theirs, wanda

from swe_cli.config import ConfigRoot, compose
from swe_cli.criteria.layers import SparseGPT, Wanda
from swe_cli.experiments.training import load_dataset, new_model
from swe_cli.patterns.shapes import Unstructured
from swe_cli.pruning.calibration import CalibratedModel, Calibration, ChooseOfLayer

pytestmark = pytest.mark.peers
FOLDER = os.environ.get("SWE_SMOLLM2")
OPTIONS = {"block_size": 128, "dampening_frac": 0.01, "preserve_sparsity_mask": False}


@pytest.mark.skipif(FOLDER is None, reason="$SWE_SMOLLM2 names no folder: scripts/make_smollm2")
@torch.no_grad()
def test_every_layer_is_cut_as_theirs():
    """What a layer is fed is noted once, in the dense model, and given to both."""
    torch.set_num_threads(1)  # with two, near ties of one layer fall otherwise: 0.029 of its norm
    words = ("model=huggingface", f"model.path={FOLDER}", "model.context=256", "data=kjv_chars")
    composed = compose("train", words, ConfigRoot())
    data = load_dataset(composed["data"], composed["tokenizer"])
    model = new_model(composed["model"], data, seed=0).eval()
    setup = setup_of(model, data)

    def lens(tensors):
        return model.prunable(tensors, "linear")

    calibrated = CalibratedModel(setup, Calibration(samples=8, batch_size=8, inputs="dense"), lens)
    (batch,) = calibrated.calibration.batches(setup, 8)
    layers, fed = model.linear_layers(), {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: fed.update({name: given[0]}))
        for name, layer in layers.items()
    ]
    model(batch)
    for hook in hooks:
        hook.remove()
    assert len(fed) == 210
    views, far = lens(model.weights()), []
    for name, inputs in calibrated._walk(SparseGPT(damping=0.01, block=128), pruned=False):
        layer, weight = layers[name], views[name]
        choose = ChooseOfLayer(
            weight.clone(), weight.numel() // 2, Unstructured(), "row", torch.ones_like(weight) > 0
        )
        mine = weight.clone()
        Wanda().prune_layer(mine, inputs, choose)
        different = (mine == 0) != (theirs(wanda, layer, fed[name], 0, 0) == 0)
        assert different.float().mean() < 1e-4, name  # the norms are added up in another order
        mine = weight.clone()
        SparseGPT(damping=0.01, block=128).prune_layer(mine, inputs, OneMore())
        _, expected = theirs(sparsegpt, layer, fed[name], 0, 0, **OPTIONS)
        assert ((mine == 0) != (expected == 0)).float().mean() < 1e-3, name
        far.append(float((mine - expected).norm() / expected.norm()))
    assert max(far) < 0.02
    assert sum(far) / len(far) < 0.002
