import pytest
import torch

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import Evidence
from swe_cli.ranking import Ranking

WEIGHTS = {"a": torch.tensor([[1.0, -2.0], [0.0, 3.0]]), "b": torch.tensor([-5.0, 4.0])}
AVERAGES = {"a": torch.tensor([[-4.0, 0.5], [2.0, 0.0]]), "b": torch.tensor([1.0, -1.0])}
MEANS = {"a": torch.tensor([[9.0, -8.0], [7.0, -6.0]]), "b": torch.tensor([5.0, -3.0])}
EVIDENCE = Evidence(WEIGHTS, {"weighted_average": AVERAGES, "mean": MEANS}, seed=3)


def scores(name: str, evidence: Evidence = EVIDENCE):
    return component("criterion", name, ConfigRoot()).build().score(evidence)


@pytest.mark.parametrize(
    ("name", "source"), [("swe", AVERAGES), ("swe_mean", MEANS), ("magnitude", WEIGHTS)]
)
def test_the_score_is_the_absolute_value_of_its_own_source(name, source):
    found = scores(name)
    assert list(found) == ["a", "b"]
    for key, tensor in source.items():
        assert torch.equal(found[key], tensor.abs())
    assert torch.equal(WEIGHTS["a"], torch.tensor([[1.0, -2.0], [0.0, 3.0]]))  # not in place


def lived(**statistics: list[float]) -> Evidence:
    """One tensor of two weights, 3 and −1, with what its statistics are."""
    return Evidence(
        {"w": torch.tensor([3.0, -1.0])},
        {name: {"w": torch.tensor(values)} for name, values in statistics.items()},
    )


@pytest.mark.parametrize(
    ("name", "evidence", "expected"),
    [
        # The sample deviation of 2 and −2 is √8; signed, so that 2 and 2 would have none.
        ("swe_sqrt", lived(sqrt_average=[2.0, -2.0]), [3 / 8**0.5, 1 / 8**0.5]),
        ("swe_sqrt", lived(sqrt_average=[2.0, 2.0]), [float("inf")] * 2),
        ("mean_magnitude", lived(mean_magnitude=[0.5, 4.0]), [0.5, 4.0]),
        # √V is 2 and 6, their mean 4, a thousandth of it 0.004.
        (
            "stability",
            lived(weighted_average=[-1.0, 3.0], weighted_variance=[4.0, 36.0]),
            [1 / 2.004, 3 / 6.004],
        ),
        ("net_movement", lived(initial_weights=[2.5, 1.0]), [0.5, 2.0]),
        ("path_length", lived(path_length=[7.0, 0.1]), [7.0, 0.1]),
        ("movement", lived(movement=[-2.0, 0.5]), [-2.0, 0.5]),  # signed: towards zero goes first
        # 16^¼ = 2, 81^¼ = 3; of the average −1 and 3, and of the weights 3 and −1.
        (
            "swe_obd",
            lived(weighted_average=[-1.0, 3.0], square_gradient=[16.0, 81.0]),
            [2.0, 9.0],
        ),
        ("obd", lived(square_gradient=[16.0, 81.0]), [6.0, 3.0]),
        ("squisher", lived(adam_v=[16.0, 81.0]), [12.0, 9.0]),  # 3 · 4, 1 · 9
    ],
)
def test_the_trajectory_family_by_hand(name, evidence, expected):
    found = scores(name, evidence)["w"]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_obd_sqrt_by_hand_and_its_scores_rank_as_obd_does():
    weights, square = {"w": torch.tensor([3.0, -1.0])}, {"w": torch.tensor([16.0, 81.0])}
    evidence = Evidence(weights, calibration={"mean_square_gradient": square})
    found = scores("obd_sqrt", evidence)["w"]
    torch.testing.assert_close(found, torch.tensor([6.0, 3.0]))
    # ½ · w² · H with H = √E[g²] is half the square of it.
    torch.testing.assert_close(found.square() / 2, weights["w"].square() * square["w"].sqrt() / 2)


def test_the_power_goes_from_swe_to_the_averaged_fisher_information():
    evidence = lived(weighted_average=[-1.0, 3.0], square_gradient=[16.0, 0.0])

    def powered(power):
        chosen = component("criterion", "swe_obd", ConfigRoot(), {"power": power})
        return chosen.build().score(evidence)["w"].tolist()

    assert powered(0.0) == [1.0, 3.0]  # 0⁰ = 1: it is swe
    assert powered(0.5) == [4.0, 0.0]


def test_what_has_no_spread_is_never_cut_first_and_its_zeros_are_numbers_too():
    weights = {"bias": torch.zeros(3), "one": torch.zeros(1), "w": torch.tensor([1.0, 2.0, 0.0])}
    averages = {"bias": torch.zeros(3), "one": torch.ones(1), "w": torch.tensor([4.0, 5.0, 6.0])}
    found = scores("swe_sqrt", Evidence(weights, {"sqrt_average": averages}))
    assert found["bias"].tolist() == [float("inf")] * 3
    assert found["one"].tolist() == [float("inf")]
    assert Ranking(found).lowest(3) == {"bias": 0, "one": 0, "w": 3}


def test_what_never_moved_is_not_infinitely_stable():
    evidence = lived(weighted_average=[1.0, -2.0], weighted_variance=[0.0, 0.0])
    assert scores("stability", evidence)["w"].isfinite().all()


@pytest.mark.parametrize(
    ("name", "needs"),
    [("swe", ("weighted_average",)), ("swe_mean", ("mean",)), ("magnitude", ()), ("random", ())],
)
def test_what_a_criterion_needs(name, needs):
    assert tuple(component("criterion", name, ConfigRoot()).build().needs) == needs


def test_random_scores_come_from_the_seed_and_the_tensors_name():
    first, again = scores("random"), scores("random")
    assert all(torch.equal(first[name], again[name]) for name in WEIGHTS)
    assert {name: score.shape for name, score in first.items()} == {
        name: weight.shape for name, weight in WEIGHTS.items()
    }
    other = scores("random", Evidence(WEIGHTS, seed=4))
    assert not torch.equal(first["a"], other["a"])
    twins = {"a": torch.zeros(8), "b": torch.zeros(8)}
    drawn = scores("random", Evidence(twins, seed=3))
    assert not torch.equal(drawn["a"], drawn["b"])


def test_random_scores_do_not_depend_on_the_weights_or_on_what_else_draws():
    torch.rand(5)
    changed = {name: weight + 1 for name, weight in WEIGHTS.items()}
    found = scores("random", Evidence(changed, seed=3))
    assert all(torch.equal(found[name], scores("random")[name]) for name in WEIGHTS)


def test_random_scores_are_uniform():
    drawn = scores("random", Evidence({"a": torch.zeros(20_000)}))["a"]
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.std().item() == pytest.approx(12**-0.5, abs=0.01)
