"""Every YAML composes, builds, and is found by the name of its file."""

import json
import math
import re

import pytest
import yaml

from swe_cli.config import Tokens, component, compose, shipped_conf
from swe_cli.errors import UsageError
from swe_cli.experiments.spec import check_spec, cut_spec
from swe_cli.experiments.sweep import axes_of
from swe_cli.experiments.training import roles_of

from .conftest import ROOT, names

GROUPS = sorted(p.name for p in shipped_conf().iterdir() if p.is_dir() and p.name != "experiment")
CHOICES = [(group, name) for group in GROUPS for name in names(group)]
NO_RUNTIME = {"model", "statistic", "tokenizer", "data"}  # these are built from what a run brings


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_is_checked_against_what_it_builds(group, name):
    shipped = yaml.safe_load((shipped_conf() / group / f"{name}.yaml").read_text())
    given = {"data.path": "x.txt"} if "???" in str(shipped) else {}
    if given:
        chosen = compose("train", (f"{group}={name}", "data.path=x.txt"))[group]
    else:
        chosen = component(group, name, ROOT)
    assert chosen.name == name
    assert callable(chosen.target)
    if group not in NO_RUNTIME:
        nothing = chosen.target is component("update", "none", ROOT).target
        assert (chosen.build() is None) is nothing


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_in_every_command_that_has_its_group(group, name):
    commands = [
        c for c in ("train", "prune", "sweep", "evaluate") if group in compose(c).components
    ]
    assert commands or group == "statistic", f"no command has a group {group}"
    more = ("data.path=x.txt",) if name in ("text_file", "wikitext", "image_folder") else ()
    for command in commands:
        assert compose(command, (f"{group}={name}", *more))[group].name == name


def test_what_goes_with_a_choice_is_there_unless_it_is_typed():
    model = ("model=huggingface", "model.path=x")
    usual = compose("sweep", model)
    assert usual["tokenizer"].name == "pretrained"
    assert usual["tokenizer"].options == {"path": "x"}
    assert usual["training"].options["steps"] == 0
    assert usual["recovery"].name == "none"
    typed = compose("sweep", (*model, "training=instruct", "tokenizer=bpe", "recovery.steps=3"))
    assert typed["training"].options["steps"] == compose("sweep")["training"].options["steps"]
    assert typed["tokenizer"].name == "bpe"
    assert typed["recovery"].name == "finetune"
    assert compose("train", (*model, "training.steps=5"))["training"].options["steps"] == 5
    with pytest.raises(UsageError, match=r"model.path is needed"):
        compose("train", ("model=huggingface",))


def test_nothing_shipped_asks_hydra_for_its_own_settings():
    for path in shipped_conf().rglob("*.yaml"):
        assert "${hydra" not in path.read_text(), path


def _command(name):
    stored = yaml.safe_load((shipped_conf() / "experiment" / f"{name}.yaml").read_text())
    built_on = [e for e in stored["defaults"] if isinstance(e, str) and e != "_self_"]
    return stored.get("command") or _command(built_on[0])


@pytest.mark.parametrize("name", names("experiment"))
def test_every_experiment_composes_for_the_command_it_names(name):
    head = (shipped_conf() / "experiment" / f"{name}.yaml").read_text().splitlines()[:3]
    command = _command(name)
    composed = compose(command, (f"experiment={name}",))
    assert f"swe {command} experiment={name}" in " ".join(head)
    for group, chosen in composed.components.items():
        if group not in NO_RUNTIME and (group, name) != ("pretraining", "none"):
            chosen.build()


@pytest.mark.parametrize("name", [n for n in names("experiment") if _command(n) == "sweep"])
def test_every_cell_of_an_experiment_composes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, config in {"smollm2": {}, "llava": {"vision_config": {}}}.items():
        (tmp_path / folder).mkdir()  # whose roles are known by its config alone
        (tmp_path / folder / "model.safetensors").touch()
        stored = json.dumps({"model_type": folder, **config})
        (tmp_path / folder / "config.json").write_text(stored)
    composed = compose("sweep", (f"experiment={name}",))
    axes = axes_of(composed, Tokens(overrides=(f"experiment={name}",)))
    assert axes
    first = tuple(values[0] for values in axes.values())
    for key, values in axes.items():
        for value in values:
            point = (*(w for w in first if not w.startswith(f"{key}=")), value)
            cell = compose("sweep", (f"experiment={name}", *point))
            check_spec(cut_spec(cell, ROOT, roles_of(cell["model"])), cell, (), axes)


