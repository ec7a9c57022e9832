"""What a component is: built once, pickled, told by the code of its package, held in bounds."""

import hashlib
import pickle
import sys
from pathlib import Path

import pytest
import yaml

from swe_cli.config import Component, ConfigRoot, component, compose, source_of
from swe_cli.config.components import _source_of
from swe_cli.errors import UsageError

CRITERION = """
from dataclasses import dataclass
from typing import Annotated, Literal
from pydantic import Field

class Good:
    pass

@dataclass(frozen=True, kw_only=True)
class Bounded:
    steps: Annotated[int, Field(ge=1)] = 1
    decay: Annotated[float, Field(ge=0)] = 0.0
    rate: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.0
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    fade: Annotated[float, Field(gt=0, lt=1)] = 0.5
    size: Annotated[int, Field(ge=1)] | None = None
    every: Annotated[int, Field(ge=1)] | Literal["epoch"] = 1
    rounds: Annotated[int, Field(ge=1, title="one is all at once", description="Try 5")] = 1
    most: Annotated[int, Field(le=5)] = 1
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes a package of the user's own and gives a component of it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(files, target, **options):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        folder = tmp_path / "conf" / "criterion"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "good.yaml").write_text(yaml.safe_dump({"_target_": target, **options}))
        return component("criterion", "good", ConfigRoot(folder.parent))

    before = set(sys.modules)
    yield write
    for module in set(sys.modules) - before:
        if module.startswith("own"):
            del sys.modules[module]


def test_the_instance_is_built_once_and_is_no_part_of_what_it_is():
    chosen, same = (component("recovery", "finetune", ConfigRoot()) for _ in range(2))
    assert chosen.instance is chosen.instance
    assert chosen == same
    assert hash(chosen) == hash(same)
    copied = pickle.loads(pickle.dumps(chosen))
    assert copied == chosen
    assert "instance" not in vars(copied)
    assert copied.instance == chosen.build() == chosen.instance


def test_a_component_with_others_inside_it_is_pickled_whole():
    words = ("model=llava_nano", "model.vision.from_run=a-run")
    model = compose("train", words)["model"]
    copied = pickle.loads(pickle.dumps(model))
    assert copied.describe() == model.describe()
    assert copied.paths() == {"vision.from_run": "a-run"}


# Source


def bytes_hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("files", "target"),
    [
        (["own_alone.py"], "own_alone.Good"),
        (["own_space/good.py"], "own_space.good.Good"),
        (["own_deep/a/b/good.py"], "own_deep.a.b.good.Good"),
        (["own_package/__init__.py", "own_package/good.py"], "own_package.good.Good"),
    ],
    ids=["file", "namespace", "deep", "package"],
)
def test_a_module_that_is_alone_is_told_by_its_bytes(own, files, target):
    contents = {name: CRITERION if "__init__" not in name else "" for name in files}
    chosen = own(contents, target)
    assert source_of(chosen) == chosen.describe()["source"] == bytes_hash(CRITERION)


def test_every_module_of_its_package_tells_a_component(own, tmp_path):
    files = {"own_two/good.py": CRITERION, "own_two/deep/helper.py": "EXTREME = max"}
    chosen = own(files, "own_two.good.Good")
    sources = [source_of(chosen)]
    (tmp_path / "own_two/deep/helper.py").write_text("EXTREME = min")
    assert source_of(chosen) == sources[0]  # what runs is what was read
    _source_of.cache_clear()  # as in a new process
    sources.append(source_of(chosen))
    (tmp_path / "own_two/deep/helper.py").rename(tmp_path / "own_two/helper.py")
    _source_of.cache_clear()
    sources.append(source_of(chosen))
    assert len({*sources, bytes_hash(CRITERION)}) == 4
    assert chosen.describe()["source"] == sources[-1]


def test_a_part_inside_one_of_ours_is_told_by_its_package_too(own, tmp_path):
    inside = own(
        {"own_part/good.py": CRITERION, "own_part/helper.py": "A = 1"}, "own_part.good.Good"
    )
    ours = component("model", "llava_nano", ConfigRoot())
    whole = Component("model", "mixed", ours.target, {**ours.options, "vision": inside})
    before = whole.describe()
    (tmp_path / "own_part/helper.py").write_text("A = 2")
    _source_of.cache_clear()  # as in a new process
    after = whole.describe()
    assert source_of(whole) is None
    assert before["vision"].pop("source") != after["vision"].pop("source")
    assert before == after


def test_what_pip_installed_is_told_by_its_module_alone():
    installed = Component("criterion", "x", yaml.safe_load, {})
    assert source_of(installed) == hashlib.sha256(Path(yaml.__file__).read_bytes()).hexdigest()[:16]


# Bounds


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("steps", 0, "criterion.steps=0 must be at least 1."),
        ("decay", -1, "criterion.decay=-1 must not be negative."),
        ("rate", 0.0, "criterion.rate=0.0 must be positive."),
        ("beta", 1.0, "criterion.beta=1.0 is not in [0, 1)."),
        ("share", 1.5, "criterion.share=1.5 is not in [0, 1]."),
        ("fade", 1.0, "criterion.fade=1.0 is not in (0, 1)."),
        ("size", 0, "criterion.size=0 must be at least 1, or null."),
        ("every", 0, "criterion.every=0 must be at least 1, or epoch."),
        ("rounds", 0, "criterion.rounds=0 must be at least 1: one is all at once. Try 5"),
        ("most", 7, "criterion.most=7 is wrong: it should be less than or equal to 5."),
        ("beta", float("nan"), "criterion.beta=nan is not a finite number."),
        ("rate", float("inf"), "criterion.rate=inf is not a finite number."),
        ("size", "x", "criterion.size=x is wrong: it should be an integer."),
        ("steps", "5", 'criterion.steps="5" is quoted, so it is text: it should be an integer.'),
    ],
)
def test_bounds_in_a_signature_are_sentences(own, key, value, sentence):
    fields = ("steps", "decay", "rate", "beta", "share", "fade", "size", "every", "rounds", "most")
    options = {**dict.fromkeys(fields, 1), "fade": 0.5, "beta": 0, key: value}
    with pytest.raises(UsageError) as caught:
        own({"own_bounds.py": CRITERION}, "own_bounds.Bounded", **options)
    assert str(caught.value).startswith(sentence)


def test_what_is_in_bounds_is_taken_in_its_type(own):
    options = {"beta": 0, "size": None, "every": "epoch", "rounds": 3, "most": 5, "rate": 2}
    options |= {"steps": 1, "decay": 0, "share": 1, "fade": 0.5}
    chosen = own({"own_bounds.py": CRITERION}, "own_bounds.Bounded", **options)
    assert chosen.options == options
    assert type(chosen.options["beta"]) is float
