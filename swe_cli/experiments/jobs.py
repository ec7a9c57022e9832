"""A plan as jobs that read each other's results, run through a launcher; what fails is a row."""

import os
import pickle
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from swe_cli.controls import PRUNED
from swe_cli.errors import CorruptFileError, Interrupted, StorageError, SweError, TrainingError
from swe_cli.experiments.cell import Cell, check_stop, measured_beside, run_cell
from swe_cli.experiments.ensure import Observer, Working, ensure_trained
from swe_cli.experiments.sweep import SweepPlan
from swe_cli.experiments.training import TrainingSpec
from swe_cli.files import set_aside
from swe_cli.records import Row
from swe_cli.training.run import steps_done
from swe_cli.training.state import Callback, Stop, never

TRIES, POLL = 3, 0.5  # of a job whose workers die; seconds between looks at what is done


@dataclass(frozen=True, eq=False)
class Job:
    """What one worker does: a training, or cells that share one and its scores, in their order.

    It can be pickled. ``after``: jobs that have to be done before it.
    """

    name: str
    training: TrainingSpec | None = None
    cells: Sequence[Cell] = ()
    after: Sequence["Job"] = ()

    @property
    def does(self) -> frozenset[str]:
        """What comes of it, and where: a job under way that does as much serves as well."""
        if (of := self.training) is None:
            cells = ((c.folder.absolute(), c.model_to, c.costs, c.refresh) for c in self.cells)
            return frozenset(" ".join(map(str, told)) for told in cells)
        recorded = sorted(of.sources.items()), sorted(of.statistics), of.snapshots
        return frozenset({f"{of.run.path.absolute()} {recorded}"})


def run_mended(
    cell: Cell, stop: Stop, observer: Observer, callbacks: Sequence[Callback] = ()
) -> Row:
    """Run a cell; what is damaged of its training or of what it reads is set aside and made again.

    Raises CorruptFileError where that is not ours to make, as a training that is only read.
    """
    try:
        return run_cell(cell, stop, callbacks)
    except CorruptFileError as error:
        ours = [of.folder for of in (cell, *cell.reads.values())]
        if "tracking" in cell.training.composed.components:
            ours.append(cell.training.run.path)
        if error.path is None or error.path.parent not in ours:
            raise
        observer.say(mended(error))
    if cell.training.run.damaged:
        ensure_trained(cell.training, observer, stop)
    return run_cell(cell, stop, callbacks)


def mended(error: CorruptFileError) -> str:
    """Set aside what is damaged, for whoever makes it again; what to say."""
    assert error.path is not None
    return f"{error.message} It is set aside, in {set_aside(error.path)}, and made again."


def jobs_of(plan: SweepPlan) -> list[Job]:
    """What a plan does, as a graph: trainings, then the controls of each, then cuts by criterion.

    Of cells only those that are missing.
    """
    trainings = {of.hash: Job(of.run.name, of) for of in plan.trainings}
    groups: dict[object, list[Cell]] = defaultdict(list)
    for cell in (cell for cell in plan.cells if not cell.done()):
        spec = cell.spec
        judge = (spec.criterion, spec.transform, spec.base) if cell.kind == PRUNED else None
        groups[cell.training.hash, judge].append(cell)
    controls, jobs = dict[str, Job](), list[Job]()  # by the hash of a cell; all but trainings
    for cells in groups.values():  # controls first, as in the plan
        first, read = cells[0], [of for cell in cells for of in cell.reads.values()]
        hashes = dict.fromkeys([first.training.hash, *(of.training.hash for of in read)])
        after = [trainings[of] for of in hashes if of in trainings]
        after += dict.fromkeys(job for of in read if (job := controls.get(of.hash)))
        does = first.spec.method_name if first.kind == PRUNED else "controls"
        jobs.append(Job(f"{first.training.run.name}: {does}", cells=cells, after=after))
        if first.kind != PRUNED:
            controls |= dict.fromkeys((cell.hash for cell in cells), jobs[-1])
    return [*trainings.values(), *jobs]


class Done(NamedTuple):
    """What came of a job: whether it trained, why cells failed, by their hashes, what was said, and
    what it ended in.
    """

    trained: bool = False
    failed: Mapping[str, BaseException] = {}
    said: Sequence[str] = ()
    error: BaseException | None = None


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
    what was said. It ends in what a training fails of, and in what stops everything.
    """
    trained, failed, heard = False, dict[str, BaseException](), _Heard()
    try:
        if job.training is not None:
            trained = ensure_trained(job.training, observer or heard, stop, wait)
        for cell in job.cells:
            try:
                run_mended(cell, stop, observer or heard)
            except (Interrupted, StorageError):
                raise
            except Exception as error:
                failed[cell.hash] = error if observer else _portable(error)
            tell(cell, failed.get(cell.hash))
    except Exception as error:
        return Done(trained, failed, heard.said, error if observer else _portable(error))
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
    given to another, ``TRIES`` times where it comes no further. Raises Interrupted when ``stop``
    asks; finished cells and checkpoints are safe by then.
    """
    started, whole = time.perf_counter(), False
    plan.launcher.start(plan.threads)
    try:
        running = _Running(plan, observer, stop, wait)
        while running.jobs or running.futures:
            running.begin()
            running.look()
        whole = True
    finally:
        plan.launcher.close(now=not whole)
    running.outcome.rows = [
        _failed(cell, running.lost[cell.hash]) if cell.hash in running.lost else cell.row()
        for cell in plan.cells
    ]
    running.outcome.seconds = time.perf_counter() - started
    return running.outcome


