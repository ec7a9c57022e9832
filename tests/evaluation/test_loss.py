import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from training.toys import MACHINE, dataset, gpt, setup_of

from swe_cli.contracts import IGNORED, Prediction
from swe_cli.evaluation.loss import (
    Evaluation,
    by_window,
    fit_temperature,
    mean_of,
    random_batches_loss,
    row_pass,
)
from swe_cli.evaluation.measure import measure, metrics
from swe_cli.seeds import derive

DATA = dataset()
CONTEXT = 16


def full_pass(model, size=4, machine=MACHINE):
    windows = DATA.windows("test", context=CONTEXT, size=size)
    return by_window(row_pass(setup_of(model, DATA, machine=machine), windows))


def model_of(**options):
    return gpt(DATA.shape.vocabulary_size, initialization="torch", **options)


def by_hand(model):
    """Token by token: what came before it in its window, softmax in float64, and its −log p."""
    tokens = [int(token) for token in DATA.tokens["test"]]
    losses = []
    for position in range(1, len(tokens)):
        first = (position - 1) // CONTEXT * CONTEXT
        window = torch.tensor([tokens[first:position]])
        logits = model({"tokens": window, "targets": window}).logits[0, -1].double()
        losses.append((torch.logsumexp(logits, 0) - logits[tokens[position]]).item())
    return losses


def test_the_full_pass_is_the_naive_loop_token_by_token():
    model = model_of().eval()
    expected = by_hand(model)
    found = full_pass(model)
    assert len(expected) % CONTEXT  # the last window is filled up
    assert found["tokens"].sum() == len(expected) == len(DATA.tokens["test"]) - 1
    windows = [expected[i : i + CONTEXT] for i in range(0, len(expected), CONTEXT)]
    assert found["tokens"].tolist() == [len(window) for window in windows]
    assert found["nats"].tolist() == pytest.approx([sum(window) for window in windows], abs=1e-4)


def every_logit(model, split):
    """Logits float64 (N, V) and targets (N,) of a whole split."""
    logits, targets = [], []
    for batch in DATA.windows(split, context=CONTEXT, size=4):
        known = batch["targets"] != IGNORED
        logits.append(model(batch).logits[known].double())
        targets.append(batch["targets"][known])
    return torch.cat(logits).detach(), torch.cat(targets)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 3.0, 20.0])
def test_the_temperature_is_that_of_the_least_loss_as_a_search_finds_it(sharpness):
    model = model_of().eval()
    model.token_embedding.weight.data.mul_(sharpness)  # the head's too
    z, y = every_logit(model, "validation")

    def loss(log):
        return float(torch.nn.functional.cross_entropy(z / math.exp(log), y))

    windows = DATA.windows("validation", context=CONTEXT, size=4)
    found, plain = fit_temperature(setup_of(model, DATA), windows)
    assert plain == pytest.approx(loss(0.0), abs=1e-5)
    best = minimize_scalar(loss, bounds=(math.log(0.25), math.log(16)), method="bounded")
    assert loss(math.log(found)) <= best.fun + 1e-6
    assert 0.25 - 1e-9 <= found <= 16 + 1e-9


def test_a_calibrated_loss_is_of_the_test_split_at_the_temperature_of_validation():
    model = model_of().eval()
    setup, protocol = (
        setup_of(model, DATA),
        Evaluation(split="test", batch_size=4, random_batches=0),
    )
    measured = measure(setup, protocol)
    found = dict(metrics(setup, protocol, measured))
    temperature, plain = fit_temperature(setup, DATA.windows("validation", context=CONTEXT, size=4))
    assert found["temperature"].mean == pytest.approx(temperature)
    assert found["validation_loss"].mean == pytest.approx(plain)
    z, y = every_logit(model, "test")
    by_hand = torch.nn.functional.cross_entropy(z / temperature, y)
    assert found["loss_calibrated"].mean == pytest.approx(float(by_hand), abs=1e-5)
    assert found["top1"].mean == pytest.approx(float((z.argmax(1) == y).double().mean()))
    assert "calibrated" not in measure(setup, protocol, calibrate=False)
    assert measured["token_nats"].sum() == pytest.approx(measured["nats"].sum(), rel=1e-5)
    assert len(measured["token_right"]) == measured["tokens"].sum()


def test_a_temperature_takes_away_what_only_it_is():
    """Logits twice as sharp are another model with another loss, and the same calibrated one."""
    protocol = Evaluation(split="test", batch_size=4, random_batches=0)
    setups = [setup_of(Knowing(sharpness), DATA) for sharpness in (1.0, 2.0)]
    one, two = (dict(metrics(setup, protocol, measure(setup, protocol))) for setup in setups)
    assert one["loss"].mean != pytest.approx(two["loss"].mean, abs=1e-2)
    assert one["loss_calibrated"].mean == pytest.approx(two["loss_calibrated"].mean, abs=1e-5)
    assert 2 * one["temperature"].mean == pytest.approx(two["temperature"].mean, rel=1e-3)
    assert one["top1"] == two["top1"]


