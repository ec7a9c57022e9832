"""What every test gets: folders of its own, and, where asked for, one tiny trained run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

TINY = [
    "model.layers=1",
    "model.heads=2",
    "model.width=16",
    "model.context=16",
    "training.steps=4",
    "training.batch_size=2",
    "training.evaluate_every=2",
    "data.train_characters=2000",
    "data.validation_characters=200",
    "data.test_characters=300",
    "recovery.steps=2",
]
TINY_TRAINING = tuple(word for word in TINY if not word.startswith("recovery"))


@dataclass(frozen=True)
class TinyRun:
    """A results root with one training and one cut of it. Copy it before you damage it."""

    results: Path
    name: str
    pruned: str

    @property
    def path(self) -> Path:
        return self.results / "runs" / self.name

    @property
    def pruned_path(self) -> Path:
        return self.results / "runs" / self.pruned


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or spoils the user's results and cache."""
    monkeypatch.setenv("SWE_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("SWE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SWE_DATA_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session")
def tiny_words() -> tuple[str, ...]:
    """Overrides of swe train that finish in a moment."""
    return TINY_TRAINING


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One tiny training and one cut, shared by all tests that only read."""
    from swe_cli.app import app

    results = tmp_path_factory.mktemp("tiny") / "results"
    at = f"results_dir={results}"
    trained = CliRunner().invoke(app, ["train", "-q", *TINY_TRAINING, at])
    assert trained.exit_code == 0, trained.output
    cut = ["prune", "-q", "--ratio", "0.5", "recovery.steps=2", at]
    pruned = CliRunner().invoke(app, cut)
    assert pruned.exit_code == 0, pruned.output
    return TinyRun(results, trained.stdout.split()[0], pruned.stdout.split()[0])


@pytest.fixture
def own_run(tiny_run: TinyRun, tmp_path: Path) -> TinyRun:
    """A copy of the tiny run where the test's commands look for runs; damage it at will."""
    results = tmp_path / "results"
    shutil.copytree(tiny_run.results, results)
    return TinyRun(results, tiny_run.name, tiny_run.pruned)


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps run in this process, where tests look into them, unless a test asks for workers."""
    from swe_cli.launchers import local

    monkeypatch.setattr(local, "cores", lambda: 1)


@pytest.fixture
def swe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command in the test's own folder; an exception that is no exit fails the test."""
    from swe_cli.app import app
    from swe_cli.experiments import training

    monkeypatch.chdir(tmp_path)

    def run(*words: object, input: str | None = None) -> Result:
        training._dataset.cache_clear()  # both are kept for one process
        training.OPEN.clear()
        typed = [str(word) for word in words]
        return CliRunner().invoke(app, typed, input=input, catch_exceptions=False)

    return run
