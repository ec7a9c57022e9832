"""Workers of a Ray cluster, or of one that is started for this sweep on this machine."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import Future, wait
from signal import SIGINT
from typing import Annotated, Any

from pydantic import Field

from swe_cli.contracts import Launcher, R
from swe_cli.errors import UsageError, optional
from swe_cli.launchers.worker import GRACE, Parcel

PATIENCE = 5.0  # seconds for an address to answer: Ray itself takes minutes to give up


class Ray(Launcher):
    """``address``: of a cluster, host:port or auto; null starts one here, ended with the sweep.

    A job takes as many CPUs as it has threads, ``gpus`` and, with ``memory_gb``, so many gigabytes.
    Results have to lie where all machines read and write them. Ray does not try jobs again, the
    sweep does. Raises UsageError where no cluster answers, or none has room for one job.
    """

    def __init__(
        self,
        *,
        address: str | None,
        gpus: Annotated[float, Field(ge=0)],
        memory_gb: Annotated[float, Field(gt=0)] | None,
    ) -> None:
        self.address, self.gpus, self.memory_gb = address, gpus, memory_gb

    def start(self, threads: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
        # As Ray itself will have it, which warns until one says so: no GPU asked for hides none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self.ray = ray = optional("ray", "launcher=ray", "ray")
        here = {} if self.address else {"include_dashboard": False}
        host, _, port = (self.address or "").rpartition(":")
        try:
            if host and "/" not in host:
                socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
            ray.init(self.address, log_to_driver=False, logging_level="ERROR", **here)
        except (OSError, ValueError, RuntimeError) as error:
            where = f"answers at {self.address}" if self.address else "could be started"
            why = f"No Ray cluster {where}: {str(error).splitlines()[0]}"
            hint = "Start one: ray start --head. Or let the sweep: launcher.address=null"
            raise UsageError(why, hint) from None
        memory = (self.memory_gb or 0.0) * 1e9
        needs = {"CPU": float(threads), "GPU": self.gpus, "memory": memory}
        asked = {of: much for of, much in needs.items() if much}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = (min(of.get(name, 0.0) // much for name, much in asked.items()) for of in nodes)
        self.slots = int(sum(room))
        if not self.slots:
            ray.shutdown()
            told = ", ".join(f"{much:g} {of}" for of, much in asked.items())
            raise UsageError(f"No machine of this Ray cluster has {told}.", "Ask for less.")
        of = ray.exceptions
        self.lost = (of.WorkerCrashedError, of.NodeDiedError, of.OutOfMemoryError)
        self.lost += (of.LocalRayletDiedError, of.RaySystemError, of.ObjectLostError)
        options = {"num_cpus": threads, "num_gpus": self.gpus, "max_retries": 0}
        self.open = ray.remote(**options, memory=memory or None)(_opened)
        self.going: dict[Future[Any], Any] = {}

    def submit(self, function: Callable[..., R], job: Any) -> "Future[R]":
        reference = self.open.remote(Parcel(function, job))
        future: Future[R] = reference.future()
        self.going[future] = reference
        future.add_done_callback(self.going.pop)
        return future

    def close(self, *, now: bool) -> None:
        if now:
            running = {**self.going}
            for reference in running.values():
                self.ray.cancel(reference)
            wait(running, GRACE)
        self.ray.shutdown()


def _opened(parcel: Parcel[R]) -> R:
    return parcel.open(SIGINT)[0]  # which is how Ray cancels
