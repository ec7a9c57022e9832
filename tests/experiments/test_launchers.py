"""Jobs travel: they are pickled, run elsewhere, run at once, and come to the same rows."""

import multiprocessing
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import slurm as slurm_here
import torch
from training.toys import Silent, sweep_of, swept, words_for

from swe_cli.commands.shared import Watcher
from swe_cli.config import ConfigRoot
from swe_cli.errors import Interrupted, UsageError
from swe_cli.experiments import cell as cells
from swe_cli.experiments.cell import run_cell
from swe_cli.experiments.ensure import ensure_trained
from swe_cli.experiments.jobs import jobs_of, run_sweep
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
            if ours or command.startswith(b"ray::_opened") or b"submitit.core._submit" in command:
                found.append(int(folder.name))
    return sorted(found)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A real Slurm, for this session."""
    if lacking := slurm_here.missing():
        pytest.skip(f"a Slurm of this machine lacks {', '.join(lacking)}")
    pytest.importorskip("submitit", reason="the extra slurm is missing")
    with slurm_here.cluster(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(params=["local", "ray", pytest.param("slurm", marks=pytest.mark.slurm)])
def workers(request, monkeypatch, tmp_path):
    """The words for workers that are processes of their own."""
    if request.param == "local":
        return ("launcher.workers=2",)
    if request.param == "ray":
        pytest.importorskip("ray", reason="the extra ray is missing")
        monkeypatch.setenv("RAY_worker_register_timeout_seconds", "120")
        return ("launcher=ray",)
    return request.getfixturevalue("slurm")


@pytest.fixture
def slurm(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr("swe_cli.launchers.slurm.POLL", 1.0)
    return ("launcher=slurm", f"launcher.folder={tmp_path}/jobs")


def test_the_job_of_a_worker_that_is_killed_is_given_to_another(text, tmp_path, alone, workers):
    plan, deadly = sweep_of(text, tmp_path, *OWN, *workers), Deadly(1)
    outcome = swept(plan, observer=deadly)
    assert deadly.times == 0
    assert any("its worker died" in words for words in deadly.said)
    assert (outcome.rows, files(plan)) == alone


def test_what_workers_do_is_told_with_how_far_they_are(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("swe_cli.commands.shared.WORKERS_SECONDS", 0.0)
    words = ("training.steps=60", "criteria=swe,magnitude", "ratio=0.5", "seeds=1,2", "threads=1")
    watcher = Watcher(quiet=False)
    swept(sweep_of(text, tmp_path, *words, "launcher.workers=2"), observer=watcher)
    said = capsys.readouterr().err
    assert re.search(
        r"2 at work\. training: step [1-9]\d*/60, [\d.]+ steps/s, \d+ s left, tr", said
    )
    assert re.search(r"1 at work\. (swe|magnitude|controls): cell [01]/\d", said)
    assert watcher._workers == {}


def test_a_job_that_kills_every_worker_fails_its_own_cells(text, tmp_path, package, workers):
    root = package(tmp_path / "own", KILLER)
    words = (*COMMON, "threads=1", "criteria=killer,magnitude", "ratio=0.5", *workers)
    observer = Silent()
    outcome = swept(sweep_of(text, tmp_path, *words, root=root), observer=observer)
    assert [row.settings["criterion"] for row in outcome.failed] == ["killer"]
    died = ("Abnormal termination", "WorkerCrashedError", "left no result")
    assert any(words in str(outcome.failed[0].error) for words in died)
    assert sum("its worker died" in words for words in observer.said) == 2


def test_a_training_that_kills_every_worker_fails_its_cells(text, tmp_path, package):
    root = package(tmp_path / "own", KILLER)
    words = (*COMMON, "threads=1", "criteria=needy", "ratio=0.5", "launcher.workers=2")
    outcome = swept(sweep_of(text, tmp_path, *words, root=root))
    assert outcome.trained == 0
    assert len(outcome.failed) == len(outcome.rows) == 5
    assert "Abnormal termination" in str(outcome.failed[0].error)


def test_workers_stop_where_they_are_and_go_on(text, tmp_path, alone, workers):
    if "launcher=slurm" in workers:
        pytest.skip("there they go on")
    words = (*OWN, *workers, "training.checkpoint_every=1000")
    plan = sweep_of(text, tmp_path, *words)
    asked = iter([False] * 6 + [True] * 1000)
    with pytest.raises(Interrupted):
        swept(plan, stop=lambda: next(asked))
    assert workers_here() == []
    assert list(plan.trainings[0].run.path.parent.glob("*/checkpoints/*"))  # as they were asked to
    outcome = swept(sweep_of(text, tmp_path, *words))
    assert (outcome.rows, files(plan)) == alone


# On a Slurm

LONG = ("training.steps=2000", "training.checkpoint_every=10000", "recovery.steps=2", "keep=models")
LONG += ("threads=1", "criteria=swe", "ratio=0.5")


def driver(text: Path, results: Path, *words: str) -> subprocess.Popen:
    """The sweep as a command of its own."""
    code = "from swe_cli.app import main; main()"
    words = ("sweep", *words_for(text, *words), f"results_dir={results}", "-q")
    return subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)


def slurm_jobs() -> set[str]:
    return {*slurm_here.said("squeue", "--noheader", "--array", "--states=all", "-o%i").split()}


def on_its_way(results: Path) -> None:
    """Wait until a training has come past its first steps."""
    lines = "runs/train-*/metrics.jsonl"
    slurm_here.wait_for(
        lambda: any(path.read_text().count("\n") > 5 for path in results.glob(lines))
    )


@pytest.mark.slurm
@pytest.mark.parametrize("by", ["a job of more priority", "the end of its time"])
def test_a_job_that_is_stopped_by_slurm_goes_on_from_its_checkpoint(by, text, tmp_path, slurm):
    expected = sweep_of(text, tmp_path / "alone", *LONG)
    swept(expected)
    before = slurm_jobs()
    process = driver(text, tmp_path / "results", *LONG, *slurm)
    on_its_way(tmp_path / "results")
    (job,) = slurm_jobs() - before
    if by == "the end of its time":
        slurm_here.said("scancel", "--signal=USR2", job)
    else:
        all_cores = f"--cpus-per-task={os.cpu_count()}"
        slurm_here.said("sbatch", "--partition=high", all_cores, "-o/dev/null", "--wrap=sleep 1")
    slurm_here.wait_for(lambda: "Restarts=1" in slurm_here.said("scontrol", "show", "job", job))
    assert [*tmp_path.glob("results/runs/train-*/checkpoints/*")]
    slurm_here.wait_for(lambda: job in slurm_here.said("squeue", "--noheader", "-tPD", "-o%i"))
    slurm_here.said("scontrol", "update", f"JobId={job}", "StartTime=now")  # else in two minutes
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert slurm_jobs() >= {job}
    there = files(sweep_of(text, tmp_path / "results", *LONG))
    assert {name: there[name] for name in there if not name.startswith("sweep-")} == files(expected)


@pytest.mark.slurm
def test_a_driver_killed_and_started_again_finds_its_jobs(text, tmp_path, alone, slurm):
    before = slurm_jobs()
    process = driver(text, tmp_path, *OWN, *slurm)
    slurm_here.wait_for(lambda: [*tmp_path.glob("jobs/slurm/*.json")])
    process.kill()
    process.communicate()
    there = slurm_jobs() - before
    assert there
    outcome = swept(plan := sweep_of(text, tmp_path, *OWN, *slurm))
    assert plan.launcher.found == {}
    assert (outcome.rows, files(plan)) == alone
    assert len(slurm_jobs() - before) == 8  # 2 trainings, 2 of controls, 4 of cuts
    assert not [*tmp_path.glob("jobs/slurm/*.json"), *tmp_path.glob("jobs/slurm/*.pkl")]


@pytest.mark.slurm
def test_what_is_submitted_outlives_ctrl_c(text, tmp_path, slurm):
    process = driver(text, tmp_path, *LONG, *slurm)
    on_its_way(tmp_path)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on, and is found again. To end it: scancel " in stderr
    job = stderr.partition("scancel ")[2].split()[0]
    assert job in slurm_jobs()
    slurm_here.said("scancel", job)


@pytest.mark.slurm
def test_jobs_are_not_read_from_where_others_write(text, tmp_path, slurm):
    (tmp_path / "jobs" / "slurm").mkdir(parents=True, mode=0o755)
    with pytest.raises(UsageError, match="is not yours alone"):
        sweep_of(text, tmp_path, *LONG, *slurm).launcher.start(1)


@pytest.mark.slurm
def test_what_sbatch_refuses_is_said(text, tmp_path, slurm):
    plan = sweep_of(text, tmp_path, *LONG, *slurm, "launcher.partition=typo")
    with pytest.raises(UsageError, match=r"sbatch refuses: .*Invalid partition"):
        swept(plan)


@pytest.mark.slurm
def test_the_job_of_another_place_is_not_ours(text, tmp_path, slurm):
    """Found again is what does as much, and there."""
    process = driver(text, tmp_path / "one", *LONG, *slurm)
    slurm_here.wait_for(lambda: [*tmp_path.glob("jobs/slurm/*.json")])
    for results, finds in (("one", True), ("another", False)):
        plan = sweep_of(text, tmp_path / results, *LONG, *slurm)
        plan.launcher.start(1)
        (job,) = (job for job in jobs_of(plan) if job.training)
        assert [job.does <= does for does in plan.launcher.found.values()] == [finds]
    process.kill()
    process.communicate()


def test_a_ray_that_does_not_answer_is_told_soon(text, tmp_path):
    """Ray itself asks for minutes."""
    pytest.importorskip("ray", reason="the extra ray is missing")
    with socket.socket() as nobody:
        nobody.bind(("localhost", 0))
        address = f"localhost:{nobody.getsockname()[1]}"
        plan = sweep_of(text, tmp_path, *LONG, "launcher=ray", f"launcher.address={address}")
        with pytest.raises(UsageError, match=f"No Ray cluster answers at {address}: .*refused"):
            plan.launcher.start(1)


def test_a_ray_that_has_no_room_says_so(text, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is missing")
    plan = sweep_of(text, tmp_path, *LONG, "launcher=ray", "launcher.gpus=64")
    with pytest.raises(UsageError, match=r"No machine of this Ray cluster has 1 CPU, 64 GPU"):
        plan.launcher.start(1)
