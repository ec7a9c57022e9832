"""What a calibration set tells, against the slow way; what pruned blocks hand to the next."""

import gc
from types import SimpleNamespace

import pytest
import torch
from training.toys import dataset, gpt, setup_of

from swe_cli.allocation.counts import Uniform
from swe_cli.contracts import IGNORED, Evidence, Model, Prediction
from swe_cli.criteria.layers import SparseGPT, Wanda
from swe_cli.errors import PruningError
from swe_cli.models.gpt import token_losses
from swe_cli.patterns.shapes import NOfM, Unstructured
from swe_cli.pruning.calibration import CalibratedModel, Calibration
from swe_cli.pruning.prune import Judge, Method, Scorer, prune

DATA = dataset()


def calibrated(model, which="linear", **options):
    settings = {"samples": 6, "batch_size": 4, "inputs": "pruned", **options}

    def lens(tensors):
        return model.prunable(tensors, which)

    return CalibratedModel(setup_of(model, DATA, seed=3), Calibration(**settings), lens)


def model_of(**options):
    return gpt(DATA.shape.vocabulary_size, **{"layers": 2, "initialization": "torch", **options})


def samples(model):
    batches = Calibration(samples=6, batch_size=4, inputs="pruned").batches(
        setup_of(model, DATA, seed=3), 1
    )
    assert [len(batch["tokens"]) for batch in batches] == [1] * 6
    return batches


def test_gradients_are_those_of_single_samples():
    model = model_of(dropout=0.3)
    found = calibrated(model).gradients
    model.eval()
    name, weight = "layers.1.mlp.expand.weight", model.layers[1].mlp.expand.weight
    each = torch.stack(
        [
            torch.autograd.grad(model(batch).losses.mean(), weight)[0].double()
            for batch in samples(model)
        ]
    )
    for of, expected in {
        "mean_gradient": each.mean(0),
        "mean_saliency": (each * weight.double()).abs().mean(0),
        "mean_square_gradient": each.square().mean(0),
    }.items():
        torch.testing.assert_close(found[of][name].double(), expected, rtol=1e-4, atol=1e-9)
    # With one batch in place of samples Fisher would be SNIP squared; it is not.
    assert not torch.allclose(
        found["mean_square_gradient"][name], found["mean_gradient"][name] ** 2
    )


