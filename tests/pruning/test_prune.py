import pytest
import torch
from training.toys import batch_of, gpt, setup_of

from swe_cli.allocation.counts import Global, Like, Sigma, Uniform
from swe_cli.contracts import Allocation, DrawnCriterion, Evidence, Model, Pattern, WeightCriterion
from swe_cli.criteria.weights import SWE, Magnitude, Random
from swe_cli.errors import PruningError
from swe_cli.evaluation.loss import by_window, row_pass
from swe_cli.pruning.masks import apply_masks, cut_counts, sparsity, zeros
from swe_cli.pruning.prune import Judge, Method, Scorer, prune
from swe_cli.statistics.running import WeightedAverage

VOCABULARY = 11


NAMED = {"magnitude": Magnitude(), "swe": SWE()}
CONSULTED = {name: Judge(criterion, name, name) for name, criterion in NAMED.items()}


def masks_of(evidence, criterion, allocation=None, *, ratio=None, rate=None, earlier=None):
    """What a cut of plain tensors takes; the model it is made in has none of them."""
    judge = Judge(criterion, "own", "own")
    method = Method(judge, ratio, rate, allocation or Global(), consulted=CONSULTED)
    return prune(method, Scorer(setup_of(Model(), None), dict, evidence, None, earlier or {}))


def cut(model, masks, which="linear"):
    apply_masks(masks, model.prunable(model.weights(), which))


def cut_count(masks):
    return sum(cut_counts(masks).values())


def averaged(path):
    """W̄ of weights given step by step."""
    statistic, total = WeightedAverage(path[0]), 0
    for index, weights in enumerate(path, start=1):
        total += index
        statistic.update(weights, index, index / total)
    return statistic.state()


def evidence_of(model, seed=0, averages=None):
    weights = {name: weight.clone() for name, weight in model.weights().items()}
    if averages is None:
        generator = torch.Generator().manual_seed(9)
        averages = {n: torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    return Evidence(
        model.prunable(weights, "linear"),
        {"weighted_average": model.prunable(averages, "linear")},
        seed,
    )


# A toy worked by hand: four weights over three steps.
#
#   step                1     2     3    W̄ = (1·W₁ + 2·W₂ + 3·W₃) / 6
#   settled             2     2     2     2
#   shrank late         6     6     1    (6 + 12 + 3) / 6     =  3.5
#   came up late        0     0     3    9 / 6                =  1.5
#   swings              6    -9     4    (6 - 18 + 12) / 6    =  0
PATH = [
    {"w": torch.tensor([2.0, 6.0, 0.0, 6.0])},
    {"w": torch.tensor([2.0, 6.0, 0.0, -9.0])},
    {"w": torch.tensor([2.0, 1.0, 3.0, 4.0])},
]


def test_a_toy_on_which_swe_and_magnitude_disagree():
    averages = averaged(PATH)
    assert averages["w"].tolist() == pytest.approx([2.0, 3.5, 1.5, 0.0], abs=1e-6)
    evidence = Evidence(PATH[-1], {"weighted_average": averages})
    by_swe = masks_of(evidence, SWE(), ratio=0.5)["w"]
    by_magnitude = masks_of(evidence, Magnitude(), ratio=0.5)["w"]
    assert by_swe.tolist() == [True, True, False, False]  # came up late, swings
    assert by_magnitude.tolist() == [False, False, True, True]  # settled, shrank late


def test_the_cut_falls_on_the_final_weights_and_not_on_the_average():
    model = Model()
    model.w = torch.nn.Parameter(PATH[-1]["w"].clone())
    evidence = Evidence(PATH[-1], {"weighted_average": averaged(PATH)})
    masks = masks_of(evidence, SWE(), ratio=0.5)
    cut(model, masks, "all")
    assert model.w.tolist() == [2.0, 1.0, 0.0, 0.0]  # 1.0, where the average is 3.5
    assert zeros(model.weights()) == 2


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.5, 0.999])
@pytest.mark.parametrize("criterion", [SWE(), Magnitude(), Random()])
@pytest.mark.parametrize(
    "allocation", [Global(), Uniform(), Sigma(), Like(criterion="swe"), Like(criterion="magnitude")]
)
def test_exactly_the_asked_count_becomes_zero(ratio, criterion, allocation):
    model = gpt(VOCABULARY)
    evidence = evidence_of(model)
    total = sum(w.numel() for w in evidence.weights.values())
    masks = masks_of(evidence, criterion, allocation, ratio=ratio)
    assert cut_count(masks) == round(ratio * total)
    assert sparsity(masks) == pytest.approx(ratio, abs=1 / total)
    parameters = model.weights()
    assert zeros(parameters) == 0
    cut(model, masks)
    assert zeros(parameters) == round(ratio * total)
    assert all((w != 0).all() for n, w in parameters.items() if "layers" not in n)


