"""Every column of a table is explained, by the list that makes the table."""

from pathlib import Path

import pandas as pd
import pytest

from swe_cli.records import COLUMNS, MEANINGS, meaning_of

RESULTS = Path(__file__).parents[2] / "results"
# Committed ones: under runs/ lies whatever was swept in this checkout.
TABLES = sorted(p for p in RESULTS.rglob("*.csv") if RESULTS / "runs" not in p.parents)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_column_of_every_committed_table_has_a_meaning(path):
    names = list(pd.read_csv(path, nrows=0))
    assert names
    assert [name for name in names if not meaning_of(name)] == []


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("accuracy.yes or no", "type of question"),
        ("sparsity.vision", "of one module"),
        ("mae_before_recovery", "before recovery"),
        ("delta_mae_low", "low end"),
        ("training.learning_rate", "varied"),
    ],
)
def test_families_are_explained_by_their_pattern(column, said):
    assert said in meaning_of(column)
    assert meaning_of(column.replace(".", "-") + "?") is None


def test_losses_and_deltas_say_their_unit():
    for name, meaning in MEANINGS.items():
        assert not name.endswith("_nats") or meaning.endswith("nats per token"), name
    assert meaning_of("lossnats") is None


def test_they_can_be_looked_up(swe):
    whole = swe("columns")
    assert whole.exit_code == 0
    assert all(name in whole.stdout for name in COLUMNS)
    assert "overlap" in swe("columns", "jaccard_magnitude").stdout
    unknown = swe("columns", "jaccard")
    assert unknown.exit_code == 2
    assert "Did you mean jaccard_magnitude?" in " ".join(unknown.stderr.split())
