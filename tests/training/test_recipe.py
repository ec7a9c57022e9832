import math

import pytest
import torch
from torch import nn

from swe_cli.training.recipe import build_optimizer

from .toys import recipe, setup_of


def test_constant_schedule_after_a_linear_warm_up():
    made = recipe(learning_rate=0.1, schedule="constant", warmup_steps=4, steps=10)
    assert [made.learning_rate_at(step) for step in range(1, 7)] == pytest.approx(
        [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]
    )


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert recipe(learning_rate=0.1, schedule="constant", warmup_steps=0).learning_rate_at(1) == 0.1


def test_cosine_by_hand():
    made = recipe(
        learning_rate=1.0, minimum_learning_rate=0.2, schedule="cosine", warmup_steps=2, steps=10
    )
    assert made.learning_rate_at(2) == pytest.approx(1.0)
    assert made.learning_rate_at(4) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.sqrt(0.5)))
    assert made.learning_rate_at(6) == pytest.approx(0.6)  # half way, half way down
    assert made.learning_rate_at(10) == pytest.approx(0.2)


def test_the_decay_of_a_linear_average_by_hand():
    made = recipe(learning_rate=0.5, schedule="linear_average", warmup_steps=0, steps=4)
    rates = [made.learning_rate_at(step) for step in range(1, 5)]
    assert rates == pytest.approx([0.5, 0.5 * 18 / 20, 0.5 * 14 / 20, 0.5 * 8 / 20])
    warm = recipe(learning_rate=0.5, schedule="linear_average", warmup_steps=2, steps=4)
    assert [warm.learning_rate_at(step) for step in (1, 2, 3, 4)] == [0.25, 0.5, *rates[2:]]


def test_a_warm_up_as_long_as_the_training_divides_by_nothing():
    made = recipe(learning_rate=1.0, schedule="cosine", warmup_steps=5, steps=5)
    assert made.learning_rate_at(5) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "made"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_optimizer_decays_matrices_and_spares_vectors(kind, made):
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    module = nn.ParameterList([matrix, vector])
    options = {"optimizer": kind, "weight_decay": 0.3, "learning_rate": 0.01, "beta2": 0.95}
    optimizer = recipe(**options).begin(setup_of(module, data=None)).optimizer
    assert type(optimizer) is made
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays == {id(matrix): 0.3, id(vector): 0.0}
    assert all(g["betas"] == (0.9, 0.95) and g["fused"] for g in optimizer.param_groups)


def test_the_learning_rate_of_every_step_is_the_schedules():
    matrix = nn.Parameter(torch.zeros(1, 1))
    optimizer = build_optimizer([matrix], "adam", 0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.25
    matrix.grad = torch.ones(1, 1)
    optimizer.step()
    assert matrix.item() == pytest.approx(-0.25)  # Adam's first step is the rate itself
