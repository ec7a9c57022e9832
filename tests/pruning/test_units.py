"""Units shared out between layers: by what weights say, and never given back."""

from functools import partial

import pytest
import torch
from training.toys import batch_of, dataset, gpt, setup_of

from swe_cli.allocation.counts import OWL, Uniform
from swe_cli.contracts import Allocation, Evidence, WeightCriterion
from swe_cli.criteria.layers import FLAP, Wanda
from swe_cli.errors import PruningError
from swe_cli.patterns.shapes import Head, HeadOutput, Neuron, NeuronOutput
from swe_cli.pruning.calibration import Calibration
from swe_cli.pruning.masks import apply_masks
from swe_cli.pruning.prune import MAGNITUDE, Judge, Method, Scorer, prune
from swe_cli.pruning.shrink import load, shrink

DATA = dataset()


class Given(WeightCriterion):
    def __init__(self, scores):
        self.scores = scores

    def score(self, evidence):
        return self.scores


@pytest.fixture
def model():
    """Two layers of 64 neurons and four heads."""
    return gpt(11, layers=2, heads=4, width=16, initialization="torch")


def weights_of(model):
    return model.prunable(model.weights(), "linear")


def masks_of(model, pattern, allocation, earlier=None, **consulted):
    judges = {name: Judge(criterion, name, name) for name, criterion in consulted.items()}
    method = Method(MAGNITUDE, 0.5, None, allocation, pattern, judges)
    lens = partial(model.prunable, which="linear")
    evidence = Evidence(weights_of(model))
    return prune(method, Scorer(setup_of(model, None), lens, evidence, None, earlier or {}))


def lost(masks, layer):
    """Neurons and heads of a layer that are gone whole: a head is four rows of each third."""
    neurons = masks[f"layers.{layer}.mlp.expand.weight"]
    heads = masks[f"layers.{layer}.attention.qkv.weight"].view(3, 4, 4, 16)
    return int((~neurons.any(1)).sum()), int((~heads.transpose(0, 1).flatten(1).any(1)).sum())


@pytest.mark.parametrize(
    # d = 2 · 0.3 · (1, 0), its mean 0.3: the layers lose 0.2 and 0.8 of their units.
    ("pattern", "by_owl", "by_uniform"),
    [(Neuron(), [(13, 0), (51, 0)], [(32, 0)] * 2), (Head(), [(0, 1), (0, 3)], [(0, 2)] * 2)],
)
def test_owl_counts_outliers_among_weights_whatever_the_pattern(model, pattern, by_owl, by_uniform):
    """Units would show none: here all of a layer have the same norm."""
    scores = {}
    for name, weight in weights_of(model).items():
        rows, columns = (torch.arange(size) for size in weight.shape)
        sixteenth = (rows[:, None] + columns) % 16 == 0  # as many of every unit
        scores[name] = torch.ones_like(weight)
        scores[name][sixteenth] = 100.0 if name.startswith("layers.0.") else 1.0
    owl = OWL(outlier=5.0, strength=0.3, within="row")
    masks = masks_of(model, pattern, owl, wanda=Given(scores))
    assert [lost(masks, layer) for layer in (0, 1)] == by_owl
    masks = masks_of(model, pattern, Uniform())
    assert [lost(masks, layer) for layer in (0, 1)] == by_uniform


def test_units_that_are_gone_are_not_given_back(model):
    class Second(Allocation):
        """All neurons of the second layer, and none of the first."""

        def counts(self, ranking, ratio, context):
            first, second = ranking.sizes
            return {first: 0, second: 64}

    kept = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights_of(model).items()}
    kept["layers.0.mlp.expand.weight"][7:17] = False
    kept["layers.0.mlp.contract.weight"][:, 7:17] = False
    masks = masks_of(model, Neuron(), Second(), kept)
    assert [lost(masks, layer)[0] for layer in (0, 1)] == [10, 54]
    assert all(not (mask & ~kept[name]).any() for name, mask in masks.items())


# Judged by what a unit computes and by the matrix that it is read by


def model_for(data, **options):
    sizes = {"layers": 2, "heads": 4, "width": 16, "initialization": "torch"}
    return gpt(data.shape.vocabulary_size, **{**sizes, **options})


