"""Every error a user can meet, and the exit code that tells scripts about it.

::

    SweError                 exit 1   something the user can see and mend
    ├── UsageError           exit 2   the words of the command are off
    ├── DataError            exit 1   text or images that cannot be used
    ├── RunError             exit 1   a run that is missing, ambiguous, unfinished or busy
    ├── CorruptFileError     exit 1   a stored file that does not match its hash
    ├── StorageError         exit 1   a results root that is read-only or full
    ├── TrainingError        exit 1   a loss that is no longer a number
    ├── PruningError         exit 1   a cut that is impossible as asked
    └── Interrupted          exit 130 or 143   stopped from outside; the same command resumes
"""


class SweError(Exception):
    """A failure with one sentence for the user and the next thing to type.

    ``message`` says what is wrong; ``hint`` (optional) is what to type or change next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type["SweError"], tuple[str, str | None]]:
        return type(self), (self.message, self.hint)


class UsageError(SweError):
    """The words of the command are off: an unknown key, a wrong type, an impossible range."""

    exit_code = 2


class DataError(SweError):
    """A text that is missing, empty, not UTF-8, too short, or not the one its hash promises."""


class RunError(SweError):
    """A run that does not exist, is ambiguous, is unfinished, or is held by another process."""


class CorruptFileError(SweError):
    """A stored file is truncated or does not match the hash in its manifest."""


class StorageError(SweError):
    """The results root cannot be written: read-only, full, or not a folder."""


class TrainingError(SweError):
    """Training cannot go on: the loss or a gradient is not finite."""


class PruningError(SweError):
    """The cut asked for is impossible: NaN scores, a statistic not recorded, a wrong count."""


class Interrupted(SweError):  # noqa: N818 - not a defect of the program
    """Stopped by a signal after what was done had been saved; 143 where it was SIGTERM."""

    exit_code = 130


class SweWarning(UserWarning):
    """Something the user should know; the work goes on."""
