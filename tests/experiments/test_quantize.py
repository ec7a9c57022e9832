"""A cut that is stored in int8: a cell beside that in floats."""

import pytest
import torch
from safetensors.torch import load_file
from training import toys
from training.toys import sweep_of

from swe_cli.config import ConfigRoot, component
from swe_cli.errors import UsageError
from swe_cli.experiments.cell import evaluate_pruned
from swe_cli.files import SCALE, dequantized, read_tensors
from swe_cli.report.tables import frame

BOTH = "quantize=none,int8"
SMALL = ("training.steps=6", "keep=models", "recovery.steps=2", "criterion=magnitude")
PROTOCOL = component("evaluation", "test", ConfigRoot()).instance


@pytest.fixture
def swept(text, results):
    """The cells of a cut in floats and in int8, and their rows."""

    def run(*words):
        plan = sweep_of(text, results, *SMALL, BOTH, *words)
        outcome = toys.swept(plan)
        assert not outcome.failed, outcome.failed[0].error
        pairs = zip(plan.cells, outcome.rows, strict=True)
        cuts = [(cell, row) for cell, row in pairs if cell.kind == "pruned"]
        return sorted(cuts, key=lambda pair: pair[0].spec.quantize or "")

    return run


def nbytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def test_it_is_a_cell_beside_that_in_floats_which_keeps_its_name(swept, text, results):
    (plain, floats), (small, ints) = swept("ratio=0.5")
    (alone,) = (c for c in sweep_of(text, results, *SMALL, "ratio=0.5").cells if c.kind == "pruned")
    assert alone.hash == plain.hash
    assert "quantize" not in plain.config
    assert small.config["quantize"] == "int8"
    assert (floats.settings.get("quantize"), ints.settings["quantize"]) == (None, "int8")
    table = frame([floats, ints])
    assert sorted(table["quantize"].fillna("")) == ["", "int8"]
    assert [read.hash for read in small.reads.values()] == [c.hash for c in plain.reads.values()]


def test_what_is_stored_is_what_was_measured(swept):
    (plain, floats), (small, ints) = swept("ratio=0.5")
    whole, stored = read_tensors(plain.model_to), load_file(small.model_to)
    read = read_tensors(small.model_to)
    assert ints.mean("bytes") == nbytes(stored) < nbytes(whole)
    assert ints.mean("parameters") == sum(tensor.numel() for tensor in whole.values())
    for name, weight in whole.items():
        scale = stored.get(f"{name}{SCALE}", torch.tensor([0.0]))
        assert ((read[name] - weight).abs() <= 0.5001 * scale[:, None].abs()).all() or (
            torch.equal(read[name], weight)
        )
        assert (read[name][weight == 0] == 0).all()
    assert ints.mean("loss") != floats.mean("loss")
    assert ints.mean("loss") == pytest.approx(floats.mean("loss"), abs=0.01)
    assert ints.mean("sparsity") == floats.mean("sparsity")
    (trained := small.training.open()).load(read)
    again = evaluate_pruned(ints, trained, PROTOCOL)
    for name in ("loss", "compression", "bytes", "parameters", "top1", "training_flops"):
        assert again.mean(name) == ints.mean(name), name


def test_before_recovery_it_is_in_floats(swept):
    (_, floats), (_, ints) = swept("ratio=0.5")
    assert ints.mean("loss_before_recovery") == floats.mean("loss_before_recovery")


@pytest.mark.parametrize("pattern", ["neuron", "head"])
def test_a_smaller_model_is_stored_in_int8_of_its_own_size(pattern, swept):
    (plain, floats), (small, ints) = swept(
        "ratio=0.5", f"pattern={pattern}", "allocation=uniform", "recovery=none"
    )
    whole, stored = read_tensors(plain.model_to), load_file(small.model_to)
    read = dequantized(stored)
    assert {n: t.shape for n, t in read.items()} == {n: t.shape for n, t in whole.items()}
    assert ints.mean("bytes") == nbytes(stored) < floats.mean("bytes") == nbytes(whole)
    assert ints.mean("flops_per_token") == floats.mean("flops_per_token")
    trained = small.training.open()
    trained.load(read)
    trained.load(read)
    again = evaluate_pruned(ints, trained, PROTOCOL)
    assert again.mean("loss") == ints.mean("loss")  # measured in the size that is stored


def test_another_word_is_refused_in_a_sentence(text, results):
    with pytest.raises(UsageError, match=r"quantize=int4 is wrong: it should be 'none' or 'int8'"):
        sweep_of(text, results, *SMALL, "ratio=0.5", "quantize=int4")
