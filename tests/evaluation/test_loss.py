import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training.toys import MACHINE, dataset, gpt, setup_of

from swe_cli.contracts import IGNORED
from swe_cli.evaluation.loss import (
    Evaluation,
    mean_of,
    random_batches_loss,
    window_losses,
)
from swe_cli.evaluation.measure import metrics
from swe_cli.seeds import derive

DATA = dataset()
CONTEXT = 16


def full_pass(model, size=4, machine=MACHINE):
    windows = DATA.windows("test", context=CONTEXT, size=size)
    return window_losses(setup_of(model, DATA, machine=machine), windows)


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
        window_losses(setup_of(model, DATA), [{"tokens": tokens, "targets": tokens}])
    assert model.training


def test_ignored_targets_count_neither_as_loss_nor_as_tokens():
    model = model_of()
    batch = next(DATA.windows("test", context=CONTEXT, size=2))
    half = {**batch, "targets": batch["targets"].clone()}
    half["targets"][1, 4:] = IGNORED
    whole, part = (window_losses(setup_of(model, DATA), [b]) for b in (batch, half))
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
    text = SimpleNamespace(dataset=SimpleNamespace(characters=lambda split: 16))
    protocol = Evaluation(split="test", batch_size=2, random_batches=0)

    def found(*nats):
        losses = {"nats": np.array(nats), "tokens": np.array([1, 3])}
        return {name: of.mean for name, of in metrics(text, protocol, losses)}

    assert found(2 * math.log(2), 6 * math.log(2)) == pytest.approx(
        {"loss": 2 * math.log(2), "bits_per_character": 0.5, "perplexity": 4}
    )
    assert "perplexity" not in found(10_000.0, 30_000.0)
