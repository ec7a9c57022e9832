"""A sweep: on paper, before anything runs; then run, except for what is already there."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from swe_cli.config import (
    Composed,
    ConfigRoot,
    Declaration,
    Tokens,
    choice_options,
    component,
    compose,
    expand_range,
    read_tokens,
)
from swe_cli.contracts import Launcher
from swe_cli.controls import BY_KIND, DENSE, PRUNED, RECOVERED, controls_of
from swe_cli.errors import (
    CorruptFileError,
    Interrupted,
    StorageError,
    SweError,
    TrainingError,
    UsageError,
)
from swe_cli.experiments.cell import Cell, check_stop, measured_beside, run_cell
from swe_cli.experiments.ensure import Observer, ensure_trained
from swe_cli.experiments.spec import Spec, built, check_spec, cut_spec
from swe_cli.experiments.training import (
    TRAINING_GROUPS,
    TrainingSpec,
    another,
    roles_of,
    training_spec,
)
from swe_cli.files import set_aside
from swe_cli.pruning.prune import recorded_needs
from swe_cli.records import SETTINGS, Row, Scalar
from swe_cli.store import identity
from swe_cli.training.state import Stop, never

TRIES, POLL = 3, 0.5  # of a job whose workers die; seconds between looks at what is done
# Keys whose axis has a column of its own in every table.
AXIS_COLUMNS = {"model", "data", "seed", "transform", *SETTINGS}


@dataclass(frozen=True)
class SweepPlan:
    """All of a sweep. Trainings come first, then cells; controls before what reads them.

    ``notes``: what a user should know of it before it runs. ``compare``: what it is to show.
    """

    name: str
    trainings: Sequence[TrainingSpec]
    cells: Sequence[Cell]
    launcher: Launcher
    notes: Sequence[str] = ()
    compare: Declaration | None = None

    @property
    def threads(self) -> int:
        """How many each job computes with: a part of what its results are."""
        return max(int(of.config["identity"]["machine"]["threads"]) for of in self.trainings)

    @property
    def hash(self) -> str:
        return identity({"cells": sorted(cell.hash for cell in self.cells)})


def plan_sweep(tokens: Tokens, root: ConfigRoot, results: Path, refresh: bool = False) -> SweepPlan:
    """Expand axes, compose every cell; UsageError before any work. ``refresh``: see ``Cell``."""
    composed = compose_point(tokens, root)
    axes, asked = axes_of(composed, tokens), [BY_KIND[k] for k in composed.values["controls"]]
    given = _values(tokens.overrides)
    typed = given.keys() | tokens.axes.keys()
    points = []
    for words in product(*axes.values()):
        point = compose_point(tokens, root, *words)
        spec = cut_spec(point, root, roles_of(point["model"]))
        check_spec(spec, point, typed, axes)
        measured = [spec, *map(spec.judged_by, asked)]
        for one in measured:
            came = point.values["trajectory"] is not None
            one.check_early(point["training"].instance.steps, came)
        points.append((_values(words), point, measured))
    every = [one for _, _, measured in points for one in measured]
    statistics = {need for one in every for need in recorded_needs(one.needs)}
    early = {step for one in every if (step := one.plan.at_step) is not None}
    # And whether its data are questions, and what is trained for the controls that are asked for.
    specified: dict[object, tuple[TrainingSpec, bool, Mapping[str, TrainingSpec]]] = {}
    trainings: dict[str, TrainingSpec] = {}
    cells: dict[str, Cell] = {}
    notes: list[str] = []
    for values, point, measured in points:
        spec = measured[0]
        chosen = [point[group] for group in TRAINING_GROUPS]
        key = (*chosen, *(point.values[of] for of in ("seed", "device", "dtype", "threads")))
        if key not in specified:  # which takes a look at the data: once for each
            training = training_spec(point, root, results, statistics, early)
            recipe, anew = point["training"], dict[str, TrainingSpec]()
            for control in asked:  # the same recipe where none of its options is another
                options = {**recipe.options, **control.training}
                changed = component("training", recipe.name, root, options)
                anew[control.kind] = training_spec(another(point, training=changed), root, results)
            specified[key] = training, training.dataset.questions, anew
            for other in (training, *anew.values()):
                same = trainings.setdefault(other.hash, other)
                steps = tuple(sorted({*same.snapshots, *other.snapshots}))
                both = dict(sorted({**same.statistics, **other.statistics}.items()))
                trainings[other.hash] = replace(same, snapshots=steps, statistics=both)
            notes += training.dataset.notes
        if point.values["trajectory"] is not None:
            training = specified[key][0]
            for one in measured:
                one.check_recorded(training.statistics, training.run.name)
        for cell in cells_of(spec, *specified[key]).values():
            if cell.hash not in cells:
                keep = point.values["keep"] == "models"
                model_to = cell.folder / "model.safetensors" if keep else None
                timed = point.values["costs"] == "measured" and cell.kind == PRUNED
                cell = replace(cell, model_to=model_to, refresh=refresh, costs=timed)
                cells[cell.hash] = replace(cell, axes=_shown_axes(cell, values))
    # Controls first: pruned cells read them. Then training by training, so that each is loaded,
    # and each of its criteria scored, once.
    places = {training: place for place, training in enumerate(trainings)}
    notes += [note for one in every if (note := one.note(typed))]
    name = str(given.get("experiment", composed["model"].name))
    order = sorted(cells.values(), key=lambda of: (of.kind == PRUNED, places[of.training.hash]))
    launcher, told = built(composed["launcher"]), tuple(dict.fromkeys(notes))
    compare = composed.values["compare"]
    return SweepPlan(name, [*trainings.values()], order, launcher, told, compare)


def preview(tokens: Tokens, root: ConfigRoot) -> Composed:
    """The first cell with all values as ``axes``; refuses what a plan would; reads no data."""
    axes = axes_of(compose_point(tokens, root), tokens)
    first = {key: words[0] for key, words in axes.items()}
    for key, words in axes.items():
        for word in words:
            compose_point(tokens, root, *{**first, key: word}.values())
    composed = compose_point(tokens, root, *first.values())
    spanned = {key: [_values((word,))[key] for word in words] for key, words in axes.items()}
    return replace(composed, values={**composed.values, "axes": spanned})


def cells_of(
    spec: Spec, training: TrainingSpec, questions: bool, asked: Mapping[str, TrainingSpec]
) -> dict[str, Cell]:
    """The cell of one cut and those of the controls it is judged by, by kind.

    ``questions``: whether its data are. ``asked``: the controls that are asked for, and what is
    trained anew for each.
    """
    cells: dict[str, Cell] = {}
    controls = controls_of(training.bases, questions=questions, asked=asked)
    for control in sorted(controls, key=lambda control: control.recovered):
        reads = {} if control is DENSE else {DENSE.kind: cells[DENSE.kind]}
        of = asked[control.kind] if control.training else training
        cells[control.kind] = Cell(spec.judged_by(control), of, reads)
    reads = {kind: cells[kind] for kind in (DENSE.kind, RECOVERED.kind)}
    return {**cells, spec.kind: Cell(spec, training, reads)}


def compose_point(tokens: Tokens, root: ConfigRoot, *point: str) -> Composed:
    """The configuration at one point of the axes; without one, what all of them have in common.

    An option that only some choices of an axis have goes to those: ``criteria=swe,sparsegpt
    criterion.damping=0.1`` sets the damping where there is one. Raises UsageError for an option
    that none of them has.
    """
    words = []
    for word in tokens.overrides:
        key = word.partition("=")[0]
        group, _, option = key.partition(".")
        if option and group in tokens.axes and root.options(group):
            chosen = [choice.partition("=")[2] for choice in tokens.axes[group]]
            known, key_of = {*chosen} & {*root.options(group)}, option.partition(".")[0]
            takers = {f"{group}={n}" for n in known if key_of in choice_options(group, n, root)}
            if not takers:
                names = ", ".join(chosen)
                raise UsageError(f"{key} is not a key of {names}.", f"Choose another {group}.")
            if takers.isdisjoint(point):
                continue
        words.append(word)
    return compose("sweep", (*words, *point), root)


def _shown_axes(cell: Cell, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Axis values without a column of their own that make a difference to this cell."""
    unused = {name for name, part in vars(cell.spec).items() if part is None}
    own = {key: value for key, value in values.items() if key not in AXIS_COLUMNS}
    own = {key: value for key, value in own.items() if key.partition(".")[0] not in unused}
    # The table's column of that name is the run.
    return {"training recipe" if key == "training" else key: value for key, value in own.items()}


