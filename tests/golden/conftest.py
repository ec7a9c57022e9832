"""The nets under a rebuilding: what comes out stays as it was, whatever the inside looks like.

References lie beside the tests. A test that finds something else writes what it found to a file
that its failure names; who means the change copies that file over the reference, and says why in
docs/LOG.md. ``results-0.1`` and ``checkpoint-0.1`` are never renewed: old folders stay old.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from swe_cli.app import app

HERE = Path(__file__).parent
Reference = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on two threads, far slower where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def no_figures() -> Iterator[None]:
    """Tables are what is compared here; drawing takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swe_cli.commands.report.write_figure", lambda *_: [], raising=False)
        yield


def command(*words: object) -> str:
    """What a command that succeeds prints, in one line."""
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def lines_of(value: dict[str, Any], depth: int = 1) -> str:
    """JSON, sorted, with a line for every entry down to a depth: small, and a diff can be read."""
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    lines = (f"{json.dumps(key)}:{lines_of(value[key], depth - 1)}" for key in sorted(value))
    return "{\n" + ",\n".join(lines) + "\n}"


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    """The content of a committed JSON file; what was found lies beside the test's other files."""

    def read(name: str, found: Any, depth: int = 2) -> Any:
        (tmp_path / name).write_text(lines_of(found, depth) + "\n")
        print(f"Found now: {tmp_path / name}")
        path = HERE / name
        return json.loads(path.read_text()) if path.is_file() else {}

    return read
