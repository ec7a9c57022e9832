"""The documentation is run: its commands compose, its extension example works as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swe_cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXTEND = (ROOT / "docs/extend.md").read_text()
TINY = [
    "model.layers=1",
    "model.heads=2",
    "model.width=16",
    "model.context=16",
    "training.steps=6",
    "training.batch_size=4",
    "training.evaluate_every=3",
    "recovery.steps=2",
    "data.train_characters=3000",
    "data.validation_characters=400",
    "data.test_characters=600",
]
COMPOSED = ("train", "prune", "sweep", "evaluate")


def commands(page):
    blocks = re.findall(r"```console\n(.*?)```", page, re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("swe ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("words", commands(README) + commands(EXTEND), ids=" ".join)
def test_documented_commands_exist_and_compose(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myconf").mkdir()
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    command = next(c for c in app.registered_commands if c.callback.__name__ == words[0])
    assert command is not None
    if words[0] in COMPOSED and "--config-dir" not in words:
        result = CliRunner().invoke(app, [*words, "--cfg"])
        assert result.exit_code == 0, result.output


def test_every_command_is_documented():
    for command in app.registered_commands:
        assert f"swe {command.callback.__name__}" in README


def test_every_package_is_in_the_file_tree():
    for folder in (ROOT / "swe_cli").iterdir():
        if (folder / "__init__.py").is_file():
            assert f"  {folder.name}/" in README, folder.name


def test_the_extension_page_works_as_written(tmp_path, monkeypatch):
    files = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", EXTEND, re.S)
    assert len(files) == 4
    for name, text in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (command,) = re.findall(r"<!-- run -->\n```console\nswe (.*?)\n```", EXTEND, re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWE_RESULTS_DIR", str(tmp_path / "results"))
    result = CliRunner().invoke(app, [*shlex.split(command), *TINY])
    assert result.exit_code == 0, result.output
    assert "steady" in result.output
    table = next((tmp_path / "results/runs").glob("sweep-*/table.csv")).read_text()
    assert table.count(",steady,") == 2


def test_the_readme_shows_the_same_criterion_and_it_has_ten_lines():
    (shown,) = re.findall(r"`mine/steady.py`:\n\n```python\n(.*?)```", README, re.S)
    (tested,) = re.findall(r"<!-- file: mine/steady.py -->\n```python\n(.*?)```", EXTEND, re.S)
    assert shown == tested
    code = [line for line in shown.splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 10


@pytest.mark.parametrize("name", ["compare_criteria", "reproduce_paper"])
def test_scripts_can_be_asked_for_help(name):
    script = ROOT / "scripts" / name
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert f"scripts/{name}" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
