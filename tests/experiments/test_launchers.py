"""Jobs travel: they are pickled, run elsewhere, run at once, and come to the same rows."""

import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from training.toys import Silent, sweep_of, swept

from swe_cli.config import ConfigRoot
from swe_cli.errors import Interrupted, UsageError
from swe_cli.experiments import cell as cells
from swe_cli.experiments.cell import run_cell
from swe_cli.experiments.ensure import ensure_trained
from swe_cli.experiments.jobs import run_sweep
from swe_cli.files import read_tensors
from swe_cli.launchers import local
from swe_cli.training.state import never

SPAWN = multiprocessing.get_context("spawn")
COMMON = ("training.steps=4", "recovery.steps=2", "keep=models")
LAB = {
    "lab/workers.py": """
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        class Workers:
            def __init__(self, *, workers: int) -> None:
                self.slots = workers
                self.pool = ProcessPoolExecutor(workers, get_context("spawn"))

            def submit(self, function, job):
                return self.pool.submit(function, job)

            def close(self, *, now):
                self.pool.shutdown()
    """,
    "lab/peaks.py": """
        class Peak:
            def __init__(self, weights):
                self.peak = {name: w.abs() for name, w in weights.items()}

            def update(self, weights, index, share):
                for name, peak in self.peak.items():
                    peak.copy_(peak.max(weights[name].abs()))

            def state(self):
                return self.peak

            def load(self, state):
                self.peak = state

        class ByPeak:
            needs = ("peak",)

            def score(self, evidence):
                return evidence.trajectory["peak"]
    """,
    "conf/launcher/workers.yaml": "_target_: lab.workers.Workers\nworkers: 2\n",
    "conf/statistic/peak.yaml": "_target_: lab.peaks.Peak\n",
    "conf/criterion/by_peak.yaml": "_target_: lab.peaks.ByPeak\n",
}

KILLER = {
    "lab/killer.py": """
        import os
        import signal

        class Killer:
            def score(self, evidence):
                os.kill(os.getpid(), signal.SIGKILL)

        class Deadly:
            def __init__(self, weights):
                self.weights = weights

            def update(self, weights, index, share):
                os.kill(os.getpid(), signal.SIGKILL)

            def state(self):
                return self.weights

            def load(self, state): ...

        class Needy(Killer):
            needs = ("deadly",)
    """,
    "conf/statistic/deadly.yaml": "_target_: lab.killer.Deadly\n",
    "conf/criterion/needy.yaml": "_target_: lab.killer.Needy\n",
    "conf/criterion/killer.yaml": "_target_: lab.killer.Killer\n",
}


@pytest.fixture
def lab(tmp_path, package):
    return package(tmp_path / "own", LAB)


