"""From a composed configuration to things that run, and from a stored run back to them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from swe_cli.compose import (
    Composed,
    ConfigRoot,
    Part,
    default_part,
    described_options,
    part,
)
from swe_cli.contracts import Dataset, Model, Split, Tensors
from swe_cli.data.dataset import dataset_of
from swe_cli.errors import DataError, RunError, UsageError
from swe_cli.evaluation.measure import controls_of
from swe_cli.files import canonical
from swe_cli.machine import resolve
from swe_cli.pruning.shrink import load
from swe_cli.records import Kind
from swe_cli.runs import Run, find_run, identity
from swe_cli.seeds import global_randomness
from swe_cli.sweeps.adopt import adopt, check_same_tower, shared_tokens
from swe_cli.training.loop import as_module, check_roles
from swe_cli.training.train import Training

FROM_RUN = "from_run"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TRAINING_GROUPS = ("model", "data", "tokenizer", "pretraining", "training", "tracking")
ALWAYS_RECORDED = "weighted_average"  # the dense_averaged control and base=averaged need it
# These change when results are safe and what is recorded, not the weights that come out.
NOT_IDENTITY = {
    "training": ("checkpoint_every",),
    "pretraining": ("checkpoint_every",),
    "tracking": ("statistics", "snapshots"),
}


def results_root(setting: str | None) -> Path:
    """``results_dir=…``, else ``$SWE_RESULTS_DIR``, else ``results/`` in the current folder."""
    return Path(setting or os.environ.get("SWE_RESULTS_DIR") or "results").expanduser()


@dataclass(frozen=True)
class TrainingPlan:
    """A training that may or may not have run: its identity, its name, and how to build it.

    ``config`` is what is stored: ``identity`` (content hashes in place of paths) and ``paths``.
    ``first`` is the training whose final weights this one starts from, if it has two stages.
    ``controls`` are those that its data set adds to every table. ``snapshots``: the steps after
    which all of it is kept.
    """

    config: dict[str, Any]
    composed: Composed
    statistics: tuple[str, ...]
    root: ConfigRoot
    first: "TrainingPlan | None" = None
    controls: tuple[Kind, ...] = ()
    snapshots: tuple[int, ...] = ()

    @property
    def hash(self) -> str:
        return identity(self.config["identity"])

    @property
    def name(self) -> str:
        return f"train-{self.composed['model'].name}-{self.hash[:8]}"

    def run(self, results: Path) -> Run:
        return Run(results / "runs" / self.name)

    def build(self, results: Path) -> Training:
        """Load the data, make the model and what trains and tracks it."""
        values, parts = self.composed.values, self.composed.parts
        machine = resolve(values["device"], values["dtype"], values["threads"])
        dataset = load_dataset(parts["data"], parts["tokenizer"])
        model = new_model(parts["model"], dataset, values["seed"])
        if self.first is not None:
            run = self.first.run(results)
            load(as_module(model), run.tensors("model.safetensors"), run.name)
        else:
            _start_from_runs(model, parts["model"], dataset, self.config["paths"], self.root)
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
            snapshots=self.snapshots,
        )


def plan_training(
    composed: Composed,
    root: ConfigRoot,
    results: Path,
    statistics: Iterable[str] = (),
    snapshots: Iterable[int] = (),
) -> TrainingPlan:
    """What would be trained, and under which name. Reads the data once, for its hash."""
    values, parts = composed.values, composed.parts
    machine = resolve(values["device"], values["dtype"], values["threads"])
    for group in ("training", "tracking"):
        parts[group].build()  # options that cannot be are refused before any work
    trains = parts["training"].options["trains"]
    check_roles_of(parts["model"], [] if trains == "all" else trains, "training.trains")
    dataset = load_dataset(parts["data"], parts["tokenizer"])
    described = {group: _without_paths(parts[group]) for group in TRAINING_GROUPS}
    described["data"]["sha256"] = dataset.sha256
    described["seed"], described["machine"] = values["seed"], machine.identity()
    paths = {}
    for group in TRAINING_GROUPS:
        for key, value in parts[group].paths().items():
            path = Path(value).expanduser().resolve()
            if key.endswith(FROM_RUN):
                run = _finished(find_run(value, results, ("train", "prune")))
                _set(described[group], key, run.manifest["files"]["model.safetensors"])
                path = run.path
            paths[f"{group}.{key}"] = str(path)
    kept = tuple(sorted({*snapshots, *parts["tracking"].options["snapshots"]}))
    steps = parts["training"].options["steps"]
    if kept and kept[-1] > steps:
        raise UsageError(
            f"tracking.snapshots names step {kept[-1]}; the training ends at {steps}.",
            f"Write tracking.snapshots=[{steps // 2}]",
        )
    asked = parts["tracking"].options["statistics"]
    for name in asked:
        default_part("statistic", name, root)  # an unknown name is refused before any work
    recorded = tuple(sorted({ALWAYS_RECORDED, *statistics, *asked}))
    return TrainingPlan(
        {"identity": described, "paths": paths},
        composed,
        recorded,
        root,
        _first_stage(composed, root, results),
        controls_of(dataset),
        kept,
    )


def _first_stage(composed: Composed, root: ConfigRoot, results: Path) -> TrainingPlan | None:
    """The same training by the recipe of ``pretraining``, with none before it."""
    chosen = composed["pretraining"]
    if chosen.build() is None:
        return None
    none = default_part("pretraining", "none", root)
    parts = {**composed.parts, "training": chosen, "pretraining": none}
    return plan_training(replace(composed, parts=parts), root, results)


def roles_of(model: Part) -> Sequence[str] | None:
    """The roles of a model that is not built yet; None where only the model itself can say."""
    roles = getattr(model.target, "roles", None)
    return roles if isinstance(roles, tuple | list) else None


def check_roles_of(model: Part, asked: Sequence[str], key: str) -> None:
    """Raise UsageError for a role that a model, not built yet, does not have."""
    roles = roles_of(model)
    check_roles(asked if roles is None else roles, asked, key)


def _without_paths(chosen: Part) -> dict[str, Any]:
    described = chosen.describe()
    for key in (*chosen.paths(), *NOT_IDENTITY.get(chosen.group, ())):
        _set(described, key, None)
    return described


def _set(described: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, or with None leave it out."""
    *outer, last = key.split(".")
    for name in outer:
        described = described[name]
    if value is None:
        described.pop(last, None)
    else:
        described[last] = value


