import sys
from textwrap import dedent

import pytest
from training.toys import one_thread, write_text

from swe_cli.config import ConfigRoot

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text file, the same for all tests of a module."""
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results root that the tests of a module share: its trainings are run once."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def package(monkeypatch):
    """Write a user's package ``lab`` and ``conf`` beside it, as a new process would find them."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit may be as old and as long
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(folder, files):
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content))
        forget()
        root = ConfigRoot(folder / "conf")
        root.install()
        return root

    yield write
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]
