"""That a training has run: what it starts from, and who looks on."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from swe_cli.config import component
from swe_cli.contracts import SPLITS, Dataset, Model, Questions, Setup
from swe_cli.errors import RunError
from swe_cli.experiments.shown import shown
from swe_cli.experiments.spec import built
from swe_cli.experiments.training import FROM_RUN, TrainingSpec, new_model, stored_training
from swe_cli.files import write_json
from swe_cli.pruning.shrink import load
from swe_cli.records import Row
from swe_cli.store import Run, training_of
from swe_cli.training.parallel import agreed, joined, rank
from swe_cli.training.run import Training, train_run
from swe_cli.training.state import Callback, Stop, never

BY_TOKEN = ("token_embedding", "head")  # tensors with a row for every token
BY_POSITION = "position_embedding"
OF_DATA = ("patch_embedding", BY_POSITION)  # tensors whose shapes the images decide
OTHER_IMAGES = "It saw images of another size or number of colours: name a run on such as these."
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Options in which two towers may differ and still do the same with the same weights.
FREE = {"name", "source", "from_run", "context", "dropout", "initialization", "split_heads"}


class Working(NamedTuple):
    """A job under way elsewhere: how many of its ``total`` steps or cells are done."""

    key: int
    name: str
    unit: str
    done: int
    total: int


class Observer:
    """Who watches a sweep; every call is information, none is a question. This one looks away."""

    def say(self, text: str) -> None: ...

    def training(self, name: str, steps: int) -> Callback:
        """A training begins; what is handed back watches its steps."""
        return Callback()

    def cells(self, total: int, reused: int) -> None: ...

    def cell_done(self, row: Row) -> None: ...

    def working(self, jobs: Sequence[Working]) -> None:
        """What runs now, in other processes; said again and again."""


NOBODY = Observer()


def ensure_trained(
    spec: TrainingSpec, observer: Observer = NOBODY, stop: Stop = never, wait: bool = True
) -> bool:
    """Train unless a finished run serves, which has all that is asked for; whether training ran.
    With ``wait`` whoever trains the same is waited for. Of torchrun each process comes here; the
    first decides, holds the run and writes.
    """
    recipe, device = spec.composed["training"].instance, spec.machine.device
    with joined(recipe.parallel, recipe.batch_size, device, observer.say):
        return _ensure(spec, observer, stop, wait)


def _ensure(spec: TrainingSpec, observer: Observer, stop: Stop, wait: bool) -> bool:
    run, first = spec.run, rank() == 0
    tracker = spec.composed.components.get("tracker") if first else None
    if agreed(spec.done()):
        with shown(tracker, run):  # what it missed
            pass
        if first and run.config["paths"] != spec.config["paths"]:
            # The same text at another path is the same training; later commands read it there.
            write_json(run.path / "config.json", spec.config)
        return False
    with run.hold(wait) if first else nullcontext():
        if agreed(spec.done()):  # finished while we waited
            return False
        if spec.first is not None:
            ensure_trained(spec.first, observer, stop, wait)
        if run.finished:
            if damaged := spec.run.damaged:
                observer.say(f"{run.name} has lost {', '.join(damaged)}: training it again.")
            elif spec.lacking:
                lacking = ", ".join(spec.lacking)
                observer.say(f"{run.name} did not record {lacking}: training it again.")
            else:
                observer.say(f"{run.name} was being trained again, and not done: it goes on.")
            recorded, known = run.manifest["tracker"]["statistics"], spec.root.options("statistic")
            if strange := sorted({*recorded} - {*known}):  # of a --config-dir that was not given
                observer.say(f"It will no longer hold {', '.join(strange)}, not known here.")
            again = {n: component("statistic", n, spec.root) for n in recorded if n in known}
            spec = replace(spec, statistics=dict(sorted((again | dict(spec.statistics)).items())))
        training = build(spec)
        looks = getattr(training.setup.model, "image_tokens", 1)
        if training.setup.dataset.shape.image and not looks:
            observer.say("This model reads the questions only; one that looks: model=llava_nano")
        progress = observer.training(run.name, training.recipe.steps)
        with shown(tracker, run) as showing:
            train_run(run, training, [progress, *showing], stop)
    return True


def build(spec: TrainingSpec) -> Training:
    """Load the data, make the model and what trains and tracks it."""
    composed, machine, dataset = spec.composed, spec.machine, spec.dataset
    seed = spec.config["identity"]["seed"]
    model = new_model(composed["model"], dataset, seed)
    if spec.first is not None:
        load(model, spec.first.run.tensors("model.safetensors"), spec.first.run.name)
    else:
        for key in (key for key in composed["model"].paths() if key.endswith(FROM_RUN)):
            run = Run(Path(spec.config["paths"][f"model.{key}"]))
            init_from_run(model, key.removesuffix(FROM_RUN).rstrip("."), spec, run)
    for split in SPLITS:  # a split that is too short is refused before anything is written
        dataset.windows(split, context=model.context, size=1)
    setup, lived = Setup(model, dataset, machine, seed), spec.config["paths"].get("trajectory")
    recipe, tracking = composed["training"].instance, composed["tracking"].instance
    statistics = {name: partial(built, chosen) for name, chosen in spec.statistics.items()}
    kept = spec.config, spec.sources, spec.snapshots
    return Training(setup, recipe, tracking, statistics, *kept, Path(lived) if lived else None)


# Towers that start from what another run learnt


def init_from_run(model: Model, role: str, ours: TrainingSpec, run: Run) -> None:
    """Copy into the tower ``role`` of ``model`` the weights of a run: of its own such, or all.

    Tokens are matched by what they spell, positions of text by their place. A token that the run
    did not know, and positions beyond its last, keep their fresh weights. Raises RunError, naming
    the first tensor, where another shape does not fit, and the option in which the towers differ.
    """
    trained = training_of(run)
    whole, chosen = trained.config["identity"]["model"], ours.composed["model"]
    there = whole.get(role, whole)
    here = (chosen.options[role] if role else chosen).describe()
    misfit = f"{run.name} does not fit model.{role}"
    sizes = f"Give model.{role} the sizes that are in the config.json of that run."
    # Shapes would not tell: how many heads share a matrix, or which activation follows it.
    for key in sorted((here.keys() & there.keys()) - FREE):
        if here[key] != there[key]:
            hint = f"Type model.{role}.{key}={there[key]}, or start from another run."
            raise RunError(f"{misfit}: its {key} is {there[key]}, not {here[key]}.", hint)
    weights = run.tensors("model.safetensors")
    prefix = f"{role}."
    own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)} or weights
    parameters = dict(model.get_submodule(role).named_parameters())
    for name in sorted(own.keys() - parameters.keys()):
        raise RunError(f"{misfit}: it has a {name}, which is missing here.", sizes)
    reads = any(name.startswith(BY_TOKEN) for name in parameters)  # positions of images are a grid
    tokens: dict[int, int] | None = None
    for name, parameter in parameters.items():
        learnt = own.get(name)
        by_token, by_place = name.startswith(BY_TOKEN), reads and name.startswith(BY_POSITION)
        row = 1 if by_token or by_place else 0  # of these there may be more here, or fewer
        if learnt is None or learnt.shape[row:] != parameter.shape[row:]:
            shape = "missing" if learnt is None else tuple(learnt.shape)
            why = f"{misfit}: {name} is {tuple(parameter.shape)} here, {shape} there."
            raise RunError(why, OTHER_IMAGES if name.startswith(OF_DATA) else sizes)
        if by_token:
            if tokens is None:
                theirs = stored_training(trained, ours.root)
                tokens = shared_tokens(ours.dataset, theirs.dataset)
            parameter.data[[*tokens]] = learnt[[*tokens.values()]]
        elif by_place:
            rows = min(len(learnt), len(parameter))
            parameter.data[:rows] = learnt[:rows]
        else:
            parameter.data.copy_(learnt)


def shared_tokens(ours: Dataset, theirs: Dataset) -> dict[int, int]:
    """Our token id → theirs, of all that spell the same."""
    specials = _specials(ours), _specials(theirs)
    shared = {i: specials[1][name] for name, i in specials[0].items() if name in specials[1]}
    tokenizers = getattr(ours, "tokenizer", None), getattr(theirs, "tokenizer", None)
    if tokenizers[0] and tokenizers[1] and tokenizers[0].sha256 == tokenizers[1].sha256:
        return {i: i for i in range(tokenizers[0].vocabulary_size)} | shared
    known = _spelling(theirs)
    return {i: known[piece] for piece, i in _spelling(ours).items() if piece in known} | shared


def _spelling(dataset: Dataset) -> dict[str, int]:
    """What one token alone spells; half a character is spelt by many, and told by none."""
    specials = _specials(dataset).values()
    ids = (i for i in range(dataset.shape.vocabulary_size) if i not in specials)
    spelt = [(dataset.decode([i]), i) for i in ids]
    times = Counter(piece for piece, _ in spelt)
    return {piece: i for piece, i in spelt if times[piece] == 1 and piece != REPLACEMENT}


def _specials(dataset: Dataset) -> dict[str, int]:
    """Tokens that spell nothing."""
    if isinstance(dataset, Questions):
        return {"separator": dataset.separator, "end": dataset.end}
    return {}
