"""A command as it was typed: its words read, its run found, its work shown and stopped."""

import json
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from swe_cli.config import Composed, ConfigRoot, Tokens, compose, read_tokens, said_by
from swe_cli.errors import Interrupted, RunError, UsageError
from swe_cli.experiments.ensure import Observer, Working
from swe_cli.experiments.sweep import compose_point, preview
from swe_cli.experiments.training import results_root
from swe_cli.records import Row
from swe_cli.report.text import printable
from swe_cli.store import Run, find_run, list_runs
from swe_cli.training.state import Callback, TrainState

TAKE_A_RUN = ("prune", "evaluate", "report", "recommend", "generate", "export")
AMOUNTS = ("ratio", "rate", "fuse")  # of swe prune, which has options of these names, too
WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
TRAIN = "Train one: swe train model=gpt_nano"
PLAIN_SECONDS = 10.0  # without a terminal, one line of progress about this often
WORKERS_SECONDS = 60.0  # and one on what each of several workers does


class _Console(Console):
    """Goes on, unheard, when the reader of a pipe leaves: swe sweep | head."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class Page:
    """A command with the options that several have; read and composed when that is looked at.
    ``form``: what its result is printed in, and nothing else; None for people.

    Raises UsageError then, for words that it does not take.
    """

    command: str
    words: Sequence[str] = ()
    config_dir: Path | None = None
    quiet: bool = False
    wait: bool = False
    form: str | None = None

    @cached_property
    def root(self) -> ConfigRoot:
        """Where YAMLs are found, with the user's own folder."""
        return ConfigRoot(self.config_dir.expanduser().resolve() if self.config_dir else None)

    @cached_property
    def tokens(self) -> Tokens:
        return _read(self.command, self.words)

    @cached_property
    def composed(self) -> Composed:
        if self.command == "sweep":
            return compose_point(self.tokens, self.root)
        if self.command == "prune" and any(w.startswith("model=") for w in self.words):
            whole = compose("sweep", self.tokens.overrides, self.root)  # which has all groups
            return replace(whole, values={**whole.values, "axes": {}})
        return compose(self.command, self.tokens.overrides, self.root)

    @property
    def results(self) -> Path:
        return results_root(self.composed.values["results_dir"])

    def named(self, run: Run) -> str:
        """A run as one types it: by its name, or by its path where that is not looked through."""
        here = run.path.resolve().parent == (results_root(None) / "runs").resolve()
        return run.name if here else str(run.path)

    @property
    def again(self) -> str:
        """The command as one would type it again."""
        options = ["--config-dir", str(self.config_dir)] if self.config_dir else []
        ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
        swe = "swe" if ranks == "1" else f"torchrun --nproc-per-node={ranks} -m swe_cli"
        return shlex.join([*swe.split(), self.command, *self.words, *options])

    @property
    def resume(self) -> str:
        """What to do after it was stopped."""
        return f"Type the same again to resume: {self.again}"

    @cached_property
    def console(self) -> Console:
        """Where results go. A pipe has no width of its own: 80 columns."""
        width = None if sys.stdout.isatty() else 80
        return _Console(highlight=False, width=width, quiet=self.form is not None)

    @cached_property
    def watcher(self) -> "Watcher":
        return Watcher(self.quiet)

    def print(self, text: str) -> None:
        """A line of words in which brackets are brackets; it may be wider than the terminal."""
        self.console.print(printable(text), markup=False, soft_wrap=True)

    def result(self, value: Any) -> None:
        """Print what a command found as JSON, where that is asked for; not a number is null."""
        if self.form == "json":
            strict = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
            sys.stdout.write(json.dumps(strict, indent=2) + "\n")

    def print_config(self) -> None:
        """Every key, as YAML one could save; what was typed, or the experiment set, says so."""
        composed = preview(self.tokens, self.root) if self.command == "sweep" else self.composed
        tree = {group: chosen.describe() for group, chosen in composed.components.items()}
        names = [f"{group}={options.pop('name')}" for group, options in tree.items()]
        self.print(f"# {' '.join(names)}")
        if composed.values.get("axes"):
            self.print("# This is the first cell; every combination of the axes is one.")
        axes = self.tokens.axes
        told = dict(w.split("=", 1) for w in self.tokens.overrides if "=" in w)
        marks = dict.fromkeys(said_by(told.get("experiment"), self.root), "experiment")
        typed = (*(key.lstrip("+") for key in told), *axes, *(f"axes.{key}" for key in axes))
        marks |= dict.fromkeys(typed, "typed")
        path: list[str] = []
        text = yaml.safe_dump({**tree, **composed.values}, sort_keys=False, width=math.inf)
        for line in text.splitlines():
            depth = (len(line) - len(line.lstrip())) // 2
            path[depth:] = [line.strip().partition(":")[0]]
            mark = marks.get(".".join(path))
            self.print(f"{line}  # {mark}" if mark else line)

    def chosen_run(
        self, kinds: tuple[str, ...], doing: str, *, otherwise: str = TRAIN, quiet: bool = True
    ) -> Run:
        """The run a user named, else the newest finished one of ``kinds``; which, is said.

        ``doing``: what is done to it, in a word. ``otherwise``: what to type where there is none.
        ``quiet``: say it only where an unfinished one is newer.
        """
        if self.tokens.runs:
            run, why = find_run(self.tokens.runs[0], self.results, kinds), ""
        else:
            runs = list_runs(self.results, kinds)
            finished = next((run for run in runs if run.finished), None)
            if finished is None:
                where = self.results / "runs"
                raise RunError(f"No finished {' or '.join(kinds)} run in {where}.", otherwise)
            run, why = finished, " (the newest)"
            if run is not runs[0]:
                quiet = False
                why = f" (the newest that is finished: {runs[0].name} is {runs[0].status})"
        Watcher(quiet).say(f"{doing} {run.name}{why}")
        return run


