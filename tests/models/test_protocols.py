"""Perplexities as others report them, against the loop that they describe; fingerprints."""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import Dataset, DataShape, Setup
from swe_cli.data.text import StringSource, Text, consecutive
from swe_cli.data.tokens import TextDataset
from swe_cli.device import Machine
from swe_cli.errors import DataError, UsageError
from swe_cli.evaluation.measure import measure, metrics
from swe_cli.evaluation.tasks import run_task
from swe_cli.files import sha256

from .families import VOCABULARY, network, save_folder, transformers
from .test_huggingface import SMALL

ROOT, WINDOW = ConfigRoot(), 24
TEXT = "In the beginning God created the heaven and the earth. And the earth was without form. "
SIZES = (1200, 700, 905)
OURS = {"window": None, "predict_first": True, "remainder": True, "bos": "none"}


def beginning(folder):
    """Give a folder's tokenizer the habit of LLaMA's: token 1 before every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    name = tokenizer.convert_ids_to_tokens(1)
    made = TemplateProcessing(single=f"{name} $A", special_tokens=[(name, 1)])
    tokenizer.backend_tokenizer.post_processor = made
    tokenizer.save_pretrained(folder)
    assert tokenizer("God").input_ids[0] == 1


@pytest.fixture(scope="module", params=[False, True], ids=["no BOS", "BOS"])
def setup(request, tmp_path_factory):
    """A tiny random llama; its tokenizer, or not, puts a BOS before a text."""
    folder = save_folder("llama", tmp_path_factory.mktemp("protocols") / "model")
    if request.param:
        beginning(folder)
    text = Text(StringSource((40 * TEXT)[: sum(SIZES)]), consecutive(SIZES))
    tokenizer = component("tokenizer", "pretrained", ROOT, {"path": str(folder)}).build(text)
    options = {"path": str(folder), "context": 16}
    model = component("model", "huggingface", ROOT, options).build(DataShape(VOCABULARY))
    machine = Machine(torch.device("cpu"), "float32", 1)
    return Setup(model, TextDataset(text, tokenizer), machine, 0)


def protocol(**options):
    return component("evaluation", "wanda", ROOT, {"window": WINDOW, "batch_size": 3, **options})


def perplexity(setup, **options):
    chosen = protocol(**options).instance
    return dict(metrics(setup, chosen, measure(setup, chosen)))["perplexity"].mean


def published(ids, window):
    """Windows side by side, the mean loss of all shifted logits of each, times their length; then
    the exponential of their sum, divided by the length of all."""
    model, losses = network("llama"), []
    for start in range(0, len(ids) // window * window, window):
        rows = ids[start : start + window]
        with torch.no_grad():
            logits = model(rows[None]).logits[0]
        losses.append(torch.nn.functional.cross_entropy(logits[:-1], rows[1:]) * window)
    return math.exp(torch.stack(losses).sum() / (len(losses) * window))


def ids_of(setup, **how):
    """By transformers' own tokenizer, of the test split as one text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(setup.model.folder)
    whole = "".join(setup.dataset.text.chunks("test"))
    return torch.tensor(tokenizer(whole, **how).input_ids)


def test_it_is_the_published_number(setup):
    ids = ids_of(setup)
    assert (ids[0] == 1) == setup.dataset.tokenizer.begins
    assert len(ids) % WINDOW > 1
    assert perplexity(setup) == pytest.approx(published(ids, WINDOW), abs=1e-6, rel=1e-6)
    bare = ids_of(setup, add_special_tokens=False)
    for bos, expected in (("none", bare), ("text", torch.cat([torch.tensor([1]), bare]))):
        found = perplexity(setup, bos=bos)
        assert found == pytest.approx(published(expected, WINDOW), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("bos", ["none", "text", "window"])
@pytest.mark.parametrize("remainder", [False, True])
@pytest.mark.parametrize("predict_first", [False, True])
def test_every_protocol_is_the_naive_loop(setup, bos, remainder, predict_first):
    """Token by token: which one is predicted, and what is before it in its window."""
    text = ids_of(setup, add_special_tokens=False).tolist()
    text = [1, *text] if bos == "text" else text
    model, losses, start = network("llama"), [], 0
    while start < len(text):
        own = text[start : start + WINDOW - (bos == "window")]
        row = [1, *own] if bos == "window" else own
        following = text[start + len(own) :][:1] if predict_first and bos != "window" else []
        start += len(own)
        whole = len(row) == WINDOW and (following or not predict_first or bos == "window")
        if remainder or whole:
            with torch.no_grad():
                logits = model(torch.tensor([row])).logits[0].double().log_softmax(-1)
            predicted = [*row[1:], *following]
            losses += [-logits[at, token].item() for at, token in enumerate(predicted)]
    found = perplexity(setup, bos=bos, remainder=remainder, predict_first=predict_first)
    assert found == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-6)


def test_with_every_option_as_it_was_it_is_the_usual_protocol(setup):
    usual = component("evaluation", "test", ROOT, {"batch_size": 3}).instance
    same = protocol(**OURS).instance
    assert usual.cut == {}
    one, two = (measure(setup, of)["nats"].tolist() for of in (usual, same))
    assert one == two
    assert fingerprint(setup, **OURS) == setup.dataset.fingerprint("test", context=16)


def fingerprint(setup, **options):
    return setup.dataset.fingerprint("test", **setup.cut(**protocol(**options).instance.cut))


def test_every_option_is_in_the_fingerprint(setup):
    choices = itertools.product((WINDOW, 32), (False, True), (False, True), ("none", "text"))
    names = ("window", "predict_first", "remainder", "bos")
    every = [dict(zip(names, choice, strict=True)) for choice in choices]
    every += [
        {"window": w, "remainder": r, "bos": "window"} for w in (24, 32) for r in (False, True)
    ]
    found = [fingerprint(setup, **options) for options in every]
    assert len({*found}) == len(found) == 20
    assert fingerprint(setup) in found  # default is one of the others


