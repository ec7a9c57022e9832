"""Any UTF-8 text file, streamed."""

from pathlib import Path

from swe_cli.data.text import Text, check_fractions, open_file
from swe_cli.errors import UsageError


def text_file(
    *, path: str, validation_fraction: float, test_fraction: float, train_characters: int | None
) -> Text:
    """The end of the file is test, what lies before it validation, the start train.

    ``train_characters`` keeps only the first so many of the training part; None keeps all.
    Raises UsageError for sizes that cannot be, DataError for a file that is not UTF-8 text.
    """
    check_fractions(validation_fraction, test_fraction)
    source = open_file(Path(path).expanduser())
    end = source.characters
    test = end - int(end * test_fraction)
    validation = test - int(end * validation_fraction)
    train = validation if train_characters is None else train_characters
    if not 1 <= train <= validation:
        raise UsageError(
            f"data.train_characters={train} is not in 1 to {validation}, "
            f"the size of the training part of {path}."
        )
    return Text(
        source, {"train": (0, train), "validation": (validation, test), "test": (test, end)}
    )
