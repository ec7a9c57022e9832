from collections import Counter

import numpy as np
import pytest

from swe_cli.contracts import Split
from swe_cli.data import questions as module
from swe_cli.data.questions import QuestionSet, easy_vqa
from swe_cli.errors import DataError, UsageError

package = pytest.importorskip("easy_vqa", reason="the optional package easy-vqa is missing")
Image = pytest.importorskip("PIL.Image", reason="the optional package Pillow is missing")

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
OPEN = Image.open


def make(**sizes: int | None) -> QuestionSet:
    sizes = {"train_images": None, "validation_images": 400, "test_images": None} | sizes
    return easy_vqa(image_size=16, **sizes)


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, QuestionSet]:
    """All of it, and the cache folder that holds its pixels: decoding them takes seconds."""
    folder = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWE_CACHE_DIR", folder)
        return folder, make()


@pytest.fixture(autouse=True)
def whole(
    decoded: tuple[str, QuestionSet], cache: object, monkeypatch: pytest.MonkeyPatch
) -> QuestionSet:
    monkeypatch.setenv("SWE_CACHE_DIR", decoded[0])
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    return decoded[1]


def images(of: QuestionSet, split: Split) -> set[int]:
    return {example.image for example in of.examples[split]}


def test_the_packages_test_split_and_the_rest(whole: QuestionSet) -> None:
    assert whole.pixels.shape == (5000, 3, 16, 16)
    assert len(whole.examples["test"]) == 9673
    assert len(images(whole, "test")) == 1000
    assert len(images(whole, "validation")) == 400
    assert len(images(whole, "train")) == 3600
    assert len(whole.examples["train"]) + len(whole.examples["validation"]) == 38575
    assert not images(whole, "train") & images(whole, "validation")
    assert images(whole, "test") == set(range(4000, 5000))
    assert images(whole, "train") | images(whole, "validation") == set(range(4000))


def test_questions_and_answers_are_the_packages(whole: QuestionSet) -> None:
    for part, splits, first in (("train", ("train", "validation"), 0), ("test", ("test",), 4000)):
        questions, answers, about = getattr(package, f"get_{part}_questions")()
        theirs = Counter(zip((first + i for i in about), questions, answers, strict=True))
        ours = Counter((e.image, e.question, e.answer) for s in splits for e in whole.examples[s])
        assert ours == theirs
    assert {e.answer for s in SPLITS for e in whole.examples[s]} == set(package.get_answers())


def test_pixels_are_those_of_the_image_asked_about(
    whole: QuestionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", OPEN)
    for part, first in (("train", 0), ("test", 4000)):
        paths = getattr(package, f"get_{part}_image_paths")()
        for number in (0, 7, 432):
            with OPEN(paths[number]) as opened:
                small = opened.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
            expected = np.asarray(small).transpose(2, 0, 1)
            np.testing.assert_array_equal(whole.pixels[first + number], expected)


def test_kinds_follow_the_answer(whole: QuestionSet) -> None:
    kinds: dict[str, set[str]] = {}
    for example in whole.examples["test"]:
        kinds.setdefault(example.kind, set()).add(example.answer)
    assert kinds == {
        "color": {"red", "green", "blue", "black", "gray", "teal", "brown", "yellow"},
        "shape": {"circle", "rectangle", "triangle"},
        "yes or no": {"yes", "no"},
    }


def test_the_same_choice_is_the_same_data(whole: QuestionSet) -> None:
    again = make()
    assert again.sha256 == whole.sha256
    assert again.examples == whole.examples
    np.testing.assert_array_equal(whole.pixels[::500], again.pixels[::500])
    assert make(validation_images=401).sha256 != whole.sha256


def test_examples_lie_together_by_image(whole: QuestionSet) -> None:
    for examples in whole.examples.values():
        asked = [example.image for example in examples]
        assert asked == sorted(asked)


def test_fewer_images_leave_the_other_splits_as_they_are(whole: QuestionSet) -> None:
    few = make(train_images=50, test_images=20)
    assert len(images(few, "train")) == 50
    assert images(few, "train") < images(whole, "train")
    assert few.examples["validation"] == whole.examples["validation"]
    assert images(few, "test") == set(range(4000, 4020))
    assert {e for e in whole.examples["test"] if e.image < 4020} == set(few.examples["test"])


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"train_images": 3601}, "data.train_images=3601 is not in 1 to 3600"),
        ({"train_images": 0}, "data.train_images=0"),
        ({"validation_images": 0}, "data.validation_images=0"),
        ({"validation_images": 4000}, "validation_images=4000|train_images=0"),
        ({"test_images": 1001}, "data.test_images=1001 is not in 1 to 1000"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(**sizes)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda _: "1.1")
    with pytest.raises(DataError, match=r"easy-vqa 1\.0; 1\.1 is installed") as caught:
        make()
    assert "swe-cli[multimodal]" in str(caught.value.hint)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise module.PackageNotFoundError

    monkeypatch.setattr(module, "version", missing)
    with pytest.raises(DataError, match=r"needs the package easy-vqa .* none is"):
        make()
