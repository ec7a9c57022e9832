"""What a user's components give is held against what they must be."""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from swe_cli.conform import conform
from swe_cli.contracts import Dataset, DataShape, Questions
from swe_cli.data.tokenizers import CharTokenizer
from swe_cli.data.tokens import dataset_of
from swe_cli.errors import UsageError

from .toys import text_of

TEXT = text_of("abab")


class Base:
    __slots__ = ()
    needs: Sequence[str]
    published: str = "global"
    takes_ratio: ClassVar[bool] = True

    @property
    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def score(self) -> str: ...

    def describe(self) -> str:
        return f"{self.score()}, {self.published}"


class Plain:
    needs = ("mean",)
    size = 3

    def __init__(self, power: float = 2.0) -> None:
        self.power = power

    def score(self) -> str:
        return f"to the {self.power}"


@dataclass(frozen=True, kw_only=True)
class Frozen:
    power: float
    needs = ("mean",)
    size = 3
    published = "row"

    def score(self) -> str:
        return f"to the {self.power}"


class OwnModule(torch.nn.Module):
    needs = ()
    size = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def score(self) -> str:
        return "a module"


MAKERS = [
    pytest.param(lambda: Plain(), "to the 2.0, global", id="plain"),
    pytest.param(lambda: Frozen(power=3.0), "to the 3.0, row", id="frozen"),
    pytest.param(lambda: OwnModule(), "a module, global", id="module"),
]


@pytest.mark.parametrize(("make", "described"), MAKERS)
def test_a_plain_class_takes_the_defaults_of_the_base(make: Any, described: str) -> None:
    instance = make()
    conforming = conform(instance, Base, "criterion=mine")
    assert conforming is instance
    assert isinstance(conforming, Base)
    assert conforming.takes_ratio
    assert conforming.describe() == described
    assert type(conforming).__name__ == type(make()).__name__
    assert type(conforming) is type(conform(make(), Base, "criterion=mine"))
    assert conform(conforming, Base, "criterion=mine") is instance


@pytest.mark.parametrize(("make", "described"), MAKERS)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_what_conforms_can_be_copied(make: Any, described: str, again: Any) -> None:
    conforming = again(conform(make(), Base, "criterion=mine"))
    assert isinstance(conforming, Base)
    assert conforming.describe() == described


def test_dataclasses_stay_what_they_are() -> None:
    one, two = (conform(Frozen(power=3.0), Base, "criterion=mine") for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert isinstance(one, Frozen)
    assert replace(one, power=1.0).describe() == "to the 1.0, row"
    with pytest.raises(FrozenInstanceError):
        one.power = 9.0


def test_what_is_missing_is_named_with_the_component_and_the_page() -> None:
    class Nothing:
        size = 2

    class Promised(Base):
        needs = ()
        size = 2

    for instance, lacking in ((Nothing(), "needs, score"), (Promised(), "score")):
        said = f"criterion=mine gives a {type(instance).__name__}, which is no Base: it lacks "
        with pytest.raises(UsageError, match=f"{said}{lacking}\\.") as caught:
            conform(instance, Base, "criterion=mine")
        assert "docs/extend.md" in str(caught.value.hint)


def test_what_cannot_take_defaults_is_told_to_inherit() -> None:
    class OwnSlots:
        __slots__ = ("power",)
        needs = ()
        size = 2

        def score(self) -> str:
            return ""

    class WithState(Base):
        def __init__(self) -> None:
            self.state = 1

    with pytest.raises(UsageError, match="cannot take the defaults of WithState") as caught:
        conform(OwnSlots(), WithState, "criterion=mine")
    assert "Let it inherit from" in str(caught.value.hint)


class OwnData:
    sha256 = "0"
    shape = DataShape(3)

    def random_batch(self, split, *, size, context, seed): ...
    def windows(self, split, *, context, size): ...
    def steps_per_epoch(self, *, size, context): ...
    def fingerprint(self, split, *, context): ...
    def encode(self, text): ...
    def decode(self, ids): ...


class OwnQuestions(OwnData):
    separator, end, answer_tokens, numeric = 1, 2, 3, False

    def examples(self, split, *, shuffle_images=None): ...
    def prompts(self, examples): ...
    def about(self, image, question): ...


def without(cls: type, member: str) -> Any:
    """An instance of a class that is like another, but for one member."""
    members = {k: v for k, v in vars(cls).items() if k != member and not k.startswith("__")}
    return type("Own", (), members)()


def test_data_of_a_plain_class_are_a_dataset() -> None:
    built = dataset_of(OwnData(), CharTokenizer)
    assert isinstance(built, Dataset)
    assert not built.questions
    assert built.characters("test") is None
    assert built.notes == ()
    asked = dataset_of(OwnQuestions(), CharTokenizer)
    assert isinstance(asked, Questions)
    assert asked.questions


def test_a_running_text_of_a_plain_class_counts_its_characters() -> None:
    class Running(OwnData):
        notes = ("A note.",)

        def characters(self, split: str) -> int:
            return 7

    built = dataset_of(Running(), CharTokenizer)
    assert built.characters("test") == 7
    assert built.notes == ("A note.",)


@pytest.mark.parametrize("given", ["just a string", None, 3, ["a", "list"]])
def test_data_that_are_nothing_of_the_kind_are_named(given: object) -> None:
    with pytest.raises(
        UsageError, match=r"data=mine gives a .* no Text, QuestionSet or Dataset"
    ) as e:
        dataset_of(given, CharTokenizer, ("data=mine", "tokenizer"))
    assert f"gives a {type(given).__name__}," in e.value.message
    assert "docs/extend.md" in str(e.value.hint)


def test_a_data_set_that_lacks_a_method_is_told_which() -> None:
    lacking = without(OwnData, "encode")
    with pytest.raises(UsageError, match=r"data=mine gives a Own.*: it lacks encode"):
        dataset_of(lacking, CharTokenizer, ("data=mine", "tokenizer"))


class OwnTokenizer:
    vocabulary_size, sha256 = 256, "bytes"

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()


def test_a_tokenizer_of_a_plain_class_does() -> None:
    built = dataset_of(TEXT, lambda text: OwnTokenizer())
    assert built.encode("ab") == [97, 98]
    np.testing.assert_array_equal(built.tokens["train"], [97, 98, 97, 98])
    assert built.characters("train") == 3


@pytest.mark.parametrize("lacks", ["encode", "decode", "vocabulary_size"])
def test_a_tokenizer_that_lacks_something_is_named(lacks: str) -> None:
    lacking = without(OwnTokenizer, lacks)
    with pytest.raises(UsageError, match=f"tokenizer=mine gives a Own.* lacks {lacks}") as caught:
        dataset_of(TEXT, lambda text: lacking, ("data", "tokenizer=mine"))
    assert "docs/extend.md" in str(caught.value.hint)