def axes_of(composed: Composed, tokens: Tokens) -> dict[str, tuple[str, ...]]:
    """Axes of the configuration, each replaced by what was typed for its key."""
    if names := [word.partition("=")[2].strip("[]") for word in tokens.axes.get("controls", ())]:
        hint = f"Write controls=[{','.join(names)}]"
        raise UsageError("The controls are one list, of all cells.", hint)
    typed = _values(tokens.overrides).keys() | tokens.axes.keys()
    axes: dict[str, tuple[str, ...]] = {}
    for key, node in composed.values["axes"].items():
        if node is not None and key not in typed:
            items = node if isinstance(node, list) else [node]
            elements = [text for item in items for text in expand_range(str(item))]
            one_value = {key: (f"{key}={elements[0]}",)}
            axes |= read_tokens([f"{key}={','.join(elements)}"]).axes or one_value
    for one, other in (("rate", "ratio"), ("ratio", "rate")):
        if one in typed:
            axes.pop(other, None)
    return {**axes, **tokens.axes}


def _values(words: Iterable[str]) -> dict[str, Scalar]:
    """Key → value of overrides, numbers as numbers."""
    values: dict[str, Scalar] = {}
    for key, _, text in (word.partition("=") for word in words):
        values[key] = text
        for kind in (float, int):  # int where it is one
            with suppress(ValueError):
                values[key] = kind(text)
    return values


