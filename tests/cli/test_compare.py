"""A comparison is declared before its sweep runs, and then stands."""

import json

import pytest

DECLARED = """
# @package _global_
command: sweep
axes: {seed: [1, 2], criterion: [swe, magnitude], ratio: [0.5]}
compare:
  line: {criterion: swe}
  primary: {criterion: magnitude}
  secondary: []
  ratios: [0.5]
  of: loss_nats
"""


@pytest.fixture
def declared(swe, tiny_words, tmp_path):
    """``swe sweep`` of an experiment that declares a comparison, some of it written otherwise."""

    def run(*words, **changes):
        path = tmp_path / "conf" / "experiment" / "declared.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = DECLARED
        for old, new in changes.items():
            text = text.replace(f"  {old}:", f"  {new}:")
        path.write_text(text)
        words = ("experiment=declared", *tiny_words, "recovery.steps=2", "threads=1", *words)
        return swe("sweep", "--quiet", "--config-dir", tmp_path / "conf", *words)

    return run


@pytest.fixture
def compare_json(tmp_path):
    def read():
        (path,) = (tmp_path / "results" / "runs").glob("sweep-declared-*/compare.json")
        return json.loads(path.read_text())

    return read


def test_it_is_kept_before_anything_runs_and_reported_after(declared, compare_json, swe, tmp_path):
    done = declared()
    assert done.exit_code == 0, done.output
    stored = compare_json()
    assert (stored["done"], stored["cells"]) == (0, 4)
    assert stored["declared"]["primary"] == {"criterion": "magnitude"}
    assert "primary: against magnitude" in done.output
    again = declared("compare.of=loss_calibrated_nats")
    assert again.exit_code == 2
    assert "declared another comparison" in again.output
    assert compare_json() == stored
    assert declared("compare=null").exit_code == 0  # to explore is free; what was declared stays
    assert compare_json() == stored
    reported = swe("report", "--output", tmp_path / "out")
    assert "primary: against magnitude" in reported.output
    assert (tmp_path / "out" / "compare.md").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare.ratios=[0.6]"], "compare: no row is of swe at ratio 0.6"),
        (["compare.primary.criterion=wanda"], "compare: no row is of wanda at ratio 0.5"),
        (["base=final,averaged"], "several lines are swe; they differ in base"),
        (["compare=swe"], "compare=swe is wrong"),
        (["compare.ratios=half"], "compare"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(declared, tmp_path, words, said):
    refused = declared(*words)
    assert refused.exit_code == 2
    assert said in " ".join(refused.output.split())
    assert not (tmp_path / "results" / "runs" / "cells").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("ratios", "ratio", "compare.ratio"), ("of", "by", "compare.of is needed")],
)
def test_a_slip_in_a_yaml_is_named(declared, old, new, said):
    refused = declared(**{old: new})
    assert refused.exit_code == 2
    assert said in refused.output