def _read(command: str, words: Sequence[str]) -> Tokens:
    """The words told apart. UsageError for what the command does not take, RunError for weights."""
    keys = [word.partition("=")[0] for word in words]
    if command == "prune":
        for key in AMOUNTS:
            if keys.count(key) > 1:
                raise UsageError(f"The {key} is given twice.", f"Keep one: --{key} or {key}=…")
        if "rate" in keys and "allocation" not in keys:
            words = [*words, "allocation=sigma"]  # the only one that knows what a rate is
    tokens = read_tokens(words)
    for key, values in tokens.axes.items() if command != "sweep" else ():
        if len(values) == 1:
            raise UsageError(f"An axis of {key} belongs to swe sweep.", f"Write {values[0]}")
        swept = f"Type: swe sweep {shlex.join(words)}"
        hint = swept if command == "train" else f"Give {key} one value."
        raise UsageError(f"{key} is given several values; axes belong to swe sweep.", hint)
    allowed = 1 if command in TAKE_A_RUN else len(tokens.runs) * (command == "compare")
    if len(tokens.runs) > allowed:
        left = f"takes {'one' if allowed else 'no'} run; {tokens.runs[allowed]!r} is left over"
        raise UsageError(f"swe {command} {left}.", "Overrides: key=value.")
    for token in tokens.runs:
        if token.endswith(WEIGHTS):
            reason = f"{token} is a file of weights; what can be cut is a training of swe train."
            raise RunError(reason, f"List them: swe runs. {TRAIN}")
    return tokens


def pruned_row(run: Run) -> Row:
    """The row of a finished pruned run."""
    if not run.finished:
        raise RunError(f"{run.name} is {run.status}.", "Type the swe prune that makes it again.")
    return Row.from_json(run.manifest["row"])


# Long work


