"""Files that were cut short, and disks that are full: named, and nothing is lost."""

import errno
import shutil
from pathlib import Path

import pytest
from training.toys import (
    After,
    Silent,
    assert_same,
    contents,
    opened,
    run_of,
    spec_of,
    sweep_of,
    swept,
    trained,
    write_text,
)

from swe_cli import files
from swe_cli.commands import evidence
from swe_cli.errors import CorruptFileError, Interrupted, StorageError
from swe_cli.experiments import training

from .dying import assert_whole


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def expected(text, tmp_path_factory):
    return contents(trained(spec_of(text), tmp_path_factory.mktemp("whole")))


def shorten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    "name",
    [f"{name}.safetensors" for name in ("model", "optimizer", "tracker", "best")] + ["state.json"],
)
def test_a_truncated_checkpoint_is_refused_by_name(name, text, tmp_path, expected):
    plan = spec_of(text)
    with pytest.raises(Interrupted):
        trained(plan, tmp_path, stop=After(7))
    folder = run_of(plan, tmp_path).path / "checkpoints" / "step-00000007"
    shorten(folder / name)
    with pytest.raises(CorruptFileError, match=f"step-00000007/{name}"):
        trained(plan, tmp_path)
    shutil.rmtree(folder)  # what the hint says; the one before takes over
    assert (folder.parent / "step-00000006").is_dir()
    assert_same(contents(trained(plan, tmp_path)), expected)


@pytest.mark.parametrize("name", ["model", "best", "trajectory"])
def test_a_truncated_result_is_refused_by_name(name, text, tmp_path):
    run = trained(spec_of(text), tmp_path)
    shorten(run.path / f"{name}.safetensors")
    base = {"model": "final", "best": "best", "trajectory": "averaged"}[name]
    with pytest.raises(CorruptFileError, match=rf"{run.name}/{name}\.safetensors does not match"):
        opened(run).weights(base)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_truncated_description_is_refused_by_name(name, text, tmp_path):
    run = trained(spec_of(text), tmp_path)
    shorten(run.path / name)
    with pytest.raises(CorruptFileError, match=f"{run.name}/{name} is damaged"):
        opened(run)


def sweep(text, results):
    words = ("criteria=swe", "ratios=0.5", "recovery.steps=1")
    return swept(sweep_of(text, results, *words))


