"""A job on its way to another process, perhaps on another machine, and how it is run there."""

import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, Generic

from swe_cli.contracts import R
from swe_cli.errors import SweWarning

GRACE = 60.0  # seconds that workers have to write their checkpoints


def say_warnings() -> None:
    """Ours, each once, as a line: a worker has no command around it that would print them."""
    warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", SweWarning)


class Parcel(Generic[R]):
    """``function(job)`` as bytes, with the folders that modules are found in: a user's, too."""

    def __init__(self, function: Callable[..., R], job: Any) -> None:
        self.paths, self.folder = [path or os.getcwd() for path in sys.path], os.getcwd()
        self.data = pickle.dumps((function, job))

    def open(self, *signals: int) -> tuple[R, list[int]]:
        """What comes of it, and which of the ``signals`` came: each asks the job to stop."""
        taken: list[int] = []
        sys.path[:] = self.paths
        os.chdir(self.folder)
        say_warnings()
        for number in signals:
            signal.signal(number, lambda number, frame: taken.append(number))
        function, job = pickle.loads(self.data)
        return function(job, stop=lambda: bool(taken)), taken
