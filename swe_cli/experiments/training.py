"""A training as a specification: its identity, what it is made of, and what it left."""

import gc
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from swe_cli.config import Component, Composed, ConfigRoot, component, source_of
from swe_cli.contracts import Dataset, Model
from swe_cli.data.tokens import dataset_of
from swe_cli.device import Machine, resolve
from swe_cli.errors import DataError, UsageError
from swe_cli.experiments.model import ALWAYS_RECORDED, AVERAGES, BASES, TrainedModel
from swe_cli.experiments.spec import built
from swe_cli.files import content_sha256
from swe_cli.seeds import global_randomness
from swe_cli.store import Run, find_run, identity
from swe_cli.training.own_loop import told_of
from swe_cli.training.recipe import Recipe, check_roles, freeze
from swe_cli.training.run import CHECKPOINTS, has_snapshot
from swe_cli.training.tracker import Tracking, trajectory_of, unrecorded

FROM_RUN = "from_run"
TRAINING_GROUPS = ("model", "data", "tokenizer", "pretraining", "training", "tracking")
# These change when results are safe and what is recorded, not the weights that come out.
NOT_IDENTITY = {
    **dict.fromkeys(("training", "pretraining"), ("checkpoint_every",)),
    "tracking": ("statistics", "snapshots"),
}


def results_root(setting: str | None) -> Path:
    """``results_dir=…``, else ``$SWE_RESULTS_DIR``, else ``results/`` in the current folder."""
    return Path(setting or os.environ.get("SWE_RESULTS_DIR") or "results").expanduser()


@dataclass(frozen=True)
class TrainingSpec:
    """A training, one that is to run or one that has. It can be pickled.

    ``config`` is what is stored: ``identity`` (content hashes in place of paths) and ``paths``.
    ``composed``: what it is made of; its device and threads are those to compute on now. ``first``
    is the training whose final weights this one starts from, if it has two stages. ``snapshots``:
    the steps after which all of it is kept.
    """

    run: Run
    config: dict[str, Any] = field(hash=False)
    composed: Composed = field(hash=False)
    root: ConfigRoot
    statistics: Mapping[str, Component] = field(default_factory=dict, hash=False)
    first: "TrainingSpec | None" = None
    snapshots: tuple[int, ...] = ()

    @cached_property
    def hash(self) -> str:
        return identity(self.config["identity"])

    @property
    def label(self) -> str:
        """What its model is called: by the folder it comes from, if it does."""
        return _label(self.config["identity"], self.config["paths"])

    @property
    def machine(self) -> Machine:
        """What is computed on: unless others are asked for, as many threads as it trained with."""
        trained_on, values = self.config["identity"]["machine"], self.composed.values
        threads = values["threads"] or trained_on["threads"]
        return resolve(values["device"], trained_on["dtype"], threads)

    @cached_property
    def of_cells(self) -> dict[str, Any]:
        """What it is in the identity of a cell: its hash; the machine, where that is another."""
        machine = self.machine.identity()
        other = {} if machine == self.config["identity"]["machine"] else {"machine": machine}
        return {"training": self.hash, **other}

    @property
    def bases(self) -> Sequence[str]:
        """The weights that it leaves: of 0 steps those it began with, and averages that came."""
        told = self.run.manifest["tracker"]["statistics"] if self.run.finished else ()
        steps = self.composed["training"].instance.steps
        kept = (base for base in BASES if AVERAGES.get(base) in (None, *self.statistics, *told))
        return [base for base in kept if steps or base != "best"]

    @property
    def dataset(self) -> Dataset:
        """What it is trained on, read once a process. DataError where that has changed."""
        dataset = load_dataset(self.composed["data"], self.composed["tokenizer"])
        if dataset.sha256 != self.config["identity"]["data"]["sha256"]:
            since, hint = "planned", "Type the same command again."
            if self.run.finished:
                since, hint = "trained", "Put the old data back, or train again on the new ones."
            raise DataError(f"The data of {self.run.name} has changed since it was {since}.", hint)
        return dataset

    @property
    def sources(self) -> dict[str, str | None]:
        """Of every statistic, the hash of its code where a user wrote it."""
        return {name: source_of(chosen) for name, chosen in self.statistics.items()}

    @property
    def lacking(self) -> list[str]:
        """In words: what of this its finished run did not record."""
        missing = unrecorded(self.run.manifest["tracker"], self.sources)
        steps = (at for at in self.snapshots if not has_snapshot(self.run, at, self.sources))
        return [*missing, *(f"a snapshot of step {step}" for step in steps)]

    def done(self) -> bool:
        """Whether a finished run serves."""
        whole = not (self.run.path / CHECKPOINTS).exists()  # else it was being trained again
        return self.run.finished and whole and not self.run.damaged and not self.lacking

    def open(self) -> TrainedModel:
        """The model; the last one opened stays open in this process, while its run is the same."""
        manifest = self.run.path / "manifest.json"
        key = self, manifest.stat().st_mtime_ns if manifest.is_file() else 0
        if key not in OPEN:
            OPEN.clear()
            gc.collect()  # the last one goes before the next is read: either may be large
            OPEN[key] = _opened(self)
        return OPEN[key]


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
    tracking.steps_between(recipe.steps)
    check_roles(roles_of(composed["model"]), recipe.trains, "training.trains")
    described: dict[str, Any] = {of: _without_paths(composed[of]) for of in TRAINING_GROUPS}
    described["data"]["sha256"] = load_dataset(composed["data"], composed["tokenizer"]).sha256
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
            elif group != "data" and (sha256 := content_sha256(path)):
                described[group]["sha256"] = sha256
            paths[f"{group}.{key}"] = str(path)
    lived, recorded = values["trajectory"], {ALWAYS_RECORDED, *statistics, *tracking.statistics}
    if lived is not None:
        path = Path(lived).expanduser().resolve()
        if recipe.steps:
            why = "trajectory=FOLDER is how weights lived that are cut as they are."
            raise UsageError(why, "Write training.steps=0, or leave it out.")
        recorded = {*told_of(path)["statistics"]}
        described["trajectory"], paths["trajectory"] = content_sha256(path), str(path)
    elif not recipe.steps:
        recorded = set()
    kept = tuple(sorted({*snapshots, *tracking.snapshots}))
    if kept and kept[-1] > recipe.steps:
        why = f"tracking.snapshots names step {kept[-1]}; the training ends at {recipe.steps}."
        raise UsageError(why, f"Write tracking.snapshots=[{recipe.steps // 2}]")
    first = None
    if composed["pretraining"].instance is not None:  # the same by another recipe, with none before
        none = component("pretraining", "none", root)
        before = another(composed, training=composed["pretraining"], pretraining=none)
        first = training_spec(before, root, results)
    name = f"train-{_label(described, paths)}-{identity(described)[:8]}"
    config = {"identity": described, "paths": paths}
    chosen = {name: component("statistic", name, root) for name in sorted(recorded)}
    return TrainingSpec(Run(results / "runs" / name), config, composed, root, chosen, first, kept)


