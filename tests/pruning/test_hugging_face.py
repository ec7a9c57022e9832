"""A model of another library that no training of ours made: what is cut is what its layers hold."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from training.toys import MACHINE, dataset

from swe_cli.config import ConfigRoot, compose
from swe_cli.contracts import Model, Prediction
from swe_cli.controls import controls_of
from swe_cli.errors import PruningError, RunError
from swe_cli.experiments.cell import execute
from swe_cli.experiments.model import TrainedModel
from swe_cli.experiments.spec import check_spec, cut_spec
from swe_cli.models.gpt import token_losses
from swe_cli.pruning.masks import cut_counts, zeros

transformers = pytest.importorskip("transformers", reason="the extra huggingface is missing")

DATA = dataset()
CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 16,
}


class CausalLM(Model):
    """A causal language model of transformers: blocks and prunable matrices are the defaults."""

    def __init__(self, config):
        super().__init__()
        self.language = transformers.AutoModelForCausalLM.from_config(config)
        self.context = config.max_position_embeddings

    def forward(self, batch):
        logits = self.language(input_ids=batch["tokens"], use_cache=False).logits
        return Prediction(token_losses(logits, batch["targets"]), logits)


@pytest.fixture(scope="module", params=[("eager", False), ("sdpa", True)])
def weights_and_model(request):
    torch.manual_seed(0)
    attention, tied = request.param
    options = {"attn_implementation": attention, "tie_word_embeddings": tied}
    config = transformers.LlamaConfig(**CONFIG, **options)
    model = CausalLM(config)
    return {name: weight.clone() for name, weight in model.weights().items()}, model


@pytest.fixture
def llama(weights_and_model):
    weights, model = weights_and_model
    bases = {"final": lambda: weights}
    return TrainedModel(model, DATA, MACHINE, 1, name="tiny-llama", bases=bases, trajectory={})


def spec_of(llama, *words, recovery="none"):
    small = ("calibration.samples=6", "calibration.batch_size=4", "evaluation.batch_size=8")
    words = (*small, f"recovery={recovery}", *words)
    composed = compose("prune", words)
    spec = cut_spec(composed, ConfigRoot(), llama.model.roles)
    check_spec(spec, composed)
    return spec


def cut(llama, *words, **options):
    return execute(spec_of(llama, *words, **options), llama)


def test_what_can_be_cut_are_the_matrices_of_its_blocks(llama):
    views = llama.model.prunable(llama.model.weights(), "linear")
    attention = [f"self_attn.{of}_proj" for of in "qkvo"]
    inside = [*attention, *(f"mlp.{of}_proj" for of in ("gate", "up", "down"))]
    assert list(views) == [
        f"language.model.layers.{layer}.{name}.weight" for layer in (0, 1) for name in inside
    ]
    assert [type(block).__name__ for block in llama.model.blocks()] == ["LlamaDecoderLayer"] * 2


def test_groups_and_all_that_it_has_can_be_cut(llama):
    for mask in cut(llama, "criterion=wanda", "pattern=n_of_m").masks.values():
        assert (mask.view(-1, 4).sum(1) == 2).all()
    result = cut(llama, "criterion=magnitude", "ratio=0.5", "prunable=all")
    assert result.masks.keys() == llama.weights("final").keys()
    assert zeros(result.weights) == round(0.5 * sum(w.numel() for w in result.weights.values()))
    assert result.metrics["compression"] == result.metrics["sparsity"]


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt", "taylor"])
@pytest.mark.parametrize("allocation", ["published", "global"])
def test_it_is_cut_to_exactly_half(llama, criterion, allocation):
    result = cut(llama, f"criterion={criterion}", f"allocation={allocation}", "ratio=0.5")
    total = sum(mask.numel() for mask in result.masks.values())
    assert sum(cut_counts(result.masks).values()) == zeros(result.weights) == total // 2
    assert result.metrics["sparsity"].mean == 0.5
    loss = result.metrics["loss"]
    assert 0 < loss.low < loss.mean < loss.high < 10
    dense = llama.weights("final")
    same = [
        torch.equal(result.weights[name], dense[name] * mask) for name, mask in result.masks.items()
    ]
    assert all(same) == (criterion != "sparsegpt")  # which makes up for what it cuts
    untouched = result.weights.keys() - result.masks.keys()
    assert all(torch.equal(result.weights[name], dense[name]) for name in untouched)


def square_sums(model, batches):
    """Σ X_j² of what every linear layer is fed, by the name of its weight."""
    sums, hooks = {}, []

    def add(layer, given):
        sums[f"{names[layer]}.weight"] += given[0].square().sum((0, 1))

    names = {m: name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for layer, name in names.items():
        sums[f"{name}.weight"] = torch.zeros(layer.in_features)
        hooks.append(layer.register_forward_pre_hook(add))
    with torch.no_grad():
        for batch in batches:
            model.eval()(batch)
    for hook in hooks:
        hook.remove()
    return sums


def test_wanda_cuts_what_it_does_by_hand(llama):
    """Per row the lowest |W| · ‖X‖, X over the calibration set, of blocks fed by pruned ones."""
    spec = spec_of(llama, "criterion=wanda", "allocation=published", "ratio=0.5")
    masks = execute(spec, llama).masks
    llama.load(llama.weights("final"))
    model, expected = deepcopy(llama.model), {}
    batches = spec.calibration.instance.batches(llama, 4)
    for place in (0, 1):
        for name, squares in square_sums(model, batches).items():
            if f".layers.{place}." in name:
                weight = model.get_parameter(name).data
                ranks = (weight.abs() * squares.sqrt()).argsort(1).argsort(1)
                expected[name] = ranks >= weight.shape[1] // 2
                weight.mul_(expected[name])
    assert len(expected) == 14
    assert masks.keys() == expected.keys()
    assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())


@pytest.mark.parametrize("recovery", ["finetune", "distill"])
def test_recovery_keeps_the_mask_and_trains_the_rest(llama, recovery):
    words = ("criterion=magnitude", "ratio=0.5", "recovery.steps=2")
    result = cut(llama, *words, recovery=recovery)
    dense = llama.weights("final")
    for name, mask in result.masks.items():
        assert not result.weights[name][~mask].any()
        assert (result.weights[name] != dense[name])[mask].all()
    assert result.metrics["loss"].mean != result.metrics["loss_before_recovery"].mean


def test_its_controls_are_those_of_the_weights_that_it_has(llama):
    spec = spec_of(llama, "ratio=0.5", "recovery.steps=2", "criterion=snip", recovery="finetune")
    controls = controls_of(llama.bases, questions=False)
    results = {c.kind: execute(spec.judged_by(c), llama) for c in controls}
    assert list(results) == ["dense", "dense_recovered"]
    assert all(not result.masks for result in results.values())
    recovered = results["dense_recovered"].metrics
    assert recovered["loss_before_recovery"].mean == results["dense"].metrics["loss"].mean


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["criterion=swe"], PruningError, "needs weighted_average, which tiny-llama did not"),
        (["criterion=magnitude", "base=averaged"], RunError, "has no averaged weights. It has fin"),
        (["criterion=snip", "schedule=early", "schedule.at_step=3"], RunError, "is no training"),
        (["criterion=magnitude", "pattern=neuron"], PruningError, "pattern=neuron finds none"),
    ],
)
def test_what_it_lacks_is_said(llama, words, error, says):
    with pytest.raises(error, match=says):
        cut(llama, "ratio=0.5", *words)