@pytest.mark.parametrize(
    ("choice", "option", "value", "said"),
    [
        ("training=adamw", "steps", -1, "training.steps=-1 must not be negative."),
        ("training=adamw", "batch_size", 0, "training.batch_size=0 must be at least 1."),
        ("training=adamw", "accumulation", 0, "training.accumulation=0 must be at least 1."),
        ("training=adamw", "evaluate_every", 0, "training.evaluate_every=0 must be at least 1."),
        ("training=adamw", "checkpoint_every", 0, "checkpoint_every=0 must be at least 1."),
        ("training=adamw", "weight_decay", -0.1, "training.weight_decay=-0.1 must not be"),
        ("training=adamw", "gradient_clip", -1.0, "training.gradient_clip=-1.0 must not be"),
        ("training=adamw", "minimum_learning_rate", -1.0, "learning_rate=-1.0 must not be"),
        ("training=adamw", "learning_rate", math.inf, "training.learning_rate=inf is not a finite"),
        ("tracking=every_step", "start", -1, "tracking.start=-1 must not be negative."),
        ("tracking=every_step", "sample", -1, "tracking.sample=-1 must not be negative."),
        ("evaluation=test", "batch_size", 0, "evaluation.batch_size=0 must be at least 1."),
        ("training=adamw", "warmup_steps", -1, "training.warmup_steps=-1 must not be negative."),
        ("training=adamw", "beta2", 1.0, "training.beta2=1.0 is not in [0, 1)."),
        ("training=adamw", "learning_rate", 0.0, "training.learning_rate=0.0 must be positive."),
        ("tracking=every_step", "every", 0, "tracking.every=0 must be at least 1, or epoch."),
        ("tracking=every_step", "decay", 1.0, "tracking.decay=1.0 is not in (0, 1)."),
        ("recovery=finetune", "steps", -1, "recovery.steps=-1 must not be negative."),
        ("recovery=finetune", "batch_size", 0, "recovery.batch_size=0 must be at least 1, or null"),
        ("recovery=distill", "temperature", 0.0, "recovery.temperature=0.0 must be positive."),
        ("recovery=distill", "teacher_share", 1.5, "recovery.teacher_share=1.5 is not in [0, 1]."),
        ("schedule=iterative", "rounds", 0, "schedule.rounds=0 must be at least 1."),
        ("schedule=early", "at_step", -1, "schedule.at_step=-1 must not be negative."),
        ("calibration=train", "samples", 1, "calibration.samples=1 must be at least 2."),
        ("evaluation=test", "random_batches", -1, "evaluation.random_batches=-1 must not be"),
        ("criterion=sparsegpt", "block", 0, "criterion.block=0 must be at least 1."),
        ("update=least_squares", "damping", -0.1, "update.damping=-0.1 must not be negative."),
        ("update=least_squares", "tolerance", 0.0, "update.tolerance=0.0 is not in (0, 1)."),
        ("update=least_squares", "steps", 0, "update.steps=0 must be at least 1."),
        ("allocation=owl", "strength", 1.0, "allocation.strength=1.0 is not in [0, 1)."),
        ("allocation=ecoflap", "slack", 0.0, "allocation.slack=0.0 is not in (0, 1]."),
        ("model=gpt_nano", "layers", 0, "model.layers=0 must be at least 1."),
        ("model=gpt_nano", "dropout", 1.0, "model.dropout=1.0 is not in [0, 1)."),
    ],
)
def test_an_option_out_of_its_bounds_is_refused(choice, option, value, said):
    group, name = choice.split("=")
    with pytest.raises(UsageError, match=re.escape(said)):
        component(group, name, ROOT, {option: value})
