import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training.toys import batch_of, gpt

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import IGNORED, DataShape
from swe_cli.errors import UsageError
from swe_cli.models.gpt import GPT, generate
from swe_cli.models.transformer import Attention

VOCABULARY = 11


def preset(name: str, vocabulary_size: int = 65) -> GPT:
    """Exactly what conf/model says, its weights never drawn."""
    with torch.device("meta"):
        return component("model", name, ConfigRoot()).build(DataShape(vocabulary_size))


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_model_has_the_papers_number_of_parameters():
    assert size(preset("gpt_paper")) == 10_788_929


def test_the_small_presets_have_the_sizes_they_promise():
    assert 0.75e6 < size(preset("gpt_nano")) < 0.85e6
    assert 10.5e6 < size(preset("gpt_small")) < 10.8e6


def test_parameters_counted_by_hand():
    width, vocabulary = 16, 11
    embeddings = vocabulary * width + 16 * width
    block = 3 * width**2 + width**2 + 8 * width**2 + 2 * width  # no biases; two norms
    tied = gpt(vocabulary, layers=2)
    assert size(tied) == embeddings + 2 * block + width
    untied = gpt(vocabulary, layers=2, tied_head=False, head_bias=True)
    assert size(untied) - size(tied) == vocabulary * width + vocabulary


def test_a_tied_head_is_the_embedding_and_appears_once():
    model = gpt(VOCABULARY, tied_head=True)
    names = list(model.prunable(dict(model.named_parameters()), "all"))
    assert names.count("token_embedding.weight") == 1
    assert not [name for name in names if name.startswith("head")]
    x = torch.randn(1, 2, 16)
    model.layers = nn.ModuleList()
    model.norm = nn.Identity()
    expected = x @ model.token_embedding.weight.T
    assert torch.allclose(model.logits(x), expected)


@pytest.mark.parametrize("name", ["gpt_nano", "gpt_paper"])
def test_a_later_token_never_changes_earlier_logits(name):
    model = gpt(VOCABULARY, name, layers=2).eval()
    batch = batch_of(VOCABULARY, size=2)
    before = model(batch).logits
    changed = {**batch, "tokens": batch["tokens"].clone()}
    changed["tokens"][:, 9] = (changed["tokens"][:, 9] + 1) % VOCABULARY
    after = model(changed).logits
    torch.testing.assert_close(after[:, :9], before[:, :9], rtol=0, atol=1e-6)
    assert (after[:, 9:] - before[:, 9:]).abs().amax(dim=(0, 2)).min() > 1e-4


class PlainAttention(nn.Module):
    """The paper's attention written out: three linear layers per head, one softmax per head."""

    def __init__(self, width: int, heads: int, scale: float, bias: bool) -> None:
        super().__init__()
        size = width // heads
        self.scale = scale
        self.query, self.key, self.value = (
            nn.ModuleList(nn.Linear(width, size, bias=bias) for _ in range(heads)) for _ in range(3)
        )
        self.projection = nn.Linear(width, width)

    def forward(self, x):
        t = x.shape[1]
        seen = torch.tril(torch.ones(t, t, dtype=torch.bool))
        outputs = []
        for query, key, value in zip(self.query, self.key, self.value, strict=True):
            scores = query(x) @ key(x).transpose(1, 2) * self.scale
            weights = F.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1)
            outputs.append(weights @ value(x))
        return self.projection(torch.cat(outputs, dim=-1))


