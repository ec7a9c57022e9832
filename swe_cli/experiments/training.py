"""A training as a specification: its identity and name, how it is built, and that it has run."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from swe_cli.config import (
    Component,
    Composed,
    ConfigRoot,
    component,
    described_options,
    source_of,
)
from swe_cli.contracts import Dataset, Model, Setup, Split
from swe_cli.data.tokens import dataset_of
from swe_cli.device import resolve
from swe_cli.errors import DataError, UsageError
from swe_cli.experiments.init_from_run import init_from_run
from swe_cli.experiments.spec import built
from swe_cli.files import canonical, write_json
from swe_cli.pruning.shrink import load
from swe_cli.records import Row
from swe_cli.seeds import global_randomness
from swe_cli.store import Run, find_run, identity
from swe_cli.training.checkpoint import CHECKPOINTS
from swe_cli.training.recipe import Recipe, check_roles
from swe_cli.training.run import Training, lacks, train_run
from swe_cli.training.state import Callback
from swe_cli.training.tracker import Tracking

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


class Observer:
    """Who watches a sweep; every call is information, none is a question. This one looks away."""

    def say(self, text: str) -> None:
        """A sentence."""

    def training(self, name: str, steps: int) -> Callback:
        """A training begins; what is handed back watches its steps."""
        return Callback()

    def cells(self, total: int, reused: int) -> None:
        """The cells begin."""

    def cell_done(self, row: Row) -> None:
        """One more is there."""


NOBODY = Observer()


def never() -> bool:
    """Nobody asks to stop."""
    return False


def results_root(setting: str | None) -> Path:
    """``results_dir=…``, else ``$SWE_RESULTS_DIR``, else ``results/`` in the current folder."""
    return Path(setting or os.environ.get("SWE_RESULTS_DIR") or "results").expanduser()


@dataclass(frozen=True)
class TrainingSpec:
    """A training that may or may not have run. It can be pickled.

    ``config`` is what is stored: ``identity`` (content hashes in place of paths) and ``paths``.
    ``first`` is the training whose final weights this one starts from, if it has two stages.
    ``questions``: whether its data are; ``notes``: what to say of them. ``snapshots``: the steps
    after which all of it is kept.
    """

    config: dict[str, Any]
    composed: Composed
    root: ConfigRoot
    results: Path
    statistics: Mapping[str, Component]
    first: "TrainingSpec | None" = None
    questions: bool = False
    notes: tuple[str, ...] = ()
    snapshots: tuple[int, ...] = ()

    @cached_property
    def hash(self) -> str:
        return identity(self.config["identity"])

    @property
    def name(self) -> str:
        return f"train-{self.composed['model'].name}-{self.hash[:8]}"

    @property
    def run(self) -> Run:
        return Run(self.results / "runs" / self.name)

    @property
    def sources(self) -> dict[str, str | None]:
        """Of every statistic, the hash of its code where a user wrote it."""
        return {name: source_of(chosen) for name, chosen in self.statistics.items()}

    @property
    def lacking(self) -> list[str]:
        """In words: what of this its finished run did not record."""
        return lacks(self.run, self.sources, self.snapshots)

    def done(self) -> bool:
        """Whether a finished run serves."""
        whole = not (self.run.path / CHECKPOINTS).exists()  # else it was being trained again
        return self.run.finished and whole and not self.lacking

    def build(self) -> Training:
        """Load the data, make the model and what trains and tracks it."""
        values, composed = self.composed.values, self.composed
        machine = resolve(values["device"], values["dtype"], values["threads"])
        dataset = load_dataset(composed["data"], composed["tokenizer"])
        model = new_model(composed["model"], dataset, values["seed"])
        if self.first is not None:
            load(model, self.first.run.tensors("model.safetensors"), self.first.name)
        else:
            self._start_from_runs(model, dataset)
        for split in SPLITS:  # a split that is too short is refused before anything is written
            dataset.windows(split, context=model.context, size=1)
        return Training(
            Setup(model, dataset, machine, values["seed"]),
            recipe=composed["training"].instance,
            tracking=composed["tracking"].instance,
            statistics={name: partial(built, c) for name, c in self.statistics.items()},
            config=self.config,
            sources={name: source for name, source in self.sources.items() if source},
            snapshots=self.snapshots,
        )

    def _start_from_runs(self, model: Model, dataset: Dataset) -> None:
        """Put the weights of other runs into the towers whose ``from_run`` names one."""
        chosen = self.composed["model"]
        for key, path in self.config["paths"].items():
            if not (key.startswith("model.") and key.endswith(FROM_RUN)):
                continue
            role = key.removeprefix("model.").removesuffix(FROM_RUN).rstrip(".")
            run = Run(Path(path))
            trained = Run(run.path.parent / run.config["training"]) if run.kind == "prune" else run
            init_from_run(
                model.get_submodule(role),
                role,
                (chosen.options[role] if role else chosen).describe(),
                run,
                trained.config["identity"]["model"],
                dataset,
                partial(dataset_of_run, trained, self.root),
            )


def training_spec(
    composed: Composed,
    root: ConfigRoot,
    results: Path,
    statistics: Iterable[str] = (),
    snapshots: Iterable[int] = (),
) -> TrainingSpec:
    """What would be trained, and under which name. Reads the data once, for its hash."""
    values = composed.values
    machine = resolve(values["device"], values["dtype"], values["threads"])
    recipe: Recipe = composed["training"].instance  # options that cannot be are refused
    tracking: Tracking = composed["tracking"].instance
    check_roles_of(composed["model"], recipe.trains, "training.trains")
    dataset = load_dataset(composed["data"], composed["tokenizer"])
    described = {group: _without_paths(composed[group]) for group in TRAINING_GROUPS}
    described["data"]["sha256"] = dataset.sha256
    described["seed"], described["machine"] = values["seed"], machine.identity()
    paths = {}
    for group in TRAINING_GROUPS:
        for key, value in composed[group].paths().items():
            path = Path(value).expanduser().resolve()
            if key.endswith(FROM_RUN):
                run = find_run(value, results, ("train", "prune"))
                run.check_finished("makes")
                _set(described[group], key, run.manifest["files"]["model.safetensors"])
                path = run.path
            paths[f"{group}.{key}"] = str(path)
    kept = tuple(sorted({*snapshots, *tracking.snapshots}))
    if kept and kept[-1] > recipe.steps:
        raise UsageError(
            f"tracking.snapshots names step {kept[-1]}; the training ends at {recipe.steps}.",
            f"Write tracking.snapshots=[{recipe.steps // 2}]",
        )
    recorded = sorted({ALWAYS_RECORDED, *statistics, *tracking.statistics})
    first, pretraining = None, composed["pretraining"]
    if pretraining.instance is not None:  # the same by another recipe, with none before it
        none = component("pretraining", "none", root)
        asked = composed["tracking"]  # what is kept besides is asked of the stage that is cut
        plain = replace(asked, options={**asked.options, "statistics": [], "snapshots": []})
        stage = composed.components | {
            "training": pretraining,
            "pretraining": none,
            "tracking": plain,
        }
        first = training_spec(replace(composed, components=stage), root, results)
    return TrainingSpec(
        {"identity": described, "paths": paths},
        composed,
        root,
        results,
        {name: component("statistic", name, root) for name in recorded},
        first,
        dataset.questions,
        tuple(dataset.notes),
        kept,
    )


def ensure_trained(
    spec: TrainingSpec,
    observer: Observer = NOBODY,
    stop: Callable[[], bool] = never,
    *,
    resume: str,
    wait: bool = True,
) -> bool:
    """Train unless a finished run already serves; whether training ran. With ``wait`` whoever
    trains the same is waited for.

    A finished run that lacks a statistic or a snapshot is trained again, and that is said.
    """
    run = spec.run
    if spec.done():
        if run.config["paths"] != spec.config["paths"]:
            # The same text at another path is the same training; later commands read it there.
            write_json(run.path / "config.json", spec.config)
        return False
    with run.hold(wait):
        if spec.done():  # finished while we waited
            return False
        if spec.first is not None:
            ensure_trained(spec.first, observer, stop, resume=resume, wait=wait)
        if run.finished:
            if spec.lacking:
                lacking = ", ".join(spec.lacking)
                observer.say(f"{run.name} did not record {lacking}: training it again.")
            recorded, known = run.manifest["tracker"]["statistics"], spec.root.options("statistic")
            if strange := sorted({*recorded} - {*known}):  # of a --config-dir that was not given
                observer.say(f"It will no longer hold {', '.join(strange)}, not known here.")
            again = {n: component("statistic", n, spec.root) for n in recorded if n in known}
            spec = replace(spec, statistics=dict(sorted((again | dict(spec.statistics)).items())))
        training = spec.build()
        if training.setup.dataset.shape.image and not getattr(
            training.setup.model, "image_tokens", 1
        ):
            observer.say("This model reads the questions only; one that looks: model=llava_nano")
        progress = observer.training(run.name, training.recipe.steps)
        train_run(run, training, [progress], stop, resume)
    return True


def roles_of(model: Component) -> Sequence[str] | None:
    """The roles of a model that is not built yet; None where only the model itself can say."""
    roles = getattr(model.target, "roles", None)
    return roles if isinstance(roles, tuple | list) else None


def check_roles_of(model: Component, chosen: str | Sequence[str], key: str) -> None:
    """Raise UsageError for a role that a model, not built yet, does not have: one, some or all."""
    roles, names = roles_of(model), [chosen] if isinstance(chosen, str) else chosen
    if roles is not None and chosen != "all":
        check_roles(roles, names, key)


def _without_paths(chosen: Component) -> dict[str, Any]:
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


def load_dataset(data: Component, tokenizer: Component) -> Dataset:
    """Data and tokenizer made into token windows; once a process for the same choice, and the same
    files: one that changed is read again (of a folder, one that something was added to or taken
    from).
    """
    paths = [Path(value).expanduser() for value in data.paths().values()]
    states = [path.stat() for path in paths if path.exists()]
    files = [[state.st_size, state.st_mtime_ns] for state in states]
    key = canonical([data.describe(), tokenizer.describe(), *files])
    if key not in _datasets:
        while len(_datasets) >= DATASETS_HELD:
            _datasets.pop(next(iter(_datasets)))
        names = f"data={data.name}", f"tokenizer={tokenizer.name}"
        _datasets[key] = dataset_of(data.build(), tokenizer.build, *names)
    return _datasets[key]


DATASETS_HELD = 4
_datasets: dict[str, Dataset] = {}


def new_model(chosen: Component, dataset: Dataset, seed: int) -> Model:
    """A model for the data, with the initial weights of a seed."""
    with global_randomness(seed, "init"):
        model: Model = built(chosen, dataset.shape)
    return model


# Of a stored run


def dataset_of_run(run: Run, root: ConfigRoot) -> Dataset:
    """What a run was trained on; DataError where that has changed."""
    dataset = load_dataset(*(stored_component(run, group, root) for group in ("data", "tokenizer")))
    if dataset.sha256 != run.config["identity"]["data"]["sha256"]:
        raise DataError(
            f"The data of {run.name} has changed since it was trained.",
            "Put the old data back, or train again on the new ones.",
        )
    return dataset


def stored_component(run: Run, group: str, root: ConfigRoot) -> Component:
    """A choice of a stored training: the target comes from ``conf/``, never from the run."""
    stored = run.config
    described = stored["identity"][group]
    options = {k: v for k, v in described_options(described).items() if k != "sha256"}
    for key, path in stored["paths"].items():
        if key.startswith(f"{group}."):
            _set(options, key.removeprefix(f"{group}."), path)
    return component(group, described["name"], root, options)