def test_frozen_weights_have_gradients_too_and_stay_frozen():
    model = model_of().requires_grad_(False)
    found = calibrated(model).gradients
    assert found["mean_gradient"]["layers.0.mlp.expand.weight"].any()
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_it_comes_from_the_training_split_and_the_seed():
    one, two, other = (
        Calibration(samples=4, batch_size=4, inputs="pruned").batches(
            setup_of(SimpleNamespace(context=8), DATA, seed=seed), 4
        )[0]["tokens"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    text = DATA.decode(DATA.random_batch("train", size=1, context=8, seed=0)["tokens"][0].tolist())
    assert len(text) == 8


def inputs_of(model, layer):
    """All that a layer is fed over the calibration set, (tokens, in)."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, -2)))
    with torch.no_grad():
        for batch in samples(model):
            model.eval()(batch)
    hook.remove()
    return torch.cat(seen)


def test_wanda_scores_by_the_norms_of_dense_inputs():
    model = model_of()
    scores = calibrated(model).dense_scores(Wanda())
    assert list(scores) == list(model.prunable(model.weights(), "linear"))
    for place in (0, 1):
        layer = model.layers[place].mlp.contract
        x = inputs_of(model, layer)
        expected = layer.weight.abs() * x.double().square().sum(0).sqrt()
        name = f"layers.{place}.mlp.contract.weight"
        torch.testing.assert_close(scores[name].double(), expected.detach(), rtol=1e-4, atol=1e-6)


def counts_of(model, ratio=0.5):
    views = model.prunable(model.weights(), "linear")
    return {name: round(ratio * view.numel()) for name, view in views.items()}


def pruned(model, criterion, pattern=None, within="tensor", ratio=0.5, **options):
    """The masks of all layers; the weights of ``model`` are cut, too."""
    counts, pattern = counts_of(model, ratio), pattern or Unstructured()
    return calibrated(model, **options).prune(criterion, counts, pattern, within, {})


@pytest.mark.parametrize("split_heads", [False, True])
@pytest.mark.parametrize("within", ["tensor", "row"])
@pytest.mark.parametrize("criterion", [Wanda(), SparseGPT(damping=0.01, block=12)])
def test_counts_are_exact_and_only_what_is_cut_is_zero(criterion, within, split_heads):
    model = model_of(split_heads=split_heads)
    counts = counts_of(model, 0.37)  # no multiple of the rows
    masks = pruned(model, criterion, within=within, ratio=0.37)
    live = model.prunable(model.weights(), "linear")
    assert list(masks) == list(live)
    for name, mask in masks.items():
        assert int((~mask).sum()) == counts[name]
        assert torch.equal(live[name] == 0, ~mask)
        if within == "row":
            lost = (~mask).sum(1)  # over all blocks of columns
            assert int(lost.max() - lost.min()) <= 1


def test_a_criterion_that_keeps_what_its_pattern_would_cut_is_named():
    class Kind(Wanda):
        def prune_layer(self, weight, inputs, choose):
            return choose(self.score_layer(weight, inputs), 0) | True

    of = calibrated(model_of())
    evidence = Evidence(of.lens(of.setup.model.weights()))
    scorer = Scorer(of.setup, of.lens, evidence, of.calibration)
    method = Method(Judge(Kind(), "kind", "kind"), 0.5, allocation=Uniform())
    with pytest.raises(PruningError, match=r"^criterion=kind with Unstructured cut 0 weights"):
        prune(method, scorer)


def test_the_second_block_is_judged_by_what_the_pruned_first_one_gives():
    model = model_of()
    before = {name: weight.clone() for name, weight in model.weights().items()}
    masks = pruned(model, Wanda(), within="row")
    name, layer = "layers.1.attention.qkv.weight", model.layers[1].attention.qkv
    x = inputs_of(model, layer)  # the first block is pruned by now; the second is behind its input
    scores = before[name].abs() * x.square().sum(0).sqrt()
    ranks = scores.argsort(1).argsort(1)
    assert torch.equal(masks[name], ranks >= scores.shape[1] // 2)
    dense = model_of()
    pruned(dense, Wanda(), within="row", inputs="dense")
    assert not torch.equal(dense.layers[1].attention.qkv.weight, layer.weight)
    first = "layers.0.attention.qkv.weight"
    assert torch.equal(dense.weights()[first], model.weights()[first])


def test_sparsegpt_keeps_a_layers_output_better_than_wanda_does():
    """On what the layer was fed, which is what it minimises."""
    found = {}
    for name, criterion in (("wanda", Wanda()), ("sparsegpt", SparseGPT(damping=0.01, block=128))):
        model = model_of(width=64)
        layer = model.layers[0].mlp.expand
        x, dense = inputs_of(model, layer), layer.weight.detach().clone()
        pruned(model, criterion, within="row")
        found[name] = float((x @ (layer.weight.detach() - dense).T).square().mean())
    assert found["sparsegpt"] < 0.9 * found["wanda"]


def test_n_of_m_holds_in_every_group():
    model = model_of()
    pattern = NOfM(keep=2, of=4)
    for criterion in (Wanda(), SparseGPT(damping=0.01, block=10)):
        for mask in pruned(model, criterion, pattern).values():
            assert (mask.view(len(mask), -1, 4).sum(2) == 2).all()


def test_what_is_no_matrix_of_a_block_cannot_be_judged_by_inputs():
    model = model_of()
    with pytest.raises(PruningError, match="prunable=linear"):
        calibrated(model, "all").dense_scores(Wanda())


def test_rows_of_different_lengths_are_cut_to_their_own():
    """Nothing that only fills a row up may be seen by a criterion."""

    class Ragged:
        def random_batch(self, split, *, size, context, seed):
            tokens = torch.arange(size * 6).view(size, 6)
            targets = tokens.clone()
            for row, length in enumerate([6, 2, 4, 2]):
                targets[row, length:] = IGNORED
            return {
                "tokens": tokens,
                "targets": targets,
                "images": torch.arange(3).view(3, 1, 1, 1),
                "image": torch.tensor([2, 0, 2, 1]),
            }

    batches = Calibration(samples=4, batch_size=4, inputs="pruned").batches(
        setup_of(SimpleNamespace(context=6), Ragged(), seed=0), 4
    )
    assert [batch["tokens"].tolist() for batch in batches] == [
        [[6, 7], [18, 19]],
        [[12, 13, 14, 15]],
        [[0, 1, 2, 3, 4, 5]],
    ]
    shown = [batch["images"][batch["image"]].flatten().tolist() for batch in batches]
    assert shown == [[0, 1], [2], [2]]


def test_activations_of_one_block_are_held_whatever_the_depth():
    def held(layers):
        model, most = model_of(layers=layers), []
        live = calibrated(model)

        def count():
            shape = (4, model.context, model.width)  # of one batch between two blocks
            alive = [o for o in gc.get_objects() if type(o) is torch.Tensor]
            return len({o.data_ptr() for o in alive if tuple(o.shape) == shape})

        with torch.no_grad():
            for _ in live._walk(SparseGPT(damping=0.01, block=8), pruned=True):
                most.append(count())
        assert len(most) == 4 * layers
        return max(most)

    assert held(2) == held(6) > 0


@pytest.mark.parametrize("criterion", [Wanda(), SparseGPT(damping=0.01, block=8)])
@pytest.mark.parametrize("within", ["tensor", "row"])
def test_what_was_cut_before_is_among_what_is_cut(criterion, within):
    """Also where an update has given it life again in the meantime."""
    model = model_of()
    live = calibrated(model)
    sizes = {name: view.numel() for name, view in live._views().items()}
    quarter = {name: size // 4 for name, size in sizes.items()}
    first = live.prune(criterion, quarter, Unstructured(), within, {})
    counts = {name: size // 2 for name, size in sizes.items()}
    second = live.prune(criterion, counts, Unstructured(), within, first)
    for name, mask in second.items():
        assert int((~mask).sum()) == counts[name]
        assert not (mask & ~first[name]).any()
        assert (live._views()[name][~mask] == 0).all()


class Mixing(torch.nn.Module):
    """A block as other libraries write it: it may be called by keyword, and return a tuple."""

    def __init__(self, returns_tuple):
        super().__init__()
        self.returns_tuple = returns_tuple
        self.read, self.write = torch.nn.Linear(8, 24), torch.nn.Linear(24, 8)

    def forward(self, hidden, shift, scale=1.0):
        before = hidden.cumsum(1) * scale
        mixed = hidden + self.write(torch.relu(self.read(before + shift)))
        return (mixed, before) if self.returns_tuple else mixed


class Called(Model):
    """Three blocks, called ``by`` position, keyword or both. ``between``: what they are apart by;
    ``own``: whether each is shifted by something of its own.
    """

    context = 12

    def __init__(self, by, returns_tuple, between=False, own=False):
        super().__init__()
        torch.manual_seed(4)
        self.by, self.between, self.own = by, between, own
        self.embedding = torch.nn.Embedding(DATA.shape.vocabulary_size, 8)
        self.layers = torch.nn.ModuleList(Mixing(returns_tuple) for _ in range(3))

    def forward(self, batch):
        x, shift = self.embedding(batch["tokens"]), batch["tokens"][..., None] / 10
        for layer in self.layers:
            shift = shift + 1 if self.own else shift
            if self.by == "position":
                x = layer(x, shift, 0.5)
            elif self.by == "both":
                x = layer(x, scale=0.5, shift=shift)
            else:
                x = layer(shift=shift, scale=0.5, hidden=x)
            x = x[0] if layer.returns_tuple else x
            if self.between:
                x = x + torch.relu(x)
        logits = x @ self.embedding.weight.T
        return Prediction(token_losses(logits, batch["targets"]), logits)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("criterion", [Wanda(), SparseGPT(damping=0.01, block=128)])
def test_it_does_not_matter_how_blocks_are_called_or_what_they_return_beside(criterion, between):
    results = []
    for by in ("position", "both", "keyword"):
        for returns_tuple in (False, True):
            model = Called(by, returns_tuple, between)
            calibration = calibrated(model)
            assert calibration._follows(model.blocks(), samples(model)[0])[1:] == [not between] * 2
            scores = calibration.dense_scores(criterion)
            masks = pruned(model, criterion, within="row")
            results.append((scores, masks, model.weights()))
    assert [int((~mask).sum()) for mask in results[0][1].values()] == [96] * 6
    for result in results[1:]:
        for tensors, expected in zip(result, results[0], strict=True):
            assert list(tensors) == list(expected)
            assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    # The third block was judged by what the two pruned ones before it gave.
    x = inputs_of(model, model.layers[2].read)
    name, dense = "layers.2.read.weight", Called("position", False, between).weights()
    if isinstance(criterion, Wanda):
        ranks = (dense[name].abs() * x.square().sum(0).sqrt()).argsort(1).argsort(1)
        assert torch.equal(masks[name], ranks >= 4)


def test_each_block_is_run_with_all_that_it_is_called_with_itself():
    """A mask or a shift may be another one from block to block, though the stream flows through."""
    model = Called("both", False, own=True)
    scores = calibrated(model).dense_scores(Wanda())
    for place, layer in enumerate(model.layers):
        expected = layer.read.weight.abs() * inputs_of(model, layer.read).square().sum(0).sqrt()
        torch.testing.assert_close(scores[f"layers.{place}.read.weight"], expected.detach())
