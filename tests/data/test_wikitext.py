"""WikiText by hand: what a row is, and what stands between two of them."""

import pandas as pd
import pytest

from swe_cli.config import ConfigRoot, component
from swe_cli.data.text import wikitext
from swe_cli.errors import DataError

LINES = " \n = Robert = \n \n Robert is <unk> . \u2028 He sat .\n He acts .\n"
ROWS = ["", " = Robert = \n", "", " Robert is <unk> . \u2028 He sat .\n", " He acts .\n"]
JOINED = "\n\n = Robert = \n\n\n\n\n Robert is <unk> . \u2028 He sat .\n\n\n He acts .\n"  # by hand


def split_of(text, split):
    return "".join(text.chunks(split))


def raw(folder, end="raw"):
    for name, content in (("train", LINES), ("valid", " \n \n"), ("test", f" a b\n{LINES}")):
        (folder / f"wiki.{name}.{end}").write_bytes(content.encode())
    return folder


def test_rows_are_joined_as_published(tmp_path):
    text = component("data", "wikitext", ConfigRoot(), {"path": str(raw(tmp_path))}).build()
    assert split_of(text, "train") == JOINED == "\n\n".join(ROWS)
    assert "is <unk> . \u2028 He sat .\n\n\n He acts" in JOINED  # three line ends between lines
    assert split_of(text, "validation") == "\n\n"
    assert split_of(text, "test") == " a b\n\n\n" + JOINED


def test_the_tokens_and_the_parquet_files_give_the_same(tmp_path):
    (tokens := tmp_path / "tokens").mkdir()
    (parquet := tmp_path / "parquet").mkdir()
    (both := tmp_path / "both").mkdir()
    rows = {"train": ROWS, "validation": ["", ""], "test": [" a b\n", *ROWS]}
    for split, of in rows.items():
        for part, some in enumerate((of[:1], of[1:])):
            name = f"{split}-0000{part}-of-00002.parquet"
            pd.DataFrame({"text": some}).to_parquet(parquet / name)
    texts = [wikitext(path=str(of)) for of in (raw(both), raw(tokens, "tokens"), parquet)]
    assert len({text.sha256 for text in texts}) == 1
    assert texts[0].splits == texts[1].splits == texts[2].splits


def test_what_is_missing_is_named(tmp_path):
    raw(tmp_path)
    (tmp_path / "wiki.valid.raw").unlink()
    with pytest.raises(DataError, match=r"holds no wiki.valid.raw.*validation-\*.parquet"):
        wikitext(path=str(tmp_path))
    with pytest.raises(DataError, match=r"none holds no wiki.train.raw"):
        wikitext(path=str(tmp_path / "none"))
