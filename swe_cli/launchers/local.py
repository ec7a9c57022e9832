"""One job after another, in this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from swe_cli.errors import Interrupted, StorageError

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Local:
    """Runs jobs in order; a job's error is handed back and the next one starts."""

    def map(
        self, function: Callable[[J], R], jobs: Sequence[J]
    ) -> Iterator[tuple[J, R | BaseException]]:
        for job in jobs:
            try:
                result: R | BaseException = function(job)
            except (Interrupted, StorageError):  # these stop everything
                raise
            except Exception as error:
                result = error
            yield job, result
