"""Which controls there are follows from what there is."""

import pytest

from swe_cli.controls import ASKED, KINDS, controls_of
from swe_cli.experiments.model import BASES


@pytest.mark.parametrize(
    ("bases", "questions", "kinds"),
    [
        (["final"], False, ["dense", "dense_recovered"]),
        (["final", "best"], False, ["dense", "dense_best", "dense_recovered"]),
        (["averaged", "final"], False, ["dense", "dense_recovered", "dense_averaged"]),
        (["final"], True, ["dense", "dense_recovered", "dense_blind"]),
        (BASES, False, ["dense", "dense_best", "dense_recovered", "dense_averaged"]),
        (BASES, True, [kind for kind in KINDS[:-1] if kind not in ASKED]),
    ],
)
def test_controls_of_what_a_model_has_in_the_order_of_a_table(bases, questions, kinds):
    assert [control.kind for control in controls_of(bases, questions=questions)] == kinds


@pytest.mark.parametrize("kind", ASKED)
def test_a_control_that_is_asked_for_joins_those_there_always_are(kind):
    always = controls_of(BASES, questions=True)
    more = controls_of(BASES, questions=True, asked=[kind])
    assert [control for control in more if control not in always] == [
        control for control in more if control.kind == kind
    ]
    assert len(more) == len(always) + 1


def test_what_there_are_no_weights_for_is_not_there_though_it_is_asked_for():
    there = controls_of(["final"], questions=False, asked=ASKED)
    assert [c.kind for c in there] == ["dense", "dense_recovered", "dense_decayed"]
