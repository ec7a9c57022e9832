import json
import os
import shutil
import struct
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from training.toys import files_under

import swe_cli
from swe_cli import files
from swe_cli.errors import CorruptFileError, RunError, StorageError
from swe_cli.files import (
    read_directory,
    read_json,
    read_tensors,
    remove_directory,
    remove_litter,
    sha256,
    write_bytes,
    write_directory,
    write_json,
    write_tensors,
)
from swe_cli.store import Run, find_run, list_runs

TENSORS = {"a/b": torch.arange(6.0).view(2, 3), "c": torch.tensor(7), "e": torch.zeros(0)}


TRACKER = {"tracker": {"statistics": [], "count": 0}}
RESULTS = {"steps": 1, "best_validation_loss_nats": 3.0, "final_validation_loss_nats": 3.0}
ROW = {"kind": "pruned", "model": "x", "data": "d", "seed": 1, "training": "train-x-1"}
ROW |= {"config_hash": "c", "fingerprint": "f"}
DONE = {**TRACKER, "results": RESULTS, "seconds_per_step": 0.1, "row": ROW}  # of any kind


def make_run(root: Path, name: str, status: str = "done", age: int = 0, **manifest) -> Run:
    """A run whose file is ``age`` seconds old."""
    run = Run(root / "runs" / name)
    write_json(run.path / "manifest.json", {"status": status, "files": {}, **DONE, **manifest})
    os.utime(run.path / "manifest.json", (10**9 - age, 10**9 - age))
    return run


# Writing and reading


def test_tensors_come_back_with_their_metadata(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    write_tensors(path, TENSORS, {"count": 3, "nested": {"a": [1, None]}})
    back = read_tensors(path, sha256(path))
    assert set(back) == set(TENSORS)
    assert all(torch.equal(back[name], tensor) for name, tensor in TENSORS.items())
    assert back["c"].dtype is torch.int64
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["swe"]) == {"count": 3, "nested": {"a": [1, None]}}


def test_metadata_is_one_key_and_the_bytes_are_the_same_every_time(tmp_path):
    paths = [tmp_path / f"{index}.safetensors" for index in range(4)]
    for path in paths:
        write_tensors(path, TENSORS, {"b": 1, "a": 2})
    data = paths[0].read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    assert list(header["__metadata__"]) == ["swe"]
    assert header["__metadata__"]["swe"] == '{"a":2,"b":1}'
    assert {path.read_bytes() for path in paths} == {data}


def test_parameters_are_written_without_their_gradient_history(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(4, 2))
    write_tensors(tmp_path / "x.safetensors", {"w": parameter.T})
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")["w"], torch.ones(2, 4))


