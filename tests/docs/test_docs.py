"""The documentation is run: its commands compose, its pages work as written, its site is whole."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swe_cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
EXTEND = (DOCS / "extend.md").read_text()
TUTORIAL = (DOCS / "tutorial.md").read_text()
KEYS = (DOCS / "reference/keys.md").read_text()
PAGES = [README, *(path.read_text() for path in [*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])]
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


def commands(*pages):
    blocks = [block for page in pages for block in re.findall(r"```console\n(.*?)```", page, re.S)]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("swe ")]
    return [shlex.split(line, comments=True)[1:] for line in dict.fromkeys(lines)]


@pytest.mark.parametrize("words", commands(*PAGES, KEYS), ids=" ".join)
def test_documented_commands_exist_and_compose(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myconf").mkdir()
    (tmp_path / "docs").symlink_to(DOCS)
    command = next(c for c in app.registered_commands if c.callback.__name__ == words[0])
    assert command is not None
    if words[0] in COMPOSED and "--config-dir" not in words:
        result = CliRunner().invoke(app, [*words, "--cfg"])
        assert result.exit_code == 0, result.output


def test_every_command_is_documented():
    for command in app.registered_commands:
        assert f"swe {command.callback.__name__}" in README


def test_every_package_is_in_the_file_tree():
    architecture = (DOCS / "architecture.md").read_text()
    for folder in (ROOT / "swe_cli").iterdir():
        if (folder / "__init__.py").is_file():
            assert f"  {folder.name}/" in architecture, folder.name


def test_the_extension_page_works_as_written(tmp_path, monkeypatch):
    files = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", EXTEND, re.S)
    assert len(files) == 4
    for name, text in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = [line for line in files[0][1].splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 10  # "A criterion in ten lines"
    (command,) = re.findall(r"<!-- run -->\n```console\nswe (.*?)\n```", EXTEND, re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWE_RESULTS_DIR", str(tmp_path / "results"))
    result = CliRunner().invoke(app, [*shlex.split(command), *TINY])
    assert result.exit_code == 0, result.output
    assert "steady" in result.output
    table = next((tmp_path / "results/runs").glob("sweep-*/table.csv")).read_text()
    assert table.count(",steady,") == 2


def test_the_tutorial_works_as_written(tmp_path, monkeypatch):
    """All of its commands, in their order, on a model that trains in a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWE_RESULTS_DIR", raising=False)
    few = ["ratios=0.3,0.5", "criteria=swe,magnitude", "base=final"]
    shorter = {"sweep": [*TINY, *few], "prune": ["recovery.steps=2"]}
    for words in commands(TUTORIAL):
        result = CliRunner().invoke(app, [*words, *shorter.get(words[0], [])])
        assert result.exit_code == 0, (words, result.output)
    (code,) = re.findall(r"```python\n(.*?)```", TUTORIAL, re.S)
    exec(code, {})


@pytest.mark.parametrize("name", ["compare_criteria", "reference", "reproduce_paper"])
def test_scripts_can_be_asked_for_help(name):
    script = ROOT / "scripts" / name
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert f"scripts/{name}" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


# The site


def test_the_reference_is_as_old_as_the_code(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts/reference", tmp_path], check=True)
    for page in tmp_path.iterdir():
        written = (DOCS / "reference" / page.name).read_text()
        assert written == page.read_text(), "Renew it: scripts/reference"


def test_the_site_is_built_without_a_warning_and_asks_for_nothing_outside(tmp_path):
    pytest.importorskip("zensical")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "swe_cli").symlink_to(ROOT / "swe_cli")
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.name: path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert "before_clip" in pages["python.html"]
    for page in pages.values():
        assert not re.search(
            r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//", page
        )
    (tmp_path / "docs/index.md").write_text("[gone](nowhere.md)")
    assert subprocess.run(build, cwd=tmp_path, capture_output=True).returncode
