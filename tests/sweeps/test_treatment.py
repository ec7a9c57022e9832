"""What is done to a cell's model after the cut: on which batches, taught by whom."""

import pytest
import torch
from training.toys import Silent, never, trained, words_for

from swe_cli.compose import ConfigRoot, read_tokens
from swe_cli.pruning.distill import Distillation
from swe_cli.pruning.recover import UNWATCHED
from swe_cli.seeds import derive
from swe_cli.sweeps.execute import execute
from swe_cli.sweeps.plan import plan_sweep
from swe_cli.sweeps.subject import load_subject
from swe_cli.sweeps.treatment import treat


@pytest.fixture
def planned(text, results):
    """Cells of a sweep by kind, and a subject of their own."""

    def plan(*words):
        typed = words_for(text, "training.steps=6", *words)
        made = plan_sweep(read_tokens(typed), ConfigRoot(), results)
        subject = load_subject(trained(made.trainings[0], results), ConfigRoot())
        return {p.cell.kind: p.cell for p in made.cells}, subject

    return plan


@pytest.mark.parametrize("recovery", ["finetune", "distill"])
def test_after_fuse_half_as_many_steps_are_taken_on_further_batches(planned, monkeypatch, recovery):
    cells, subject = planned(
        "criterion=magnitude", "ratio=0.6", "fuse=0.62", f"recovery={recovery}", "recovery.steps=5"
    )
    asked, draw = [], subject.dataset.random_batch

    def random_batch(split, *, seed, **options):
        asked.append((split, seed))
        return draw(split, seed=seed, **options)

    monkeypatch.setattr(subject.dataset, "random_batch", random_batch)
    control = cells["pruned"].reads["dense_recovered"]
    assert control.hash == cells["dense_recovered"].hash
    for cell in (cells["pruned"], control):
        asked.clear()
        treat(cell, subject, UNWATCHED)
        steps = [1, 2, 3, 4, 5, 6, 7]  # five, and 5 // 2 of those that follow
        assert asked == [("train", derive(subject.seed, "recovery", step)) for step in steps]


def test_a_fused_cell_of_which_nothing_is_cut_is_its_control(text, results):
    learned = []
    for fuse in ((), ("fuse=0.99",)):
        typed = words_for(
            text, "training.steps=6", "recovery.steps=4", "criterion=magnitude", "ratio=0.0", *fuse
        )
        plan = plan_sweep(read_tokens(typed), ConfigRoot(), results)
        rows = {r.kind: r for r in execute(plan, results, Silent(), never, resume="").rows}
        assert rows["pruned"].loss_nats == rows["dense_recovered"].loss_nats
        assert rows["pruned"].delta_recovered_nats == 0.0
        learned.append(rows["pruned"].loss_nats)
    assert learned[0] != learned[1]  # by two more steps


@pytest.mark.parametrize("base", ["final", "averaged"])
def test_the_teacher_is_the_dense_model_that_was_cut_and_stays_so(planned, monkeypatch, base):
    cells, subject = planned(
        "criterion=magnitude", "ratio=0.5", "recovery=distill", "recovery.steps=2", f"base={base}"
    )
    taught, learner = [], Distillation.learner

    def remembered(self, model, teacher):
        taught.append(learner(self, model, teacher))
        return taught[-1]

    monkeypatch.setattr(Distillation, "learner", remembered)
    treat(cells["pruned"], subject, UNWATCHED)
    ((student, teacher),) = [(of.student, of.teacher) for of in taught]
    assert student is subject.model
    expected = subject.weights(base)
    found = {name: p.detach() for name, p in teacher.named_parameters()}
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    other = subject.weights("averaged" if base == "final" else "final")
    assert any(not torch.equal(other[name], weight) for name, weight in expected.items())
    assert not any(module.training for module in teacher.modules())  # toys.TINY has dropout
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