def _finished(run: Run) -> Run:
    if not run.finished:
        raise RunError(
            f"{run.name} is {run.status}: it has no final weights yet.",
            "Type the command that makes it again: it resumes.",
        )
    return run


def _start_from_runs(
    model: Model, chosen: Part, dataset: Dataset, paths: Mapping[str, str], root: ConfigRoot
) -> None:
    """Put the weights of other runs into the towers whose ``from_run`` names one."""
    for key, path in paths.items():
        if not (key.startswith("model.") and key.endswith(FROM_RUN)):
            continue
        role = key.removeprefix("model.").removesuffix(FROM_RUN).rstrip(".")
        run = Run(Path(path))

        trained = Run(run.path.parent / run.config["training"]) if run.kind == "prune" else run
        ours = chosen.options[role] if role else chosen
        check_same_tower(role, ours.describe(), trained.config["identity"]["model"], run.name)

        @cache
        def tokens(trained: Run = trained) -> dict[int, int]:
            return shared_tokens(dataset, dataset_of_run(trained, root))

        tower = as_module(model).get_submodule(role)
        adopt(tower, role, run.tensors("model.safetensors"), run.name, tokens)


def load_dataset(data: Part, tokenizer: Part) -> Dataset:
    """Data and tokenizer made into token windows; once a process for the same choice."""
    described = [data.describe(), tokenizer.describe(), *_file_states(data)]
    return _dataset(canonical(described), _Held((data, tokenizer)))


def _file_states(data: Part) -> list[list[int]]:
    """Size and time of the files that data are read from: one that changed is read again (of a
    folder, one that something was added to or taken from).
    """
    paths = [Path(value).expanduser() for value in data.paths().values()]
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
    return dataset_of(data.build(), tokenizer.build)


def new_model(chosen: Part, dataset: Dataset, seed: int) -> Model:
    with global_randomness(seed, "init"):
        model: Model = chosen.build(dataset.shape)
    return model


def _make_statistic(chosen: Part, weights: Tensors) -> Any:
    return chosen.build(weights)


# Of a stored run


def dataset_of_run(run: Run, root: ConfigRoot) -> Dataset:
    """What a run was trained on; DataError where that has changed."""
    stored = run.config
    described = stored["identity"]
    data, tokenizer = (
        stored_part(group, described, stored["paths"], root) for group in ("data", "tokenizer")
    )
    dataset = load_dataset(data, tokenizer)
    if dataset.sha256 != described["data"]["sha256"]:
        raise DataError(
            f"The data of {run.name} has changed since it was trained.",
            "Put the old data back, or train again on the new ones.",
        )
    return dataset


def stored_part(
    group: str, described: Mapping[str, Any], paths: Mapping[str, str], root: ConfigRoot
) -> Part:
    options = {k: v for k, v in described_options(described[group]).items() if k != "sha256"}
    prefix = f"{group}."
    for key, path in paths.items():
        if key.startswith(prefix):
            _set(options, key.removeprefix(prefix), path)
    return part(group, described[group]["name"], options, root)
