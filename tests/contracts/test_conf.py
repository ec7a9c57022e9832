"""Every YAML composes, builds, and is found by the name of its file."""

import pytest
import yaml

from swe_cli.compose import compose, default_part, shipped_conf

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
        chosen = default_part(group, name, ROOT)
    assert chosen.name == name
    assert callable(chosen.target)
    if group not in NO_RUNTIME:
        nothing = (group, name) in (("pretraining", "none"), ("transform", "none"))
        assert (chosen.build() is None) is nothing


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_in_every_command_that_has_its_group(group, name):
    commands = [c for c in ("train", "prune", "sweep", "evaluate") if group in compose(c).parts]
    assert commands or group == "statistic", f"no command has a group {group}"
    more = ("data.path=x.txt",) if name in ("text_file", "image_folder") else ()
    for command in commands:
        assert compose(command, (f"{group}={name}", *more))[group].name == name


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
    for group, chosen in composed.parts.items():
        if group not in NO_RUNTIME and (group, name) != ("pretraining", "none"):
            chosen.build()


@pytest.mark.parametrize("name", [n for n in names("experiment") if _command(n) == "sweep"])
def test_every_cell_of_an_experiment_composes(name):
    from swe_cli.compose import ConfigRoot, Tokens
    from swe_cli.sweeps.plan import _axes, check_cut, settled

    composed = compose("sweep", (f"experiment={name}",))
    axes = _axes(composed, Tokens(overrides=(f"experiment={name}",)))
    assert axes
    first = tuple(values[0] for values in axes.values())
    for key, values in axes.items():
        for value in values:
            point = (*(w for w in first if not w.startswith(f"{key}=")), value)
            made = settled(compose("sweep", (f"experiment={name}", *point)), ConfigRoot())
            check_cut(made, ConfigRoot(), (), axes)
