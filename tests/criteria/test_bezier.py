"""The Bézier proportions and their bins, worked by hand."""

import pytest
import torch

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import Evidence
from swe_cli.criteria.bezier import BezierActual, BezierMean
from swe_cli.errors import UsageError

PUBLISHED = [
    (1.0, 0.14, 0.14, 0.1),
    (1.0, 1.0, 0.14, 0.1),
    (0.81, 0.81, 0.81, 0.71),
    (1.0, 0.11, 0.11, 0.1),
    (0.9, 0.9, 0.5, 0.5),
]


def bezier(curve=(1.0, 0.0, 0.0, 0.0), u=0.0, by="add", kind=BezierActual):
    return kind(**dict(zip("abcd", curve, strict=True)), u=u, by=by)


def drawn(values, criterion, seed=1, round=1):
    return criterion.draw(Evidence({"w": values}, seed=seed), round)["w"]


def test_proportions_are_the_curve_out_and_back():
    # nb = 6 of 36 to 48 inputs; x = 1, 1/2, 0 and 0, 1/2, 1; a(1−x)³ with a = 1.
    for inputs in (36, 48):
        assert bezier().fractions(inputs).tolist() == [0, 0.125, 1, 1, 0.125, 0]
    # 7 = ⌊√49⌋ is made even.
    assert len(bezier().fractions(49)) == 6
    assert len(bezier().fractions(64)) == 8
    assert len(bezier().fractions(1)) == 2


def test_every_coefficient_has_its_term():
    # At x = 1/2: (a + 3b + 3c + d) / 8 = (1 + 0.6 + 0.9 + 0.5) / 8 = 0.375; ends d = .5, a = 1.
    found = bezier((1.0, 0.2, 0.3, 0.5)).fractions(36).tolist()
    outer, middle, inner = 0.5, 0.375, 1.0
    low, span = middle, inner - middle
    expected = [(outer - low) / span, 0.0, 1.0, 1.0, 0.0, (outer - low) / span]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("by", "u", "expected"),
    [
        ("add", 0.25, [0.25, 0.375, 1, 1, 0.375, 0.25]),
        ("multiply", 0.5, [0, 0.0625, 0.5, 0.5, 0.0625, 0]),
        ("multiply", 16.0, [0, 1, 1, 1, 1, 0]),
    ],
)
def test_the_shift_comes_after_normalising_and_is_clipped(by, u, expected):
    assert bezier(u=u, by=by).fractions(36).tolist() == expected


@pytest.mark.parametrize("curve", PUBLISHED)
@pytest.mark.parametrize("by", ["add", "multiply"])
def test_published_curves_are_fractions(curve, by):
    for u in (0.01, 0.04, 0.16, 0.64):
        found = bezier(curve, u, by).fractions(384)
        assert ((found >= 0) & (found <= 1)).all()
        assert torch.equal(found, found.flip(0))


def test_of_every_bin_so_many_as_the_curve_says_rounded_down():
    # 16 inputs, 4 bins; by hand: bins of width 1 over [0, 4], 5, 3, 4 and 4 members.
    row = [0.0, 0.1, 0.2, 0.3, 0.9, 1.0, 1.5, 1.9, 2.0, 2.1, 2.2, 2.9, 3.0, 3.5, 3.6, 4.0]
    criterion = bezier(u=0.5, by="add")  # 0.5, 1, 1, 0.5
    kept = drawn(torch.tensor([row, row]), criterion)
    for mask in kept:
        assert int((~mask[:5]).sum()) == 2  # ⌊5 · 0.5⌋
        assert not mask[5:8].any()
        assert not mask[8:12].any()
        assert int((~mask[12:]).sum()) == 2
    assert not torch.equal(kept[0], kept[1])  # at random inside a bin


def test_values_without_spread_lie_in_the_middle():
    assert not drawn(torch.ones(3, 16), bezier()).any()
    assert drawn(torch.ones(3, 16), bezier((0.0, 0.0, 0.0, 1.0))).all()


def test_what_has_one_dimension_stays():
    assert drawn(torch.randn(64), bezier(u=1.0)).all()


def test_the_mean_is_judged_by_the_trajectory():
    lived = torch.randn(4, 36, generator=torch.Generator().manual_seed(0))
    evidence = Evidence({"w": torch.zeros(4, 36)}, {"sqrt_average": {"w": lived}}, seed=1)
    by_mean = bezier(kind=BezierMean).draw(evidence, 1)["w"]
    assert torch.equal(by_mean, drawn(lived, bezier()))


def test_a_flat_curve_is_refused():
    with pytest.raises(UsageError, match="flat"):
        bezier((0.3, 0.3, 0.3, 0.3))
    with pytest.raises(UsageError, match=r"criterion\.u=-0\.1 must not be negative"):
        _ = component("criterion", "bezier_mean", ConfigRoot(), {"u": -0.1}).instance
