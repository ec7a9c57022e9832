"""A tiny model, text and training, from configuration to files, that take milliseconds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_cli.config import ConfigRoot, component, compose, read_tokens
from swe_cli.contracts import Dataset, DataShape, Model, Setup
from swe_cli.data.text import StringSource, Text
from swe_cli.data.tokenizers import CharTokenizer
from swe_cli.data.tokens import TextDataset
from swe_cli.device import Machine
from swe_cli.experiments.ensure import ensure_trained
from swe_cli.experiments.jobs import Outcome, run_sweep
from swe_cli.experiments.model import TrainedModel
from swe_cli.experiments.sweep import SweepPlan, plan_sweep
from swe_cli.experiments.training import TrainingSpec, stored_training, training_spec
from swe_cli.files import read_tensors
from swe_cli.models.gpt import GPT
from swe_cli.records import Batch, Row, Tensors
from swe_cli.seeds import global_randomness
from swe_cli.store import Run
from swe_cli.training.recipe import Recipe
from swe_cli.training.state import Callback, TrainState

MACHINE = Machine(torch.device("cpu"), "float32", 1)
SENTENCE = "in the beginning was light and day and night over the face of deep waters"
WORDS = SENTENCE.split()

# Everything that could spoil a bit-identical resume: dropout, a tied head, accumulation.
TINY = (
    "threads=1",
    "device=cpu",
    "model.layers=1",
    "model.heads=2",
    "model.width=16",
    "model.context=16",
    "model.dropout=0.2",
    "training.batch_size=2",
    "training.accumulation=2",
    "training.steps=8",
    "training.warmup_steps=3",
    "training.evaluate_every=3",
    "training.checkpoint_every=2",
    "tracking.sample=20",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on two threads, far slower where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def text_of(words: int, seed: int = 1) -> str:
    """A text that is the same everywhere, without repeating itself."""
    chosen, state = [], seed
    for _ in range(words):
        state = (1103515245 * state + 12345) % 2**31
        chosen.append(WORDS[(state >> 16) % len(WORDS)])
    return " ".join(chosen)


def dataset_of(train: str, validation: str, test: str) -> TextDataset:
    middle = len(train) + len(validation)
    whole = train + validation + test
    splits = {"train": (0, len(train)), "validation": (len(train), middle)}
    text = Text(StringSource(whole), {**splits, "test": (middle, len(whole))})
    return TextDataset(text, CharTokenizer(text))


def dataset(words: int = 400) -> TextDataset:
    return dataset_of(text_of(words), text_of(40, seed=2), text_of(40, seed=3))


def gpt(vocabulary_size: int, name: str = "gpt_nano", *, seed: int = 0, **options) -> GPT:
    """A model of ``conf/model`` made small; ``options`` replace what its YAML says."""
    small = {"layers": 1, "heads": 2, "width": 16, "context": 16}
    chosen = {**component("model", name, ConfigRoot()).options, **small, **options}
    with global_randomness(seed, "init"):
        return GPT(DataShape(vocabulary_size), **chosen)


def setup_of(model: Model, data: Dataset, seed: int = 1, machine: Machine = MACHINE) -> Setup:
    return Setup(model, data, machine, seed)


def recipe(**options) -> Recipe:
    return Recipe(**{**component("training", "adamw", ConfigRoot()).options, **options})


def batch_of(vocabulary_size: int, size: int = 3, context: int = 16, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(vocabulary_size, (size, context + 1), generator=generator)
    return {"tokens": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}


NOWHERE = Path("no-results")  # a training that starts from no other run never looks


class Silent(Callback):
    """An observer of sweeps that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.trained: list[str] = []
        self.rows: list[Row] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def training(self, name: str, steps: int) -> "Silent":
        self.trained.append(name)
        return self

    def cells(self, total: int, reused: int) -> None:
        pass

    def working(self, jobs: Sequence[str]) -> None:
        pass

    def cell_done(self, row: Row) -> None:
        self.rows.append(row)


class Steps(Callback):
    """Calls back with the state of a training, after every step."""

    def __init__(self, look) -> None:
        self.look = look

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        self.look(state)


def never() -> bool:
    return False


class After:
    """A question whose answer is yes from the ``count``-th time on."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def write_text(folder: Path, words: int = 700, seed: int = 1) -> Path:
    path = folder / "text.txt"
    path.write_text(text_of(words, seed))
    return path


def words_for(text: Path, *overrides: str) -> tuple[str, ...]:
    """What one would type after ``swe train``."""
    return ("data=text_file", f"data.path={text}", *TINY, *overrides)


def spec_of(
    text: Path, *overrides: str, statistics: Iterable[str] = ("mean",), results: Path = NOWHERE
) -> TrainingSpec:
    tokens = read_tokens(words_for(text, *overrides))
    composed = compose("train", tokens.overrides, ConfigRoot())
    return training_spec(composed, ConfigRoot(), results, statistics)


def opened(run: Run) -> TrainedModel:
    """The model of a finished training."""
    return stored_training(run, ConfigRoot()).open()


def run_of(spec: TrainingSpec, results: Path) -> Run:
    return Run(results / "runs" / spec.run.name)


def trained(spec: TrainingSpec, results: Path, stop=never) -> Run:
    """Train as swe train does; a run that is finished already is left alone."""
    spec = replace(spec, run=run_of(spec, results))
    ensure_trained(spec, Silent(), stop)
    return spec.run


def sweep_of(text: Path, results: Path, *words: str, root: ConfigRoot | None = None) -> SweepPlan:
    """What ``swe sweep`` would run."""
    return plan_sweep(read_tokens(words_for(text, *words)), root or ConfigRoot(), results)


def swept(plan: SweepPlan, stop=never, observer: Silent | None = None) -> Outcome:
    """Run what is missing of a sweep."""
    return run_sweep(plan, observer or Silent(), stop)


FILES = ("model.safetensors", "best.safetensors", "trajectory.safetensors")


def contents(run: Run) -> tuple[dict[str, Tensors], str]:
    """All tensors a finished training left, by file, and its metrics."""
    assert run.finished
    return {name: read_tensors(run.path / name) for name in FILES}, metrics(run)


def metrics(run: Run) -> str:
    return (run.path / "metrics.jsonl").read_text()


def assert_same(one: tuple[dict[str, Tensors], str], other: tuple[dict[str, Tensors], str]) -> None:
    """Every tensor of every file bit for bit, and the metrics character by character."""
    for name in FILES:
        assert_same_tensors(one[0][name], other[0][name], name)
    assert one[1] == other[1]


def assert_same_tensors(one: Tensors, other: Tensors, where: str = "") -> None:
    assert list(one) == list(other), where
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{where}: {different}"


def files_under(folder: Path) -> Sequence[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