def test_windows_that_cannot_be_are_refused_in_a_sentence(setup):
    with pytest.raises(UsageError, match=r"65 tokens .* 64 positions.* evaluation.window=64"):
        perplexity(setup, window=65)
    setup.dataset.tokens["validation"], kept = [], setup.dataset.tokens["validation"]
    with pytest.raises(DataError, match=r"validation split has 0 .* Lower .*evaluation\.window"):
        perplexity(setup)
    setup.dataset.tokens["validation"] = kept


def test_only_texts_are_cut_otherwise(setup):
    asked = type("Asked", (Dataset,), {"questions": True})()
    with pytest.raises(UsageError, match=r"Only texts .* evaluation=test"):
        replace(setup, dataset=asked).windows("test", 2, **protocol().instance.cut)


def test_a_run_of_ours_is_measured_by_either(swe, own_run):
    usual = swe("evaluate", own_run.name).stdout.split()
    words = ("evaluate", own_run.name, "evaluation=wanda")
    other = swe(*words, "evaluation.window=8").stdout.split()
    assert usual[usual.index("fingerprint") + 1] != other[other.index("fingerprint") + 1]
    assert "bits" in usual
    assert "bits" not in other  # not every character is predicted
    for more, said in (
        ((), "A window of 2,048 tokens is longer than the model's 16 positions. Write evaluation."),
        (("evaluation.window=8", "evaluation.bos=text"), "no token that begins a text."),
    ):
        refused = swe(*words, *more)
        assert refused.exit_code == 2
        assert said in " ".join(refused.output.split())


# Tasks of the lm-evaluation-harness

CHOICES = ["the earth.", "God without form", "void"]
ITEMS = [{"begin": f"God{' and' * n}", "choices": CHOICES, "answer": n % 3} for n in range(9)]
TASK = """
task: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: "items/tiny.jsonl"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{begin}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


def named(folder):
    """Give a folder's tokenizer names for its special tokens, which the harness asks for."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.convert_ids_to_tokens([1, 2])
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A tiny task, in a folder that nobody stands in."""
    pytest.importorskip("lm_eval", reason="the extra lm-eval is missing")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "tiny.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    (folder / "tiny.yaml").write_text(TASK.replace("items/", ""))
    return folder / "tiny.yaml"


@pytest.mark.filterwarnings("ignore")  # of the harness and what it imports
def test_a_task_gives_what_the_harness_gives_on_the_exported_folder(swe, task, tmp_path):
    folder = named(save_folder("llama", tmp_path / "model"))
    words = ["model=huggingface", f"model.path={folder}", "criterion=magnitude", *SMALL]
    name = swe("prune", "-q", "--ratio", 0.5, *words).stdout.split()[0]
    asked = swe("evaluate", name, "--tasks", task, "evaluation.batch_size=2")
    assert asked.exit_code == 0, asked.output
    assert max(map(len, asked.stdout.splitlines())) <= 80
    (written,) = (tmp_path / "results" / "runs" / name / "tasks").glob("tiny-*.json")
    found = json.loads(written.read_text())
    assert found["files"] == {f.name: sha256(f) for f in (task, task.with_suffix(".jsonl"))}
    assert found["lm_eval"] == version("lm_eval")

    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    assert swe("export", name, tmp_path / "out").exit_code == 0
    assert any((tmp_path / "datasets").iterdir())
    task.write_text(TASK.replace("items/", f"{task.parent}/"))
    there = HFLM(str(tmp_path / "out"), device="cpu", batch_size=2)
    ours = TaskManager(include_defaults=False)
    theirs = simple_evaluate(there, tasks=[str(task)], task_manager=ours)["results"]["tiny"]
    for _, metric, mean, error, items in found["rows"]:
        assert mean == theirs[f"{metric},none"]
        assert error == theirs[f"{metric}_stderr,none"] > 0
        assert items == len(ITEMS)
        assert f"{mean:.4f}" in asked.stdout
    assert [row[:2] for row in found["rows"]] == [["tiny", "acc"], ["tiny", "acc_norm"]]


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_task_is_said_in_a_sentence(swe, task, tmp_path):
    folder = named(save_folder("llama", tmp_path / "model"))
    words = [w for w in SMALL if w.startswith(("model", "data"))]
    name = swe("train", "-q", "model=huggingface", f"model.path={folder}", *words).stdout.split()[0]
    task.write_text(TASK)  # whose items are elsewhere
    refused = swe("evaluate", name, "--tasks", task)
    assert refused.exit_code == 1
    assert f"lm-eval cannot run {task}" in " ".join(refused.output.split())
    absent = swe("evaluate", name, "--tasks", "none.yaml")
    assert absent.exit_code == 2
    assert "'none.yaml' does not exist" in " ".join(absent.output.split())


def test_a_model_of_ours_has_no_tasks(swe, own_run, task):
    task.write_text(TASK)
    refused = swe("evaluate", own_run.name, "--tasks", task)
    assert refused.exit_code == 2
    assert "no other library can open" in " ".join(refused.output.split())


def test_a_missing_harness_says_what_to_install(setup, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    with pytest.raises(UsageError, match=r"lm-eval.*pip install 'swe-cli\[lm-eval\]'"):
        run_task(setup.model, Path("tiny.yaml"), 2)


def test_the_items_that_are_shipped_are_those_of_their_script():
    root = Path(__file__).parents[2]
    made = subprocess.run([sys.executable, root / "scripts/make_kjv_task"], capture_output=True)
    assert made.stdout == (root / "docs/tasks/kjv_continuation.jsonl").read_bytes()
