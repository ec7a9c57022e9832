"""Whole blocks: by how much they turn what flows through; taken out, and put back."""

import math
from functools import partial

import pytest
import torch
from training.toys import batch_of, dataset, gpt, setup_of

from swe_cli.allocation.counts import Global, Uniform
from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape, Evidence, Model, Prediction
from swe_cli.criteria.layers import FLAP
from swe_cli.criteria.weights import BlockInfluence
from swe_cli.errors import PruningError, RunError
from swe_cli.models.gpt import generate, greedy, token_losses
from swe_cli.patterns.shapes import Block, Neuron
from swe_cli.pruning.calibration import CalibratedModel, Calibration
from swe_cli.pruning.masks import apply_masks
from swe_cli.pruning.prune import MAGNITUDE, Judge, Method, Scorer, prune
from swe_cli.pruning.shrink import load, shrink
from swe_cli.seeds import global_randomness

DATA = dataset()
CALIBRATION = Calibration(samples=6, batch_size=4, inputs="pruned")
INFLUENCE = Judge(BlockInfluence(), "block_influence", "block_influence")


def model_of(layers=4, seed=0, **options):
    """Every parameter matters, biases too."""
    sizes = {"layers": layers, "heads": 4, "width": 16, "initialization": "torch"}
    return shaken(gpt(DATA.shape.vocabulary_size, **{**sizes, **options}, seed=seed))


def llava():
    """Vision of three blocks, language of four, a projector that is of neither."""
    small = {
        "vision": {"layers": 3, "width": 16, "heads": 2, "patch": 2},
        "language": {"layers": 4, "width": 24, "heads": 2, "context": 14},
    }
    with global_randomness(0, "init"):
        chosen = component("model", "llava_nano", ConfigRoot(), small)
        return shaken(chosen.build(DataShape(11, image=(3, 4, 4))))


