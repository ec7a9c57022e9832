"""Plain classes, without any base class of ours, work as components; what they lack is named."""

from concurrent.futures import Future

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training.toys import MACHINE, dataset

from swe_cli.config import Component, ConfigRoot, component
from swe_cli.conform import conform
from swe_cli.contracts import (
    Allocation,
    Candidate,
    DrawnCriterion,
    Launcher,
    LayerCriterion,
    Model,
    Pattern,
    Prediction,
    Statistic,
    Update,
    WeightCriterion,
)
from swe_cli.errors import PruningError, UsageError
from swe_cli.experiments.cell import execute
from swe_cli.experiments.model import TrainedModel
from swe_cli.experiments.spec import Spec, built
from swe_cli.pruning.masks import cut_counts

DATA = dataset()


class Steady:
    needs = ("weighted_average",)

    def __init__(self, *, power):
        self.power = power

    def score(self, evidence):
        lived, p = evidence.trajectory["weighted_average"], self.power
        return {n: lived[n].abs() ** p * w.abs() ** (1 - p) for n, w in evidence.weights.items()}


class ByNorm:
    """Wanda's equation."""

    needs = ("input_norm",)

    def score_layer(self, weight, inputs):
        return weight.abs() * inputs.norm

    def prune_layer(self, weight, inputs, choose):
        kept = choose(self.score_layer(weight, inputs), 0)
        weight.mul_(kept)
        return kept


class EveryOther:
    def draw(self, evidence, round):
        places = {n: torch.arange(w.numel()).view(w.shape) for n, w in evidence.weights.items()}
        return {name: place % 2 == 0 for name, place in places.items()}


class Travelled:
    def __init__(self, weights):
        self.path = {n: torch.zeros_like(w) for n, w in weights.items()}
        self.last = {n: w.clone() for n, w in weights.items()}

    def update(self, weights, index, share):
        for name, weight in weights.items():
            self.path[name] += (weight - self.last[name]).abs()
            self.last[name].copy_(weight)

    def state(self):
        return self.path | {f"{n}/last": w for n, w in self.last.items()}

    def load(self, state):
        for name in self.path:
            self.path[name].copy_(state[name])
            self.last[name].copy_(state[f"{name}/last"])


class FirstFirst:
    """Takes all of the first tensors."""

    def counts(self, ranking, ratio, context):
        left, counts = round(ratio * ranking.total), {}
        for name, size in ranking.sizes.items():
            counts[name] = min(size, left)
            left -= counts[name]
        return counts


class FromTheLeft:
    def masks(self, ranking, counts, within):
        shapes = {name: scores.shape for name, scores in ranking.scores.items()}
        return {n: (torch.arange(s.numel()) >= counts[n]).view(s) for n, s in shapes.items()}


class Anything:
    """A pattern needs nothing of its own."""


class Halved:
    """Half of an MLP's neurons, as a model of another size."""

    def candidates(self, prunable):
        return [Candidate((), 0, 1)]

    def apply(self, weights, candidate, seed):
        new = dict(weights)
        new["layers.0.0.weight"] = weights["layers.0.0.weight"][:8]
        new["layers.0.2.weight"] = weights["layers.0.2.weight"][:, :8]
        return new


class Doubled:
    """Two for one, as dropout does."""

    def solve(self, weight, kept, inputs):
        assert inputs.gram.shape == (weight.shape[1],) * 2
        return 2 * weight


class AtOnce:
    def submit(self, function, job):
        (future := Future()).set_result(function(job))
        return future


class Bare(nn.Module):
    """A residual MLP on every token."""

    context = 8

    def __init__(self, data, *, width):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(data.vocabulary_size, width)
        up, down = nn.Linear(width, 16, bias=False), nn.Linear(16, width, bias=False)
        self.layers = nn.ModuleList([nn.Sequential(up, nn.ReLU(), down)])

    def forward(self, batch):
        x = self.embedding(batch["tokens"])
        for layer in self.layers:
            x = x + layer(x)
        logits = x @ self.embedding.weight.T
        losses = F.cross_entropy(logits.movedim(-1, 1), batch["targets"], reduction="none")
        return Prediction(losses, logits)


class Picky(Bare):
    """Shows its last matrix only, and calls it its own way."""

    roles = ("reading", "writing")

    def prunable(self, tensors, which):
        names = ["layers.0.2.weight"] if which == "linear" else list(dict(self.named_parameters()))
        return {f"{name}[own]": tensors[name] for name in names if name in tensors}

    def role_of(self, name):
        return "writing" if name.startswith("layers.0.2") else "reading"


def plain(group, target, **options):
    assert not any(base.__module__.startswith("swe_cli") for base in target.__mro__)
    return Component(group, "own", target, options)


