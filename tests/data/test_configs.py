import pytest

from swe_cli.config import ConfigRoot, component, compose
from swe_cli.data.tokens import tokenize
from swe_cli.errors import UsageError

ROOT = ConfigRoot()


def test_every_choice_is_known() -> None:
    assert {"kjv_chars", "shakespeare_chars", "text_file"} <= set(ROOT.options("data"))
    assert {"bpe", "chars"} <= set(ROOT.options("tokenizer"))


@pytest.mark.parametrize("name", ["kjv_chars", "shakespeare_chars"])
def test_options_fit_what_they_build(name: str) -> None:
    assert component("data", name, ROOT).describe()["name"] == name


@pytest.mark.parametrize("name", ["chars", "bpe"])
def test_the_default_text_with_every_tokenizer(name: str) -> None:
    if name == "bpe":
        pytest.importorskip("tokenizers", reason="the optional package tokenizers is missing")
    text = component("data", "kjv_chars", ROOT).build()
    dataset = tokenize(text, component("tokenizer", name, ROOT).build(text))
    assert text.splits["train"] == (0, 1_000_000)
    assert dataset.shape.vocabulary_size == {"chars": 65, "bpe": 1024}[name]
    assert dataset.decode(dataset.encode("In the beginning")) == "In the beginning"


def test_a_text_file_needs_a_path() -> None:
    with pytest.raises(UsageError, match="path is needed"):
        compose("train", ("data=text_file",))
    part = compose("train", ("data=text_file", "data.path=my text.txt"))["data"]
    assert part.options["path"] == "my text.txt"
    assert part.options["train_characters"] is None


def test_a_holdout_is_one_of_two() -> None:
    with pytest.raises(UsageError, match="holdout"):
        compose("train", ("data=shakespeare_chars", "data.holdout=thirds"))
