"""Composition: what comes out is checked and plain; what cannot be is one sentence."""

import json

import pytest

from swe_cli.config import ConfigRoot, component, compose
from swe_cli.config.compose import SHIPPED, _chosen, _load
from swe_cli.errors import UsageError

COMMANDS = ("train", "prune", "sweep", "evaluate", "report", "generate", "runs", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_to_plain_values(command):
    composed = compose(command)
    json.dumps(composed.values)
    for chosen in composed.components.values():
        json.dumps(chosen.describe())
        assert "_target_" not in chosen.describe()


def test_whole_numbers_become_floats_where_a_float_is_wanted():
    rate = compose("train", ("training.learning_rate=1",))["training"].options["learning_rate"]
    assert (rate, type(rate)) == (1.0, float)


def test_the_order_of_words_does_not_matter():
    words = ("training.steps=7", "training=adam_paper")
    assert compose("train", words) == compose("train", words[::-1])
    assert compose("train", words)["training"].options["steps"] == 7


CHOSEN = "criterion=stability allocation=owl pattern=2of4 training=adam_paper evaluation=test"
CHOSEN += " recovery=none model=gpt_small data=shakespeare_chars transform=trawl_tucker"


@pytest.mark.parametrize("experiment", ["", "experiment=demo", "experiment=criteria_llava"])
def test_a_choice_that_is_put_in_its_place_is_as_hydra_puts_it(experiment):
    words = (*CHOSEN.split(), *experiment.split())
    choices = {word.partition("=")[0]: word for word in words}
    assert _chosen("sweep", choices, SHIPPED) == _load("sweep", words, SHIPPED)


REFUSED = [
    ("train", "modle=gpt_nano", "modle is not a key of swe train. Did you mean model?"),
    ("train", "model=gpt_nanno", "model=gpt_nanno is not known. Did you mean gpt_nano?"),
    ("train", "model.layesr=2", "Did you mean model.layers?"),
    ("train", "layers=2", "Did you mean model.layers?"),
    ("train", "training.lr=0.1", "Did you mean training.learning_rate?"),
    ("train", "model.layers=abc", "it should be an integer"),
    ("train", "model.layers=1.5", "it should be an integer"),
    ("train", "model.layers=true", "it should be an integer"),
    ("train", "model.layers=[1]", "it should be an integer"),
    ("train", "model.bias=maybe", "it should be true or false"),
    ("train", "training.learning_rate=abc", "it should be a number"),
    ("train", "training.learning_rate=nan", "not a finite number"),
    ("train", "training.learning_rate=-inf", "not a finite number"),
    ("train", "training.optimizer=sgd", "'adamw' or 'adam'"),
    ("train", "tracking.every=often", "an integer or 'epoch'"),
    ("train", "dtype=float16", "'float32' or 'bfloat16'"),
    ("train", "seed=null", "seed=null is wrong"),
    ("train", "seed=", "seed= is wrong"),
    ("train", "threads=0", "at least 1"),
    ("train", 'training.steps="5"', "is quoted, so it is text: it should be an integer. Write"),
    ("train", "training.learning_rate='1e-3'", "Write training.learning_rate=1e-3"),
    ("train", "+model.layers.x=3", "model.layers={'x': 3} is wrong"),
    ("train", "+seed=3", "seed is there already. Write seed=3"),
    ("train", "data=text_file", "data.path is needed. Add data.path="),
    ("train", "model=null", "model=null is not known"),
    ("train", "model={a:1}", "is not known"),
    ("train", "~model", "cannot do without model"),
    ("train", "~seed", "cannot do without seed"),
    ("train", "~model.layers", "model.layers is needed"),
    ("train", "~nothing", "nothing is not a key"),
    ("train", "+model=gpt_small", "Write model=gpt_small"),
    ("train", "+extra=1", "extra is not a key of swe train"),
    ("train", "++extra.deep=1", "extra is not a key of swe train"),
    ("train", "+model.extra=1", "model.extra is not a key of model=gpt_nano"),
    ("train", "model@other=gpt_nano", "Did you mean model?"),
    ("train", "+model@other=gpt_nano", "other is not a key of swe train"),
    ("train", "model._target_=os.system", "not for the command line"),
    ("train", "hydra.run.dir=x", "Hydra's own settings"),
    ("train", "hydra/launcher=basic", "Hydra's own settings"),
    ("train", "seed=${nothing}", "cannot be used"),
    ("train", "seed=${oc.env:NOT_SET_ANYWHERE}", "cannot be used"),
    ("train", "command=sweep", "command is not a key"),
    ("train", "criterion=swe", "It belongs to swe prune and swe sweep"),
    ("train", "experiment=demo", "Type: swe sweep experiment=demo"),
    ("train", "experiment=paper_gpt_cpu", "Type: swe sweep experiment=paper_gpt_cpu"),
    ("prune", "experiment=demo", "Type: swe sweep experiment=demo"),
    ("sweep", "experiment=dmeo", "Did you mean demo?"),
    ("prune", "model=gpt_small", "It belongs to swe train and swe sweep"),
    ("prune", "criterion=mag", "Did you mean magnitude?"),
    ("prune", "ratio=1", "not in [0, 1)"),
    ("prune", "ratio=-0.1", "not in [0, 1)"),
    ("prune", "ratio=nan", "not a finite number"),
    ("prune", "rate=-1", "must not be negative"),
    ("prune", "base=middle", "'final', 'averaged', 'best', 'latest' or 'ema'"),
    ("sweep", "controls=[dense]", "controls=[dense] is wrong: it should be 'dense_averaged_recov"),
    ("sweep", "controls=[dense,mean]", "'dense_latest', 'dense_ema' or 'dense_decayed'"),
    ("prune", "controls=dense_ema", "it should be a list. Write controls=[dense_ema]"),
    ("train", "tracking.statistics=mean", "Write tracking.statistics=[mean]"),
    ("train", "tracking.start=-1", "must not be negative. Write tracking.start=0"),
    ("train", "tracking.decay=0", "is not in (0, 1). A half-life: tracking.decay=2%"),
    ("sweep", "axes=3", "it should be a dictionary"),
    ("report", "model=gpt_nano", "It belongs to swe train and swe sweep"),
    ("runs", "foo=1", "foo is not a key of swe runs. Keys of swe runs: results_dir."),
]


@pytest.mark.parametrize(("command", "word", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_is_refused_in_a_sentence_with_a_hint(command, word, said):
    with pytest.raises(UsageError) as caught:
        compose(command, (word,))
    assert said in str(caught.value)
    assert caught.value.hint or "should be '" in caught.value.message or "dict" in said
    assert "\n" not in str(caught.value)


def test_the_override_at_fault_is_named_among_others():
    with pytest.raises(UsageError, match=r"training\.stpes .*training\.steps"):
        compose("train", ("model.layers=2", "training.stpes=3", "training=adam_paper", "seed=1"))


# A folder of the user's own

MODULE = """
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True)
class Good:
    power: float
    needs = ()
    def score(self, evidence):
        return {n: w.abs() ** self.power for n, w in evidence.weights.items()}

class Positional:
    def __init__(self, power): ...

class Bare:
    def __init__(self, *, power): self.power = power
"""
YAMLS = {
    "good": "_target_: own_things.Good\npower: 2",
    "bare": "_target_: own_things.Bare\npower: 2",
    "positional": "_target_: own_things.Positional\npower: 2",
    "unset": "_target_: own_things.Good",
    "asks": "_target_: own_things.Good\npower: ???",
    "gone": "_target_: own_things.Gone",
    "nowhere": "_target_: no_such_module_at_all.X",
    "broken": "_target_: own_broken.X",
    "plain": "power: 2",
    "torn": "_target_: [",
    "astray": "defaults: [nowhere_to_be_found]",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "a folder, mine" / "conf"
    (folder / "criterion").mkdir(parents=True)
    (folder.parent / "own_things.py").write_text(MODULE)
    (folder.parent / "own_broken.py").write_text("x = (")
    for name, text in YAMLS.items():
        (folder / "criterion" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "own_things", raising=False)
    return ConfigRoot(folder)


def test_an_own_choice_composes_beside_the_shipped_ones(own):
    chosen = compose("prune", ("criterion=good",), own)["criterion"]
    described = chosen.describe()
    assert len(described.pop("source")) == 16  # its module's content is part of its identity
    assert described == {"name": "good", "power": 2.0}
    assert chosen.build().power == 2.0
    assert component("criterion", "good", own).options == {"power": 2.0}
    assert component("criterion", "good", own, {"power": 3}).options == {"power": 3.0}
    assert {"good", "swe"} <= set(own.options("criterion"))
    assert compose("prune", ("criterion=bare",), own)["criterion"].build().power == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("positional", "keyword-only"),
        ("unset", "criterion.power is needed"),
        ("asks", "criterion.power is needed. Add criterion.power="),
        ("gone", "no attribute 'Gone'"),
        ("nowhere", "No module named"),
        ("broken", "cannot be imported"),
        ("plain", "does not say what it builds"),
        ("torn", "criterion/torn.yaml cannot be used"),
        ("astray", "nowhere_to_be_found"),
        ("goood", "Did you mean good?"),
    ],
)
def test_an_own_choice_that_does_not_work_is_named(own, name, said):
    with pytest.raises(UsageError) as caught:
        compose("prune", (f"criterion={name}",), own)
    assert said in str(caught.value)
    with pytest.raises(UsageError, match=f"{name}|power"):
        component("criterion", name, own).build()


def test_an_own_experiment_says_options_of_a_choice_that_is_typed(own):
    (own.extra / "experiment").mkdir()
    text = "# @package _global_\ncriterion:\n  power: 5\n"
    (own.extra / "experiment" / "fifth.yaml").write_text(text)
    words = ("criterion=good", "experiment=fifth")
    assert compose("sweep", words, own)["criterion"].options == {"power": 5.0}
    text = "defaults: [good, _self_]\npower: 7"
    (own.extra / "criterion" / "built_on.yaml").write_text(text)
    assert compose("sweep", ("criterion=built_on",), own)["criterion"].options == {"power": 7.0}


def test_a_shipped_name_cannot_be_taken(own):
    (own.extra / "criterion" / "swe.yaml").write_text(YAMLS["good"])
    with pytest.raises(UsageError, match="name of a shipped choice"):
        compose("prune", ("criterion=good",), own)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        compose("prune", ("criterion=swe",), ConfigRoot(tmp_path / "gone"))


def test_a_stored_part_may_bring_what_its_yaml_asks_for():
    stored = {"path": "x.txt"}
    assert component("data", "text_file", ConfigRoot(), stored).options["path"] == "x.txt"


def test_what_goes_with_a_choice_gives_way_to_what_an_experiment_says():
    words = ("experiment=smollm2_finetune", "model=huggingface", "model.path=m")
    for typed in (words, words[:1]):
        composed = compose("sweep", typed)
        recipe = composed["training"].options
        assert recipe["steps"] == 100
        assert recipe["minimum_learning_rate"] == 0.0
        assert composed["tokenizer"].name == "pretrained"
        assert composed["recovery"].name == "none"
    plain = compose("sweep", ("model=huggingface", "model.path=m"))
    assert plain["training"].options["steps"] == 0
    other = compose("sweep", (*words, "tokenizer=chars", "training=adam_paper"))
    assert other["tokenizer"].name == "chars"
    assert other["training"].options["minimum_learning_rate"] != 0.0