def cell_of(model=Bare, **components):
    """What becomes of a plain model that is cut in half, with plain components in place of ours."""
    module = built(plain("model", model, width=8), DATA.shape)
    weights = {name: weight.clone() for name, weight in module.weights().items()}
    average = {name: weight.roll(1, 0) for name, weight in weights.items()}
    trained = TrainedModel(
        module,
        DATA,
        MACHINE,
        seed=1,
        name="own",
        bases={"final": lambda: weights},
        trajectory={"weighted_average": average},
    )
    names = {"evaluation": "test", "calibration": "train", "criterion": "magnitude"}
    names |= {"allocation": "uniform", "pattern": "unstructured"}
    chosen = {group: component(group, name, ConfigRoot()) for group, name in names.items()}
    ratio = None if "transform" in components else 0.5
    spec = Spec(**{**chosen, "ratio": ratio, **components})
    return execute(spec, trained), weights


def lost(result):
    return cut_counts(result.masks)


UP, DOWN = "layers.0.0.weight", "layers.0.2.weight"


def test_a_plain_model_shows_the_matrices_of_its_blocks():
    result, weights = cell_of()
    assert lost(result) == {UP: 64, DOWN: 64}
    for name, mask in result.masks.items():
        assert weights[name][~mask].abs().max() <= weights[name][mask].abs().min()
    model = built(plain("model", Bare, width=8), DATA.shape)
    assert isinstance(model, Bare) and isinstance(model, Model)  # noqa: PT018
    assert (model.roles, model.units("neuron")) == (("language",), ())
    assert list(model.prunable(model.weights(), "all")) == ["embedding.weight", UP, DOWN]


def test_a_plain_model_is_recovered_and_copied_as_a_teacher():
    distill = component("recovery", "distill", ConfigRoot(), {"steps": 2})
    result, weights = cell_of(recovery=distill)
    for name, mask in result.masks.items():
        assert not result.weights[name][~mask].any()
        assert not torch.equal(result.weights[name][mask], weights[name][mask])


def test_a_plain_model_may_say_itself_what_can_be_cut():
    result, _ = cell_of(Picky)
    assert lost(result) == {f"{DOWN}[own]": 64}
    assert lost(cell_of(Picky, roles="writing", prunable="all")[0]) == {f"{DOWN}[own]": 64}


def test_plain_criteria_of_every_kind():
    steady, weights = cell_of(criterion=plain("criterion", Steady, power=1.0))
    for name, mask in steady.masks.items():
        lived = weights[name].roll(1, 0).abs()
        assert lived[~mask].max() <= lived[mask].min()
    judged, _ = cell_of(criterion=plain("criterion", ByNorm))
    wanda, _ = cell_of(criterion=component("criterion", "wanda", ConfigRoot()))
    assert all(torch.equal(mask, wanda.masks[name]) for name, mask in judged.masks.items())
    drawn, _ = cell_of(criterion=plain("criterion", EveryOther), ratio=None)
    assert not drawn.masks[UP].flatten()[1::2].any()
    kinds = {Steady: WeightCriterion, ByNorm: LayerCriterion, EveryOther: DrawnCriterion}
    for own, contract in kinds.items():
        options = {"power": 0.5} if own is Steady else {}
        criterion = built(plain("criterion", own, **options))
        assert isinstance(criterion, contract)
        assert criterion.granularity == contract.granularity
        assert criterion.published == contract.published
        assert criterion.updates_weights is False


def test_a_plain_allocation_and_a_plain_pattern():
    result, _ = cell_of(allocation=plain("allocation", FirstFirst))
    assert lost(result) == {UP: 128, DOWN: 0}
    result, _ = cell_of(pattern=plain("pattern", FromTheLeft))
    assert not result.masks[UP].flatten()[:64].any()
    assert lost(result) == {UP: 64, DOWN: 64}
    same, ours = cell_of(pattern=plain("pattern", Anything))[0], cell_of()[0]
    assert all(torch.equal(mask, ours.masks[name]) for name, mask in same.masks.items())
    allocation = built(plain("allocation", FirstFirst))
    assert (allocation.consults, allocation.within, allocation.probes) == ((), "tensor", False)
    assert allocation.stands_for(built(plain("criterion", Steady, power=0.5))) is None


def test_a_plain_transform():
    result, weights = cell_of(transform=plain("transform", Halved))
    assert result.weights[UP].shape == (8, 8)
    assert torch.equal(result.weights[UP], weights[UP][:8])
    assert result.metrics["sparsity"].mean == 0.5
    own = built(plain("transform", Halved))
    assert own.learner(result.trained.model, print) is print


def test_a_plain_update():
    result, weights = cell_of(update=plain("update", Doubled))
    for name, mask in result.masks.items():
        assert torch.equal(result.weights[name], 2 * weights[name] * mask)
    own = built(plain("update", Doubled))
    assert isinstance(own, Update)
    assert own.needs == ("input_gram",)
    with pytest.raises(PruningError, match="it was given none"):
        cell_of(update=plain("update", Doubled), calibration=None)


