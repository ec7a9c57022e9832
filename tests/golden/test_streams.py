"""Names of random streams: renaming one changes every number that is drawn from it."""

import ast
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from .adapter import derive

NAMES = {
    *(
        "backward",
        "batches",
        "batches/{}",
        "bezier/{}",
        "calibration",
        "digit_sums",
        "dropout",
        "dropout/{}",
        "easy_vqa",
    ),
    *("image_folder/{}", "init", "probe/{}", "random/{}", "random_batches", "recovery"),
    *("recovery_dropout", "sample", "shuffle_images", "transform/{}"),
}
TAKE_A_NAME = ("derive", "global_randomness")  # as their second argument
DEFINED_IN = "seeds.py"  # where they hand on the name that they are given


@pytest.mark.parametrize(
    ("seed", "name", "step", "value"),
    [
        (0, "init", 0, 7615695542073086227),
        (1337, "batches", 1, 8434349575024124365),
        (1337, "dropout", 1, 8020718302682557882),
        (1337, "dropout", 2, 1925604786795627373),
        (7, "random/layers.0.mlp.expand.weight", 0, 483138958537585433),
        (7, "transform/layers.0+layers.1", 16, 795755272566243038),
        (0, "easy_vqa", 0, 3555110448914317913),
    ],
)
def test_a_stream_is_this_function_of_seed_name_and_step(
    seed: int, name: str, step: int, value: int
) -> None:
    assert derive(seed, name, step) == value


def test_no_stream_is_renamed() -> None:
    package = find_spec("swe_cli")
    assert package is not None
    assert package.submodule_search_locations
    paths = sorted(Path(package.submodule_search_locations[0]).rglob("*.py"))
    modules = {path: ast.parse(path.read_text()) for path in paths}
    constants = {key: text for module in modules.values() for key, text in constants_of(module)}
    calling = (module for path, module in modules.items() if path.name != DEFINED_IN)
    assert {name for module in calling for name in streams_of(module, constants)} == NAMES


def constants_of(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            text = node.value.value
            for target in node.targets:
                if isinstance(text, str) and isinstance(target, ast.Name) and target.id.isupper():
                    yield target.id, text


def streams_of(module: ast.Module, constants: Mapping[str, str]) -> Iterator[str]:
    """The name in every call that takes one; ``{}`` stands for what is filled in."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and word_of(node.func) in TAKE_A_NAME:
            by_name = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
            name = [*node.args[1:2], *by_name][0]
            text = text_of(name, constants)
            assert text != "{}", f"a stream without a name of its own: {ast.unparse(node)}"
            yield text


def word_of(node: ast.expr) -> str:
    return getattr(node, "attr", "") or getattr(node, "id", "")


def text_of(node: ast.expr, constants: Mapping[str, str]) -> str:
    match node:
        case ast.Constant(value=text):
            return str(text)
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, constants) for part in parts)
        case ast.FormattedValue(value=value):
            return text_of(value, constants)
    return constants.get(word_of(node), "{}")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("derive(seed, 'a')", "a"),
        ("seeds.derive(seed, f'b/{part}', step)", "b/{}"),
        ("derive(seed, step=2, name=C)", "c"),
        ("global_randomness(seed, f'{seeds.C}/{part}')", "c/{}"),
    ],
)
def test_names_are_read_however_they_are_written(call: str, name: str) -> None:
    module = ast.parse(f"C = 'c'\n{call}")
    assert [*streams_of(module, dict(constants_of(module)))] == [name]