KINDS = {
    "a cut that consults": "criterion=random allocation=like ratio=0.5",
    "one with probes": "criterion=fisher allocation=ecoflap ratio=0.5",
    "layer by layer, 2 of 4": "criterion=sparsegpt pattern=2of4",
    "units": "criterion=magnitude pattern=neuron allocation=uniform ratio=0.5 fuse=0.9",
    "drawn, in rounds": "criterion=bezier_actual schedule=iterative schedule.rounds=2",
    "early": "criterion=snip schedule=early schedule.at_step=1 ratio=0.5 recovery=distill",
    "a transform": "transform=trawl_cp transform.ranks=[2]",
    "a gated one": "transform=dsmoe transform.router=predicted transform.samples=4",
    "two stages": "pretraining=align pretraining.steps=2 pretraining.trains=all ratio=0.5",
    "of a user": "criterion=by_peak ratio=0.5",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_job_survives_pickling(kind, text, tmp_path, request):
    root = request.getfixturevalue("lab") if kind == "of a user" else ConfigRoot()
    plan = sweep_of(text, tmp_path, *COMMON, *KINDS[kind].split(), root=root)
    for spec in plan.trainings:
        job, again = pickle.loads(pickle.dumps((ensure_trained, spec)))
        assert job is ensure_trained
        assert (again.hash, again.config, again.run) == (spec.hash, spec.config, spec.run)
        assert again.statistics == dict(spec.statistics)
        assert (again.first is None) is (spec.first is None)
    kinds = set()
    for planned in plan.cells:
        _, again = pickle.loads(pickle.dumps((partial(run_cell, stop=never), planned)))
        assert again == planned
        assert again.config == planned.config
        assert again.reads.keys() == planned.reads.keys()
        assert again.folder == planned.folder
        kinds.add(planned.kind)
    assert kinds == {"dense", "dense_best", "dense_averaged", "dense_recovered", "pruned"}


def stored(plan):
    return {
        planned.hash: {
            name: read_tensors(path)
            for name, path in (
                ("model", planned.model_to),
                ("windows", planned.folder / "windows.safetensors"),
            )
        }
        for planned in plan.cells
    }


def test_other_processes_give_the_rows_of_this_one_bit_for_bit(text, tmp_path, lab):
    words = (*COMMON, "criteria=by_peak,snip,wanda", "ratios=0.3,0.6", "seeds=1,2")
    here = sweep_of(text, tmp_path / "here", *words, root=lab)
    there = sweep_of(text, tmp_path / "there", *words, "launcher=workers", root=lab)
    assert not there.launcher.in_process
    expected, outcome = swept(here), swept(there)
    assert not expected.failed
    assert outcome.rows == expected.rows
    assert (outcome.trained, outcome.ran) == (expected.trained, expected.ran) == (2, 20)
    for hash_, files in stored(there).items():
        for name, tensors in stored(here)[hash_].items():
            assert tensors.keys() == files[name].keys()
            assert all(torch.equal(tensor, files[name][key]) for key, tensor in tensors.items())
    again = swept(there)
    assert (again.trained, again.ran, again.rows) == (0, 0, expected.rows)


def test_a_job_that_fails_elsewhere_is_a_row(text, tmp_path, lab):
    words = ("training.learning_rate=1e-3,1e30", "criteria=by_peak", "ratio=0.5")
    outcome = swept(sweep_of(text, tmp_path, *COMMON, *words, "launcher=workers", root=lab))
    assert len(outcome.rows) == 2 * len(outcome.failed) == 10
    assert {row.axes["training.learning_rate"] for row in outcome.failed} == {1e30}
    assert "at step" in outcome.failed[0].error


# Two at once


def sweep_at_once(text: Path, results: Path, log: Path, together) -> tuple[int, list]:
    """One of two processes that run the same sweep: whether it trained, and its rows."""
    torch.set_num_threads(1)
    write = cells._write

    def logged(cell, result):
        with log.open("a") as file:
            file.write(f"{cell.hash}\n")
        time.sleep(0.05)  # so that the other one meets the lock
        write(cell, result)

    cells._write = logged
    words = (*COMMON, "criteria=swe,magnitude", "ratios=0.3,0.6", "launcher.workers=1")
    plan = sweep_of(text, results, *words)
    observer = Silent()
    together.wait(60)
    outcome = run_sweep(plan, observer, lambda: False, wait=True)
    return outcome.trained, outcome.rows


def test_two_processes_at_one_sweep_train_once_and_run_each_cell_once(text, tmp_path):
    log = tmp_path / "log"
    with SPAWN.Manager() as manager, ProcessPoolExecutor(2, SPAWN) as pool:
        together = manager.Barrier(2)
        both = [
            pool.submit(sweep_at_once, text, tmp_path / "results", log, together) for _ in range(2)
        ]
        (trained, rows), (also, others) = (future.result() for future in as_completed(both))
    assert trained + also == 1
    assert rows == others
    assert all(row.status == "done" for row in rows)
    assert sorted(log.read_text().split()) == sorted(row.config_hash for row in rows)


# Workers of this machine

OWN = (*COMMON, "threads=1", "criteria=swe,magnitude", "ratios=0.3,0.6", "seeds=1,2")


def files(plan):
    """All that a sweep leaves but when and how long, by place."""
    runs = plan.trainings[0].run.path.parent
    told = ("timing.json", "manifest.json", ".holder.json", "config.json")
    return {
        str(path.relative_to(runs)): path.read_bytes()
        for path in sorted(runs.rglob("*"))
        if path.is_file() and path.name not in told and ".lock" not in str(path)
    }


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory):
    """What one process makes of a sweep: its rows, and its files."""
    plan = sweep_of(text, tmp_path_factory.mktemp("alone"), *OWN, "launcher.workers=1")
    return swept(plan).rows, files(plan)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_leave_the_same_files_as_one_process(text, tmp_path, alone, workers):
    plan = sweep_of(text, tmp_path, *OWN, f"launcher.workers={workers}")
    outcome = swept(plan)
    assert not plan.launcher.in_process
    assert (outcome.trained, outcome.ran) == (2, len(plan.cells))
    assert (outcome.rows, files(plan)) == alone
    again = swept(sweep_of(text, tmp_path, *OWN, f"launcher.workers={workers}"))
    assert (again.trained, again.ran, again.rows) == (0, 0, outcome.rows)