def test_a_plain_statistic():
    weights = {"w": torch.tensor([1.0, 2.0])}
    statistic = built(plain("statistic", Travelled), weights)
    assert isinstance(statistic, Statistic)
    assert statistic.sees("before_step") is False
    for index, step in enumerate(([3.0, 2.0], [0.0, 2.5]), 1):
        statistic.update({"w": torch.tensor(step)}, index, 1 / index)
    assert statistic.state()["w"].tolist() == [5.0, 0.5]
    other = built(plain("statistic", Travelled), weights)
    other.load(statistic.state())
    assert other.state()["w/last"].tolist() == [0.0, 2.5]


class Pushed(Travelled):
    """What has ``before_step`` is shown gradients, without a word more."""

    def before_step(self, weights, gradients, share):
        self.pushed = gradients


class ByRate(FirstFirst):
    def counts_at_rate(self, ranking, rate):
        return ranking.below(dict.fromkeys(ranking.sizes, rate))


def test_a_plain_schedule():
    class Halves:
        rounds = 2

        def fraction(self, done):
            return done / 2

    schedule = built(Component("schedule", "halves", Halves, {}))
    assert (schedule.fraction(1), schedule.steps_of(1, 10), schedule.at_step) == (0.5, 5, None)


def test_a_schedule_without_rounds_is_named():
    class Mute:
        pass

    with pytest.raises(UsageError, match="Mute, which is no Schedule: it lacks rounds"):
        built(Component("schedule", "mute", Mute, {}))


def test_what_a_plain_class_can_do_it_need_not_declare():
    statistic = built(plain("statistic", Pushed), {"w": torch.ones(2)})
    assert statistic.sees("before_step")
    result, weights = cell_of(allocation=plain("allocation", ByRate), ratio=None, rate=0.1)
    assert lost(result) == {n: int((weights[n].abs() < 0.1).sum()) for n in (UP, DOWN)}
    assert not built(plain("allocation", FirstFirst)).takes_rate


def test_a_plain_launcher():
    launcher = built(plain("launcher", AtOnce))
    assert isinstance(launcher, Launcher)
    assert (launcher.in_process, launcher.slots, launcher.lost) == (False, 1, ())
    launcher.start(threads=1)
    assert launcher.submit(str, 2).result() == "2"
    launcher.close(now=False)


class Module(nn.Module):
    context = 8

    def __init__(self, data):
        nn.Module.__init__(self)

    def forward(self, batch): ...


def without(cls, *members):
    """The class without some of what it has."""
    rest = {name: of for name, of in vars(cls).items() if name not in (*members, "__dict__")}
    return type(cls.__name__, cls.__bases__, rest)


@pytest.mark.parametrize(
    ("group", "contract", "own", "options", "missing"),
    [
        ("criterion", "WeightCriterion", Steady, {"power": 0.5}, ["score"]),
        ("criterion", "LayerCriterion", ByNorm, {}, ["score_layer"]),
        ("statistic", "Statistic", Travelled, {}, ["update"]),
        ("allocation", "Allocation", FirstFirst, {}, ["counts"]),
        ("transform", "Transform", Halved, {}, ["candidates"]),
        ("transform", "Transform", Halved, {}, ["candidates", "apply"]),
        ("update", "Update", Doubled, {}, ["solve"]),
        ("launcher", "Launcher", AtOnce, {}, ["submit"]),
        ("model", "Model", Module, {}, ["context", "forward"]),
        ("model", "Model", Module, {}, ["context"]),
        ("model", "Model", Module, {}, ["forward"]),
    ],
)
def test_what_a_plain_class_lacks_is_named(group, contract, own, options, missing):
    runtime = {"model": (DATA.shape,), "statistic": ({"w": torch.ones(2)},)}.get(group, ())
    lacking = Component(group, "own", without(own, *missing), options)
    with pytest.raises(UsageError) as refused:
        built(lacking, *runtime)
    says = str(refused.value)
    assert says.startswith(f"{group}=own gives a {own.__name__}, which is no {contract}: it lacks ")
    assert sorted(says.partition("it lacks ")[2].partition(". See")[0].split(", ")) == sorted(
        missing
    )
    assert f"See docs/extend.md, and swe_cli.contracts.{contract}." in says


class Unlike:
    """Has all that a model has but is no module."""

    context = 8

    def __init__(self, data):
        pass

    def forward(self, batch): ...


class Slotted:
    __slots__ = ()

    def counts(self, ranking, ratio, context): ...


@pytest.mark.parametrize(
    ("group", "target", "runtime", "says"),
    [
        ("model", Unlike, [DATA.shape], "model=own gives a Unlike, which is no torch.nn.Module"),
        ("allocation", Slotted, [], "allocation=own gives a Slotted, which cannot take the defau"),
        ("allocation", dict, [], "allocation=own gives a dict, which is no Allocation: it lacks"),
    ],
)
def test_what_cannot_conform_is_refused(group, target, runtime, says):
    with pytest.raises(UsageError, match=says):
        built(Component(group, "own", target, {}), *runtime)


def test_what_conforms_already_is_left_as_it_is():
    for contract, own in ((Pattern, Anything()), (Allocation, FirstFirst())):
        conforming = conform(own, contract, "own")
        assert conforming is own
        assert type(conform(conforming, contract, "own")) is type(conforming)