# Run


@dataclass(frozen=True, eq=False)
class Job:
    """What one worker does: a training, or cells that share one and its scores, in their order.

    It can be pickled. ``after``: jobs that have to be done before it.
    """

    name: str
    training: TrainingSpec | None = None
    cells: Sequence[Cell] = ()
    after: Sequence["Job"] = ()


def heal(cell: Cell, error: CorruptFileError, observer: Observer, stop: Stop) -> None:
    """Set aside what is damaged of the training or of what a cell reads, and make it again.

    Raises the error where that is not ours to make.
    """
    ours = [cell.training.run.path, *(of.folder for of in (cell, *cell.reads.values()))]
    if error.path is None or error.path.parent not in ours:
        raise error
    observer.say(f"{error.message} It is set aside, in {set_aside(error.path)}, and made again.")
    if not cell.training.done():
        ensure_trained(cell.training, observer, stop)


def jobs_of(plan: SweepPlan) -> list[Job]:
    """What a plan does, as a graph: trainings, then the controls of each, then cuts by criterion.

    Of cells only those that are missing.
    """
    trainings = {of.hash: Job(of.run.name, of) for of in plan.trainings}
    controls: dict[str, Job] = {}  # by the hash of a cell
    cuts = list[Job]()
    for kind in ("controls", "cuts"):
        groups: dict[object, list[Cell]] = defaultdict(list)
        for cell in (cell for cell in plan.cells if (cell.kind == PRUNED) is (kind == "cuts")):
            if not cell.done():
                spec = cell.spec
                judge = (spec.criterion, spec.transform, spec.base) if kind == "cuts" else None
                groups[cell.training.hash, judge].append(cell)
        for cells in groups.values():
            first, read = cells[0], [of for cell in cells for of in cell.reads.values()]
            hashes = dict.fromkeys([first.training.hash, *(of.training.hash for of in read)])
            after = [trainings[of] for of in hashes if of in trainings]
            after += {id(job): job for of in read if (job := controls.get(of.hash))}.values()
            does = first.spec.method_name if kind == "cuts" else kind
            job = Job(f"{first.training.run.name}: {does}", cells=cells, after=after)
            if kind == "cuts":
                cuts.append(job)
            else:
                controls |= dict.fromkeys((cell.hash for cell in cells), job)
    return [*trainings.values(), *{id(job): job for job in controls.values()}.values(), *cuts]


class Done(NamedTuple):
    """What came of a job: whether it trained, why cells failed, by their hashes, what was said."""

    trained: bool
    failed: Mapping[str, BaseException]
    said: Sequence[str]


class _Heard(Observer):
    """Remembers what a worker says, for who started it."""

    def __init__(self) -> None:
        self.said = list[str]()

    def say(self, text: str) -> None:
        self.said.append(text)


Tell = Callable[[Cell, BaseException | None], None]


def run_job(
    job: Job,
    stop: Stop = never,
    observer: Observer | None = None,
    wait: bool = True,
    tell: Tell = lambda cell, error: None,
) -> Done:
    """Do what is missing of a job. ``tell`` hears of each cell; without an ``observer`` it is kept
    what was said. Raises what a training fails of, and what stops everything.
    """
    trained, failed, heard = False, dict[str, BaseException](), _Heard()
    if job.training is not None:
        trained = ensure_trained(job.training, observer or heard, stop, wait)
    for cell in job.cells:
        try:
            try:
                run_cell(cell, stop)
            except CorruptFileError as error:
                heal(cell, error, observer or heard, stop)
                run_cell(cell, stop)
        except (Interrupted, StorageError):
            raise
        except Exception as error:
            failed[cell.hash] = error
        tell(cell, failed.get(cell.hash))
    return Done(trained, failed, heard.said)