def test_ratio_zero_leaves_every_loss_bit_identical():
    model = gpt(VOCABULARY)
    setup, batches = setup_of(model, None), [batch_of(VOCABULARY)]
    before = by_window(row_pass(setup, batches))["nats"].tolist()
    cut(model, masks_of(evidence_of(model), SWE(), ratio=0.0))
    assert by_window(row_pass(setup, batches))["nats"].tolist() == before
    cut(model, masks_of(evidence_of(model), SWE(), ratio=0.2))
    assert by_window(row_pass(setup, batches))["nats"].tolist() != before


def test_on_the_averaged_weights_magnitude_and_swe_are_the_same():
    model = gpt(VOCABULARY)
    averages = evidence_of(model).trajectory["weighted_average"]
    evidence = Evidence(averages, {"weighted_average": averages})
    for ratio in (0.1, 0.5, 0.9):
        swe, magnitude = (masks_of(evidence, c, ratio=ratio) for c in (SWE(), Magnitude()))
        assert all(torch.equal(swe[name], magnitude[name]) for name in swe)


@pytest.mark.parametrize("rate", [0.247, 0.5, 1.01, 1.575, 2.289])
def test_a_rate_cuts_below_sigma_times_rate_per_head_to_the_last_weight(rate):
    """The paper's own lines: ``threshold = std(w) * rate``, ``weight[w.abs() < threshold] = 0``."""
    model = gpt(VOCABULARY, "gpt_paper", layers=2)
    evidence = evidence_of(model)
    masks = masks_of(evidence, SWE(), Sigma(), rate=rate)
    assert len([name for name in masks if "[query." in name]) == 2 * 2
    for name, average in evidence.trajectory["weighted_average"].items():
        score = average.abs()
        assert torch.equal(masks[name], ~(score < torch.std(score) * rate)), name
    assert cut_count(masks) > 0


def test_a_rate_is_rounded_as_the_papers_code_rounds_it():
    class Asked:
        def __init__(self, score):
            self.scores = {"w": score}

        def below(self, thresholds):
            return thresholds

    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(50, generator=generator) for _ in range(100)]
    for score in scores:
        threshold = Sigma().counts_at_rate(Asked(score), 1.575)["w"]
        assert threshold == float(torch.std(score) * 1.575)
    # In double precision many of them would be another number.
    double = [torch.tensor(float(torch.std(s)) * 1.575).item() for s in scores]
    assert double != [float(torch.std(s) * 1.575) for s in scores]


def test_thresholds_of_split_heads_differ_from_those_of_the_fused_matrix():
    split, fused = (gpt(VOCABULARY, "gpt_paper", split_heads=flag) for flag in (True, False))
    averages = {n: torch.randn_like(p) for n, p in split.named_parameters()}
    averages["layers.0.attention.qkv.weight"][:8] *= 10  # the first query head
    names = [
        masks_of(evidence_of(m, averages=averages), SWE(), Sigma(), rate=1.0)
        for m in (split, fused)
    ]
    joined = torch.cat([mask for name, mask in names[0].items() if "qkv" in name])
    assert joined.shape == names[1]["layers.0.attention.qkv.weight"].shape
    assert not torch.equal(joined, names[1]["layers.0.attention.qkv.weight"])


def test_a_tensor_without_spread_is_never_cut_by_sigma():
    evidence = Evidence({"flat": torch.ones(4), "one": torch.ones(1), "w": torch.arange(8.0)}, {})
    masks = masks_of(evidence, Magnitude(), Sigma(), rate=3.0)
    assert masks["flat"].all()
    assert masks["one"].all()
    assert not masks["w"].all()
    with pytest.raises(PruningError, match="can cut 8 of 13"):
        masks_of(evidence, Magnitude(), Sigma(), ratio=0.9)