def shaken(model):
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def images():
    batch = batch_of(11, context=10)
    pixels = torch.randint(256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    return {**batch, "images": pixels.to(torch.uint8), "image": torch.tensor([0, 1, 1])}


def scorer_of(model, which="linear", earlier=None):
    lens = partial(model.prunable, which=which)
    weights = {name: weight.clone() for name, weight in lens(model.weights()).items()}
    setup = setup_of(model, DATA, seed=3)
    return Scorer(setup, lens, Evidence(weights), CALIBRATION, earlier or {})


def cut(model, ratio, judge=MAGNITUDE, allocation=None, which="linear", earlier=None):
    scorer = scorer_of(model, which, earlier)
    masks = prune(Method(judge, ratio, None, allocation or Global(), Block()), scorer)
    apply_masks(masks, scorer.lens(model.weights()))
    return masks


def gone(masks):
    """The blocks of which nothing is left, by name; of the others nothing is cut."""
    blocks = {}
    for name, mask in masks.items():
        blocks.setdefault(name.partition(".mlp")[0].partition(".attention")[0], []).append(mask)
    cut = {name for name, of in blocks.items() if not any(mask.any() for mask in of)}
    assert all(mask.all() for name in blocks.keys() - cut for mask in blocks[name])
    return cut


class Turn(torch.nn.Module):
    """A matrix that turns what it is fed, two numbers a token, by an angle, and stretches it."""

    def __init__(self, degrees):
        super().__init__()
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        self.matrix = torch.nn.Linear(2, 2, bias=False)
        self.matrix.weight.data = 3 * torch.tensor([[cos, -sin], [sin, cos]])

    def forward(self, x):
        return self.matrix(x)


class Turns(Model):
    context = 12

    def __init__(self, *degrees):
        super().__init__()
        self.embedding = torch.nn.Embedding(DATA.shape.vocabulary_size, 2)
        self.layers = torch.nn.ModuleList(Turn(angle) for angle in degrees)

    def forward(self, batch):
        x = self.embedding(batch["tokens"])
        for layer in self.layers:
            x = layer(x)
        logits = x @ self.embedding.weight.T
        return Prediction(token_losses(logits, batch["targets"]), logits)


def test_influence_by_hand():
    """1 − cos 60° = ½, 1 − cos 90° = 1, 1 − cos 180° = 2; of each of four weights half of it."""
    model = Turns(60, 90, 180, 0)
    lens = partial(model.prunable, which="linear")
    found = CalibratedModel(setup_of(model, DATA), CALIBRATION, lens).influence
    for place, of_block in enumerate((0.5, 1.0, 2.0, 0.0)):
        expected = torch.full((2, 2), of_block / 2)
        torch.testing.assert_close(
            found[f"layers.{place}.matrix.weight"], expected, atol=1e-6, rtol=0
        )


def test_a_block_is_worth_how_much_it_turns_what_flows_through():
    model = model_of()
    ranking = scorer_of(model).rank(INFLUENCE, Block())
    assert list(ranking.scores) == ["layers"]
    cosines = [[] for _ in model.layers]

    def note(place, _, arguments, output):
        x, y = arguments[0].double(), output.double()
        cosines[place] += ((x * y).sum(-1) / x.norm(dim=-1) / y.norm(dim=-1)).flatten().tolist()

    hooks = [m.register_forward_hook(partial(note, at)) for at, m in enumerate(model.layers)]
    with torch.no_grad():
        for batch in CALIBRATION.batches(setup_of(model, DATA, seed=3), 1):
            model(batch)
    for hook in hooks:
        hook.remove()
    expected = [1 - sum(of) / len(of) for of in cosines]
    torch.testing.assert_close(
        ranking.scores["layers"], torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-7
    )
    order = sorted(range(4), key=expected.__getitem__)
    assert gone(cut(model, 0.5, INFLUENCE)) == {f"layers.{place}" for place in order[:2]}


@pytest.mark.parametrize("which", ["linear", "all"])
def test_what_lies_in_no_block_has_no_influence_to_be_judged_by(which):
    found = scorer_of(model_of(), which).rank(INFLUENCE).scores
    outside = {name for name in found if not name.startswith("layers.")}
    assert bool(outside) == (which == "all")
    assert all(found[name].isinf().all() == (name in outside) for name in found)
    assert gone(cut(model_of(), 0.25, INFLUENCE))


def test_by_weights_a_block_is_worth_the_norm_of_their_scores():
    model = model_of()
    with torch.no_grad():
        for name in ("attention.qkv", "attention.projection", "mlp.expand", "mlp.contract"):
            model.layers[2].get_submodule(name).weight.mul_(0.5)
    (scores,) = scorer_of(model).rank(MAGNITUDE, Block()).scores.values()
    total = sum(
        float(weight.detach().double().square().sum())
        for name, weight in model.layers[2].named_parameters()
        if name.endswith("weight") and weight.dim() == 2
    )
    assert float(scores[2]) == pytest.approx(math.sqrt(total))
    assert gone(cut(model, 0.25)) == {"layers.2"}


def lowest(model, *places, tower="layers"):
    """Make some blocks those that magnitude cuts."""
    with torch.no_grad():
        for place in places:
            for parameter in model.get_submodule(f"{tower}.{place}").parameters():
                if parameter.dim() == 2:
                    parameter.mul_(1e-3)


@pytest.mark.parametrize("which", ["linear", "all"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("places", [(1,), (0,), (1, 2), (0, 1), (3,), (0, 1, 2)])
def test_the_shallower_model_computes_the_masked_ones_function(places, bias, which):
    """With biases a masked block adds a constant: to whatever stays before it, it is the same."""
    model, batch = model_of(bias=bias, qkv_bias=bias), batch_of(DATA.shape.vocabulary_size)
    dense = {name: weight.clone() for name, weight in model.weights().items()}
    as_it_was = model(batch).logits
    lowest(model, *places)
    assert gone(cut(model, len(places) / 4, which=which)) == {f"layers.{at}" for at in places}
    masked = model(batch).logits
    assert not torch.allclose(masked, as_it_was, atol=1e-3)
    small = shrink(model, model.weights())
    left = {name.split(".")[1] for name in small if name[:6] == "layers" and small[name].numel()}
    assert left == {str(at) for at in range(4) if at not in places}  # by the names they had
    other = model_of(bias=bias, qkv_bias=bias, seed=5)  # as another process makes it
    load(other, small)
    for at, block in enumerate(other.layers):
        assert any(parameter.numel() for parameter in block.parameters()) == (at not in places)
    assert sum(p.numel() for p in other.parameters()) == sum(map(torch.numel, small.values()))
    torch.testing.assert_close(other(batch).logits, masked, rtol=1e-5, atol=1e-5)
    load(other, dense)
    assert list(other.weights()) == list(dense)
    assert torch.equal(other(batch).logits, as_it_was)


def test_text_is_written_by_the_shallower_model_too():
    model = model_of(bias=True)
    lowest(model, 1, 3)
    cut(model, 0.5)
    load(model, shrink(model, model.weights()))
    tokens = [3, 1, 4, 1, 5]
    prompts = {"tokens": torch.tensor([tokens]), "lengths": torch.tensor([5])}
    (decoded,) = greedy(model, prompts, length=6)  # by a cache of keys and values
    generator = torch.Generator()
    assert generate(model, tokens, length=6, temperature=0.0, generator=generator)[5:] == decoded


@pytest.mark.parametrize("allocation", [Global(), Uniform()])
def test_of_two_towers_blocks_go_by_score_or_from_each_as_many(allocation):
    model, batch = llava(), images()
    lowest(model, 0, 1, tower="vision.layers")
    lowest(model, 2, tower="language.layers")
    masks = cut(model, 3 / 7, allocation=allocation)
    by_score = {"vision.layers.0", "vision.layers.1", "language.layers.2"}
    if isinstance(allocation, Global):
        assert gone(masks) == by_score
    else:
        towers = sorted(name.partition(".")[0] for name in gone(masks))
        assert towers == ["language", "language", "vision"]
    assert all(mask.all() for name, mask in masks.items() if name.startswith("projector"))
    masked = model(batch).logits
    small = shrink(model, model.weights())
    stored = {name for name in small if small[name].numel()}
    assert not any(name.startswith(f"{block}.") for name in stored for block in gone(masks))
    load(model, small)
    torch.testing.assert_close(model(batch).logits, masked, rtol=1e-5, atol=1e-5)


def test_removing_every_block_of_a_tower_is_refused():
    model = llava()
    lowest(model, 0, 1, 2, tower="vision.layers")
    with pytest.raises(PruningError, match=r"every block of vision\.layers\."):
        cut(model, 3 / 7)
    with pytest.raises(PruningError, match=r"every block of layers\."):
        cut(model_of(), 0.9)  # of four blocks, all


def test_where_nothing_goes_nothing_changes():
    model = model_of()
    before = {name: weight.clone() for name, weight in model.weights().items()}
    assert not gone(cut(model, 0.1))  # of four blocks, none
    small = shrink(model, model.weights())
    assert list(small) == list(before)
    assert all(torch.equal(small[name], before[name]) for name in before)


@pytest.mark.parametrize("judge", [MAGNITUDE, INFLUENCE])
def test_blocks_that_are_gone_are_not_given_back(judge):
    model = model_of()
    first = cut(model, 0.25, judge)
    second = cut(model, 0.5, judge, earlier=first)
    assert len(gone(first)) == 1
    assert len(gone(second)) == 2
    assert gone(first) < gone(second)


def test_what_flap_makes_up_for_is_no_block():
    """A bias in its place would keep it from being taken out."""
    model = model_of()
    masks = cut(model, 0.5, Judge(FLAP(), "flap", "flap"))
    assert len(gone(masks)) == 2
    assert not any(name.endswith("bias") for name in shrink(model, model.weights()))


def test_a_block_without_its_matrices_is_not_among_what_may_be_cut():
    model = model_of()
    scorer = scorer_of(model)

    def lens(tensors):
        views = model.prunable(tensors, "linear")
        return {name: view for name, view in views.items() if name != "layers.1.mlp.expand.weight"}

    scorer.lens, scorer.evidence = lens, Evidence(lens(model.weights()))
    (scores,) = scorer.rank(MAGNITUDE, Block()).scores.values()
    assert len(scores) == 3
    assert gone(prune(Method(MAGNITUDE, 1 / 3, None, Global(), Block()), scorer)) < {
        f"layers.{place}" for place in (0, 2, 3)
    }


def test_neurons_of_a_model_without_some_blocks():
    """Units are cut of what is there."""
    model, batch = model_of(), batch_of(DATA.shape.vocabulary_size)
    lowest(model, 2)
    cut(model, 0.25)
    load(model, shrink(model, model.weights()))
    scorer = scorer_of(model)
    masks = prune(Method(MAGNITUDE, 0.5, None, Uniform(), Neuron()), scorer)
    apply_masks(masks, scorer.lens(model.weights()))
    masked = model(batch).logits
    load(model, shrink(model, model.weights()))
    assert [block.mlp.expand.out_features for block in model.layers] == [32, 32, 0, 32]
    torch.testing.assert_close(model(batch).logits, masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("without", ["layers.1.", "layers.0.mlp.expand.bias", "layers.0.mlp_norm."])
def test_weights_that_lack_something_are_of_another_model(without):
    """A block that was taken out is stored as such: it is not what happens to be missing."""
    model = model_of(bias=True)
    weights = {name: w.clone() for name, w in model.weights().items() if without not in name}
    assert len(weights) < len(model.weights())
    with pytest.raises(RunError, match="weights of x are not those of its model"):
        load(model, weights, "x")