def scorer_of(model, inputs="pruned", which="linear"):
    lens = partial(model.prunable, which=which)
    samples = Calibration(samples=6, batch_size=4, inputs=inputs)
    weights = {name: weight.clone() for name, weight in lens(model.weights()).items()}
    return Scorer(setup_of(model, DATA, seed=3), lens, Evidence(weights), samples)


@torch.no_grad()
def through(model, layer):
    """What a layer is fed over the calibration set and what it gives, float64 (tokens, …)."""
    fed, given = [], []

    def note(_, arguments, output):
        fed.append(arguments[0].flatten(0, -2))
        given.append(output.flatten(0, -2))

    hook, setup = layer.register_forward_hook(note), setup_of(model, DATA, seed=3)
    for batch in Calibration(samples=6, batch_size=4, inputs="pruned").batches(setup, 1):
        model.eval()(batch)
    hook.remove()
    return torch.cat(fed).double(), torch.cat(given).double()


def output_layers(model, unit):
    """The linear layers that units are read by, by the name of the units' layer, in order."""
    if unit == "head":
        return {f"layers.{i}.attention": m.attention.projection for i, m in enumerate(model.layers)}
    return {f"layers.{i}.mlp": m.mlp.contract for i, m in enumerate(model.layers)}


@pytest.mark.parametrize("split_heads", [False, True])
@pytest.mark.parametrize(
    ("criterion", "pattern", "of_input"),
    [
        (Wanda(), NeuronOutput(), lambda x: x.square().sum(0)),
        (Wanda(), HeadOutput(), lambda x: x.square().sum(0)),
        (FLAP(), Neuron(), lambda x: x.var(0, unbiased=False)),
        (FLAP(), NeuronOutput(), lambda x: x.var(0, unbiased=False)),
        (FLAP(), Head(), lambda x: x.var(0, unbiased=False)),
    ],
)
def test_by_output_a_unit_is_worth_what_its_channels_carry(
    criterion, pattern, of_input, split_heads
):
    """Σ over its channels of what Wanda, or FLAP, makes of a channel times ‖W2[:, j]‖²."""
    model = model_for(DATA, split_heads=split_heads)
    ranking = scorer_of(model).rank(Judge(criterion, "given", "given"), pattern)
    layers = output_layers(model, pattern.unit)
    assert list(ranking.scores) == list(layers)
    for name, layer in layers.items():
        x, _ = through(model, layer)
        channels = of_input(x) * layer.weight.detach().double().square().sum(0)
        expected = channels.view(4 if pattern.unit == "head" else 64, -1).sum(1)
        found = ranking.scores[name].square()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_by_output_and_by_all_weights_are_two_rankings_of_one_scorer():
    scorer, judge = scorer_of(model_for(DATA)), Judge(Wanda(), "wanda", "wanda")
    whole, output = (scorer.rank(judge, of) for of in (Neuron(), NeuronOutput()))
    assert whole is scorer.rank(judge, Neuron()) is not output
    for name, scores in whole.scores.items():
        assert (output.scores[name] < scores).all()  # a part of what is added up


