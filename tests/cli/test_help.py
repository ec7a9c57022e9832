"""Help: quick, complete, with an example for every command."""

import subprocess
import sys

import pytest
import yaml

from swe_cli.app import app

NAMES = [command.callback.__name__ for command in app.registered_commands]


def test_help_imports_neither_torch_nor_hydra():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from swe_cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['sweep', '--help']).exit_code == 0\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'numpy', 'pandas', 'scipy', 'altair'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_says_what_it_does_and_shows_an_example(swe, name):
    shown = swe(name, "--help")
    command = next(c for c in app.registered_commands if c.callback.__name__ == name)
    assert shown.exit_code == 0
    assert command.callback.__doc__.split("\n")[0].split(":")[0][:30] in shown.output
    assert f"Example: swe {name}" in " ".join(shown.output.split())


def test_no_words_at_all_show_the_help(swe):
    assert all(name in swe().output for name in NAMES)


@pytest.mark.parametrize("name", ["train", "prune", "sweep", "evaluate"])
def test_the_configuration_can_be_looked_at(swe, name):
    shown = swe(name, "--cfg")
    assert shown.exit_code == 0
    assert "results_dir: null" in shown.output


def test_a_sweep_is_shown_as_it_would_run(swe):
    shown = yaml.safe_load(swe("sweep", "--cfg", "ratios=0.5,0.6", "seeds=3").stdout)
    assert shown["axes"] == {
        "criterion": ["swe", "magnitude", "random"],
        "ratio": [0.5, 0.6],
        "seed": [3],
    }
    assert shown["seed"] == 3
    assert swe("sweep", "--cfg", "seeds=0-2").exit_code == 2


def marked(shown, mark):
    lines = (line for line in shown.splitlines() if line.endswith(f"  # {mark}"))
    return [line.split(":")[0].strip() for line in lines]


def test_the_configuration_says_what_was_typed_and_what_an_experiment_set(swe):
    words = ["experiment=averages_gpt", "seeds=4,5", "training.steps=7", "update=none"]
    shown = swe("sweep", "--cfg", *words).stdout
    parsed = yaml.safe_load(shown)
    assert parsed["axes"]["seed"] == [4, 5]
    assert parsed["training"]["steps"] == 7
    assert marked(shown, "typed") == ["steps", "update", "seed", "seed"]
    # Of criteria_gpt, which it builds on, too.
    assert {"threads", "train_characters", "controls", "base"} <= {*marked(shown, "experiment")}
    assert "width" not in marked(shown, "experiment")


def test_a_choice_and_a_long_value_are_marked_and_still_yaml(swe, tmp_path):
    path = tmp_path / ("a very long folder name " * 6) / "text.txt"
    shown = swe("train", "--cfg", "data=text_file", f"data.path={path}").stdout
    assert yaml.safe_load(shown)["data"]["path"] == str(path)
    assert marked(shown, "typed") == ["data", "path"]
    assert marked(swe("train", "--cfg").stdout, "typed") == []