@dataclass
class Outcome:
    """Rows in the plan's order, failed ones among them, and what it took to get them.

    ``stages``: seconds of this very run by stage (training, recovery, evaluation, …), those of all
    workers.
    """

    rows: list[Row] = field(default_factory=list)
    trained: int = 0
    ran: int = 0
    reused: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row.status == "failed"]


def run_sweep(plan: SweepPlan, observer: Observer, stop: Stop, wait: bool = False) -> Outcome:
    """Run what is missing of a plan. What fails becomes a row; the rest goes on.

    A training that diverges fails the rows of its own cells only. The job of a worker that dies is
    given to another, ``TRIES`` times in all. Raises Interrupted when ``stop`` asks; finished cells
    and checkpoints are safe by then.
    """
    outcome, started, launcher = Outcome(), time.perf_counter(), plan.launcher
    launcher.start(plan.threads)
    jobs, running = jobs_of(plan), dict[Future[Done], tuple[Job, float]]()
    left = {cell.hash for job in jobs for cell in job.cells}
    outcome.reused = len(plan.cells) - len(left)
    lost: dict[str, BaseException] = {}  # why there is no row, by the hash of a cell
    tries, announced = Counter[Job](), False

    def tell(cell: Cell, error: BaseException | None, ran: bool = True) -> None:
        if cell.hash not in left:
            return
        left.remove(cell.hash)
        lost.update({cell.hash: error} if error is not None else {})
        outcome.ran += ran
        for name, amount in measured_beside(cell.folder).items() if ran else ():
            if name.endswith(".seconds") and name != "score.seconds":  # of another cell
                outcome.stages[name.removesuffix(".seconds")] += amount
        if announced:
            observer.cell_done(_failed(cell, error) if error is not None else cell.row())

    work: Callable[..., Done] = run_job
    if launcher.in_process:
        work = partial(run_job, stop=stop, observer=observer, wait=wait, tell=tell)

    def end(job: Job, begun: float, future: Future[Done]) -> None:
        error = future.exception()
        came = Done(False, {}, ()) if error is not None else future.result()
        for words in came.said:
            observer.say(words)
        if isinstance(error, launcher.lost) and (tries.update([job]) or tries[job] < TRIES):
            observer.say(f"{job.name}: its worker died, and another takes it on.")
            jobs.insert(0, job)
            return
        if job.training is not None:
            if isinstance(error, TrainingError):
                observer.say(f"{job.training.run.name}: {error.message}")
                for cell in (c for c in plan.cells if c.training.run == job.training.run):
                    tell(cell, error, ran=False)
            elif error is not None:
                raise error
            else:
                outcome.trained += came.trained
                outcome.stages["training"] += came.trained * (time.perf_counter() - begun)
            return
        if isinstance(error, Interrupted | StorageError):
            raise error
        for cell in job.cells:
            tell(cell, came.failed.get(cell.hash, error))

    whole = False
    try:
        while jobs or running:
            busy = {*jobs, *(job for job, _ in running.values())}
            for job in [job for job in jobs if busy.isdisjoint(job.after)]:
                if len(running) >= launcher.slots:
                    break
                jobs.remove(job)
                if job.cells and not announced:
                    announced = True
                    observer.cells(outcome.reused + len(left), outcome.reused)
                for cell in job.cells:  # what it is compared with failed, and would again
                    errors = [lost[of.hash] for of in cell.reads.values() if of.hash in lost]
                    if errors:
                        tell(cell, errors[0], ran=False)
                cells = [cell for cell in job.cells if cell.hash in left]
                if job.training is None and not cells:
                    continue
                begun = time.perf_counter()
                if job.training is not None and job.training.done():
                    ensure_trained(job.training, observer, stop, wait)
                    continue
                future = launcher.submit(work, replace(job, cells=cells, after=()))
                running[future] = job, begun
            done, _ = futures.wait(running, POLL, futures.FIRST_COMPLETED)
            for future in done:
                end(*running.pop(future), future)
            if not launcher.in_process:
                check_stop(stop)
                observer.working([job.name for job, _ in running.values()])
                for cell in (cell for job, _ in running.values() for cell in job.cells):
                    if cell.hash in left and cell.done():
                        tell(cell, None)
        whole = True
    finally:
        launcher.close(now=not whole)
    outcome.rows = [
        _failed(cell, lost[cell.hash]) if cell.hash in lost else cell.row() for cell in plan.cells
    ]
    outcome.seconds = time.perf_counter() - started
    return outcome


def _failed(cell: Cell, error: BaseException) -> Row:
    """The row of a cell that could not be measured: visible, not kept as done, so tried again."""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    why = error.message if isinstance(error, SweError) else message
    return cell.new_row(status="failed", error=why, fingerprint="", axes=cell.axes)
