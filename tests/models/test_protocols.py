"""Perplexities as others report them, against the loop that they describe; fingerprints."""

import itertools
import math

import pytest
import torch

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape, Setup
from swe_cli.data.text import StringSource, Text, consecutive
from swe_cli.data.tokens import TextDataset
from swe_cli.device import Machine
from swe_cli.errors import DataError, UsageError
from swe_cli.evaluation.measure import measure, metrics

from .families import VOCABULARY, network, save_folder, transformers

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
    with pytest.raises(DataError, match=r"validation split has 0 .* Lower evaluation.window"):
        perplexity(setup)
    setup.dataset.tokens["validation"] = kept
