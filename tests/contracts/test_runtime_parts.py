"""Recoveries, launchers, trackings, tokenizers and data sets do what their protocols say."""

import os

import pytest
import torch
from training.walks import after

from swe_cli.config import component, compose
from swe_cli.contracts import DataShape
from swe_cli.data.tokens import TextDataset
from swe_cli.errors import Interrupted
from swe_cli.experiments import spec
from swe_cli.training.tracker import Tracker

from .conftest import ROOT, built, names

ALPHABET = "the quick brown fox jumps over the lazy dog. "


def half(number, stop=None):
    if number < 0:
        raise Interrupted("stop")
    if number % 2:
        raise ValueError(number)
    return number // 2


@pytest.mark.parametrize("name", ["local 1", "local 2", "ray"])  # slurm: test_launchers.py
def test_a_launcher_hands_back_every_job_with_its_result_or_its_error(name):
    name, *workers = name.split()
    if name == "ray":
        pytest.importorskip("ray", reason="the extra ray is missing")
    options = {"workers": int(workers[0])} if workers else {}
    launcher = spec.built(component("launcher", name, ROOT, options))
    launcher.start(threads=1)
    assert launcher.slots == (int(workers[0]) if workers else os.cpu_count())
    futures = {number: launcher.submit(half, number) for number in (1, 2, 3, 4, -1)}
    errors = {number: future.exception(180) for number, future in futures.items()}
    launcher.close(now=False)
    assert (futures[2].result(), futures[4].result()) == (1, 2)
    assert isinstance(errors[1], ValueError)
    assert isinstance(errors[3], ValueError)
    assert isinstance(errors[-1], Interrupted)


@pytest.mark.parametrize("name", names("tracking"))
def test_a_tracking_observes_and_its_state_goes_on(name, life):
    tracking = built("tracking", name)

    def tracker():
        weights = {n: w.clone() for n, w in life.weights.items()}
        made = {"mean": built("statistic", "mean", weights)}
        options = {"steps": 6, "steps_per_epoch": 3, "seed": 0}
        return Tracker(weights, made, weights, tracking, **options)

    whole, first, second = tracker(), tracker(), tracker()
    for step in range(1, 7):
        whole.after_step(after(step), {})
    for step in range(1, 4):
        first.after_step(after(step), {})
    second.load({n: t.clone() for n, t in first.tensors().items()}, first.info())
    for step in range(4, 7):
        second.after_step(after(step), {})
    assert whole.count > 0
    assert whole.info() == second.info()
    assert all(torch.equal(t, second.tensors()[n]) for n, t in whole.tensors().items())


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(ALPHABET * 100)
    return compose("train", ("data=text_file", f"data.path='{path}'"))["data"].build()


@pytest.mark.parametrize("name", names("tokenizer"))
def test_a_tokenizer_gives_back_what_it_was_given(name, text):
    if name == "bpe":
        pytest.importorskip("tokenizers", reason="the optional package tokenizers is missing")
    tokenizer = built("tokenizer", name, text)
    ids = tokenizer.encode(ALPHABET)
    assert tokenizer.decode(ids.tolist()) == ALPHABET
    assert int(ids.max()) < tokenizer.vocabulary_size
    dataset = TextDataset(text, tokenizer)
    batch = dataset.random_batch("train", size=2, context=8, seed=1)
    assert batch["tokens"].shape == batch["targets"].shape == (2, 8)
    assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
    seen = sum(int((b["targets"] >= 0).sum()) for b in dataset.windows("test", context=8, size=4))
    assert seen == len(dataset.tokens["test"]) - 1


@pytest.mark.parametrize("name", names("model"))
def test_shipped_models_have_the_sizes_their_yaml_promises(name):
    with torch.device("meta"):
        model = component("model", name, ROOT).build(DataShape(65, image=(3, 64, 64)))
    millions = {
        "gpt_nano": 0.8,
        "gpt_small": 10.7,
        "gpt_paper": 10.788929,
        "llava_nano": 0.28,
        "llava_small": 17.07,
    }.get(name)
    total = sum(p.numel() for p in model.parameters()) / 1e6
    assert total > 0
    if millions:
        assert total == pytest.approx(millions, rel=0.02)