def test_a_tensor_file_is_as_readable_as_any_other(tmp_path):
    write_json(tmp_path / "x.json", 1)
    write_tensors(tmp_path / "x.safetensors", TENSORS)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"x\.json: No space left on device"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert files_under(tmp_path) == ["x.json"]


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    events = []
    replace = os.replace
    monkeypatch.setattr(files, "_sync", lambda path: events.append(("sync", path.name)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (events.append(("rename", b.name)), replace(a, b))
    )
    write_bytes(tmp_path / "x", b"1")
    temporary = f".{os.getpid()}@{files.HOST}@x.tmp"
    assert events == [("sync", temporary), ("rename", "x"), ("sync", tmp_path.name)]


def test_a_directory_appears_whole_and_comes_back(tmp_path):
    write_directory(tmp_path / "step", {"one": TENSORS, "none": {}}, {"step": 3, **TRACKER})
    files, state = read_directory(tmp_path / "step")
    assert torch.equal(files["one"]["a/b"], TENSORS["a/b"])
    assert files["none"] == {}
    assert state["step"] == 3
    assert set(state["files"]) == {"one.safetensors", "none.safetensors"}
    write_directory(tmp_path / "step", {"one": {"w": torch.ones(1)}}, {"step": 4, **TRACKER})
    assert read_directory(tmp_path / "step")[1]["step"] == 4
    assert files_under(tmp_path) == ["step/one.safetensors", "step/state.json"]


def test_a_directory_that_does_not_fit_leaves_no_litter(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        write_directory(tmp_path / "step", {"one": TENSORS}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_removed_under_another_name(tmp_path, monkeypatch):
    write_directory(tmp_path / "step", {"one": TENSORS}, {})

    class Killed(BaseException):
        pass

    def die(path, **options):
        if Path(path).exists():
            raise Killed

    monkeypatch.setattr(files.shutil, "rmtree", die)
    with pytest.raises(Killed):
        remove_directory(tmp_path / "step")
    assert not (tmp_path / "step").exists()  # all of it is gone from its name at once
    monkeypatch.undo()
    assert files_under(tmp_path)
    remove_litter(tmp_path)
    assert list(tmp_path.iterdir()) == []
    remove_directory(tmp_path / "never there")


def test_litter_is_only_what_was_never_renamed(tmp_path):
    write_json(tmp_path / "kept.json", 1)
    write_json(tmp_path / ".holder.json", 1)
    (tmp_path / ".x.json.99.tmp").write_text("half")
    (tmp_path / "deep" / ".99@there@step-1.tmp").mkdir(parents=True)
    (tmp_path / "deep" / ".99@there@step-1.tmp" / "half").write_text("half")
    remove_litter(tmp_path)
    assert files_under(tmp_path) == [".holder.json", "kept.json"]


def test_a_file_that_does_not_match_its_hash_is_refused_by_name(tmp_path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, TENSORS)
    digest = sha256(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"model\.safetensors does not match"):
        read_tensors(path, digest)


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_truncated_tensors_are_refused_by_name_even_without_a_hash(tmp_path, length):
    path = tmp_path / "model.safetensors"
    write_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CorruptFileError, match=r"model\.safetensors is damaged"):
        read_tensors(path)


def test_missing_and_damaged_json_are_named(tmp_path):
    path = tmp_path / "state.json"
    with pytest.raises(CorruptFileError, match=r"state\.json is missing"):
        read_json(path)
    with pytest.raises(CorruptFileError, match=r"model\.safetensors is missing"):
        read_tensors(tmp_path / "model.safetensors")
    for damaged in (b"", b'{"a": 1', b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=r"state\.json is damaged"):
            read_json(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="Cannot write") as caught:
        write_json(tmp_path / "file" / "x.json", 1)
    assert "results_dir=" in str(caught.value)
    with pytest.raises(StorageError), Run(tmp_path / "file" / "train-x").hold():
        pass


def test_nothing_is_ever_unpickled():
    sources = list(Path(swe_cli.__file__).parent.rglob("*.py"))
    assert len(sources) > 50
    own = {
        "worker.py",
        "jobs.py",
    }  # jobs on their way to another process, never from a file of ours
    for source in (source for source in sources if source.name not in own):
        code = source.read_text()
        for word in ("import pickle", "torch.load(", "joblib", "allow_pickle=True", "marshal"):
            assert word not in code, f"{source}: {word}"


# Runs


def test_a_run_begins_runs_and_finishes(tmp_path):
    run = Run(tmp_path / "runs" / "train-x-1234")
    assert not run.exists
    config = {"identity": {"seed": 1}, "paths": {}}
    run.begin(config)
    assert (run.exists, run.finished, run.status) == (True, False, "stopped")
    write_tensors(run.path / "model.safetensors", TENSORS)
    run.finish(["model.safetensors"], seed=1, **DONE)
    assert (run.finished, run.status, run.kind) == (True, "done", "train")
    assert run.config == config
    manifest = run.manifest
    assert manifest["files"] == {"model.safetensors": sha256(run.path / "model.safetensors")}
    wanted = {"format", "kind", "status", "files", "versions", "commit", "host", "written", "seed"}
    assert wanted <= set(manifest)
    assert torch.equal(run.tensors("model.safetensors")["c"], TENSORS["c"])
    with pytest.raises(RunError, match=r"holds no best\.safetensors"):
        run.tensors("best.safetensors")
    run.begin(config)  # again, for one more statistic
    assert run.finished


def test_a_tensor_file_of_a_run_is_checked_against_its_manifest(tmp_path):
    run = Run(tmp_path / "runs" / "train-x-1234")
    write_tensors(run.path / "model.safetensors", TENSORS)
    run.finish(["model.safetensors"], **DONE)
    write_tensors(run.path / "model.safetensors", {"c": torch.tensor(8)})
    with pytest.raises(CorruptFileError, match=r"train-x-1234/model\.safetensors does not match"):
        run.tensors("model.safetensors")


def test_runs_are_listed_newest_first_and_only_runs(tmp_path):
    assert list_runs(tmp_path) == []
    make_run(tmp_path, "train-a-1", age=5)
    make_run(tmp_path, "sweep-b-1", age=1)
    make_run(tmp_path, "prune-c-1", age=3)
    make_run(tmp_path, "cells", age=0)
    (tmp_path / "runs" / "train-unborn").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["sweep-b-1", "prune-c-1", "train-a-1"]
    assert [run.name for run in list_runs(tmp_path, ("train",))] == ["train-a-1"]


def test_newest_is_what_manifests_say_a_copy_is_not_newer_than_its_original(tmp_path):
    make_run(tmp_path, "train-new-1", age=500, written="2026-01-02T00:00:00+01:00")
    old = make_run(tmp_path, "train-old-1", age=400, written="2026-01-01T23:30:00+01:00")
    shutil.copytree(old.path, tmp_path / "runs" / "train-copy-1")
    os.utime(tmp_path / "runs" / "train-copy-1" / "manifest.json")  # as cp does
    names = [run.name for run in list_runs(tmp_path)]
    assert names == ["train-new-1", "train-copy-1", "train-old-1"]
    make_run(tmp_path, "train-untold-1", written="yesterday")  # its file is of 2001
    assert [run.name for run in list_runs(tmp_path)] == [*names, "train-untold-1"]


CONFIGS = {
    "train": {"identity": {}, "paths": {}},
    "prune": {"training": "train-x-1", "cell": "c", "cut": {}},
    "sweep": {"identity": {"sweep": "s"}, "words": []},
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", ["mine", "my-best", "train-old", "sweep-old"])
@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_a_run_that_was_renamed_is_a_run_of_its_kind(kind, name, version, tmp_path):
    run = Run(tmp_path / "runs" / f"{kind}-x-1")
    run.begin(CONFIGS[kind])
    run.finish([], **DONE)
    if version == "0.1":  # which did not write the kind
        manifest = run.manifest
        del manifest["kind"]
        write_json(run.path / "manifest.json", manifest)
    run.path.rename(tmp_path / "runs" / name)
    (renamed,) = list_runs(tmp_path)
    assert (renamed.kind, renamed.name) == (kind, name)
    assert find_run(name, tmp_path, (kind,)) == renamed
    assert renamed.finished
    renamed.begin(CONFIGS[kind])
    renamed.finish([], **DONE)
    assert renamed.manifest["kind"] == kind


def test_a_run_is_found_by_name_prefix_or_path(tmp_path):
    one = make_run(tmp_path, "train-nano-12ab")
    make_run(tmp_path, "train-nano-12cd")
    make_run(tmp_path, "sweep-demo-77")
    assert find_run("train-nano-12ab", tmp_path) == one
    assert find_run("train-nano-12a", tmp_path) == one
    assert find_run("nano-12a", tmp_path) == one
    assert find_run(str(one.path), tmp_path / "elsewhere") == one
    assert find_run("sweep", tmp_path).name == "sweep-demo-77"
    make_run(tmp_path, "train-nano-12ab-longer")
    assert find_run("train-nano-12ab", tmp_path) == one  # a whole name is never ambiguous


def test_an_ambiguous_or_unknown_run_says_what_there_is(tmp_path):
    for index in range(6):
        make_run(tmp_path, f"train-nano-{index}")
    with pytest.raises(RunError, match="'train-nano' could be train-nano-") as caught:
        find_run("train-nano", tmp_path)
    assert "…" in str(caught.value)
    with pytest.raises(RunError, match="is called 'gpt9'") as caught:
        find_run("gpt9", tmp_path)
    assert "swe runs" in str(caught.value)
    for other in ("train-nano-1", "nano-1", str(tmp_path / "runs" / "train-nano-1")):
        with pytest.raises(RunError, match="train-nano-1 is no sweep or prune run") as caught:
            find_run(other, tmp_path, ("sweep", "prune"))
        assert "swe runs" in str(caught.value)
    with pytest.raises(RunError, match="is called 'train-nano'"):
        find_run("train-nano", tmp_path, ("sweep",))  # none of several is what is asked for


# Locks


def test_the_second_of_two_is_told_who_holds_the_run(tmp_path):
    run = make_run(tmp_path, "train-x-1", status="running")
    with run.hold():
        assert run.status == "running"
        with (
            pytest.raises(RunError, match=rf"held by process {os.getpid()} on ") as caught,
            Run(run.path).hold(),
        ):
            pass
        assert "--wait" in str(caught.value)
    assert run.status == "stopped"
    assert run.holder() is None
    with run.hold():
        pass


def test_it_waits_only_if_asked(tmp_path):
    run = make_run(tmp_path, "train-x-1", status="running")
    order, waiting = [], threading.Event()

    def second() -> None:
        waiting.set()
        with Run(run.path).hold(wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with run.hold():
        thread.start()
        waiting.wait(5)
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_run_is_free_after_a_failure(tmp_path):
    run = make_run(tmp_path, "train-x-1")
    with pytest.raises(ValueError), run.hold():
        raise ValueError
    assert run.holder() is None
