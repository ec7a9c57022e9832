"""``swe_cli.prune`` of a plain module."""

import pytest
import torch
from torch import nn

import swe_cli
from swe_cli.errors import SweWarning, UsageError


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3)
    return nn.Sequential(*layers)


def tuned(**options):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = swe_cli.WeightTracker(model, optimizer, **options)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(2, 1, 6, 6, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, tracker


def matrices(model):
    return {n: p.detach() for n, p in model.named_parameters() if p.dim() > 1}


def test_half_of_all_weights_whose_average_is_smallest_goes():
    model, tracker = tuned()
    before = {n: w.clone() for n, w in matrices(model).items()}
    masks = swe_cli.prune(model, tracker, ratio=0.5)
    average = tracker.statistics["weighted_average"].state()
    scores = torch.cat([average[name].abs().flatten() for name in before])
    gone = scores.argsort()[: len(scores) // 2]
    expected = torch.ones(len(scores), dtype=torch.bool)
    expected[gone] = False
    assert torch.equal(torch.cat([masks[name].flatten() for name in before]), expected)
    for name, weight in matrices(model).items():
        assert torch.equal(weight, before[name] * masks[name])
    assert model[0].bias.all()


@pytest.mark.filterwarnings("ignore:criterion=swe_obd judges by")
@pytest.mark.parametrize("allocation", ["global", "uniform", "row", "sigma", "published"])
@pytest.mark.parametrize("criterion", ["magnitude", "swe", "swe_obd", "random"])
def test_any_criterion_of_weights_cuts_exactly_as_much(criterion, allocation):
    model, tracker = tuned(statistics=["weighted_average", "square_gradient"])
    how = {"criterion": criterion, "allocation": allocation}
    masks = swe_cli.prune(model, tracker, ratio=0.3, **how)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.3 * total)


def test_without_a_trajectory_by_magnitude():
    model = network()
    before = torch.cat([w.flatten().clone() for w in matrices(model).values()])
    swe_cli.prune(model, ratio=0.5, criterion="magnitude")
    now = torch.cat([w.flatten() for w in matrices(model).values()])
    smallest = before.abs().argsort()[: len(before) // 2]
    assert torch.equal((now == 0).nonzero()[:, 0], smallest.sort().values)


def test_a_compiled_model_and_its_tracker_are_known_by_the_bare_names():
    model = network()
    run = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(run.parameters(), lr=0.1)
    tracker = swe_cli.WeightTracker(run, optimizer)
    run(torch.randn(2, 1, 6, 6)).square().mean().backward()
    optimizer.step()
    masks = swe_cli.prune(run, tracker, ratio=0.5)
    assert set(masks) == set(matrices(model))
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())


def test_gradients_that_may_have_been_clipped_are_told():
    model, tracker = tuned(statistics=["weighted_average", "square_gradient"])
    with pytest.warns(SweWarning, match="before_clip"):
        swe_cli.prune(model, tracker, ratio=0.5, criterion="swe_obd")


def test_a_tracker_of_another_model_judges_nothing():
    _, tracker = tuned()
    other = nn.Sequential(nn.Linear(4, 4))
    for model in (network(), other):
        with pytest.raises(UsageError, match="tracker is of another model"):
            swe_cli.prune(model, tracker, ratio=0.5)


def test_a_tracker_that_saw_nothing_judges_nothing():
    model, tracker = tuned(start=10)
    with pytest.raises(UsageError, match="has seen no step"):
        swe_cli.prune(model, tracker, ratio=0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 0.5}, "criterion=swe needs a tracker of weighted_average"),
        ({"ratio": 0.5, "criterion": "wanda"}, "criterion=wanda looks at data"),
        ({"ratio": 0.5, "criterion": "nothing"}, "criterion=nothing is not known here"),
        (
            {"ratio": 0.5, "criterion": "magnitude", "allocation": "like"},
            "asks more than the scores",
        ),
        ({"ratio": 0.5, "criterion": "magnitude", "allocation": "ecoflap"}, "asks more than the"),
        ({"ratio": 1.5, "criterion": "magnitude"}, "ratio=1.5 is not in"),
        ({"ratio": 0.5, "criterion": "bezier_mean"}, "finds its own sparsity"),
        ({"ratio": 0.5, "criterion": "magnitude", "power": 2}, "criterion.power is not a key"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        swe_cli.prune(network(), **options)
