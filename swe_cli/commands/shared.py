"""What the pages of several commands share: reading words, finding runs, watching, stopping."""

import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from swe_cli.compose import ConfigRoot, Tokens, read_tokens
from swe_cli.errors import Interrupted, RunError, UsageError
from swe_cli.records import Row
from swe_cli.runs import Run, find_run, list_runs

PLAIN_SECONDS = 10.0  # without a terminal, one line of progress about this often


def output() -> Console:
    """Where results go. A pipe has no width of its own: 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=80)


def read_words(command: str, words: Sequence[str], *, runs: int) -> Tokens:
    """The words of a command that takes no axes and at most ``runs`` run names."""
    tokens = read_tokens(words)
    if tokens.axes:
        key, values = next(iter(tokens.axes.items()))
        if len(values) == 1:
            raise UsageError(f"An axis of {key} belongs to swe sweep.", f"Write {values[0]}")
        raise UsageError(
            f"{key} is given several values; axes belong to swe sweep.",
            f"Type: swe sweep {shlex.join(words)}"
            if command == "train"
            else f"Give {key} one value.",
        )
    if len(tokens.runs) > runs:
        extra = tokens.runs[runs]
        what = "takes no run" if runs == 0 else "takes one run"
        raise UsageError(f"swe {command} {what}; {extra!r} is left over.", "Overrides: key=value.")
    return tokens


def typed(command: str, words: Sequence[str], config_dir: Path | None = None) -> str:
    """The command as one would type it again."""
    options = ["--config-dir", str(config_dir)] if config_dir else []
    return f"Type the same again to resume: {shlex.join(['swe', command, *words, *options])}"


def config_root(config_dir: Path | None) -> ConfigRoot:
    return ConfigRoot(config_dir.expanduser().resolve() if config_dir else None)


def pruned_row(run: Run) -> Row:
    """The row of a finished pruned run."""
    if not run.finished:
        raise RunError(f"{run.name} is {run.status}.", "Type the swe prune that makes it again.")
    return Row.from_json(run.manifest["row"])


def check_finished(run: Run) -> None:
    """Raise RunError for a training that has no final weights."""
    if not run.finished:
        raise RunError(
            f"{run.name} is {run.status}: it has no final weights yet.",
            "Type the command that trains it again: it resumes.",
        )


def training_of(run: Run) -> Run:
    """The training that a pruned run was cut from. Raises RunError where it is gone."""
    training = Run(run.path.parent / run.config["training"])
    if not training.exists:
        raise RunError(
            f"{run.name} was cut from {training.name}, which is not in {run.path.parent}.",
            "Put that folder back, or type the swe train that makes it again.",
        )
    return training


def chosen_run(tokens: Tokens, results: Path, kinds: tuple[str, ...], otherwise: str) -> Run:
    """The run a user named, else the newest finished one of ``kinds``."""
    if tokens.runs:
        return _named_run(tokens.runs[0], results, kinds)
    for run in list_runs(results, kinds):
        if run.finished:
            return run
    raise RunError(f"No finished {' or '.join(kinds)} run in {results / 'runs'}.", otherwise)


def _named_run(token: str, results: Path, kinds: tuple[str, ...]) -> Run:
    try:
        run = find_run(token, results, kinds)
    except RunError:
        run = find_run(token, results)  # of another kind, then; else the better complaint
        if run.kind in kinds:
            raise
    if run.kind not in kinds:
        wanted = " or ".join(kinds)
        raise RunError(
            f"{run.name} is no {wanted} run, which is what is asked for.", "See: swe runs"
        )
    return run


class Stop:
    """Ctrl-C and SIGTERM as a question that loops ask; a second signal ends at once.

    An ``Interrupted`` that passes through ``listening`` leaves with the exit code of its signal.
    """

    def __init__(self, resume: str | None = None) -> None:
        self.signal_number: int | None = None
        self._resume = resume

    def __call__(self) -> bool:
        return self.signal_number is not None

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = number

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._asked) for number in signals]
        try:
            yield self
        except Interrupted as interruption:
            interruption.hint = interruption.hint or self._resume
            interruption.exit_code = 128 + (self.signal_number or signal.SIGINT)
            raise
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)


class Watcher:
    """Shows long work: a bar with rate and time left, or plain lines when not on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.quiet = quiet
        self._bar: Progress | None = None
        self._seconds: dict[str, float] = {}
        self._cells: Callable[[str], None] = lambda text: None

    @contextmanager
    def showing(self) -> Iterator["Watcher"]:
        if self.quiet or not self.console.is_terminal:
            yield self
            return
        # At 80 columns a bar must not wrap: the note gives way first, and the name is said above.
        whole, short = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
        with Progress(
            TextColumn("{task.description}", table_column=whole),
            BarColumn(bar_width=10, table_column=whole),
            MofNCompleteColumn(table_column=whole),
            _Rate(table_column=whole),
            TimeRemainingColumn(table_column=whole),
            TextColumn("{task.fields[note]}", table_column=short),
            console=self.console,
            expand=True,
        ) as bar:
            self._bar = bar
            yield self

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def training(self, name: str, steps: int) -> "_Steps":
        self.say(f"Training {name}: {steps} steps")
        return _Steps(self._line("  training", "step", steps))

    def recovery(self, steps: int) -> Callable[[int], None]:
        advance = self._line("  recovery", "step", max(1, steps))
        return lambda step: advance("")

    def cells(self, total: int, reused: int) -> None:
        if reused:
            self.say(f"{reused} of {total} cells are there already.")
        if total > reused:
            self._cells = self._line("  cells", "cell", total - reused)

    def cell_done(self, row: Row) -> None:
        self._cells(describe(row))

    def _line(self, title: str, unit: str, total: int) -> Callable[[str], None]:
        if self.quiet:
            return lambda note: None
        if self._bar is None:
            return _PlainLine(self.say, title.strip(), unit, total)
        bar, task = self._bar, self._bar.add_task(title, total=total, unit=unit, note="")

        def advance(note: str) -> None:
            bar.update(task, advance=1, note=note)

        return advance


