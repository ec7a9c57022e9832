"""Which controls there are follows from what there is."""

import pytest

from swe_cli.controls import KINDS, controls_of
from swe_cli.experiments.model import BASES


@pytest.mark.parametrize(
    ("bases", "questions", "kinds"),
    [
        (["final"], False, ["dense", "dense_recovered"]),
        (["final", "best"], False, ["dense", "dense_best", "dense_recovered"]),
        (["averaged", "final"], False, ["dense", "dense_recovered", "dense_averaged"]),
        (["final"], True, ["dense", "dense_recovered", "dense_blind"]),
        (BASES, False, ["dense", "dense_best", "dense_recovered", "dense_averaged"]),
        (BASES, True, list(KINDS[:-1])),
    ],
)
def test_controls_of_what_a_model_has_in_the_order_of_a_table(bases, questions, kinds):
    assert [control.kind for control in controls_of(bases, questions=questions)] == kinds
