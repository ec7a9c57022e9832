"""Runs side by side: only what differs, and differences paired over windows."""

import json

import pytest

from swe_cli.evaluation.measure import paired_difference
from swe_cli.files import read_tensors
from swe_cli.report.console import minus


def squeezed(result):
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def windows(run, config_hash):
    path = run.results / "runs" / "cells" / config_hash / "windows.safetensors"
    return {name: tensor.numpy() for name, tensor in read_tensors(path).items()}


def test_a_cut_and_its_training(swe, own_run):
    assert swe("evaluate", own_run.name).exit_code == 0
    lines = squeezed(swe("compare", own_run.name, own_run.pruned))
    manifest = json.loads((own_run.path / "manifest.json").read_text())["results"]
    assert f"best validation loss {manifest['best_validation_loss_nats']:.4f} –" in lines
    rows = {}
    for path in (own_run.results / "runs" / "cells").glob("*/row.json"):
        row = json.loads(path.read_text())
        rows[row["kind"]] = row
    losses = [f"{rows[kind]['loss_nats']:.4f}" for kind in ("dense", "pruned")]
    assert f"loss {' '.join(losses)}" in lines
    hashes = [rows[kind]["config_hash"] for kind in ("pruned", "dense")]
    mean, low, high = paired_difference(*(windows(own_run, one) for one in hashes))
    assert minus(f"difference – {mean:+.4f}") in lines
    assert minus(f"[{low:+.4f}, {high:+.4f}]") in lines
    assert not any(line.startswith(("seed", "ratio")) for line in lines)  # one of them has none


def test_two_cuts_say_what_was_set_otherwise(swe, own_run):
    again = swe("prune", "-q", "--ratio", "0.25", "recovery.steps=2", own_run.name)
    lines = squeezed(swe("compare", own_run.pruned, again.stdout.split()[0]))
    assert "ratio 0.5 0.25" in lines
    assert not any(line.startswith(("recovery", "criterion", "seed", "best")) for line in lines)


def test_runs_that_do_not_fit_beside_each_other_stand_below(swe, own_run):
    lines = squeezed(swe("compare", *[own_run.name, own_run.pruned] * 4))
    blocks = [line.split()[3:] for line in lines if line.startswith("best validation loss")]
    assert len(blocks) > 1
    assert sum(map(len, blocks)) == 8


def test_trainings_without_a_shared_protocol_are_not_paired(swe, own_run, tiny_words):
    other = swe("train", "-q", *tiny_words, "seed=3").stdout.split()[0]
    lines = squeezed(swe("compare", own_run.name, other))
    assert "seed 1337 3" in lines
    assert not any(line.startswith("difference") for line in lines)
    assert "swe evaluate RUN" in " ".join(lines)


@pytest.mark.parametrize("words", [[], ["train-gpt_nano"]])
def test_one_run_is_not_compared(swe, own_run, words):
    refused = swe("compare", *words)
    assert refused.exit_code == 2
    assert "Two runs are compared" in refused.stderr
