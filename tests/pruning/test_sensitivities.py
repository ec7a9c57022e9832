"""How steep the loss is, worked by hand: which differences, on which samples, in which mode."""

from functools import partial

import numpy as np
import pytest
import torch
from training.toys import dataset, gpt, setup_of

from swe_cli.contracts import IGNORED, Example, Model, Prediction
from swe_cli.data.questions import QuestionSet
from swe_cli.data.tokenizers import WordTokenizer
from swe_cli.data.tokens import QuestionDataset
from swe_cli.pruning.calibration import CalibratedModel, Calibration
from swe_cli.seeds import derive

SEED, STEP = 3, 1e-3


class Square(Model):
    """L = m · (|v|² + |w|²), m the mean token of a batch; it remembers what it was shown."""

    context = 16

    def __init__(self):
        super().__init__()
        self.v = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
        self.w = torch.nn.Parameter(torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64))
        self.shown = []

    def forward(self, batch):
        self.shown.append((self.v.detach().clone(), self.w.detach().clone(), batch["tokens"]))
        loss = batch["tokens"] * (self.v.square().sum() + self.w.square().sum())
        return Prediction(loss.masked_fill(batch["targets"] == IGNORED, 0.0), loss)


def calibrated(model, data, samples=6):
    calibration = Calibration(samples=samples, batch_size=2, inputs="pruned")
    lens = dict if isinstance(model, Square) else partial(model.prunable, which="linear")
    return CalibratedModel(setup_of(model, data, SEED), calibration, lens)


def test_sensitivities_are_central_differences_along_another_direction_in_every_batch():
    model, data = Square(), dataset()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = calibrated(model, data).sensitivities
    assert len(model.shown) == 2 * 2 * 3  # two tensors, both ways, 6 samples two by two
    for place, (name, theta) in enumerate(before.items()):
        directions, expected = [], 0.0
        for at in range(6 * place, 6 * place + 6, 2):
            (*up, tokens), (*down, again) = model.shown[at : at + 2]
            assert torch.equal(tokens, again)
            torch.testing.assert_close((up[place] + down[place]) / 2, theta)  # θ ± εz
            other = "w" if name == "v" else "v"
            assert torch.equal(up[1 - place], before[other])  # which stands still
            z = (up[place] - theta) / STEP
            # (|θ + εz|² − |θ − εz|²) / 2ε = 2 θ·z, exactly.
            expected += float(tokens.double().mean()) * abs(2 * float(theta @ z))
            directions.append(z)
        assert found[name] == pytest.approx(expected, rel=1e-9)
        assert len({tuple(z.tolist()) for z in directions}) == 3
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_directions_are_standard_normal():
    model = Square()
    model.w = torch.nn.Parameter(torch.zeros(4000, dtype=torch.float64))
    assert calibrated(model, dataset()).sensitivities["w"] < 1e-6  # at the minimum nothing is felt
    z = next(w for v, w, _ in model.shown if w.any()) / STEP
    assert float(z.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(z.std()) == pytest.approx(1.0, abs=0.05)


def questions():
    """Forty of several lengths, short ones and long ones mixed."""
    asked = [
        Example(0, " ".join(["is", *["it"] * (1 + place % 4), f"q{place}"]), "yes", "type")
        for place in range(40)
    ]
    examples = {"train": asked, "validation": asked[:2], "test": asked[:2]}
    where = {split: [f"row {row}" for row in range(len(of))] for split, of in examples.items()}
    source = QuestionSet(np.zeros((1, 1, 2, 2), np.uint8), examples, "", where)
    return QuestionDataset(source, WordTokenizer(source.text()))


def test_the_probe_is_the_first_32_samples_that_were_drawn_whatever_their_lengths():
    model, data = Square(), questions()
    _ = calibrated(model, data, samples=100).sensitivities
    drawn = data.random_batch(
        "train", size=100, context=model.context, seed=derive(SEED, "calibration")
    )
    lengths = [int(row.nonzero()[-1]) + 1 for row in drawn["targets"] != IGNORED]
    rows = [row[:length].tolist() for row, length in zip(drawn["tokens"], lengths, strict=True)]
    first = model.shown[: len(model.shown) // 2 : 2]  # of one tensor, one way
    probed = [row for *_, tokens in first for row in tokens.tolist()]
    assert sorted(probed) == sorted(rows[:32])
    assert len({len(row) for row in probed}) > 3
    assert sorted(probed) != sorted(sorted(rows, key=len)[:32])  # not the 32 shortest


def test_dropout_is_off_while_the_loss_is_probed():
    data, found = dataset(), []
    for dropout in (0.0, 0.5):
        model = gpt(data.shape.vocabulary_size, dropout=dropout).train()
        found.append(calibrated(model, data).sensitivities)
        assert model.training
    assert found[0] == found[1]
    assert all(value > 0 for value in found[0].values())
