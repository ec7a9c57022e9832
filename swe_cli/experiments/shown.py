"""What a tracker is shown of a run: each line of its metrics once, however often it stopped."""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import islice
from typing import Any

from swe_cli.config import Component
from swe_cli.contracts import Tracker
from swe_cli.errors import SweError, SweWarning
from swe_cli.experiments.spec import built
from swe_cli.files import read_json, sha256, write_json
from swe_cli.store import Run
from swe_cli.training.run import METRICS
from swe_cli.training.state import Callback, TrainState

SHOWN = "shown.json"  # in a run's folder: tracker → how far it was shown
SECONDS = 10.0  # between looks at a training


class Shown(Callback):
    """A run before a tracker. What fails there is a warning, after which it is shown no more."""

    def __init__(self, run: Run, name: str, tracker: Tracker) -> None:
        self.run, self.name, self.tracker = run, name, tracker
        self.started, self.failed, self.looked = False, False, time.monotonic()

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if time.monotonic() - self.looked >= SECONDS:
            self.show()

    def show(self, *, last: bool = False) -> None:
        """Show what is new; the ``last`` time, close it."""
        if self.failed:
            return
        self.looked = time.monotonic()
        try:
            with redirect_stdout(sys.stderr):  # trackers greet; what is printed here is results
                self._show()
                if last and self.started:
                    self.tracker.finish()
        except Exception as error:
            self.failed = True
            told = "" if isinstance(error, SweError) else f"{type(error).__name__}: "
            why = " ".join(f"tracker={self.name} failed, the run goes on. {told}{error}".split())
            again = "" if told == "" else " Type the same command again to show what it missed."
            warnings.warn(f"{why}{again}", SweWarning, stacklevel=2)

    def _show(self) -> None:
        path, table = self.run.path / SHOWN, self.run.path / "table.csv"
        known = read_json(path) if path.is_file() else {}
        done, lines = known.get(self.name, 0), []
        if not table.is_file():
            with (self.run.path / METRICS).open() as file:  # a line a step
                lines = [json.loads(line) for line in islice(file, done, None)]
        new = sha256(table) if table.is_file() else done + len(lines)
        if new == done:
            return
        if not self.started:
            step = done + 1 if lines else 0
            self.tracker.start(self.run.name, self.run.path, self.run.config, step)
            self.started = True
        if lines:
            self.tracker.log([(line.pop("step"), line) for line in lines])
        else:
            self.tracker.table(table)
        write_json(path, {**known, self.name: new})


@contextmanager
def shown(chosen: Component | None, run: Run) -> Iterator[list[Shown]]:
    """Show a tracker a run while it grows, and in the end what is left; nothing to ``none``."""
    tracker = None if chosen is None else built(chosen)
    those = [Shown(run, chosen.name, tracker)] if chosen and tracker else []
    try:
        yield those
    finally:
        for one in those:
            one.show(last=True)
