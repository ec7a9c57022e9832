"""Recovery by distillation: the mixture by hand, and its two ends."""

import torch
from training.toys import batch_of, dataset, gpt, setup_of

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import IGNORED
from swe_cli.pruning.recover import Distillation, Recovery
from swe_cli.training.state import fit

DATA = dataset()
VOCABULARY = DATA.shape.vocabulary_size


def made(kind="distill", **options):
    cls = {"distill": Distillation, "finetune": Recovery}[kind]
    return cls(**{**component("recovery", kind, ConfigRoot()).options, "steps": 3, **options})


def mixture(student, teacher, temperature, share):
    """The student's losses, as far as they are learned from the teacher."""
    distillation = made(temperature=temperature, teacher_share=share)
    return distillation.learner(student, lambda: teacher)


def recovered(recovery, student_seed=1, teacher_seed=2):
    student, teacher = gpt(VOCABULARY, seed=student_seed), gpt(VOCABULARY, seed=teacher_seed)
    fit(recovery.begin(setup_of(student, DATA), 3, teacher.eval), recovery.steps)
    return student.weights()


def test_the_mixture_by_hand():
    student, teacher = gpt(VOCABULARY, seed=1), gpt(VOCABULARY, seed=2)
    batch = batch_of(VOCABULARY)
    batch["targets"][0, 3] = IGNORED
    t, share = 3.0, 0.25
    losses = mixture(student, teacher, t, share)(batch).losses
    p = torch.softmax(teacher(batch).logits.double() / t, -1)
    q = torch.softmax(student(batch).logits.double() / t, -1)
    divergence = (p * (p / q).log()).sum(-1) * t**2
    expected = (1 - share) * student(batch).losses.double() + share * divergence
    expected[0, 3] = 0.0
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-6)
    assert not any(p.grad is not None for p in teacher.parameters())


def test_with_no_share_it_is_fine_tuning():
    tuned, taught = recovered(made("finetune")), recovered(made(teacher_share=0.0))
    for name, weight in tuned.items():
        torch.testing.assert_close(taught[name], weight, rtol=0, atol=1e-6)
    mixed = recovered(made(teacher_share=0.5))
    assert any(not torch.allclose(mixed[n], w, atol=1e-5) for n, w in tuned.items())


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it():
    before = gpt(VOCABULARY, seed=1).weights()
    # Adam makes a step of any gradient, however small: of noise too. The loss is what is zero.
    same = gpt(VOCABULARY, seed=1)
    losses = mixture(same, gpt(VOCABULARY, seed=1), 2.0, 1.0)(batch_of(VOCABULARY)).losses
    assert losses.abs().max() < 1e-6
    moved = recovered(made(teacher_share=1.0))
    assert any(not torch.equal(moved[n], w) for n, w in before.items())


def test_a_student_comes_nearer_to_its_teacher():
    batch, teacher = batch_of(VOCABULARY), gpt(VOCABULARY, seed=2)

    def distance(weights):
        student = gpt(VOCABULARY, seed=1)
        for name, p in student.named_parameters():
            p.data.copy_(weights[name])
        return float(mixture(student, teacher, 2.0, 1.0)(batch).losses.detach().mean())

    before = gpt(VOCABULARY, seed=1).weights()
    after = recovered(made(teacher_share=1.0, steps=20, learning_rate=1e-2))
    assert distance(after) < 0.8 * distance(before)
