"""What a tracker is shown of a run: each line of its metrics once, however often it stopped."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
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

SHOWN = "shown.json"  # in a run's folder: how far each tracker was shown it
SECONDS = 10.0  # between looks at a run that grows


@dataclass
class Shown(Callback):
    """A run before a tracker. What fails there is a warning, after which it is shown no more."""

    run: Run
    name: str
    tracker: Tracker
    started: bool = False
    failed: bool = False
    looked: float = field(default_factory=time.monotonic)

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if time.monotonic() - self.looked >= SECONDS:
            self.attempt(self._metrics)
            self.looked = time.monotonic()

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show the table of a sweep, where it is another than before."""
        self.attempt(self._table, rows)

    def finish(self) -> None:
        self.attempt(self._metrics)
        if self.started:
            self.attempt(self.tracker.finish)

    def attempt(self, act: Callable[..., None], *what: Any) -> None:
        if self.failed:
            return
        try:
            with redirect_stdout(sys.stderr):  # trackers greet; what is printed here is results
                act(*what)
        except Exception as error:
            self.failed = True
            told = "" if isinstance(error, SweError) else f"{type(error).__name__}: "
            why = " ".join(f"tracker={self.name} failed, the run goes on. {told}{error}".split())
            again = "Type the same command again to show it what it missed."
            warnings.warn(f"{why} {again}", SweWarning, stacklevel=2)

    def _metrics(self) -> None:
        path, done = self.run.path / METRICS, self._done().get(self.name, 0)
        if not path.is_file():
            return
        with path.open() as file:  # a line a step, so that the next one to show is known
            lines = [json.loads(line) for line in islice(file, done, None)]
        if lines:
            self._start(done + 1)
            self.tracker.log([(line.pop("step"), line) for line in lines])
            self._remember(done + len(lines))

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        now = sha256(self.run.path / "table.csv")
        if self._done().get(self.name) != now:
            self._start(0)
            self.tracker.table(rows)
            self._remember(now)

    def _start(self, step: int) -> None:
        if not self.started:
            self.tracker.start(self.run.name, self.run.path, self.run.config, step)
            self.started = True

    def _done(self) -> dict[str, Any]:
        path = self.run.path / SHOWN
        return dict(read_json(path)) if path.is_file() else {}

    def _remember(self, how_far: int | str) -> None:
        write_json(self.run.path / SHOWN, {**self._done(), self.name: how_far})


@contextmanager
def shown(chosen: Component | None, run: Run) -> Iterator[list[Shown]]:
    """Show a tracker a run while it grows, and in the end what is left; nothing to ``none``."""
    tracker = None if chosen is None else built(chosen)
    those = [Shown(run, chosen.name, tracker)] if chosen and tracker else []
    try:
        yield those
    finally:
        for one in those:
            one.finish()
