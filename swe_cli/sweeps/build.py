"""From a composed configuration to things that run, and from a stored run back to them."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from swe_cli.compose import (
    Composed,
    ConfigRoot,
    Part,
    default_part,
    described_options,
    is_path_key,
    part,
)
from swe_cli.contracts import Dataset, Model, Split, Tensors
from swe_cli.data.text import Text
from swe_cli.data.tokens import tokenize
from swe_cli.errors import DataError, RunError
from swe_cli.files import canonical
from swe_cli.machine import Machine, resolve
from swe_cli.pruning.cut import Scoring
from swe_cli.runs import Run, identity
from swe_cli.seeds import global_randomness
from swe_cli.training.loop import as_module
from swe_cli.training.tracker import statistic_of
from swe_cli.training.train import Training

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TRAINING_GROUPS = ("model", "data", "tokenizer", "training", "tracking")
ALWAYS_RECORDED = "weighted_average"  # the dense_averaged control and base=averaged need it
# These change when results are safe and what is recorded, not the weights that come out.
NOT_IDENTITY = {"training": ("checkpoint_every",), "tracking": ("statistics",)}


def results_root(setting: str | None) -> Path:
    """``results_dir=…``, else ``$SWE_RESULTS_DIR``, else ``results/`` in the current folder."""
    return Path(setting or os.environ.get("SWE_RESULTS_DIR") or "results").expanduser()


@dataclass(frozen=True)
class TrainingPlan:
    """A training that may or may not have run: its identity, its name, and how to build it.

    ``config`` is what is stored: ``identity`` (content hashes in place of paths) and ``paths``.
    """

    config: dict[str, Any]
    composed: Composed
    statistics: tuple[str, ...]
    root: ConfigRoot

    @property
    def hash(self) -> str:
        return identity(self.config["identity"])

    @property
    def name(self) -> str:
        return f"train-{self.composed['model'].name}-{self.hash[:8]}"

    def run(self, results: Path) -> Run:
        return Run(results / "runs" / self.name)

    def build(self) -> Training:
        """Load the text, make the model and what trains and tracks it."""
        values, parts = self.composed.values, self.composed.parts
        machine = resolve(values["device"], values["dtype"], values["threads"])
        dataset = load_dataset(parts["data"], parts["tokenizer"])
        model = _new_model(parts["model"], dataset, values["seed"])
        for split in SPLITS:  # a split that is too short is refused before anything is written
            dataset.windows(split, context=model.context, size=1)
        return Training(
            config=self.config,
            model=model,
            dataset=dataset,
            recipe=parts["training"].build(),
            tracking=parts["tracking"].build(),
            statistics={
                name: partial(_make_statistic, default_part("statistic", name, self.root))
                for name in self.statistics
            },
            seed=values["seed"],
            machine=machine,
        )


def plan_training(
    composed: Composed, root: ConfigRoot, statistics: Iterable[str] = ()
) -> TrainingPlan:
    """What would be trained, and under which name. Reads the text once, for its hash."""
    values, parts = composed.values, composed.parts
    machine = resolve(values["device"], values["dtype"], values["threads"])
    for group in ("training", "tracking"):
        parts[group].build()  # options that cannot be are refused before any work
    dataset = load_dataset(parts["data"], parts["tokenizer"])
    described = {group: _without_paths(parts[group]) for group in TRAINING_GROUPS}
    described["data"]["sha256"] = dataset.sha256
    described["seed"], described["machine"] = values["seed"], machine.identity()
    paths = {
        f"{group}.{key}": str(Path(value).expanduser().resolve())
        for group in TRAINING_GROUPS
        for key, value in parts[group].options.items()
        if is_path_key(key) and value is not None
    }
    asked = parts["tracking"].options["statistics"]
    for name in asked:
        default_part("statistic", name, root)  # an unknown name is refused before any work
    recorded = tuple(sorted({ALWAYS_RECORDED, *statistics, *asked}))
    return TrainingPlan({"identity": described, "paths": paths}, composed, recorded, root)


def _without_paths(chosen: Part) -> dict[str, Any]:
    left_out = NOT_IDENTITY.get(chosen.group, ())
    return {
        key: value
        for key, value in chosen.describe().items()
        if not is_path_key(key) and key not in left_out
    }


def load_dataset(data: Part, tokenizer: Part) -> Dataset:
    """Text and tokenizer made into token windows; once a process for the same choice."""
    described = [data.describe(), tokenizer.describe(), *_file_states(data)]
    return _dataset(canonical(described), _Held((data, tokenizer)))


def _file_states(data: Part) -> list[list[int]]:
    """Size and time of the files that a text is read from: one that changed is read again."""
    paths = [Path(v).expanduser() for k, v in data.options.items() if is_path_key(k) and v]
    states = [path.stat() for path in paths if path.exists()]
    return [[state.st_size, state.st_mtime_ns] for state in states]


class _Held(tuple[Part, Part]):
    """An argument that the cache below does not compare: the text beside it tells parts apart."""

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)


@lru_cache(maxsize=4)
def _dataset(key: str, parts: _Held) -> Dataset:
    data, tokenizer = parts
    built = data.build()
    if not isinstance(built, Text):
        dataset: Dataset = built  # brings its own tokens
        return dataset
    return tokenize(built, tokenizer.build(built))


def _new_model(chosen: Part, dataset: Dataset, seed: int) -> Model:
    with global_randomness(seed, "init"):
        model: Model = chosen.build(dataset.vocabulary_size)
    return model


def _make_statistic(chosen: Part, weights: Tensors) -> Any:
    return chosen.build(weights)


# From a stored run


@dataclass
class Subject:
    """A finished training, loaded: the weights one can cut, the trajectory, the data."""

    run: Run
    identity: dict[str, Any]
    model: Model
    dataset: Dataset
    machine: Machine
    trajectory: dict[str, Tensors]
    scorings: dict[str, Scoring] = field(default_factory=dict)

    def weights(self, base: str) -> Tensors:
        """Parameters by name: ``final``, ``best`` (validation) or ``averaged`` (W̄)."""
        if base == "averaged":
            return self.trajectory[ALWAYS_RECORDED]
        return self.run.tensors({"final": "model", "best": "best"}[base] + ".safetensors")

    def load(self, weights: Tensors) -> Model:
        """The one model of this subject, holding a copy of ``weights``."""
        load_weights(self.model, weights, self.run.name)
        return self.model


def load_subject(
    run: Run, root: ConfigRoot, device: str = "auto", threads: int | None = None
) -> Subject:
    """Open a finished training run. Its dtype and, unless given, its threads are those it had."""
    if not run.finished:
        raise RunError(
            f"{run.name} is {run.status}: it has no final weights yet.",
            "Type the command that trains it again: it resumes.",
        )
    stored = run.config
    described = stored["identity"]
    machine = resolve(device, described["machine"]["dtype"], threads or _threads(described))
    data, tokenizer = (
        _stored_part(group, described, stored["paths"], root) for group in ("data", "tokenizer")
    )
    dataset = load_dataset(data, tokenizer)
    if dataset.sha256 != described["data"]["sha256"]:
        raise DataError(
            f"The text of {run.name} has changed since it was trained.",
            "Put the old text back, or train again on the new one.",
        )
    model = _new_model(_stored_part("model", described, stored["paths"], root), dataset, seed=0)
    as_module(model).to(machine.device)
    expected = dataset.fingerprint("test", context=model.context)
    if run.manifest.get("fingerprint", expected) != expected:
        raise DataError(
            f"The text of {run.name} is now cut into other tokens than it was trained on.",
            "Put the old tokenizer (or its package's version) back, or train again.",
        )
    saved = run.tensors("trajectory.safetensors")
    statistics = run.manifest["tracker"]["statistics"]
    trajectory = {name: statistic_of(saved, name) for name in statistics}
    return Subject(run, described, model, dataset, machine, trajectory)


def load_weights(model: Model, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy ``weights`` into ``model``; RunError where names or shapes do not fit."""
    parameters = dict(as_module(model).named_parameters())
    if parameters.keys() != weights.keys():
        raise RunError(f"The weights of {source} are not those of its model.")
    for name, parameter in parameters.items():
        parameter.data.copy_(weights[name])


def _threads(described: Mapping[str, Any]) -> int | None:
    threads: int | None = described["machine"]["threads"]
    return threads


def _stored_part(
    group: str, described: Mapping[str, Any], paths: Mapping[str, str], root: ConfigRoot
) -> Part:
    options = {k: v for k, v in described_options(described[group]).items() if k != "sha256"}
    prefix = f"{group}."
    options |= {k.removeprefix(prefix): p for k, p in paths.items() if k.startswith(prefix)}
    return part(group, described[group]["name"], options, root)