def describe(row: Row) -> str:
    """A cell in a few words, for progress."""
    amount = row.rate if row.ratio is None else row.ratio
    base = "" if row.base == "final" else row.base
    words = [row.criterion, row.roles or "", base] if row.kind == "pruned" else [row.kind]
    found = row.error if row.status == "failed" else f"loss {row.loss_nats:.4f}"
    return " ".join(str(w) for w in [*words, "" if amount is None else amount, found] if w != "")


class _Steps:
    """A hook of the training loop that moves a bar."""

    def __init__(self, advance: Callable[[str], None]) -> None:
        self._advance = advance

    def after_step(self, step: int, metrics: dict[str, float]) -> None:
        self._advance(f"loss {metrics['loss_nats']:.3f}")


class _PlainLine:
    """Progress without a terminal: a line now and then, with rate and time left."""

    def __init__(self, say: Callable[[str], None], title: str, unit: str, total: int) -> None:
        self._say, self._title, self._unit, self._total = say, title, unit, total
        self._started = self._spoken = time.monotonic()
        self._done = 0

    def __call__(self, note: str) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._spoken < PLAIN_SECONDS and self._done < self._total:
            return
        self._spoken = now
        rate = self._done / max(1e-9, now - self._started)
        left = (self._total - self._done) / rate
        self._say(
            f"{self._title}: {self._unit} {self._done}/{self._total}, "
            f"{rate:.1f} {self._unit}s/s, {left:.0f} s left, {note}"
        )


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}s/s" if speed else "")


def print_config(console: Console, composed: Any) -> None:
    """Every key of a composed configuration with its value, as YAML one could save."""
    import yaml

    tree = {group: chosen.describe() for group, chosen in composed.parts.items()}
    for options in tree.values():
        options.pop("name")
    names = {group: chosen.name for group, chosen in composed.parts.items()}
    chosen = " ".join(f"{group}={name}" for group, name in names.items())
    console.print(f"# {chosen}", markup=False, soft_wrap=True)
    text = yaml.safe_dump({**tree, **composed.values}, sort_keys=False)
    console.print(text.rstrip(), markup=False, soft_wrap=True)