def flip(path: Path) -> None:
    """One bit of the last number."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [shorten, flip, Path.unlink])
@pytest.mark.parametrize("name", ["row.json", "windows.safetensors"])
def test_a_damaged_cell_is_named_set_aside_and_made_again(name, damage, text, tmp_path):
    rows = sweep(text, tmp_path).rows
    dense = tmp_path / "runs" / "cells" / rows[0].config_hash
    pruned = tmp_path / "runs" / "cells" / rows[-1].config_hash
    assert rows[0].kind == "dense"
    whole = (dense / "windows.safetensors").read_bytes()
    damage(dense / name)
    shutil.rmtree(pruned)  # so that the dense cell is read again
    again = sweep(text, tmp_path)
    assert again.rows == rows
    assert (dense / "windows.safetensors").read_bytes() == whole
    gone = damage is Path.unlink
    assert len([*dense.glob(f"damaged/{name}.*")]) == (0 if gone else 1)


@pytest.mark.parametrize("damage", [shorten, flip])
@pytest.mark.parametrize("name", ["model", "best", "trajectory"])
def test_a_damaged_training_is_made_again_bit_for_bit(name, damage, text, tmp_path, expected):
    rows = sweep(text, tmp_path).rows
    (run,) = (tmp_path / "runs").glob("train-*")
    path = run / f"{name}.safetensors"
    whole = path.read_bytes()
    damage(path)
    shutil.rmtree(tmp_path / "runs" / "cells")
    observer = Silent()
    training.OPEN.clear()
    words = ("criteria=swe", "ratios=0.5", "recovery.steps=1")
    again = swept(sweep_of(text, tmp_path, *words), observer=observer)
    assert again.rows == rows
    assert path.read_bytes() == whole
    assert len([*(run / "damaged").iterdir()]) == 1
    said = " ".join(observer.said)
    assert f"{path} does not match its recorded hash" in said
    assert f"has lost {path.name}: training it again" in said


def test_windows_that_a_report_finds_damaged_are_made_again_by_the_sweep(swe, tmp_path, tiny_words):
    words = ["sweep", "-q", *tiny_words, "criteria=swe,magnitude", "ratio=0.5"]
    assert swe(*words).exit_code == 0
    rows = [*(tmp_path / "results/runs/cells").glob("*/row.json")]
    (swe_cut,) = (path for path in rows if '"criterion": "swe"' in path.read_text())
    flip(swe_cut.with_name("windows.safetensors"))
    evidence._windows.cache_clear()
    told = swe("report", "--against", "magnitude")
    assert told.exit_code == 1
    assert "is set aside" in told.output
    assert "ype the same swe sweep" in told.output
    assert swe(*words).exit_code == 0
    assert swe("report", "--against", "magnitude").exit_code == 0


def fill_the_disk(monkeypatch, after: int) -> None:
    """After so many files of tensors, nothing more can be written."""
    save, left = files.save_file, [after]

    def save_file(tensors, path, metadata):
        left[0] -= 1
        if left[0] < 0:
            Path(path).write_bytes(b"the first half of a tensor fi")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(files, "save_file", save_file)


def test_a_full_disk_says_so_and_spoils_nothing(text, tmp_path, monkeypatch, expected):
    plan = spec_of(text)
    for after in range(0, 15, 2):  # twelve files in three checkpoints, then three of results
        results = tmp_path / str(after)
        fill_the_disk(monkeypatch, after)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            trained(plan, results)
        assert "What was written before stays valid" in str(caught.value)
        run = run_of(plan, results)
        assert_whole(run)
        checkpoints = [path.name for path in (run.path / "checkpoints").glob("step-*")]
        assert len(checkpoints) == min(2, after // 4)
        assert not list(run.path.rglob("*.tmp"))  # room is what is wanted
        monkeypatch.undo()
        assert_same(contents(trained(plan, results)), expected)


def test_a_full_disk_stops_a_sweep_and_spares_its_cells(text, tmp_path, monkeypatch):
    expected = sweep(text, tmp_path / "clean").rows
    shutil.copytree(tmp_path / "clean" / "runs", tmp_path / "full" / "runs")
    shutil.rmtree(tmp_path / "full" / "runs" / "cells")
    fill_the_disk(monkeypatch, 2)
    with pytest.raises(StorageError, match="No space left on device"):
        sweep(text, tmp_path / "full")
    monkeypatch.undo()
    assert len(list((tmp_path / "full").glob("runs/cells/*/row.json"))) == 2
    outcome = sweep(text, tmp_path / "full")
    assert (outcome.trained, outcome.reused, outcome.ran) == (0, 2, 3)
    assert outcome.rows == expected


def test_metrics_that_cannot_be_written_are_a_storage_error(text, tmp_path, monkeypatch):
    def full(self, *arguments, **options):
        if self.name == "metrics.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_path(self, *arguments, **options)

    open_path = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match=r"metrics\.jsonl: No space left"):
        trained(spec_of(text), tmp_path)


def test_a_torn_last_line_of_metrics_is_cut_off(text, tmp_path, expected):
    plan = spec_of(text)
    with pytest.raises(Interrupted):
        trained(plan, tmp_path, stop=After(4))
    with (run_of(plan, tmp_path).path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss_na')
    assert_same(contents(trained(plan, tmp_path)), expected)


@pytest.mark.parametrize("damage", [shorten, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "config.json"])
def test_a_damaged_cut_is_set_aside_and_made_again(name, damage, swe, own_run):
    words = ("prune", own_run.name, "--ratio", "0.5", "recovery.steps=2")
    path, model = own_run.pruned_path / name, own_run.pruned_path / "model.safetensors"
    whole = model.read_bytes()
    damage(path)
    again = swe(*words)
    assert again.exit_code == 0, again.output
    assert model.read_bytes() == whole
    if name != "config.json":  # which is written anew by every command that cuts so
        gone = name == "manifest.json" and damage is Path.unlink  # as where it never was done
        assert len([*own_run.pruned_path.glob(f"damaged/{name}.*")]) == (not gone)
        assert gone or "and made again" in " ".join(again.output.split())
    assert swe("evaluate", own_run.pruned).exit_code == 0
    assert "Already cut" in swe(*words).output


def test_damaged_windows_of_dense_are_made_again_for_the_next_cut(swe, own_run):
    rows = (own_run.results / "runs" / "cells").glob("*/row.json")
    (dense,) = (path.parent for path in rows if '"kind": "dense"' in path.read_text())
    whole = (dense / "windows.safetensors").read_bytes()
    flip(dense / "windows.safetensors")
    cut = swe("prune", own_run.name, "--ratio", "0.4", "recovery.steps=2")
    assert cut.exit_code == 0, cut.output
    assert (dense / "windows.safetensors").read_bytes() == whole
    assert len([*(dense / "damaged").iterdir()]) == 1


def test_a_training_is_not_set_aside_by_who_only_cuts_it(swe, own_run):
    flip(own_run.path / "model.safetensors")
    cut = swe("prune", own_run.name, "--ratio", "0.4", "recovery.steps=2")
    assert cut.exit_code == 1
    assert "does not match its recorded hash" in " ".join(cut.output.split())
    assert not (own_run.path / "damaged").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "manifest.json is missing"),
        (b"", "manifest.json is damaged: Expecting value"),
        (b"{}", "manifest.json is damaged: it holds no status"),
        (b'{"status": "done", "files": []}', "manifest.json is damaged: files is no dict"),
        (b'{"status": "done", "files": {}}', "manifest.json is damaged: it holds no tracker"),
    ],
)
def test_a_bad_folder_is_listed_with_its_reason(content, reason, swe, own_run):
    manifest = own_run.path / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    (own_run.path.parent / "train-nothing-in-it").mkdir()
    listed = swe("runs")
    assert listed.exit_code == 0, listed.output
    assert own_run.name in listed.stdout
    assert own_run.pruned in listed.stdout
    assert listed.stdout.count("damaged ") == 1  # the status
    assert reason in " ".join(listed.stdout.split())
    assert "nothing-in-it" not in listed.stdout


def test_a_training_that_is_not_what_its_name_says_is_refused(swe, own_run):
    config = own_run.path / "config.json"
    config.write_text(config.read_text().replace('"heads": 2', '"heads": 4'))
    said = " ".join(swe("evaluate", own_run.name).output.split())
    assert f"{config} is damaged: it is not what the name of its folder says" in said


@pytest.mark.parametrize("name", ["timing.json", "layers.json", "cell.json", "row.json"])
def test_one_bad_cell_never_stops_a_report(name, swe, tmp_path, tiny_words):
    words = ["sweep", "-q", *tiny_words, "recovery.steps=2", "criteria=swe", "ratio=0.5"]
    assert swe(*words).exit_code == 0
    cells = [path.parent for path in (tmp_path / "results/runs/cells").glob("*/row.json")]
    (cut,) = (cell for cell in cells if '"kind": "pruned"' in (cell / "row.json").read_text())
    (cut / name).write_text('{"seconds": "many"}')
    report = swe("report")
    assert report.exit_code == 0, report.output
    if name != "cell.json":  # of which a sweep reads that of dense
        assert "It is left out" in " ".join(report.output.split())
