"""Jobs travel: they are pickled, run elsewhere, run at once, and come to the same rows."""

import multiprocessing
import pickle
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import pytest
import torch
from training.toys import Silent, sweep_of, swept

from swe_cli.config import ConfigRoot
from swe_cli.experiments import cell as cells
from swe_cli.experiments.cell import run_cell
from swe_cli.experiments.ensure import ensure_trained
from swe_cli.experiments.sweep import run_sweep
from swe_cli.files import read_tensors
from swe_cli.training.state import never

SPAWN = multiprocessing.get_context("spawn")
COMMON = ("training.steps=4", "recovery.steps=2", "keep=models")
LAB = {
    "lab/workers.py": """
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from multiprocessing import get_context

        class Workers:
            def __init__(self, *, workers: int) -> None:
                self.workers = workers

            def map(self, function, jobs):
                with ProcessPoolExecutor(self.workers, get_context("spawn")) as pool:
                    running = {pool.submit(function, job): job for job in jobs}
                    for future in as_completed(running):
                        yield running[future], future.exception() or future.result()
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
    plan = sweep_of(text, results, *COMMON, "criteria=swe,magnitude", "ratios=0.3,0.6")
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
