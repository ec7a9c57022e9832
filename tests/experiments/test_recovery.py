"""What is done to a cell's model after the cut: on which batches, taught by whom."""

import pytest
import torch
from training.toys import opened, sweep_of, swept, trained

from swe_cli.experiments.cell import execute
from swe_cli.pruning.recover import Distillation
from swe_cli.seeds import derive


@pytest.fixture
def planned(text, results):
    """Cells of a sweep by kind, and a model of their own."""

    def plan(*words):
        made = sweep_of(text, results, "training.steps=6", *words)
        model = opened(trained(made.trainings[0], results))
        return {p.kind: p for p in made.cells}, model

    return plan


@pytest.mark.parametrize("recovery", ["finetune", "distill"])
def test_after_fuse_half_as_many_steps_are_taken_on_further_batches(planned, monkeypatch, recovery):
    cells, model = planned(
        "criterion=magnitude", "ratio=0.6", "fuse=0.62", f"recovery={recovery}", "recovery.steps=5"
    )
    asked, draw = [], model.dataset.random_batch

    def random_batch(split, *, seed, **options):
        asked.append((split, seed))
        return draw(split, seed=seed, **options)

    monkeypatch.setattr(model.dataset, "random_batch", random_batch)
    control = cells["pruned"].reads["dense_recovered"]
    assert control.hash == cells["dense_recovered"].hash
    for cell in (cells["pruned"], control):
        asked.clear()
        execute(cell.spec, model)
        steps = [1, 2, 3, 4, 5, 6, 7]  # five, and 5 // 2 of those that follow
        assert asked == [("train", derive(model.seed, "recovery", step)) for step in steps]


def test_a_fused_cell_of_which_nothing_is_cut_is_its_control(text, results):
    learned = []
    for fuse in ((), ("fuse=0.99",)):
        uncut = ("training.steps=6", "recovery.steps=4", "criterion=magnitude", "ratio=0.0")
        rows = {row.kind: row for row in swept(sweep_of(text, results, *uncut, *fuse)).rows}
        assert rows["pruned"].mean("loss") == rows["dense_recovered"].mean("loss")
        assert rows["pruned"].mean("delta_recovered") == 0.0
        learned.append(rows["pruned"].mean("loss"))
    assert learned[0] != learned[1]  # by two more steps


@pytest.mark.parametrize("base", ["final", "averaged"])
def test_the_teacher_is_the_dense_model_that_was_cut_and_stays_so(planned, monkeypatch, base):
    cells, model = planned(
        "criterion=magnitude", "ratio=0.5", "recovery=distill", "recovery.steps=2", f"base={base}"
    )
    taught, learner = [], Distillation.learner

    def remembered(self, student, teacher):
        taught.append((student, teacher()))
        return learner(self, student, lambda: taught[-1][1])

    monkeypatch.setattr(Distillation, "learner", remembered)
    execute(cells["pruned"].spec, model)
    ((student, teacher),) = taught
    assert student is model.model
    found, expected = teacher.weights(), model.weights(base)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    other = model.weights("averaged" if base == "final" else "final")
    assert any(not torch.equal(other[name], weight) for name, weight in expected.items())
    assert not any(module.training for module in teacher.modules())  # toys.TINY has dropout
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
