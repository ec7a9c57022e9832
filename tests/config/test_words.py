"""The command line's grammar: words → runs, overrides, axes."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_cli.config import compose, expand_range, read_tokens
from swe_cli.config.words import is_path_key, parse_override, value_of
from swe_cli.errors import UsageError


def test_words_are_told_apart():
    tokens = read_tokens(["train-gpt", "model.layers=2", "+a.b=1", "~c", "seeds=0,1", "seed.x=3"])
    assert tokens.runs == ("train-gpt",)
    assert tokens.overrides == ("model.layers=2", "+a.b=1", "~c", "seed.x=3")
    assert tokens.axes == {"seed": ("seed=0", "seed=1")}


def test_a_folder_is_a_run_whatever_its_name(tmp_path):
    folder = tmp_path / "results=old"
    folder.mkdir()
    assert read_tokens([str(folder)]).runs == (str(folder),)


def test_a_word_longer_than_any_file_name_is_read():
    word = "tags=[" + ",".join(["x"] * 3000) + "]"
    assert read_tokens([word]).overrides == (word,)


@pytest.mark.parametrize(
    ("plural", "key"),
    [
        ("ratios", "ratio"),
        ("rates", "rate"),
        ("criteria", "criterion"),
        ("allocations", "allocation"),
        ("patterns", "pattern"),
        ("recoveries", "recovery"),
        ("seeds", "seed"),
    ],
)
def test_plural_names_are_axes_even_of_one_value(plural, key):
    assert read_tokens([f"{plural}=a"]).axes == {key: (f"{key}=a",)}
    assert read_tokens([f"{plural}=a,b"]).axes == {key: (f"{key}=a", f"{key}=b")}


def test_any_key_takes_choices_and_ranges():
    axes = read_tokens(["tracking.every=1,10,100", "model.layers=1..3"]).axes
    assert axes["tracking.every"] == tuple(f"tracking.every={n}" for n in (1, 10, 100))
    assert axes["model.layers"] == tuple(f"model.layers={n}" for n in (1, 2, 3))


def test_lists_and_quoted_values_are_no_axes():
    words = ["x=[1,2]", "y='a,b'", "z={a:1,b:2}", "w='1..3'"]
    assert read_tokens(words).overrides == tuple(words)


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("0.1..0.9", "0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9"),
        ("0.1..0.9..0.2", "0.1 0.3 0.5 0.7 0.9"),
        ("0.1..0.8..0.3", "0.1 0.4 0.7"),
        ("0.10..0.12", "0.1 0.11 0.12"),
        ("0..3", "0 1 2 3"),
        ("8..12", "8 9 10 11 12"),
        ("-1..1", "-1 0 1"),
        ("1e-3..3e-3", "0.001 0.002 0.003"),
        ("5..5", "5"),
        ("0.5", "0.5"),
        ("swe", "swe"),
    ],
)
def test_ranges_are_decimal_exact(written, values):
    assert expand_range(written) == values.split()


def test_ranges_and_values_mix_in_one_axis():
    axis = read_tokens(["ratios=0.1..0.3,0.5"]).axes["ratio"]
    assert axis == ("ratio=0.1", "ratio=0.2", "ratio=0.3", "ratio=0.5")


@settings(deadline=None)
@given(
    first=st.decimals(-100, 100, places=3),
    step=st.decimals("0.001", 5, places=3),
    count=st.integers(0, 40),
)
def test_a_range_is_first_plus_multiples_of_its_step(first, step, count):
    last = first + step * count
    values = expand_range(f"{first}..{last}..{step}")
    assert [Decimal(v) for v in values] == [first + step * k for k in range(count + 1)]
    assert all(str(float(v)) == str(float(Decimal(v))) for v in values)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("ratios=0.9..0.1", "descends"),
        ("ratios=0.1..0.9..0", "must be positive"),
        ("ratios=0.1..0.9..-0.1", "must be positive"),
        ("ratios=nan..1", "not a range"),
        ("ratios=0..inf", "not a range"),
        ("ratios=a..b", "not a range"),
        ("ratios=0..1..1e-9", "more than 10,000"),
        ("ratios=0..1e99999999", "not a range"),
        ("ratios=", "names no value"),
        ("criteria=null", "names no value"),
        ("seeds=0,0", "twice"),
        ("ratios=0.1,0.10", "twice"),
        ("ratios=0.1..0.3,0.2", "twice"),
        ("ratio=range(1,3)", "not a list of values"),
        ("ratio=glob(*)", "not a list of values"),
        ("axes.ratio=0.1,0.2", "its own key"),
        ("+axes.ratio=0.1,0.2", "its own key"),
        ("ratios=[0.1,0.2]", "is one list"),
        ("model='gpt", "Cannot read"),
        ("model.=3", "Cannot read"),
        ("=3", "no key"),
        ("data.path=~nobody-of-that-name/x", "no user"),
        ("ratios=0.5,", "ratios=0.5, has a comma too many. Write ratios=0.5$"),
        ("ratios=0.1..0.3,", "comma too many. Write ratios=0.1..0.3$"),
        ("criteria=swe,,wanda", "comma too many. Write criteria=swe,wanda$"),
        ("seeds=,", "comma too many. For example: seeds=a,b,c"),
        ("training.steps = 5", "spaces around its =. Write training.steps=5$"),
        ("criteria =swe", "spaces around its =. Write criteria=swe$"),
        ("x=[1,", "a quote or bracket is left open"),
    ],
)
def test_words_that_mean_nothing_are_refused(word, said):
    with pytest.raises(UsageError, match=said) as caught:
        read_tokens([word])
    assert caught.value.hint
    assert "expecting" not in str(caught.value)  # a word of the parser's


@pytest.mark.parametrize("other", ["seeds=2,3", "seed=2,3", "seed=4"])
def test_an_axis_is_given_once(other):
    with pytest.raises(UsageError, match="seed is given twice"):
        read_tokens(["seeds=0,1", other])


@pytest.mark.parametrize(
    "text",
    ["0.001", "-0.5", "1.0", "12.50", "00.5", "007.10", "1e-3", "1_0.5", ".5", "5.", "0.1.2"],
)
def test_a_decimal_is_read_as_hydra_reads_it(text):
    read, hydras = value_of(f"ratio={text}"), parse_override(f"ratio={text}").value()
    assert (type(read), read) == (type(hydras), hydras)


# Paths


def test_path_keys():
    assert is_path_key("data.path")
    assert is_path_key("+data.path")
    assert is_path_key("results_dir")
    assert not is_path_key("data.train_characters")
    assert not is_path_key("~data.path")


def composed_path(typed):
    overrides = read_tokens(["data=text_file", f"data.path={typed}"]).overrides
    return compose("train", overrides)["data"].options["path"]


@pytest.mark.parametrize(
    "path",
    [
        "plain.txt",
        "a b.txt",
        "a=b.txt",
        "a,b.txt",
        "a (b).txt",
        "été à Zürich.txt",
        "it's.txt",
        'say "so".txt',
        "a'b'c",
        "back\\slash\\",
        "back\\'s",
        "costs ${5}",
        "\\${x}",
        "$HOME/x",
        "[list]",
        "{map: 1}",
        "1..3",
        "12",
        "true",
        " led by a space",
        "a: b # c",
        "a/~b",
        "C:\\text",
        "日本語",
    ],
)
def test_a_path_is_taken_as_typed(path):
    assert composed_path(path) == path


@settings(max_examples=25, deadline=None)  # each is a composition by Hydra
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_every_path_survives_hydra(text):
    path = f"./{text}"  # so that it is neither null nor ??? nor a home, nor quoted as a whole
    assert composed_path(path) == path


def test_home_is_expanded_and_quotes_around_a_whole_path_are_dropped(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert composed_path("~/a b.txt") == "/home/me/a b.txt"
    assert composed_path("'a b.txt'") == "a b.txt"


def test_a_dash_between_numbers_is_no_range():
    with pytest.raises(UsageError) as caught:
        read_tokens(["ratios=0.1-0.9"])
    assert caught.value.hint == "A range is written ratios=0.1..0.9"
    assert read_tokens(["name=a-1", "training.learning_rate=1e-3"]).axes == {}