@pytest.mark.parametrize("scale", ["head", "width"])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_fused_attention_is_the_plain_one_head_by_head(scale, qkv_bias):
    width, heads = 12, 3
    model = gpt(
        VOCABULARY,
        width=width,
        heads=heads,
        attention_scale=scale,
        bias=True,
        qkv_bias=qkv_bias,
        split_heads=True,
        initialization="torch",
    )
    fused: Attention = model.layers[0].attention
    divisor = width if scale == "width" else width // heads
    plain = PlainAttention(width, heads, divisor**-0.5, qkv_bias)
    views = model.prunable(dict(model.named_parameters()), "all")
    with torch.no_grad():
        for role, layers in (("query", plain.query), ("key", plain.key), ("value", plain.value)):
            for index, layer in enumerate(layers):
                layer.weight.copy_(views[f"layers.0.attention.qkv.weight[{role}.{index}]"])
                if qkv_bias:
                    layer.bias.copy_(views[f"layers.0.attention.qkv.bias[{role}.{index}]"])
        plain.projection.load_state_dict(fused.projection.state_dict())
        x = 3 * torch.randn(2, 7, width, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(fused(x), plain(x), rtol=1e-4, atol=1e-5)
        wrong = PlainAttention(width, heads, 1.0, qkv_bias)  # the scale is not a detail
        wrong.load_state_dict(plain.state_dict())
        assert not torch.allclose(fused(x), wrong(x), atol=1e-3)


def test_split_heads_are_views_that_cover_the_fused_matrix_exactly_once():
    model = gpt(VOCABULARY, "gpt_paper", layers=2, heads=4, qkv_bias=True)
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    views = model.prunable(parameters, "all")
    for layer in range(2):
        for kind in ("weight", "bias"):
            fused = parameters[f"layers.{layer}.attention.qkv.{kind}"]
            names = [n for n in views if n.startswith(f"layers.{layer}.attention.qkv.{kind}[")]
            assert len(names) == 3 * 4
            fused.zero_()
            for name in names:
                assert (
                    views[name].untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
                )
                views[name].add_(1.0)
            assert (fused == 1.0).all()
    assert sum(view.numel() for view in views.values()) == size(model)


def test_views_have_the_same_names_for_whatever_they_are_taken_from():
    model = gpt(VOCABULARY, "gpt_paper")
    statistic = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    views = model.prunable(statistic, "linear")
    assert list(views) == list(model.prunable(dict(model.named_parameters()), "linear"))


def test_the_linear_set_is_the_matrices_of_attention_and_mlp():
    model = gpt(VOCABULARY, bias=True, qkv_bias=True, tied_head=False, head_bias=True)
    names = list(model.prunable(dict(model.named_parameters()), "linear"))
    assert names == [
        "layers.0.attention.qkv.weight",
        "layers.0.attention.projection.weight",
        "layers.0.mlp.expand.weight",
        "layers.0.mlp.contract.weight",
    ]
    everything = model.prunable(dict(model.named_parameters()), "all")
    assert list(everything) == [name for name, _ in model.named_parameters()]


def test_losses_are_cross_entropy_and_zero_where_nobody_has_to_predict():
    model = gpt(VOCABULARY).eval()
    batch = batch_of(VOCABULARY)
    batch["targets"][0, 5:] = IGNORED
    prediction = model(batch)
    assert prediction.losses.shape == batch["targets"].shape
    assert (prediction.losses[0, 5:] == 0).all()
    logits = prediction.logits[0, 3].double()
    expected = torch.logsumexp(logits, 0) - logits[batch["targets"][0, 3]]
    assert prediction.losses[0, 3].item() == pytest.approx(expected.item(), abs=1e-5)
    assert (prediction.losses[1:] > 0).all()


def test_dropout_acts_in_training_only():
    model, batch = gpt(VOCABULARY, dropout=0.5), batch_of(VOCABULARY)
    model.eval()
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)


def test_initialization_scales_what_writes_to_the_residual_stream_by_depth():
    model = gpt(VOCABULARY, width=64, layers=8)
    block = model.layers[0]
    assert block.mlp.expand.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.mlp.contract.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert block.attention.projection.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert (block.mlp_norm.weight == 1).all()


def test_torch_initialization_is_left_as_torch_makes_it():
    weight = gpt(VOCABULARY, "gpt_paper", width=64).layers[0].mlp.expand.weight
    assert weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)  # uniform ±1/√in


def test_the_same_seed_initialises_the_same_model():
    one, same, other = gpt(VOCABULARY, seed=1), gpt(VOCABULARY, seed=1), gpt(VOCABULARY, seed=2)
    assert torch.equal(one.layers[0].mlp.expand.weight, same.layers[0].mlp.expand.weight)
    assert not torch.equal(one.layers[0].mlp.expand.weight, other.layers[0].mlp.expand.weight)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"width": 15}, "model.width=15"),
        ({"head_bias": True}, "tied head"),
    ],
)
def test_an_impossible_model_is_refused_by_key(options, named):
    with pytest.raises(UsageError, match=named):
        gpt(VOCABULARY, **options)


def continued(model: GPT, prompt: list[int], temperature: float, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return generate(model, prompt, length=30, temperature=temperature, generator=generator)


def test_greedy_generation_is_deterministic_and_takes_the_likeliest():
    model = gpt(VOCABULARY, initialization="torch").eval()
    prompt = [1, 2, 3]
    tokens = continued(model, prompt, 0.0)
    assert tokens == continued(model, prompt, 0.0, seed=1)
    assert tokens[:3] == prompt
    assert len(tokens) == 33  # longer than the context
    for end in (3, 20, 32):
        window = torch.tensor([tokens[max(0, end - 16) : end]])
        likeliest = model({"tokens": window, "targets": window}).logits[0, -1].argmax()
        assert tokens[end] == int(likeliest)


def test_sampling_follows_its_generator():
    model = gpt(VOCABULARY).eval()
    tokens = continued(model, [1], 1.0, seed=1)
    assert tokens == continued(model, [1], 1.0, seed=1)
    assert tokens != continued(model, [1], 1.0, seed=2)
