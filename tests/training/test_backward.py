"""Backward passes through some outputs: against autograd, by hand, and over a whole training."""

import pytest
import torch
from torch import nn

from swe_cli.errors import Interrupted, UsageError
from swe_cli.files import read_tensors
from swe_cli.training.backward import Backward, SparseLinear
from swe_cli.training.state import Callback, fit

from .toys import (
    After,
    assert_same,
    assert_same_tensors,
    contents,
    dataset,
    gpt,
    recipe,
    run_of,
    setup_of,
    spec_of,
    sweep_of,
    swept,
    trained,
    write_text,
)

EPOCH = 3  # steps, of the words below: 2 · 2 · 16 characters a step
WORDS = ("data.train_characters=160", "training.backward=ssprop")


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)], ids=["rows", "tokens"])
def test_where_all_is_kept_it_is_autograd(shape, biased):
    layer, x = nn.Linear(3, 4, bias=biased).double(), drawn(*shape).requires_grad_()
    leaves = [x, *layer.parameters()]
    upstream = drawn(*shape[:-1], 4, seed=1)
    expected = torch.autograd.grad((layer(x).tanh() * upstream).sum(), leaves)
    with Backward([layer], 1.0, epoch=1)(2):
        y = layer(x)
        assert isinstance(y.grad_fn, SparseLinear._backward_cls)
        found = torch.autograd.grad((y.tanh() * upstream).sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert "forward" not in vars(layer)


def test_by_hand():
    """Of dY = [[1, −4, 2], [3, 4, −2]] the means of |dY| are 2, 4, 2: the second is kept."""
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2], [3, 5], [7, 11]]))
    x = torch.tensor([[1.0, 10], [2, 20]], requires_grad=True)
    with Backward([layer], 0.5, epoch=1)(2):  # ⌊0.5 · 3⌋ = 1
        layer(x).backward(torch.tensor([[1.0, -4, 2], [3, 4, -2]]))
    assert x.grad.tolist() == [[-12, -20], [12, 20]]
    assert layer.weight.grad.tolist() == [[0, 0], [4, 40], [0, 0]]
    assert layer.bias.grad.tolist() == [0, 0, 0]  # −4 + 4
    with Backward([layer], 0.01, epoch=1)(2):  # at least one
        layer(x).backward(torch.tensor([[0.0, 0, 1], [0, 0, 1]]))
    assert layer.bias.grad.tolist() == [0, 0, 2]


def test_what_is_frozen_gets_no_gradient():
    layer = nn.Linear(2, 3)
    layer.weight.requires_grad_(False)
    with Backward([layer], 0.5, epoch=1)(2):
        layer(torch.ones(1, 2)).backward(torch.tensor([[1.0, 2, 3]]))
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [0, 0, 3]


def test_drawn_outputs_are_as_many_and_others_step_by_step():
    layer, x = nn.Linear(4, 40), torch.ones(2, 4)
    chosen = {}
    for seed, step in ((1, 2), (1, 2), (1, 4), (2, 2)):
        layer.zero_grad()
        with Backward([layer], 0.2, epoch=1, seed=seed)(step):
            layer(x).sum().backward()
        index = tuple(layer.bias.grad.nonzero().flatten().tolist())
        assert len(index) == 8
        assert chosen.setdefault((seed, step), index) == index
    assert len(set(chosen.values())) == 3


def test_every_other_epoch_the_first_is_dense():
    thinned = [Backward([nn.Linear(1, 1)], 0.2, epoch=3).thins(step) for step in range(1, 11)]
    assert thinned == [False] * 3 + [True] * 3 + [False] * 3 + [True]
    assert not any(Backward().thins(step) for step in range(1, 11))


class Zeros(Callback):
    """Steps → of all rows of matrices of blocks, the fraction without a gradient."""

    def __init__(self):
        self.of = {}

    def before_step(self, state):
        inside = [p for n, p in state.setup.model.named_parameters() if "layers" in n]
        rows = torch.cat([(p.grad == 0).all(1) for p in inside if p.dim() == 2])
        self.of[state.step] = rows.float().mean().item()


@pytest.mark.parametrize("how", ["ssprop", "random"])
def test_in_a_training_some_epochs_are_thinned(how):
    data = dataset()
    of_a_step = -(-data.steps_per_epoch(size=1, context=16) // 3)  # windows: three steps an epoch
    options = {"steps": 7, "batch_size": of_a_step, "backward": how, "backward_keep": 0.25}
    state = recipe(**options).begin(setup_of(gpt(data.shape.vocabulary_size), data))
    zeros = Zeros()
    fit(state, 7, [zeros])
    assert zeros.of == pytest.approx({1: 0, 2: 0, 3: 0, 4: 0.75, 5: 0.75, 6: 0.75, 7: 0}, abs=0.01)


def test_in_bfloat16_gradients_have_the_dtype_of_their_weights():
    layer, x = nn.Linear(8, 10), torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), Backward([layer], 0.2, epoch=1)(2):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert {p.grad.dtype for p in (x, *layer.parameters())} == {torch.float32}
    assert int((layer.weight.grad != 0).any(1).sum()) == 2