def test_as_many_workers_as_cores_hold(text, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 4)
    for threads, workers in ((1, 4), (2, 2), (4, 1)):
        launcher = sweep_of(text, tmp_path, f"threads={threads}").launcher
        launcher.start(threads)
        assert (launcher.slots, launcher.in_process) == (workers, workers == 1)
        launcher.close(now=False)
    launcher = sweep_of(text, tmp_path, "launcher.workers=2").launcher
    with pytest.raises(UsageError, match="2 workers of 4 threads are more than 4 cores"):
        launcher.start(4)


class Deadly(Silent):
    """Kills the workers that it sees, now and then."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def working(self, jobs):
        children = [child for child in workers_here() if self.times > 0]
        if jobs and children:
            self.times -= 1
            os.kill(children[-1], signal.SIGKILL)


def workers_here() -> list[int]:
    """Our children that are no resource tracker, and what works for Ray."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
            ours = int(stat[1]) == os.getpid() and b"spawn_main" in command
            if ours or command.startswith(b"ray::_opened"):
                found.append(int(folder.name))
    return sorted(found)


@pytest.fixture(params=["launcher.workers=2", "launcher=ray"])
def workers(request, monkeypatch):
    """The words for workers that are processes of their own."""
    if request.param == "launcher=ray":
        pytest.importorskip("ray", reason="the extra ray is missing")
        monkeypatch.setenv("RAY_worker_register_timeout_seconds", "120")
    return request.param


def test_the_job_of_a_worker_that_is_killed_is_given_to_another(text, tmp_path, alone, workers):
    plan, deadly = sweep_of(text, tmp_path, *OWN, workers), Deadly(1)
    outcome = swept(plan, observer=deadly)
    assert deadly.times == 0
    assert any("its worker died" in words for words in deadly.said)
    assert (outcome.rows, files(plan)) == alone


def test_a_job_that_kills_every_worker_fails_its_own_cells(text, tmp_path, package, workers):
    root = package(tmp_path / "own", KILLER)
    words = (*COMMON, "threads=1", "criteria=killer,magnitude", "ratio=0.5", workers)
    observer = Silent()
    outcome = swept(sweep_of(text, tmp_path, *words, root=root), observer=observer)
    assert [row.settings["criterion"] for row in outcome.failed] == ["killer"]
    died = "Abnormal termination" if "workers" in workers else "WorkerCrashedError"
    assert died in str(outcome.failed[0].error)
    assert sum("its worker died" in words for words in observer.said) == 2


def test_a_training_that_kills_every_worker_fails_its_cells(text, tmp_path, package):
    root = package(tmp_path / "own", KILLER)
    words = (*COMMON, "threads=1", "criteria=needy", "ratio=0.5", "launcher.workers=2")
    outcome = swept(sweep_of(text, tmp_path, *words, root=root))
    assert outcome.trained == 0
    assert len(outcome.failed) == len(outcome.rows) == 5
    assert "Abnormal termination" in str(outcome.failed[0].error)


def test_workers_stop_where_they_are_and_go_on(text, tmp_path, alone, workers):
    words = (*OWN, workers, "training.checkpoint_every=1000")
    plan = sweep_of(text, tmp_path, *words)
    asked = iter([False] * 6 + [True] * 1000)
    with pytest.raises(Interrupted):
        swept(plan, stop=lambda: next(asked))
    assert workers_here() == []
    assert list(plan.trainings[0].run.path.parent.glob("*/checkpoints/*"))  # as they were asked to
    outcome = swept(sweep_of(text, tmp_path, *words))
    assert (outcome.rows, files(plan)) == alone