def test_an_allocation_that_would_give_weights_back_gives_none():
    class Given(Allocation):
        """a 2, b 5 and c 1 of eight each, whatever was cut before."""

        def counts(self, ranking, ratio, context):
            return {"a": 2, "b": 5, "c": 1}

    evidence = Evidence({name: torch.arange(1.0, 9.0) for name in "abc"})
    kept = {name: torch.ones(8, dtype=torch.bool) for name in "abc"}
    kept["a"][2:7] = False  # five are gone: the third to the seventh
    kept["b"][7] = False
    masks = masks_of(evidence, Magnitude(), Given(), ratio=1 / 3, earlier=kept)
    lost = {name: (~mask).nonzero().flatten().tolist() for name, mask in masks.items()}
    # a keeps what it has left; the three that it should not have lost are taken from b, which has
    # most to give; of b the last one is gone already. Eight in all.
    assert lost == {"a": [2, 3, 4, 5, 6], "b": [0, 7], "c": [0]}


def test_compression_counts_every_exact_zero_natural_ones_too():
    tensors = {"a": torch.tensor([0.0, -0.0, 1e-30]), "b": torch.tensor([[2.0, 0.0]])}
    assert zeros(tensors) == 3


def test_a_criterion_is_asked_once_whatever_the_ratios():
    class Counting(Magnitude):
        asked = 0

        def score(self, evidence):
            type(self).asked += 1
            return super().score(evidence)

    scorer = Scorer(setup_of(Model(), None), dict, Evidence({"w": torch.arange(9.0)}, {}))
    for _ in range(3):
        scorer.rank(Judge(Counting(), "counting", "options"))
    assert Counting.asked == 1
    scorer.rank(Judge(Counting(), "counting", "other options"))
    assert Counting.asked == 2


class Wrong(WeightCriterion):
    def __init__(self, scores):
        self.scores = scores

    def score(self, evidence):
        return self.scores


@pytest.mark.parametrize(
    ("scores", "named"),
    [
        ({"v": torch.ones(4)}, "other tensors"),
        ({"w": torch.ones(3)}, "other shapes"),
        ({"w": torch.tensor([1.0, float("nan"), 0.0, 2.0])}, "w hold NaN"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores, named):
    with pytest.raises(PruningError, match=named):
        masks_of(Evidence({"w": torch.arange(4.0)}, {}), Wrong(scores), ratio=0.5)


def test_nan_weights_are_refused_by_name():
    with pytest.raises(PruningError, match="w hold NaN"):
        masks_of(Evidence({"w": torch.tensor([1.0, float("nan")])}, {}), Magnitude(), ratio=0.5)


# What a component of a user's own gives is held against what was asked for


class Miscounting(Allocation):
    def counts(self, ranking, ratio, context):
        return dict.fromkeys(ranking.sizes, 1)


class Forgetful(Allocation):
    def counts(self, ranking, ratio, context):
        return {}


class Sloppy(Pattern):
    def masks(self, ranking, counts, within):
        return ranking.masks({name: max(0, count - 1) for name, count in counts.items()})


class Drawing(DrawnCriterion):
    def __init__(self, masks):
        self.masks = masks

    def draw(self, evidence, round):
        return self.masks


class Broken(WeightCriterion):
    def score(self, evidence):
        return evidence.trajectory["peaks"]


WEIGHTS = {"a": torch.arange(1.0, 5.0), "b": torch.arange(2.0, 8.0)}
KEPT = {name: torch.ones(len(weight), dtype=torch.bool) for name, weight in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("criterion", "method", "said"),
    [
        (Magnitude(), {"allocation": Miscounting()}, "Miscounting did not share out 5 of 10"),
        (Magnitude(), {"allocation": Forgetful()}, "Forgetful did not share out 5 of 10"),
        (Magnitude(), {"pattern": Sloppy()}, "Sloppy cut 3 weights, or others, where exactly 5"),
        (Drawing({"a": KEPT["a"]}), {}, "criterion=own gave masks of other tensors"),
        (Drawing({**KEPT, "b": KEPT["a"]}), {}, "criterion=own gave masks of other tensors"),
        (Drawing(WEIGHTS), {}, "criterion=own gave masks of other tensors"),
        (Broken(), {}, r"criterion=own failed \(test_prune.py, line \d+\): KeyError: 'peaks'"),
    ],
)
def test_what_a_component_gives_is_exact_or_an_error_that_names_it(criterion, method, said):
    method = Method(Judge(criterion, "own", "own"), 0.5, **{"allocation": Global(), **method})
    with pytest.raises(PruningError, match=said):
        prune(method, Scorer(setup_of(Model(), None), dict, Evidence(WEIGHTS)))
