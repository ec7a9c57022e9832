import pytest
from training.toys import one_thread, write_text

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text file, the same for all tests of a module."""
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results root that the tests of a module share: its trainings are run once."""
    return tmp_path_factory.mktemp("results")
