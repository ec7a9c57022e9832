"""What a row says of few windows, and of what is stored."""

from fractions import Fraction

import pytest
from training.toys import TINY, Silent, sweep_of, swept

from swe_cli.config import ConfigRoot, read_tokens
from swe_cli.errors import SweWarning
from swe_cli.experiments.sweep import plan_sweep
from swe_cli.files import read_tensors

CONTEXT = 16


@pytest.fixture
def rows(tmp_path):
    """The rows of a sweep whose test split has so many windows, and its plan."""

    def run(windows, *words):
        data = (
            *("data=kjv_chars", "data.train_characters=2000", "data.validation_characters=200"),
            f"data.test_characters={windows * CONTEXT + 1}",
            *("recovery.steps=2", "criteria=swe", "ratios=0.5"),
        )
        tokens = read_tokens((*data, *TINY, *words))
        outcome = swept(plan_sweep(tokens, ConfigRoot(), tmp_path))
        assert not outcome.failed
        return outcome.rows

    return run


def bounds(rows):
    return {
        name: (interval.low, interval.high)
        for row in rows
        for name, interval in row.metrics.items()
        if name == "loss" or name.startswith("delta")
    }


def test_of_one_window_there_is_no_interval(rows):
    with pytest.warns(SweWarning, match="The test split has 1 window: an interval over so few"):
        found = rows(1)
    assert {"loss", "delta", "delta_recovered", "delta_before_recovery"} <= bounds(found).keys()
    assert set(bounds(found).values()) == {(None, None)}
    for row in found:
        columns = row.columns()
        assert columns["loss_nats"] is not None
        assert columns["loss_low"] is columns["delta_high"] is None


@pytest.mark.parametrize("windows", [2, 9])
def test_of_fewer_than_ten_windows_there_is_one_and_a_warning(windows, rows):
    with pytest.warns(SweWarning, match=f"The test split has {windows} windows: an interval"):
        found = rows(windows)
    assert all(None not in ends for ends in bounds(found).values())


def test_ten_windows_are_enough_to_be_silent(rows):
    assert all(None not in ends for ends in bounds(rows(10)).values())  # warnings are errors here


@pytest.mark.parametrize("pattern", ["neuron", "head"])
@pytest.mark.parametrize("prunable", ["linear", "all"])
def test_compression_of_whole_units_is_that_of_what_is_stored(pattern, prunable, text, results):
    """The biases of a unit that is taken out are no longer stored, whether they may be cut or not.

    Every bias is made to be learned, or zeros that stay would be counted, too.
    """
    words = (
        *("model.bias=true", "model.qkv_bias=true", f"pattern={pattern}", f"prunable={prunable}"),
        *("allocation=uniform", "criterion=magnitude", "ratio=0.5", "keep=models"),
        *("training.steps=4", "recovery.steps=2"),
    )
    plan = sweep_of(text, results, *words)
    outcome = swept(plan, observer=Silent())
    assert not outcome.failed
    (cell,) = [planned for planned in plan.cells if planned.kind == "pruned"]
    stored = read_tensors(cell.model_to)
    dense = plan.trainings[0].run.tensors("model.safetensors")
    total, left = (sum(of.numel() for of in tensors.values()) for tensors in (dense, stored))
    zeros = sum(int((of == 0).sum()) for of in stored.values())
    unit = {"neuron": "layers.0.mlp.expand.bias", "head": "layers.0.attention.qkv.bias"}[pattern]
    assert stored[unit].numel() * 2 == dense[unit].numel()
    exactly = Fraction(total - left + zeros, total)  # rounded once, as results/demo/table.csv is
    assert cell.row().mean("compression") == float(exactly)
    assert cell.row().mean("parameters") == left
    assert cell.row().mean("bytes") == 4 * left
