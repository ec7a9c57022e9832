import math
import re

import pytest

from swe_cli.config import ConfigRoot, component, compose
from swe_cli.data.tokens import TextDataset
from swe_cli.errors import UsageError

ROOT = ConfigRoot()
PATHS = {name: {"path": "given"} for name in ("text_file", "image_folder")}


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
    dataset = TextDataset(text, component("tokenizer", name, ROOT).build(text))
    assert text.splits["train"] == (0, 1_000_000)
    assert dataset.shape.vocabulary_size == {"chars": 65, "bpe": 1024}[name]
    assert dataset.decode(dataset.encode("In the beginning")) == "In the beginning"


def test_a_text_file_needs_a_path() -> None:
    with pytest.raises(UsageError, match="path is needed"):
        compose("train", ("data=text_file",))
    part = compose("train", ("data=text_file", "data.path=my text.txt"))["data"]
    assert part.options["path"] == "my text.txt"
    assert part.options["train_characters"] is None


@pytest.mark.parametrize(
    ("choice", "option", "value", "said"),
    [
        ("data=kjv_chars", "train_characters", 0, "must be at least 1"),
        ("data=kjv_chars", "validation_characters", 0, "must be at least 1"),
        ("data=kjv_chars", "test_characters", 0, "must be at least 1"),
        ("data=shakespeare_chars", "train_characters", 0, "must be at least 1, or null"),
        ("data=text_file", "train_characters", -1, "must be at least 1, or null"),
        ("data=text_file", "validation_fraction", 0.0, "is not in (0, 1)"),
        ("data=text_file", "validation_fraction", 1.5, "is not in (0, 1)"),
        ("data=text_file", "test_fraction", -0.1, "is not in (0, 1)"),
        ("data=image_folder", "validation_fraction", 0.0, "is not in (0, 1)"),
        ("data=image_folder", "validation_fraction", math.nan, "is not a finite number"),
        ("data=image_folder", "test_fraction", 1.0, "is not in (0, 1)"),
        ("data=image_folder", "image_size", 4, "must be at least 8"),
        ("data=easy_vqa", "image_size", 4, "must be at least 8"),
        ("data=easy_vqa", "train_images", 0, "must be at least 1, or null"),
        ("data=easy_vqa", "validation_images", 0, "must be at least 1"),
        ("data=easy_vqa", "test_images", 0, "must be at least 1, or null"),
        ("data=digit_sums", "train_examples", 0, "must be at least 1"),
        ("data=digit_sums", "validation_examples", -1, "must be at least 1"),
        ("data=digit_sums", "test_examples", 0, "must be at least 1"),
        ("data=digit_sums", "scale", 0, "is not in [1, 32]"),
        ("data=digit_sums", "scale", 33, "is not in [1, 32]"),
        ("tokenizer=bpe", "vocabulary_size", 255, "must be at least 256: byte values come first"),
    ],
)
def test_an_option_out_of_its_bounds_is_refused(
    choice: str, option: str, value: float, said: str
) -> None:
    group, name = choice.split("=")
    with pytest.raises(UsageError, match=re.escape(f"{group}.{option}={value} {said}")):
        component(group, name, ROOT, {**PATHS.get(name, {}), option: value})


def test_a_holdout_is_one_of_two() -> None:
    with pytest.raises(UsageError, match="holdout"):
        compose("train", ("data=shakespeare_chars", "data.holdout=thirds"))
