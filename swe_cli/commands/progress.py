"""What is shown of long work, and how it is stopped."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from swe_cli.errors import Interrupted
from swe_cli.experiments.ensure import Observer
from swe_cli.records import Row
from swe_cli.training.state import Callback, TrainState

PLAIN_SECONDS = 10.0  # without a terminal, one line of progress about this often


@contextmanager
def listening(resume: str | None = None) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM as a question that loops ask; a second signal ends at once.

    An ``Interrupted`` that passes through leaves with the exit code of its signal, and ``resume``
    for a hint where it has none.
    """
    taken: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        if taken:
            raise KeyboardInterrupt
        taken.append(number)

    def asked() -> bool:
        return bool(taken)

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
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
            self.console.print(text, markup=False, soft_wrap=True)

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
        self._cells.advance(_in_words(row))


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

    def __init__(self, watcher: Watcher, title: str, unit: str, total: int) -> None:
        self._watcher, self._title, self._unit, self._total = watcher, title, unit, total
        self._started = self._spoken = time.monotonic()
        self._done = self._before = 0
        self._bar = watcher.bars.add_task(title, total=total, rate="", note="")

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        self.advance(f"loss {metrics['loss_nats']:.3f}")

    def advance(self, note: str) -> None:
        """One more is done; a few words about it."""
        self._done += 1
        now = time.monotonic()
        speed = (self._done - self._before) / max(1e-9, now - self._started)
        rate = f"{speed:.1f} {self._unit}s/s"
        bars = self._watcher.bars
        bars.update(self._bar, completed=self._done, rate=rate, note=note)
        due = now - self._spoken >= PLAIN_SECONDS or self._done >= self._total
        if due and not bars.live.is_started:
            self._spoken = now
            left = f"{(self._total - self._done) / speed:.0f} s left"
            done = f"{self._unit} {self._done}/{self._total}"
            self._watcher.say(f"{self._title}: {done}, {rate}, {left}, {note}")


class _Training(_Work):
    """Counts the steps before the checkpoint that it goes on from, too."""

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if not self._done:
            self._done = self._before = state.step - 1
            if self._before:
                self._watcher.say(f"Going on from step {self._before} of {self._total}")
        super().after_step(state, metrics)
