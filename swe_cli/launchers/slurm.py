"""Jobs of a Slurm cluster, sent in arrays. They outlive this process, and are found again."""

import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
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

    ``folder`` has one where jobs and what came of them are pickled; null: in your home. It, and
    results, must be seen by all nodes. Raises UsageError where there is no Slurm, where sbatch
    refuses, and where others may look into that folder.
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
            "slurm_signal_delay_s": min(90, 15 * minutes),
            "slurm_additional_parameters": {"requeue": True, **more},
        }
        self.slots = array
        place = Path(folder).expanduser() if folder else user_state_path("swe")
        self.folder = place / "slurm"

    def start(self, threads: int) -> None:
        self.submitit = optional("submitit", "launcher=slurm", "slurm")
        if shutil.which("sbatch") is None:
            why = "There is no Slurm here: sbatch was not found."
            raise UsageError(why, "Type the same where jobs are submitted. Here: launcher=local")
        _make_private(self.folder)
        self.executor = self.submitit.AutoExecutor(self.folder, cluster="slurm")
        given = {name: value for name, value in self.parameters.items() if value is not None}
        self.executor.update_parameters(**given, cpus_per_task=threads)
        self.waiting: list[tuple[Future[Any], Any, Parcel[Any]]] = []
        self.sent: dict[Future[Any], Any] = {}
        self.missed: set[str] = set()  # ids that were neither queued nor had a result
        self.lost = (Vanished,)
        if (queued := _queued()) is None:
            raise UsageError("Slurm does not answer.", "Try: sinfo")
        self.asked = time.monotonic()
        # Jobs that a sweep left there, with what they do.
        records = {of: self.folder / f"{of}.json" for of in queued}
        self.found = {of: {*read_json(path)} for of, path in records.items() if path.is_file()}

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
            self._send()
        queued = None
        if time.monotonic() - self.asked > POLL:
            self.asked, queued = time.monotonic(), _queued()
        os.chown(self.folder, -1, -1)  # NFS looks anew
        there = {*os.listdir(self.folder)}
        for future, job in [*self.sent.items()]:
            if job.paths.result_pickle.name in there and self._receive(future, job):
                del self.sent[future]
            elif queued is not None and job.job_id not in queued:
                if job.job_id in self.missed:  # twice: a result may be on its way
                    why = f"Slurm's job {job.job_id} left no result. See {job.paths.stderr}"
                    del self.sent[future]
                    future.set_exception(Vanished(why))
                self.missed.add(job.job_id)

    def _send(self) -> None:
        for path in self.folder.iterdir():
            with suppress(OSError):  # another sweep clears away, too
                if time.time() - path.stat().st_mtime > WEEK:
                    path.unlink()
        try:
            with self.executor.batch():
                jobs = [self.executor.submit(_opened, parcel) for _, _, parcel in self.waiting]
        except Exception as error:  # submitit has what sbatch said
            why = f"sbatch refuses: {str(error).strip().splitlines()[-1]}"
            hint = "See launcher.partition and launcher.more; or lower launcher.array."
            raise UsageError(why, hint) from None
        for (future, of, _), job in zip(self.waiting, jobs, strict=True):
            write_json(self.folder / f"{job.job_id}.json", sorted(of.does))
            self.sent[future] = job
        self.waiting.clear()

    def _receive(self, future: Future[Any], job: Any) -> bool:
        """Take what came of a job; not so where another sweep just took it away."""
        try:
            future.set_result(job.result())
        except self.submitit.core.utils.UncompletedJobError:
            return False
        except Exception as error:  # before our own code was reached: modules that are not there
            last = str(error).strip().splitlines()[-1]
            why = f"A job failed on its node: {last}"
            future.set_exception(UsageError(why, f"See {job.paths.stderr}"))
            return True
        for path in [*self.folder.glob(f"{job.job_id}.json"), *self.folder.glob(f"{job.job_id}_*")]:
            path.unlink(missing_ok=True)
        return True

    def close(self, *, now: bool) -> None:
        if self.sent:
            ids = ",".join(sorted(job.job_id for job in self.sent.values()))
            why = f"What was submitted goes on, and is found again. To end it: scancel {ids}"
            warnings.warn(why, SweWarning, stacklevel=2)


def _make_private(folder: Path) -> None:
    """Pickles are code: nobody else may come there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        why = f"{folder} is not yours alone, and jobs are read from it."
        raise UsageError(why, f"Type: chmod 700 {folder}")


def _queued() -> set[str] | None:
    """Ids of our jobs that wait or run. None, and a warning, where Slurm does not answer."""
    asked = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    if not answer.returncode:
        return {*answer.stdout.split()}
    why = f"Slurm does not answer: {answer.stderr.strip()}"
    warnings.warn(why, SweWarning, stacklevel=2)
    return None


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
