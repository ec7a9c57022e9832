"""Which way of rewriting is taken: the validation split decides, among what saves memory."""

import dataclasses
import math

import pytest
import torch
from training.toys import After, dataset, gpt, setup_of

from swe_cli.contracts import Candidate, Transform
from swe_cli.errors import Interrupted, PruningError
from swe_cli.evaluation.loss import validation_loss
from swe_cli.models.transformer import FactorizedMLP
from swe_cli.pruning import shrink as shrinking
from swe_cli.pruning.shrink import chosen_of, load, transform
from swe_cli.transforms.trawl import TRAWL

DATA = dataset()
DENSE_MLP = 2 * 16 * 64


def model_of(**options):
    return gpt(DATA.shape.vocabulary_size, layers=2, **{"initialization": "torch", **options})


def trawl(**options):
    chosen = {"method": "cp", "stack": "layer", "layers": "all", "ranks": [2, 8], "iterations": 20}
    return TRAWL(**{**chosen, **options})


def named(model):
    return {name: weight.clone() for name, weight in model.weights().items()}


def transformed(model, how, weights=None, **more):
    def lens(tensors):
        return model.prunable(tensors, "linear")

    setup = setup_of(model, DATA, seed=3)
    return transform(setup, weights or named(model), how, lens, batch_size=4, **more)


def losses(monkeypatch, *given):
    """Validation losses in the order in which they are asked for."""
    left = iter(given)
    monkeypatch.setattr(shrinking, "validation_loss", lambda *_: next(left))


def test_every_candidate_is_measured_and_the_best_is_kept():
    model, how = model_of(), trawl()
    weights = named(model)
    kept = {n: t.clone() for n, t in weights.items()}
    found = transformed(model, how, weights)
    assert all(torch.equal(weights[n], kept[n]) for n in kept)
    assert [(t.layer, t.rank) for t in found] == [
        ("layers.0.mlp", 2), ("layers.0.mlp", 8), ("layers.1.mlp", 2), ("layers.1.mlp", 8)
    ]  # fmt: skip
    assert chosen_of(found) == min(found, key=lambda t: t.validation_loss_nats)
    whole = sum(t.numel() for t in weights.values())
    for tried, candidate in zip(found, how.candidates(weights), strict=True):
        fresh = model_of()
        rewritten = how.apply(weights, candidate, 3)
        load(fresh, rewritten)
        assert tried.validation_loss_nats == validation_loss(setup_of(fresh, DATA), 4)
        assert tried.parameters == whole - DENSE_MLP + tried.rank * (2 + 5 * 16)
        mlp = fresh.get_submodule(tried.layer)
        true = [weights[f"{tried.layer}.{of}.weight"] for of in ("expand", "contract")]
        missed = [m - t for m, t in zip(mlp.matrices(), true, strict=True)]
        error = math.hypot(*map(torch.norm, missed)) / math.hypot(*map(torch.norm, true))
        assert tried.relative_error == pytest.approx(error, rel=1e-4)
        if tried == chosen_of(found):
            live = model.weights()
            assert live.keys() == rewritten.keys()
            assert all(torch.equal(live[n], t) for n, t in rewritten.items())


def test_a_live_model_that_holds_factors_is_transformed_again_to_the_same():
    model = model_of()
    weights = named(model)
    tried, made = zip(
        *((transformed(model, trawl(), weights), named(model)) for _ in range(2)), strict=True
    )
    assert tried[0] == tried[1]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_the_whole_stack_is_one_candidate():
    model = model_of()
    found = transformed(model, trawl(stack="all", ranks=[4]))
    assert chosen_of(found).layer == "layers.0.mlp+layers.1.mlp"
    assert chosen_of(found).parameters == (
        sum(p.numel() for p in model_of().parameters()) - 2 * DENSE_MLP + 4 * (4 + 5 * 16)
    )
    assert model.layers[0].mlp.left is model.layers[1].mlp.left
    assert 0 < chosen_of(found).relative_error < 1


def test_full_rank_tucker_loses_nothing():
    model = model_of().eval()
    dense = validation_loss(setup_of(model, DATA), 4)
    how = trawl(method="tucker", layers=[0], ranks=[8, 32])
    found = transformed(model, how)
    exact = found[1]
    assert exact.relative_error < 1e-5
    assert exact.validation_loss_nats == pytest.approx(dense, abs=1e-4)
    assert not exact.saves_memory
    assert chosen_of(found) is found[0]


def test_what_saves_no_memory_is_shown_and_not_chosen(monkeypatch):
    losses(monkeypatch, 3.0, 1.0)
    found = transformed(model_of(), trawl(layers=[0], ranks=[24, 25]))
    assert [t.saves_memory for t in found] == [True, False]  # 24 · 82 < 2048 < 25 · 82
    assert chosen_of(found).rank == 24
    assert chosen_of(found).validation_loss_nats == 3.0


def test_ties_go_to_fewer_parameters(monkeypatch):
    losses(monkeypatch, 2.0, 2.0, 2.0, math.nan)
    found = transformed(model_of(), trawl(layers=[0], ranks=[8, 2, 4, 1]))
    assert chosen_of(found).rank == 2


def test_where_nothing_saves_memory_that_is_said_before_any_work():
    class NeverApplied(TRAWL):
        def apply(self, weights, candidate, seed):
            raise AssertionError

    how = NeverApplied(**dataclasses.asdict(trawl(ranks=[30, 26])))
    with pytest.raises(PruningError, match=r"smaller than.*transform\.ranks=\[13\]"):
        transformed(model_of(), how)


def test_losses_that_are_no_numbers_are_refused(monkeypatch):
    losses(monkeypatch, math.nan, math.inf)
    with pytest.raises(PruningError, match="loss that is a number"):
        transformed(model_of(), trawl(layers=[0]))


def test_it_can_be_stopped_between_candidates(monkeypatch):
    losses(monkeypatch, 3.0, 1.0)  # a third would not be there
    with pytest.raises(Interrupted):
        transformed(model_of(), trawl(), stop=After(2))


def test_a_transform_of_another_kind_is_held_by_the_same_contract():
    """Any factors do: here, one column of ones."""

    class Ones(Transform):
        def candidates(self, prunable):
            return [Candidate(("layers.1.mlp",), 1, 1)]

        def apply(self, weights, candidate, seed):
            new = {n: t for n, t in weights.items() if not n.startswith("layers.1.mlp.")}
            shapes = {"left": (16, 1), "right": (64, 1), "core": (2, 1)}
            return new | {f"layers.1.mlp.{n}": torch.ones(s) for n, s in shapes.items()}

    model = model_of()
    transformed(model, Ones())
    assert isinstance(model.layers[1].mlp, FactorizedMLP)
