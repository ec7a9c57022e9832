"""Every error a user can meet, all of them ``SweError``; exit codes tell scripts about it."""

from importlib import import_module
from pathlib import Path
from typing import Any


class SweError(Exception):
    """A sentence for the user, ``message``, and what to type or change next, ``hint``."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class UsageError(SweError):
    """The words of the command are off: an unknown key, a wrong type, an impossible range."""

    exit_code = 2


def optional(package: str, asks: str, extra: str) -> Any:
    """A package that only some need, which may take seconds. UsageError where it is missing."""
    try:
        return import_module(package)
    except ImportError:
        why = f"{asks} needs the package {package.partition('.')[0].replace('_', '-')}."
        raise UsageError(why, f"Type: pip install 'swe-cli[{extra}]'") from None


class DataError(SweError):
    """A text that is missing, empty, not UTF-8, too short, or not the one its hash promises."""


class ModelError(SweError):
    """A folder whose model, or tokenizer, cannot be used: missing, damaged, unknown, another's."""


class RunError(SweError):
    """A run that does not exist, is ambiguous, is unfinished, or is held by another process."""


class CorruptFileError(SweError):
    """A stored file, at ``path``, is truncated, gone, or does not match its recorded hash."""

    path: Path | None = None


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