def flap(model, pattern, ratio=0.5, inputs="pruned", apply=True):
    scorer = scorer_of(model, inputs)
    method = Method(Judge(FLAP(), "flap", "flap"), ratio, None, Uniform(), pattern)
    masks = prune(method, scorer)
    if apply:
        apply_masks(masks, scorer.lens(model.weights()))
    return masks


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pattern", [Neuron(), Head()])
def test_flap_puts_what_was_cut_into_the_bias(pattern, bias):
    """b + W2[:, cut] · E[h]; of a first layer the mean over all tokens stays what it was."""
    model = model_for(DATA, bias=bias)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    (name, layer), *_ = output_layers(model, pattern.unit).items()
    x, before = through(model, layer)
    weight, had = layer.weight.detach().double(), layer.bias.detach().double() if bias else 0.0
    masks = flap(model, pattern)
    kept = masks[f"{name}.{'projection' if pattern.unit == 'head' else 'contract'}.weight"]
    assert (kept.all(0) | ~kept.any(0)).all()
    assert int((~kept).sum()) == kept.numel() // 2
    expected = had + weight[:, ~kept[0]] @ x.mean(0)[~kept[0]]
    torch.testing.assert_close(layer.bias.double(), expected, rtol=1e-4, atol=1e-6)
    _, after = through(model, layer)
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("inputs", ["pruned", "dense"])
def test_later_layers_are_made_up_for_by_what_they_are_fed(inputs):
    model = model_for(DATA)
    last = model.layers[1].mlp.contract
    dense, _ = through(model, last)
    weight = last.weight.detach().double()
    masks = flap(model, Neuron(), inputs=inputs, apply=False)
    kept = masks["layers.1.mlp.contract.weight"][0]
    # The first block is cut by now; of the second what it is read by, but not what it computes.
    pruned, _ = through(model, last)
    x = {"dense": dense, "pruned": pruned}[inputs]
    assert not torch.allclose(dense.mean(0), pruned.mean(0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        last.bias.double(), weight[:, ~kept] @ x.mean(0)[~kept], rtol=1e-4, atol=1e-6
    )


def test_flap_leaves_a_layer_alone_that_loses_nothing():
    model = model_for(DATA)
    before = {name: weight.clone() for name, weight in model.weights().items()}
    assert all(mask.all() for mask in flap(model, Neuron(), ratio=0.0).values())
    after = model.weights()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("pattern", [Neuron(), Head()])
def test_a_model_with_new_biases_is_stored_small_and_made_dense_again(pattern):
    model, batch = model_for(DATA), batch_of(DATA.shape.vocabulary_size)
    dense = {name: weight.clone() for name, weight in model.weights().items()}
    as_it_was = model.eval()(batch).logits
    flap(model, pattern)
    masked = model(batch).logits
    small = shrink(model, model.weights())
    biases = {name for name in small if name.endswith("bias")}
    of = {"neuron": "mlp.contract", "head": "attention.projection"}[pattern.unit]
    assert biases == {f"layers.{layer}.{of}.bias" for layer in (0, 1)}
    assert sum(map(torch.numel, small.values())) < sum(map(torch.numel, dense.values()))
    other = model_for(DATA, seed=5).eval()  # as another process makes it
    load(other, small)
    torch.testing.assert_close(other(batch).logits, masked, rtol=1e-5, atol=1e-5)
    load(other, dense)
    assert list(other.weights()) == list(dense)
    assert torch.equal(other(batch).logits, as_it_was)


def test_a_layer_that_lost_its_every_neuron_is_made_dense_again_too():
    """What is left of it is the bias that makes up for them."""
    model, batch = model_for(DATA), batch_of(DATA.shape.vocabulary_size)
    dense = {name: weight.clone() for name, weight in model.weights().items()}
    scorer, kept = scorer_of(model), {}
    for name, weight in scorer.evidence.weights.items():
        kept[name] = torch.full(weight.shape, not name.startswith("layers.1.mlp"))
    read = {"layers.1.mlp.contract.weight": kept["layers.1.mlp.contract.weight"]}
    scorer.calibrated.compensate(FLAP(), read)
    apply_masks(kept, scorer.lens(model.weights()))
    masked = model.eval()(batch).logits
    load(model, shrink(model, model.weights()))
    assert model.layers[1].mlp.expand.out_features == 0
    torch.testing.assert_close(model(batch).logits, masked, rtol=1e-5, atol=1e-5)
    load(model, dense)
    assert list(model.weights()) == list(dense)


def test_new_biases_of_what_is_frozen_are_frozen():
    model = model_for(DATA).requires_grad_(False)
    flap(model, Neuron())
    assert model.layers[0].mlp.contract.bias is not None
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_flap_knows_the_matrices_of_blocks_only():
    scorer = scorer_of(model_for(DATA), which="all")
    method = Method(Judge(FLAP(), "flap", "flap"), 0.5, None, Uniform(), Neuron())
    with pytest.raises(PruningError, match="prunable=linear"):
        prune(method, scorer)


def test_without_its_output_matrix_a_unit_cannot_be_cut():
    model = model_for(DATA)

    def lens(tensors):
        views = model.prunable(tensors, "linear")
        return {name: view for name, view in views.items() if "contract" not in name}

    scorer = scorer_of(model)
    scorer.lens, scorer.evidence = lens, Evidence(lens(model.weights()))
    method = Method(Judge(FLAP(), "flap", "flap"), 0.5, None, Uniform(), Neuron())
    with pytest.raises(PruningError, match="pattern=neuron finds none among what may be cut"):
        prune(method, scorer)
