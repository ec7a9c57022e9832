"""Wanda and SparseGPT beside llmcompressor's own, layer by layer and through a whole model.

Run by hand where the extra ``peers`` is installed: pytest -m peers.
"""

import copy

import pytest
import torch
from torch import nn
from training.toys import dataset, gpt, setup_of

from swe_cli.contracts import LayerInputs
from swe_cli.criteria.layers import SparseGPT, Wanda
from swe_cli.evaluation.loss import by_window, mean_of, row_pass
from swe_cli.patterns.shapes import NOfM, Unstructured
from swe_cli.pruning.calibration import CalibratedModel, Calibration, ChooseOfLayer

pytestmark = pytest.mark.peers
wanda = pytest.importorskip(
    "llmcompressor.modifiers.pruning.wanda.wanda_sparsify",
    reason="the optional package llmcompressor is missing",
)
sparsegpt = pytest.importorskip("llmcompressor.modifiers.pruning.sparsegpt.sgpt_sparsify")

OUT, IN, TOKENS, SAMPLES = 96, 256, 512, 8
PATTERNS = {"unstructured": (Unstructured(), 0, 0), "2:4": (NOfM(keep=2, of=4), 2, 4)}


@pytest.fixture
def layer():
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(IN, OUT, bias=False)
    module.weight.data = torch.randn(OUT, IN, generator=generator)
    mixing = torch.randn(IN, IN, generator=generator) / IN**0.5 + torch.eye(IN)
    return module, torch.randn(SAMPLES, TOKENS // SAMPLES, IN, generator=generator) @ mixing


def inputs_of(x):
    flat = x.flatten(0, 1)
    return LayerInputs(flat.square().sum(0), flat.T @ flat)


def theirs(package, module, x, n, m, **options):
    make, add = (
        (package.make_empty_row_scalars, package.accumulate_row_scalars)
        if package is wanda
        else (package.make_empty_hessian, package.accumulate_hessian)
    )
    state, seen = make(module), 0
    state, seen = add(x, module, state, seen)
    return package.sparsify_weight(module, {module: state}, 0.5, n, m, **options)


@pytest.mark.parametrize("name", PATTERNS)
def test_wanda_masks_are_identical(name, layer):
    module, x = layer
    pattern, n, m = PATTERNS[name]
    ours = module.weight.detach().clone()
    choose = ChooseOfLayer(
        ours.clone(), ours.numel() // 2, pattern, "row", torch.ones_like(ours, dtype=torch.bool)
    )
    Wanda().prune_layer(ours, inputs_of(x), choose)
    assert torch.equal(ours, theirs(wanda, module, x, n, m))


class OneMore:
    """llmcompressor cuts at ``<=`` the k-th score counted from 0, one weight more than asked."""

    group = None

    def __call__(self, scores, first):
        count = scores.numel() // 2 + 1
        kept = torch.ones(scores.numel(), dtype=torch.bool)
        kept[scores.flatten().argsort()[:count]] = False
        return kept.view_as(scores)


@pytest.mark.parametrize("name", PATTERNS)
def test_sparsegpt_weights_are_equal_to_a_thousandth(name, layer):
    module, x = layer
    pattern, n, m = PATTERNS[name]
    ours = module.weight.detach().clone()
    choose = (
        OneMore()
        if n == 0
        else ChooseOfLayer(
            ours.clone(),
            ours.numel() // 2,
            pattern,
            "tensor",
            torch.ones_like(ours, dtype=torch.bool),
        )
    )
    SparseGPT(damping=0.01, block=128).prune_layer(ours, inputs_of(x), choose)
    _, expected = theirs(
        sparsegpt,
        module,
        x,
        n,
        m,
        block_size=128,
        dampening_frac=0.01,
        preserve_sparsity_mask=False,
    )
    assert torch.equal(ours == 0, expected == 0)
    difference = (ours - expected).norm() / expected.norm()
    assert difference.item() < 1e-3


def test_an_exact_count_differs_from_theirs_by_one_weight_a_block(layer):
    module, x = layer
    ours = module.weight.detach().clone()
    choose = ChooseOfLayer(
        ours.clone(),
        ours.numel() // 2,
        Unstructured(),
        "tensor",
        torch.ones_like(ours, dtype=torch.bool),
    )
    SparseGPT(damping=0.01, block=128).prune_layer(ours, inputs_of(x), choose)
    options = {"block_size": 128, "dampening_frac": 0.01, "preserve_sparsity_mask": False}
    _, expected = theirs(sparsegpt, module, x, 0, 0, **options)
    assert int((ours == 0).sum()) == ours.numel() // 2
    assert int((expected == 0).sum()) == ours.numel() // 2 + IN // 128


DATA = dataset()


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("package", [wanda, sparsegpt])
def test_a_whole_small_model_has_the_same_loss(package, name):
    """Block by block on pruned inputs, ours beside a walk with their functions."""
    pattern, n, m = PATTERNS[name]
    model = gpt(DATA.shape.vocabulary_size, layers=3, width=64, heads=4, context=16)
    other = copy.deepcopy(model)

    def lens(tensors):
        return model.prunable(tensors, "linear")

    calibration = Calibration(samples=64, batch_size=64, inputs="pruned")
    counts = {name: view.numel() // 2 for name, view in lens(model.weights()).items()}
    criterion = Wanda() if package is wanda else SparseGPT(damping=0.01, block=128)
    within = "row" if package is wanda else "tensor"
    calibrated = CalibratedModel(setup_of(model, DATA), calibration, lens)
    calibrated.prune(criterion, counts, pattern, within, {})
    (batch,) = calibration.batches(setup_of(model, DATA), 64)
    options = (
        {}
        if package is wanda
        else {"block_size": 128, "dampening_frac": 0.01, "preserve_sparsity_mask": False}
    )
    other.eval()
    for block in other.layers:
        fed = {}

        def keep(module, given, fed=fed):
            fed[module] = given[0].detach()

        layers = [module for module in block.modules() if isinstance(module, nn.Linear)]
        hooks = [module.register_forward_pre_hook(keep) for module in layers]
        with torch.no_grad():
            other(batch)
        for hook in hooks:
            hook.remove()
        for module in layers:
            found = theirs(package, module, fed[module], n, m, **options)
            module.weight.data = found[1] if isinstance(found, tuple) else found

    def loss(of):
        windows = DATA.windows("test", context=16, size=64)
        return mean_of(by_window(row_pass(setup_of(of, DATA), windows)), "nats")

    assert loss(model) == pytest.approx(loss(other), rel=0.005)
    assert loss(model) != loss(gpt(DATA.shape.vocabulary_size, layers=3, width=64, heads=4))
