"""What a user's own component or terminal gives is never called a defect of ours."""

import pytest

MINE = """
class Bytes:
    vocabulary_size, sha256 = 256, "bytes"
    def __init__(self, text): pass
    def encode(self, text): return list(text.encode())
    def decode(self, ids): return bytes(ids).decode(errors="replace")

class Mute:
    vocabulary_size, sha256 = 256, "mute"
    def __init__(self, text): pass

class Nothing:
    sha256 = "none"

def string():
    return "a text of mine"
"""
TARGETS = {
    "data/string": "string",
    "data/nothing": "Nothing",
    "tokenizer/mute": "Mute",
    "tokenizer/bytes": "Bytes",
}


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own_parts.py").write_text(MINE)
    for choice, target in TARGETS.items():
        path = tmp_path / "conf" / f"{choice}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"_target_: own_parts.{target}\n")
    return "--config-dir", tmp_path / "conf"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data=string", "data=string gives a str, which is no Text, QuestionSet or Dataset"),
        ("data=nothing", "data=nothing gives a Nothing, which is no Text, QuestionSet or Dataset"),
        ("tokenizer=mute", "tokenizer=mute gives a Mute, which is no Tokenizer: it lacks encode"),
    ],
)
def test_a_component_that_is_not_what_it_should_be_is_named(swe, own, word, said):
    refused = swe("train", *own, word)
    assert refused.exit_code == 2
    assert said in " ".join(refused.output.split())
    assert "docs/extend.md" in refused.output
    assert "defect" not in refused.output


def test_a_tokenizer_of_a_plain_class_trains(swe, own, tiny_words):
    trained = swe("train", "-q", *own, *tiny_words, "tokenizer=bytes")
    assert trained.exit_code == 0, trained.output


@pytest.fixture
def french(swe, tmp_path, tiny_words):
    (tmp_path / "text.txt").write_text("déjà vu à l'été — " * 200, encoding="utf-8")
    words = [word for word in tiny_words if not word.startswith("data.")]
    trained = swe("train", "-q", *words, "data=text_file", "data.path=text.txt")
    assert trained.exit_code == 0, trained.output


def test_a_prompt_is_read_as_utf8_whatever_the_locale(swe, french):
    """Under a locale that knows no é its bytes arrive as lone surrogates."""
    usual = swe("generate", "--prompt", "été", "--length", 5)
    assert usual.exit_code == 0, usual.output
    escaped = "été".encode().decode("ascii", "surrogateescape")
    assert escaped != "été"
    assert swe("generate", "--prompt", escaped, "--length", 5).output == usual.output


def test_a_prompt_in_no_known_encoding_is_told_what_is_the_matter(swe, french):
    latin1 = "été".encode("latin-1").decode("utf-8", "surrogateescape")
    refused = swe("generate", "--prompt", latin1)
    assert refused.exit_code == 2
    said = " ".join(refused.output.split())
    assert "The prompt is neither UTF-8 nor" in said
    assert "LC_ALL=C.UTF-8" in said