class _Running:
    """A plan on its way: ``jobs`` that wait, ``futures`` of those that run and since when, cells
    that are ``left``, and why others are ``lost``, by their hashes.
    """

    def __init__(self, plan: SweepPlan, observer: Observer, stop: Stop, wait: bool) -> None:
        self.plan, self.observer, self.stop, self.wait = plan, observer, stop, wait
        self.launcher, self.outcome = plan.launcher, Outcome()
        self.jobs, self.futures = jobs_of(plan), dict[Future[Done], tuple[Job, float]]()
        self.left = {cell.hash for job in self.jobs for cell in job.cells}
        self.lost: dict[str, BaseException] = {}
        self.tries, self.announced = Counter[tuple[Job, int]](), False
        self.outcome.reused = len(plan.cells) - len(self.left)
        self.work: Callable[..., Done] = run_job
        if self.launcher.in_process:  # elsewhere nobody can look on
            self.work = partial(run_job, stop=stop, observer=observer, wait=wait, tell=self.tell)

    def begin(self) -> None:
        """Submit what is ready, as far as there is room."""
        busy = {*self.jobs, *(job for job, _ in self.futures.values())}
        for job in [job for job in self.jobs if busy.isdisjoint(job.after)]:
            if len(self.futures) >= self.launcher.slots:
                break
            self.jobs.remove(job)
            if job.training is not None and job.training.done():
                ensure_trained(job.training, self.observer, self.stop, self.wait)
                continue
            if job.cells and not self.announced:
                self.announced = True
                total = self.outcome.reused + len(self.left)
                self.observer.cells(total, self.outcome.reused)
            for cell in job.cells:  # what it is compared with failed, and would again
                errors = [self.lost[of.hash] for of in cell.reads.values() if of.hash in self.lost]
                if errors:
                    self.tell(cell, errors[0], ran=False)
            cells = [cell for cell in job.cells if cell.hash in self.left]
            if job.training is not None or cells:
                begun = time.perf_counter()
                future = self.launcher.submit(self.work, replace(job, cells=cells, after=()))
                self.futures[future] = job, begun

    def look(self) -> None:
        """Wait a moment for jobs to end, and see how far the others are."""
        self.launcher.look()
        done, _ = futures.wait(self.futures, POLL, futures.FIRST_COMPLETED)
        for future in done:
            self.end(*self.futures.pop(future), future)
        if not self.launcher.in_process:
            check_stop(self.stop)
            running = [job for job, _ in self.futures.values()]
            self.observer.working([self.how_far(job) for job in running])
            cells = [of for job in running for of in job.cells if of.hash in self.left]
            place = cells[0].folder.parent if cells else None
            there = {*os.listdir(place)} if place and place.is_dir() else set()
            for cell in cells:  # most have no folder yet, and to ask of each takes its time
                if cell.folder.name in there and cell.done():
                    self.tell(cell, None)

    def how_far(self, job: Job) -> Working:
        """By what lies on disk, whoever writes it."""
        if job.training is not None:
            steps = job.training.composed["training"].instance.steps
            return Working(id(job), job.name, "step", steps_done(job.training.run), steps)
        done = sum(cell.hash not in self.left for cell in job.cells)
        return Working(id(job), job.name, "cell", done, len(job.cells))

    def end(self, job: Job, begun: float, future: Future[Done]) -> None:
        """Take what came of a job; raise what stops everything."""
        lost = future.exception()
        came = Done(error=lost) if lost is not None else future.result()
        error = came.error
        for words in came.said:
            self.observer.say(words)
        died = isinstance(error, self.launcher.lost)
        at = job, self.how_far(job).done  # dying further on is another matter
        self.tries[at] += died
        if died and self.tries[at] < TRIES:
            self.observer.say(f"{job.name}: its worker died, and another takes it on.")
            self.jobs.insert(0, job)
        elif isinstance(error, Interrupted | StorageError):
            raise error
        elif job.training is None:
            for cell in job.cells:
                self.tell(cell, None if cell.done() else came.failed.get(cell.hash, error))
        elif error is None:
            self.outcome.trained += came.trained
            self.outcome.stages["training"] += came.trained * (time.perf_counter() - begun)
        elif died or isinstance(error, TrainingError):
            self.observer.say(f"{job.name}: {getattr(error, 'message', error)}")
            for cell in self.plan.cells:
                if cell.training.run == job.training.run:
                    self.tell(cell, error, ran=False)
        else:
            raise error

    def tell(self, cell: Cell, error: BaseException | None, ran: bool = True) -> None:
        """Of each cell once: it is done, or why it is not."""
        if cell.hash not in self.left:
            return
        self.left.remove(cell.hash)
        if error is not None:
            self.lost[cell.hash] = error
        self.outcome.ran += ran
        for name, amount in measured_beside(cell.folder).items() if ran else ():
            if name.endswith(".seconds") and name != "score.seconds":  # of another cell
                self.outcome.stages[name.removesuffix(".seconds")] += amount
        if self.announced:
            self.observer.cell_done(_failed(cell, error) if error is not None else cell.row())


def _portable(error: Exception) -> Exception:
    """An error that another process can read; those of libraries often cannot be unpickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return SweError(_sentence(error))
    return error


def _sentence(error: BaseException) -> str:
    if isinstance(error, SweError):
        return error.message
    return " ".join(f"{type(error).__name__}: {error}".split())


def _failed(cell: Cell, error: BaseException) -> Row:
    """The row of a cell that could not be measured: visible, not kept as done, so tried again."""
    return cell.new_row(status="failed", error=_sentence(error), fingerprint="", axes=cell.axes)