def _label(described: Mapping[str, Any], paths: Mapping[str, str]) -> str:
    return Path(paths["model.path"]).name if "model.path" in paths else described["model"]["name"]


def another(composed: Composed, **parts: Component) -> Composed:
    """The same but for ``parts``; what is kept besides is asked of the training that is cut."""
    tracking = composed["tracking"]
    bare: dict[str, Any] = {**tracking.options, "statistics": [], "snapshots": []}
    parts["tracking"] = replace(tracking, options=bare)
    return replace(composed, components=composed.components | parts)


def stored_training(
    run: Run, root: ConfigRoot, device: str = "auto", threads: int | None = None
) -> TrainingSpec:
    """A training that has run, to be computed with on ``device``. What it is made of is chosen from
    ``conf/`` by name: a run holds no targets. Raises RunError for one that is not finished.
    """
    run.check_finished()
    config = run.config
    described, components = config["identity"], {}
    for group in ("model", "data", "tokenizer", "training"):
        options = _options(described[group])
        for key, path in config["paths"].items():
            if key.startswith(f"{group}."):
                _set(options, key.removeprefix(f"{group}."), path)
        components[group] = component(group, described[group]["name"], root, options)
    composed = Composed(components, {"device": device, "threads": threads})
    return TrainingSpec(run, config, composed, root)


def _options(described: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a stored component, and of components inside it."""
    told = {key: of for key, of in described.items() if key not in ("name", "source", "sha256")}
    return {key: _options(of) if isinstance(of, Mapping) else of for key, of in told.items()}


OPEN: dict[tuple[TrainingSpec, int], TrainedModel] = {}  # one at most


def _opened(spec: TrainingSpec) -> TrainedModel:
    run, machine, dataset = spec.run, spec.machine, spec.dataset
    model = new_model(spec.composed["model"], dataset, seed=0)
    recipe: Recipe = spec.composed["training"].instance
    model.to(machine.device)
    freeze(model, recipe.trains)
    expected = dataset.fingerprint("test", context=model.context)
    if run.manifest.get("fingerprint", expected) != expected:
        why = f"The data of {run.name} are now cut into other tokens than it was trained on."
        hint = "Put the old tokenizer (or its package's version) back, or train again."
        raise DataError(why, hint)
    saved = run.tensors("trajectory.safetensors")
    trajectory = trajectory_of(saved, run.manifest["tracker"]["statistics"])
    bases = {base: partial(BASES[base], run, trajectory) for base in spec.bases}
    setup = model, dataset, machine, spec.config["identity"]["seed"]
    return TrainedModel(*setup, run.name, bases, trajectory, recipe, run)


def load_dataset(data: Component, tokenizer: Component) -> Dataset:
    """Data and tokenizer as token windows; once a process, unless a file, or a folder, changed."""
    named = (*data.paths().values(), *tokenizer.paths().values())
    paths = [Path(value).expanduser() for value in named]
    states = [path.stat() for path in paths if path.exists()]
    files = tuple((state.st_size, state.st_mtime_ns) for state in states)
    return _dataset(data, tokenizer, files)


@lru_cache(maxsize=4)
def _dataset(data: Component, tokenizer: Component, files: tuple[tuple[int, int], ...]) -> Dataset:
    names = f"data={data.name}", f"tokenizer={tokenizer.name}"
    return dataset_of(data.build(), tokenizer.build, names)


def new_model(chosen: Component, dataset: Dataset, seed: int) -> Model:
    """A model for the data, with the initial weights of a seed."""
    with global_randomness(seed, "init"):
        model: Model = built(chosen, dataset.shape)
    return model


def roles_of(model: Component) -> Sequence[str] | None:
    """The roles of a model that is not built yet; None where only the model itself can say."""
    of_folder = getattr(model.target, "roles_in", None)
    roles = of_folder(**model.options) if of_folder else getattr(model.target, "roles", None)
    return roles if isinstance(roles, tuple | list) else None


def _without_paths(chosen: Component) -> dict[str, Any]:
    described = chosen.describe()
    unused = ["backward_keep"] if described.get("backward") == "dense" else []
    unused += ["parallel"] if described.get("parallel") is None else []
    for key in (*chosen.paths(), *NOT_IDENTITY.get(chosen.group, ()), *unused):
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