@contextmanager
def listening(resume: str | None = None) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM as a question that loops ask; a second signal ends at once.

    An ``Interrupted`` that passes through leaves with the exit code of its signal, and ``resume``
    for a hint where it has none.
    """
    taken: list[int] = []
    relayed = "TORCHELASTIC_RUN_ID" in os.environ  # torchrun sends again what a terminal sent

    def take(number: int, frame: FrameType | None) -> None:
        if taken and not relayed:
            raise KeyboardInterrupt
        taken.append(number)

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(taken)
    except Interrupted as interruption:
        interruption.hint = interruption.hint or resume
        interruption.exit_code = 128 + next(iter(taken), signal.SIGINT)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watcher(Observer):
    """Shows long work: a bar with rate and time left, or plain lines when not on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._workers: dict[int, _Work] = {}
        self._told, self._failed = time.monotonic(), 0
        self.console = Console(stderr=True, highlight=False)
        # At 80 columns a bar must not wrap: the note gives way first, and the name is said above.
        whole, short = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self.bars = Progress(
            TextColumn("  {task.description}", table_column=whole),
            BarColumn(bar_width=10, table_column=whole),
            MofNCompleteColumn(table_column=whole),
            TextColumn("{task.fields[rate]}", table_column=whole),
            TimeRemainingColumn(table_column=whole),
            TextColumn("{task.fields[note]}", table_column=short),
            console=self.console,
            expand=True,
        )

    def showing(self) -> AbstractContextManager[object]:
        """Show the bars meanwhile, where they can be seen."""
        seen = self.console.is_terminal and not self.quiet
        return self.bars if seen else nullcontext()

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(printable(text), markup=False, soft_wrap=True)

    def training(self, name: str, steps: int) -> Callback:
        self.say(f"Training {name}: {steps} steps")
        return _Training(self, "training", "step", steps)

    def recovery(self, steps: int) -> Callback:
        return _Work(self, "recovery", "step", max(1, steps))

    def cells(self, total: int, reused: int) -> None:
        if reused:
            self.say(f"{reused} of {total} cells are there already.")
        if total > reused:
            self._cells = _Work(self, "cells", "cell", total - reused)

    def cell_done(self, row: Row) -> None:
        self._failed += row.status == "failed"
        failed = f"{self._failed} failed; " if self._failed else ""
        self._cells.advance(failed + _in_words(row))

    def working(self, jobs: Sequence[Working]) -> None:
        for key in self._workers.keys() - {job.key for job in jobs}:
            self.bars.remove_task(self._workers.pop(key).bar)
        for job in jobs:
            run, _, does = job.name.partition(": ")
            if job.key not in self._workers:
                work = _Work(self, does or "training", job.unit, job.total, job.done)
                self._workers[job.key] = work
            self._workers[job.key].reach(job.done, run)
        due = time.monotonic() - self._told >= WORKERS_SECONDS
        if jobs and due and not self.bars.live.is_started:
            self._told = time.monotonic()
            all_ = "; ".join(work.words for work in self._workers.values())
            self.say(f"{len(jobs)} at work. {all_}")


def _in_words(row: Row) -> str:
    """A cell in a few words, for progress."""
    settings = row.settings
    base = settings.get("base", "final")
    words = [settings.get("criterion"), settings.get("roles"), "" if base == "final" else base]
    amount = settings.get("ratio", settings.get("rate"))
    loss = row.error if row.status == "failed" else f"loss {row.mean('loss'):.4f}"
    named = [row.kind] if row.kind != "pruned" else words
    return " ".join(str(word) for word in [*named, amount, loss] if word not in (None, ""))


class _Work(Callback):
    """So many units of work: what moves a bar or, without one, says a line now and then."""

    def __init__(
        self, watcher: Watcher, title: str, unit: str, total: int, before: int = 0
    ) -> None:
        self._watcher, self._title, self._unit, self._total = watcher, title, unit, total
        self._started = self._spoken = time.monotonic()
        self._done = self._before = before
        self.bar, self.words = watcher.bars.add_task(title, total=total, rate="", note=""), ""

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        self.advance(f"loss {metrics['loss_nats']:.3f}")

    def advance(self, note: str) -> None:
        """One more is done; a few words about it."""
        self.reach(self._done + 1, note)
        now = time.monotonic()
        due = now - self._spoken >= PLAIN_SECONDS or self._done >= self._total
        if due and not self._watcher.bars.live.is_started:
            self._spoken = now
            self._watcher.say(self.words)

    def reach(self, done: int, note: str) -> None:
        """So many are done by now."""
        self._done = done
        speed = (done - self._before) / max(1e-9, time.monotonic() - self._started)
        rate = f"{speed:.1f} {self._unit}s/s" if speed else ""
        self._watcher.bars.update(self.bar, completed=done, rate=rate, note=note)
        left = f"{(self._total - done) / speed:.0f} s left" if speed else ""
        said = (f"{self._unit} {done}/{self._total}", rate, left, note)
        self.words = f"{self._title}: {', '.join(word for word in said if word)}"


class _Training(_Work):
    """Counts the steps before the checkpoint that it goes on from, too."""

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if not self._done:
            self._done = self._before = state.step - 1
            if self._before:
                self._watcher.say(f"Going on from step {self._before} of {self._total}")
        super().after_step(state, metrics)
