"""What lies where when the model is on an accelerator: told without one, on tensors without values.

Evidence, statistics and masks lie on the CPU, live weights on the device; mixing them raises. The
device is ``meta``: the only one, besides the CPU, that every build of torch can differentiate on.
"""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from training.toys import batch_of, gpt

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DrawnCriterion, Evidence, Setup
from swe_cli.device import Machine
from swe_cli.experiments.cell import CellRun
from swe_cli.experiments.model import TrainedModel
from swe_cli.experiments.spec import Spec
from swe_cli.pruning.calibration import CalibratedModel
from swe_cli.pruning.masks import UnitCut, fuse
from swe_cli.pruning.prune import Judge, Method, prune

CPU, DEVICE = torch.device("cpu"), torch.device("meta")


class Elsewhere(Machine):
    def precision(self):
        return nullcontext()  # there is no autocast on meta


MACHINE = Elsewhere(DEVICE, "float32", 1)


@pytest.fixture
def far():
    """Tensors without values: a model on the device, its lens, and its weights on the CPU."""
    with FakeTensorMode(shape_env=ShapeEnv()):  # which lets a number of units be unknown, too
        with DEVICE:
            model = gpt(11)
        lens = partial(model.prunable, which="linear")
        near = {name: torch.empty(p.shape) for name, p in model.named_parameters()}
        yield model, lens, near


def devices(tensors):
    assert tensors
    return {tensor.device for tensor in tensors.values()}


def test_mixing_devices_raises_here_as_on_an_accelerator(far):
    """What makes the tests below able to fail."""
    model, _, near = far
    assert devices(model.weights()) == {DEVICE}
    with pytest.raises(RuntimeError, match="same device"):
        near["layers.0.mlp.expand.weight"] * model.layers[0].mlp.expand.weight.detach()


@pytest.mark.parametrize("name", ["snip", "fisher", "taylor"])
def test_gradients_meet_the_evidence_on_the_cpu(far, name):
    model, lens, near = far
    samples = SimpleNamespace(batches=lambda *_: [MACHINE.move(batch_of(11, size=1))] * 2)
    found = CalibratedModel(Setup(model, None, MACHINE, 1), samples, lens).gradients
    criterion = component("criterion", name, ConfigRoot()).build()
    scores = criterion.score(Evidence(lens(near), calibration=found))
    assert devices(scores) == {CPU}
    assert devices(model.weights()) == {DEVICE}


def test_live_weights_of_a_later_round_meet_their_first_ones_on_the_cpu(far):
    model, lens, near = far
    whole = {name: torch.ones(w.shape, dtype=torch.bool) for name, w in lens(near).items()}

    class Drawn(DrawnCriterion):
        """Needs no order of values."""

        def draw(self, evidence, round):
            return whole

    trajectory = {"initial_weights": near}
    bases = {"final": lambda: near}
    trained = TrainedModel(model, None, MACHINE, 1, name="x", bases=bases, trajectory=trajectory)
    spec = Spec(evaluation=None)
    work = CellRun(spec, trained)
    work.masks = whole  # of the round before
    scorer = work._scorer()
    evidence = scorer.evidence
    masks = prune(Method(Judge(Drawn(), "drawn", "")), scorer, 2)
    assert devices(evidence.weights) == devices(masks) == {CPU}
    net_movement = component("criterion", "net_movement", ConfigRoot()).build()
    assert devices(net_movement.score(evidence)) == {CPU}


@pytest.mark.parametrize("kind", ["neuron", "head", "block"])
def test_fuse_takes_live_weights_and_masks_of_the_cpu(far, monkeypatch, kind):
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: True)  # where there is no value
    model, lens, _ = far
    cut = UnitCut(model, lens, kind, {})
    sizes = {layer: sum(map(len, units)) for layer, units in cut.layers.items()}
    whole = {layer: torch.ones(size, dtype=torch.bool) for layer, size in sizes.items()}
    masks = cut.masks(whole)
    assert devices(masks) == {CPU}
    weights = lens(model.weights())
    assert devices(weights) == {DEVICE}
    assert devices(fuse(weights, masks, 0.5)) == {CPU}
