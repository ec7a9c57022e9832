"""Tokenizers: one token a character, one a word, or byte pairs merged by their frequency."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from swe_cli.contracts import Tokenizer
from swe_cli.data.cache import cache_folder, write_cached
from swe_cli.data.text import Text, word_end
from swe_cli.errors import DataError, ModelError, optional

# A space belongs to what follows it; digits stand alone, so that numbers can be spelt.
WORD = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]| ?_|\s")

BPE_FORMAT = 1
Size = Annotated[int, Field(ge=256, title="byte values come first")]
TOKENIZER = "tokenizer.json"
PIECE = 1 << 13  # characters; the library is several times faster on short pieces, in parallel


class CharTokenizer(Tokenizer):
    """Ids count through ``vocabulary``: the characters of the splits in use, by code point."""

    def __init__(self, text: Text) -> None:
        used: set[str] = set()
        for split in text.splits:
            for chunk in text.chunks(split):
                used.update(chunk)
        self.vocabulary, self.vocabulary_size = "".join(sorted(used)), len(used)
        self.sha256 = _sha256(f"chars\n{self.vocabulary}".encode())
        points = _code_points(self.vocabulary)
        self._ids = np.zeros(points.max(initial=0) + 1, np.uint32)
        self._ids[points] = np.arange(len(points), dtype=np.uint32)

    def encode(self, text: str) -> NDArray[np.uint32]:
        if unknown := sorted(set(text) - set(self.vocabulary)):
            some = ", ".join(map(repr, unknown[:10])) + " and others" * (len(unknown) > 10)
            hint = "Leave them out, or train with tokenizer=bpe, which can write anything."
            raise DataError(f"The vocabulary of this text does not hold {some}.", hint)
        return self._ids[_code_points(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.vocabulary[index] for index in ids)


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


class WordTokenizer(Tokenizer):
    """One token a word, digit or sign: for questions and answers, not for running text.

    Ids count through ``vocabulary``, the sorted words of the training split; the last,
    ``unknown``, is any other word.
    """

    def __init__(self, text: Text) -> None:
        lines = (line for chunk in text.chunks("train") for line in chunk.split("\n"))
        self.vocabulary = sorted({word for line in lines for word in WORD.findall(line)})
        self.unknown = len(self.vocabulary)
        self.vocabulary_size = self.unknown + 1
        self.sha256 = _sha256("\x00".join(["words", *self.vocabulary]).encode())
        self._ids = {word: index for index, word in enumerate(self.vocabulary)}

    def encode(self, text: str) -> NDArray[np.uint32]:
        ids = [self._ids.get(word, self.unknown) for word in WORD.findall(text)]
        return np.array(ids, np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        spelt = [*self.vocabulary, "�"]
        return "".join(spelt[index] for index in ids)


class BpeTokenizer(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2).

    At most ``vocabulary_size`` tokens, trained on the training split: cached, or trained now. Any
    text can be encoded: a character without a merge is written as its UTF-8 bytes. Raises
    UsageError where the package is missing, StorageError where the cache cannot be written.
    """

    def __init__(self, text: Text, *, vocabulary_size: Size) -> None:
        tokenizers = optional("tokenizers", "tokenizer=bpe", "bpe")
        trained_on = [text.sha256, text.splits["train"], vocabulary_size]
        key = json.dumps([*trained_on, BPE_FORMAT, tokenizers.__version__])
        path = cache_folder() / f"bpe-{_sha256(key.encode())[:16]}"
        sha256 = serialized = b""
        with suppress(OSError):  # absent; where the folder is out of reach, writing says so
            sha256, _, serialized = path.read_bytes().partition(b"\n")
        if _sha256(serialized).encode() != sha256:
            learner, texts = tokenizers.ByteLevelBPETokenizer(), text.chunks("train")
            learner.train_from_iterator(texts, vocabulary_size, 2, show_progress=False)
            serialized = str(learner.to_str()).encode()
            write_cached(path, _sha256(serialized).encode() + b"\n" + serialized)
        self._backend = tokenizers.Tokenizer.from_str(serialized.decode())
        self.vocabulary_size = int(self._backend.get_vocab_size())
        model = json.loads(self._backend.to_str())["model"]
        identity = json.dumps([model["vocab"], model["merges"]], sort_keys=True)
        self.sha256 = _sha256(f"bpe\n{identity}".encode())

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids (N,). Raises DataError for a text that UTF-8 cannot write (lone surrogates)."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            shown = f"character {error.start} is {text[error.start]!r}"
            raise DataError(f"The text is not UTF-8: {shown}.", "Leave it out.") from None
        pieces = []
        while text:
            end = word_end(text[:PIECE]) if len(text) > PIECE else len(text)
            pieces.append(text[:end])
            text = text[end:]
        encoded = self._backend.encode_batch_fast(pieces, add_special_tokens=False)
        return np.array([index for encoding in encoded for index in encoding.ids], np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        """Characters; an unfinished one at either end shows as U+FFFD."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))


class Pretrained(Tokenizer):
    """The tokenizer of a model of transformers, in its folder; nothing is added around a text.

    Raises ModelError for a folder without one that the package tokenizers can run.
    """

    whole = True

    def __init__(self, text: Text, *, path: str) -> None:
        folder = Path(path).expanduser()
        backend = optional("tokenizers", "tokenizer=pretrained", "huggingface").Tokenizer
        try:
            serialized = (folder / TOKENIZER).read_text(encoding="utf-8")
            self._backend = backend.from_str(serialized)
            beside = folder / "tokenizer_config.json"
            eos = json.loads(beside.read_bytes()).get("eos_token") if beside.is_file() else None
        except FileNotFoundError:
            if not folder.is_dir():
                raise ModelError(f"There is no folder {folder}.", "Check the path.") from None
            why = f"{folder} holds no {TOKENIZER}."
            hint = "Make it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            raise ModelError(why, hint) from None
        except Exception as error:  # of the library, in words of its own
            raise ModelError(f"{folder / TOKENIZER} cannot be read: {error}.") from error
        self._backend.no_truncation()
        self._backend.no_padding()
        self.vocabulary_size = int(self._backend.get_vocab_size(with_added_tokens=True))
        self.sha256 = _sha256(serialized.encode())
        with suppress(OSError, ValueError):  # the model says what is wrong with that
            self.bos = json.loads((folder / "config.json").read_bytes()).get("bos_token_id")
        usual = self._backend.encode("a")
        if usual.special_tokens_mask[:1] == [1]:
            self.bos, self.begins = usual.ids[0], True
        end = self._backend.token_to_id(eos["content"] if isinstance(eos, dict) else eos or "")
        if end is not None and len(line := self.encode("\n")):
            self.ends = (int(line[-1]), int(end))  # a line for a question

    def encode(self, text: str) -> NDArray[np.uint32]:
        return np.array(self._backend.encode(text, add_special_tokens=False).ids, np.uint32)

    decode = BpeTokenizer.decode


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