@pytest.mark.parametrize("how", ["ssprop", "random"])
@pytest.mark.parametrize("step", [2, 3, 4, 6])
def test_stopped_at_any_step_it_goes_on_bit_for_bit(step, how, text, tmp_path):
    plan = spec_of(text, *WORDS, f"training.backward={how}")
    assert plan.composed["training"].instance.begin(setup_of_plan(plan)).backward.epoch == EPOCH
    whole = trained(plan, tmp_path / "whole")
    dense = trained(spec_of(text, WORDS[0]), tmp_path / "dense")
    with pytest.raises(AssertionError):
        assert_same(contents(whole), contents(dense))
    with pytest.raises(Interrupted):
        trained(plan, tmp_path, stop=After(step))
    assert_same(contents(trained(plan, tmp_path)), contents(whole))


def setup_of_plan(plan):
    return setup_of(gpt(plan.dataset.shape.vocabulary_size), plan.dataset)


def test_with_nothing_cut_early_is_the_training_itself(text, tmp_path):
    words = (*WORDS, "schedule=early", "schedule.at_step=4", "recovery=none", "criterion=swe")
    plan = sweep_of(text, tmp_path, *words, "ratio=0.0", "keep=models")
    swept(plan)
    (cell,) = (cell for cell in plan.cells if cell.kind == "pruned")
    early, dense = read_tensors(cell.model_to), cell.training.run.tensors("model.safetensors")
    assert_same_tensors(early, {name: dense[name] for name in early})
    assert cell.training.open().recipe.backward == "ssprop"


def test_flops_of_a_training_by_hand(text, tmp_path):
    """One layer of width C = 16, two heads, T = 16, V symbols, 4 windows a step, the head tied.

    Forward 1 and backward 2 of every matrix; of the layer's matrices, 2 · ⌊0.2 · out⌋ / out in the
    second epoch. The first layer's input has a gradient, too: the embeddings learn.
    """
    dense, thin = (
        trained(spec_of(text, *words), tmp_path).manifest["measures"]["training_flops"]
        for words in (WORDS[:1], WORDS)
    )
    symbols, tokens = spec_of(text).dataset.shape.vocabulary_size, 4 * 16
    outs = {48: 16, 16: 16, 64: 16}  # of qkv, projection, expand: inputs
    matrices = {**{out: 2 * out * of for out, of in outs.items()}, "contract": 2 * 16 * 64}
    others = 2 * 16 * symbols + 2 * 2 * 16 * 16  # the head, and scores and values, a token
    step = 3 * tokens * (sum(matrices.values()) + others)
    assert dense == 8 * step
    left = {48: 9 / 48, 16: 3 / 16, 64: 12 / 64, "contract": 3 / 16}
    saved = 2 * tokens * sum(matrices[out] * (1 - kept) for out, kept in left.items())
    assert thin == pytest.approx(8 * step - 3 * saved)


def test_rows_say_it_at_the_end(text, tmp_path):
    plan = sweep_of(text, tmp_path, "training.backward=dense,ssprop", *WORDS[:1], "ratio=0.5")
    flops = {}
    for row in swept(plan).rows:
        how = row.axes.get("training.backward")
        assert flops.setdefault(how, row.columns()["training_flops"]) == row.mean("training_flops")
    assert flops["ssprop"] < flops["dense"]


def test_the_fraction_names_only_runs_that_it_makes_a_difference_to(text):
    plain = spec_of(text)
    assert "backward_keep" not in plain.config["identity"]["training"]
    assert spec_of(text, "training.backward_keep=0.5").run == plain.run
    runs = {spec_of(text, *WORDS, f"training.backward_keep={k}").run for k in (0.2, 0.5)}
    assert len(runs | {plain.run, spec_of(text, "training.backward=random").run}) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["training.backward_keep=0"], r"training\.backward_keep=0 is not in \(0, 1\]"),
        (["training.backward_keep=1.5"], r"training\.backward_keep=1\.5 is not in \(0, 1\]"),
        (["training.compile=true"], r"ssprop changes on the way what would be compiled\."),
        (["training.backward=sparse"], r"training\.backward=sparse is wrong: it should be"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(words, sentence, text):
    with pytest.raises(UsageError, match=sentence) as error:
        spec_of(text, *WORDS, *words)
    assert error.value.hint or "it should be" in str(error.value)


def test_one_that_would_never_begin_is_refused_before_anything_is_written(text, tmp_path):
    plan = spec_of(text, *WORDS, f"training.steps={EPOCH}", "training.warmup_steps=1")
    with pytest.raises(UsageError, match="after an epoch of 3 steps"):
        trained(plan, tmp_path)
    assert not run_of(plan, tmp_path).exists
