"""Jobs of a Slurm cluster, sent in arrays. They outlive this process, and are found again."""

import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from stat import S_ISDIR
from typing import Annotated, Any

from platformdirs import user_state_path
from pydantic import Field

from swe_cli.contracts import Count, Launcher, R
from swe_cli.errors import SweWarning, UsageError, optional
from swe_cli.files import read_json, write_json
from swe_cli.launchers.worker import Parcel

POLL = 5.0  # seconds between questions to slurmctld, which answers everybody's
RESTARTS = 20  # of a job; what takes more has no time limit that it can work with
HOUR, WEEK = 3600.0, 7 * 86400.0


class Vanished(Exception):  # noqa: N818 - nothing is wrong with the job
    """A job that is queued no more and left no result: cancelled, killed, on a node that failed."""


class Slurm(Launcher):
    """Jobs of ``minutes`` with as many CPUs as threads, at most ``array`` queued or running.
    ``more``: other options of sbatch, as {qos: low}. A job that is pre-empted, or whose time is
    over, keeps a checkpoint and is queued again.

    ``folder`` is where jobs and what came of them are pickled: null is one in your home. It, and
    results, must be seen by all nodes. Raises UsageError where there is no Slurm, or where others
    may write into that folder.
    """

    def __init__(
        self,
        *,
        partition: str | None,
        minutes: Count,
        memory_gb: Annotated[float, Field(gt=0)] | None,
        gpus: Annotated[int, Field(ge=0)],
        array: Count,
        folder: str | None,
        more: dict[str, str | int | bool],
    ) -> None:
        self.parameters: dict[str, Any] = {
            "name": "swe",
            "timeout_min": minutes,
            "mem_gb": memory_gb,
            "gpus_per_node": gpus or None,
            "slurm_partition": partition,
            "slurm_additional_parameters": {"requeue": True, **more},
        }
        self.slots = array
        self.folder = Path(folder).expanduser() if folder else user_state_path("swe") / "slurm"

    def start(self, threads: int) -> None:
        submitit = optional("submitit", "launcher=slurm", "slurm")
        if shutil.which("sbatch") is None:
            why = "There is no Slurm here: sbatch was not found."
            raise UsageError(why, "Type the same where jobs are submitted. Here: launcher=local")
        _make_private(self.folder)
        self.executor = submitit.AutoExecutor(self.folder, cluster="slurm")
        given = {name: value for name, value in self.parameters.items() if value is not None}
        self.executor.update_parameters(**given, cpus_per_task=threads)
        self.waiting: list[tuple[Future[Any], Any, Parcel[Any]]] = []
        self.sent: dict[Future[Any], Any] = {}
        self.missed: set[str] = set()
        self.lost = (Vanished,)
        self.asked, self.queued = time.monotonic(), _queued()
        self.found: dict[str, set[str]] = {}  # jobs that a sweep left there, with what they do
        arrays = {job.partition("_")[0] for job in self.queued}
        for path in [*self.folder.iterdir()]:
            if path.suffix == ".json" and path.stem in self.queued:
                self.found[path.stem] = set(read_json(path))
            elif path.name.partition("_")[0].partition(".")[0] in arrays:
                continue
            elif time.time() - path.stat().st_mtime > WEEK:
                path.unlink(missing_ok=True)

    def submit(self, function: Callable[..., R], job: Any) -> "Future[R]":
        future: Future[R] = Future()
        found = next((of for of, does in self.found.items() if job.does <= does), None)
        if found is None:
            self.waiting.append((future, job, Parcel(function, job)))
        else:
            del self.found[found]
            self.sent[future] = self.executor.job_class(self.folder, found)
        return future

    def look(self) -> None:
        if self.waiting:
            with self.executor.batch():
                jobs = [self.executor.submit(_opened, parcel) for _, _, parcel in self.waiting]
            for (future, of, _), job in zip(self.waiting, jobs, strict=True):
                write_json(self.folder / f"{job.job_id}.json", sorted(of.does))
                self.sent[future] = job
            self.waiting.clear()
        if asks := time.monotonic() - self.asked > POLL:
            self.asked, self.queued = time.monotonic(), _queued()
        os.chown(self.folder, -1, -1)  # NFS looks anew
        there = {*os.listdir(self.folder)}
        for future, job in [*self.sent.items()]:
            gone = asks and job.job_id not in self.queued
            if job.paths.result_pickle.name in there:
                outcome = self._outcome(job)
            elif gone and job.job_id in self.missed:  # twice: a result may be on its way
                why = f"Slurm's job {job.job_id} left no result. What it said: {job.paths.stderr}"
                outcome = Vanished(why)
            else:
                self.missed |= {job.job_id} if gone else set()
                continue
            del self.sent[future]
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _outcome(self, job: Any) -> Any:
        try:
            result = job.result()
        except Exception as error:  # before our own code was reached: modules that are not there
            last = str(error).strip().splitlines()[-1]
            return UsageError(f"A job failed on its node: {last}", f"See {job.paths.stderr}")
        self._forget(job.job_id)
        return result

    def _forget(self, job: str) -> None:
        for path in [self.folder / f"{job}.json", *self.folder.glob(f"{job}_*")]:
            path.unlink(missing_ok=True)

    def close(self, *, now: bool) -> None:
        if self.sent:
            ids = ",".join(sorted(job.job_id for job in self.sent.values()))
            why = f"What was submitted goes on, and is found again. To end it: scancel {ids}"
            warnings.warn(why, SweWarning, stacklevel=2)


def _make_private(folder: Path) -> None:
    """Pickles are code: nobody else may write there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        why = f"{folder} is not yours alone, and jobs are read from it."
        raise UsageError(why, f"Type: chmod 700 {folder}")


def _queued() -> set[str]:
    """Ids of our jobs that wait or run."""
    asked = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    for wait in (1.0, 5.0, 25.0, None):
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if not answer.returncode:
            return {*answer.stdout.split()}
        if wait:
            time.sleep(wait)
    raise UsageError(f"Slurm does not answer: {answer.stderr.strip()}", "Try: sinfo")


# On a node


def _opened(parcel: Parcel[R]) -> R:
    """What comes of a job. Of one that was stopped nothing: it is queued again, and goes on."""
    came, taken = parcel.open(signal.SIGTERM, signal.SIGUSR2)
    if not taken:
        return came
    if signal.SIGUSR2 in taken and int(os.environ.get("SLURM_RESTART_COUNT", 0)) < RESTARTS:
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
    time.sleep(HOUR)  # until it is killed: what ends by itself is not queued again
    raise SystemExit(128 + signal.SIGTERM)
