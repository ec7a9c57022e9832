"""One job after another, in this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from swe_cli.contracts import J, Launcher, R
from swe_cli.errors import Interrupted, StorageError


@dataclass(frozen=True)
class Local(Launcher):
    """Runs jobs in order; a job's error is handed back and the next one starts."""

    in_process = True

    def map(
        self, function: Callable[[J], R], jobs: Sequence[J]
    ) -> Iterator[tuple[J, R | BaseException]]:
        for job in jobs:
            try:
                yield job, function(job)
            except (Interrupted, StorageError):  # these stop everything
                raise
            except Exception as error:
                yield job, error
