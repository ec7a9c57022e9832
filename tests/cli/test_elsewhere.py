"""swe report of a sweep that lies at an address: what is copied, what is refused."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from tests.conftest import TINY


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A finished sweep of one criterion and two ratios, with its cells and its training."""
    from typer.testing import CliRunner

    from swe_cli.app import app

    results = tmp_path_factory.mktemp("elsewhere") / "results"
    words = ["ratios=0.3,0.6", "criteria=swe", "launcher.workers=1", *TINY]
    made = CliRunner().invoke(app, ["sweep", "-q", *words, f"results_dir={results}"])
    assert made.exit_code == 0, made.output
    (sweep,) = (results / "runs").glob("sweep-*")
    return sweep


def memory(runs: Path) -> str:
    there = fsspec.filesystem("memory")
    there.store.clear()
    for path in (path for path in runs.rglob("*") if path.is_file()):
        there.pipe(f"/bucket/runs/{path.relative_to(runs)}", path.read_bytes())
    return "memory://bucket/runs"


def zipped(runs: Path, tmp_path: Path) -> str:
    made = shutil.make_archive(str(tmp_path / "results"), "zip", runs.parent)
    return f"zip://runs::{made}"


def at(address: str, name: str) -> str:
    place, archive, rest = address.partition("::")
    return f"{place}/{name}{archive}{rest}"


@pytest.mark.parametrize("kind", ["file", "memory", "zip"])
def test_a_sweep_elsewhere_has_the_table_of_its_folder(swe, swept, tmp_path, kind):
    runs = swept.parent
    address = {"file": f"file://{runs}", "memory": memory(runs), "zip": zipped(runs, tmp_path)}
    found = swe("report", at(address[kind], swept.name))
    assert found.exit_code == 0, found.output
    place = tmp_path / "results" / "reports" / swept.name
    assert str(place) in found.stdout.replace("\n", "")
    for name in ("table.csv", "table.md", "summary.csv"):
        assert (place / name).read_bytes() == (swept / name).read_bytes(), name
    assert (place / "figures" / "loss.png").is_file()
    assert not (tmp_path / "results" / "runs").exists()


def test_of_a_training_only_the_manifest_is_copied(swe, swept, tmp_path):
    """No model is built and no data read: a stranger's config names paths of this machine."""
    found = swe("report", at(memory(swept.parent), swept.name), "-o", tmp_path / "here")
    assert "No weight figure" in found.stdout
    assert "What it hurt is not told" in found.stdout
    assert (tmp_path / "here" / "table.csv").is_file()


@pytest.mark.parametrize("hostile", ["../../outside", "/etc", "a/b", "", None, 3])
def test_names_that_lead_out_of_the_folder_are_refused(swe, swept, tmp_path, hostile):
    address = memory(swept.parent)
    store = fsspec.filesystem("memory")
    path = f"/bucket/runs/{swept.name}/cells.json"
    cells = json.loads(store.cat(path))
    store.pipe(path, json.dumps([{**cells[0], "cell": hostile}]).encode())
    refused = swe("report", at(address, swept.name))
    assert refused.exit_code == 1
    assert "is no name of a sweep" in refused.stderr or "is no str" in refused.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("key", ["training", "config_hash"])
def test_so_are_those_in_rows(swe, swept, tmp_path, key):
    address = memory(swept.parent)
    store = fsspec.filesystem("memory")
    path = store.glob("/bucket/runs/cells/*/row.json")[0]
    store.pipe(path, json.dumps(json.loads(store.cat(path)) | {key: "../x"}).encode())
    refused = swe("report", at(address, swept.name))
    assert (refused.exit_code, "'../x' is no name" in refused.stderr) == (1, True)


def test_what_is_too_large_is_refused(swe, swept, monkeypatch):
    from swe_cli.commands import elsewhere

    monkeypatch.setattr(elsewhere, "LARGEST", 100)
    refused = swe("report", at(memory(swept.parent), swept.name))
    assert (refused.exit_code, "larger than a report should be" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("memory://bucket/runs/sweep-nobody", 1, "is no finished sweep"),
        ("nope://bucket/sweep-demo", 2, "cannot be opened"),
        ("zip://runs/sweep-demo::nowhere.zip", 2, "cannot be opened"),
        ("memory://bucket/..", 1, "is no name"),
    ],
)
def test_other_addresses_are_refused_in_a_sentence(swe, address, code, said):
    refused = swe("report", address)
    assert refused.exit_code == code, refused.output
    assert said in refused.stderr.replace("\n", " ")


def test_a_protocol_whose_package_is_missing_says_what_to_install(swe, monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    refused = swe("report", "s3://bucket/results/runs/sweep-demo")
    assert refused.exit_code == 2
    assert "cannot be opened.\nWith pip: Install s3fs to access S3" in refused.stderr


def test_an_archive_without_cells_and_an_address_without_its_file_say_how_it_is_meant(
    swe, swept, tmp_path
):
    made = shutil.make_archive(str(tmp_path / "alone"), "zip", swept.parent, swept.name)
    refused = swe("report", f"zip://{swept.name}::{made}")
    assert refused.exit_code == 1
    told = " ".join(refused.stderr.split())
    assert f"none of its {len(json.loads((swept / 'cells.json').read_text()))} cells is in" in told
    assert "an archive needs them, too" in told
    refused = swe("report", f"zip://{made}")
    assert refused.exit_code == 2
    assert "zip://runs/sweep-…::archive.zip" in refused.stderr