def test_what_is_not_finite_has_no_temperature():
    model = model_of().eval()
    model.token_embedding.weight.data.fill_(math.nan)
    windows = DATA.windows("validation", context=CONTEXT, size=4)
    assert fit_temperature(setup_of(model, DATA), windows)[0] == 1.0


class Knowing(torch.nn.Module):
    """A model that knows the answer, more or less, as sharply as it is told to."""

    context, longest = CONTEXT, None

    def __init__(self, sharpness):
        super().__init__()
        self.sharpness, size = sharpness, DATA.shape.vocabulary_size
        noise = torch.randn(size, size, generator=torch.Generator().manual_seed(2))
        self.noise = torch.nn.Parameter(noise)

    def forward(self, batch):
        targets = batch["targets"].clamp(min=0)
        known = torch.nn.functional.one_hot(targets, DATA.shape.vocabulary_size)
        logits = self.sharpness * (self.noise[batch["tokens"]] + 2 * known)
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["targets"].flatten(), reduction="none"
        )
        return Prediction(losses.view_as(targets), logits)


def test_the_mean_is_weighted_by_tokens():
    losses = {"nats": np.array([30.0, 2.0]), "tokens": np.array([10, 1])}
    assert mean_of(losses, "nats") == pytest.approx(32 / 11)  # and not (3 + 2) / 2
    model = model_of().eval()
    assert mean_of(full_pass(model), "nats") == pytest.approx(np.mean(by_hand(model)), abs=1e-5)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_batch_size_does_not_matter(size):
    model = model_of()
    expected, found = full_pass(model, 4), full_pass(model, size)
    assert found["tokens"].tolist() == expected["tokens"].tolist()
    np.testing.assert_allclose(
        found["nats"] / found["tokens"], expected["nats"] / expected["tokens"], atol=1e-6
    )


def test_dropout_is_off_and_the_mode_is_given_back():
    model = model_of(dropout=0.5)
    for training in (True, False):
        model.train(training)
        assert full_pass(model)["nats"].tolist() == full_pass(model)["nats"].tolist()
        assert model.training is training


def test_the_mode_is_given_back_after_a_failure_too():
    model = model_of().train()
    tokens = torch.full((1, 4), 10_000)
    with pytest.raises(IndexError):
        by_window(row_pass(setup_of(model, DATA), [{"tokens": tokens, "targets": tokens}]))
    assert model.training


def test_ignored_targets_count_neither_as_loss_nor_as_tokens():
    model = model_of()
    batch = next(DATA.windows("test", context=CONTEXT, size=2))
    half = {**batch, "targets": batch["targets"].clone()}
    half["targets"][1, 4:] = IGNORED
    whole, part = (by_window(row_pass(setup_of(model, DATA), [b])) for b in (batch, half))
    assert part["tokens"].tolist() == [CONTEXT, 4]
    assert part["nats"][0] == whole["nats"][0]
    assert part["nats"][1] < whole["nats"][1]


def test_bfloat16_is_near_and_still_gives_float64_windows():
    model = model_of()
    near = full_pass(model, machine=replace(MACHINE, dtype="bfloat16"))
    exact = full_pass(model)
    assert near["nats"].dtype == np.float64
    assert mean_of(near, "nats") == pytest.approx(mean_of(exact, "nats"), abs=0.02)
    assert near["nats"].tolist() != exact["nats"].tolist()


def test_random_batches_are_the_seeds_and_no_others():
    model = model_of()
    protocol = Evaluation(split="test", batch_size=2, random_batches=3)
    found = random_batches_loss(setup_of(model, DATA, seed=5), protocol)
    batches = [
        DATA.random_batch("test", size=2, context=CONTEXT, seed=derive(5, "random_batches", index))
        for index in range(3)
    ]
    with torch.no_grad():
        expected = torch.cat([model.eval()(batch).losses for batch in batches]).mean().item()
    assert found == pytest.approx(expected, abs=1e-6)
    assert found != random_batches_loss(setup_of(model, DATA, seed=6), protocol)


def test_bits_per_character_and_perplexity():
    data = SimpleNamespace(characters=lambda split: 16)
    text = SimpleNamespace(dataset=data, model=torch.nn.Module())
    protocol = Evaluation(split="test", batch_size=2, random_batches=0)

    def found(*nats):
        losses = {"nats": np.array(nats), "tokens": np.array([1, 3])}
        return {name: of.mean for name, of in metrics(text, protocol, losses)}

    assert found(2 * math.log(2), 6 * math.log(2)) == pytest.approx(
        {"loss": 2 * math.log(2), "bits_per_character": 0.5, "perplexity": 4}
    )
    assert "perplexity" not in found(10_000.0, 30_000.0)
