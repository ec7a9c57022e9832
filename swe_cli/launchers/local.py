"""Processes of this machine, as many as its cores hold; or this one alone."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any

from pebble import ProcessExpired, ProcessPool

from swe_cli.contracts import Count, Launcher, R
from swe_cli.errors import UsageError
from swe_cli.launchers.worker import GRACE, say_warnings

SPAWN = get_context("spawn")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


class Local(Launcher):
    """``workers`` processes, each with its own open training; null is cores ÷ threads. Of one, jobs
    run in this very process.

    Raises UsageError for several workers that would each use all cores.
    """

    def __init__(self, *, workers: Count | None) -> None:
        self.workers, self.futures = workers, set[Future[Any]]()
        self.pool: Any = None

    def start(self, threads: int) -> None:
        self.slots = self.workers or max(1, cores() // threads)
        self.in_process = self.slots == 1
        if self.in_process:
            return
        if threads > 1 and self.slots * threads > cores():
            why = f"{self.slots} workers of {threads} threads are more than {cores()} cores."
            raise UsageError(why, f"Write threads={max(1, cores() // self.slots)}")
        # One that dies before it has a job breaks the pool.
        self.lost = (ProcessExpired, BrokenProcessPool)
        self.stop = SPAWN.Event()
        self._open()

    def _open(self) -> None:
        begun = self.stop, os.getpid()
        self.pool = ProcessPool(self.slots, initializer=_begin, initargs=begun, context=SPAWN)

    def submit(self, function: Callable[..., R], job: Any) -> "Future[R]":
        if self.pool is None:
            future: Future[R] = Future()
            try:
                future.set_result(function(job))
            except Exception as error:
                future.set_exception(error)
            return future
        if not self.pool.active:
            self.pool.stop()
            self.pool.join()
            self._open()
        scheduled: Future[R] = self.pool.schedule(_work, args=(function, job))
        self.futures.add(scheduled)
        scheduled.add_done_callback(self.futures.discard)
        return scheduled

    def close(self, *, now: bool) -> None:
        if self.pool is None:
            return
        if now:
            self.stop.set()
            wait({*self.futures}, GRACE)
            self.pool.stop()
        else:
            self.pool.close()
        self.pool.join()


# In a worker

_ASKED: list[Callable[[], bool]] = []


def _begin(asked: Event, parent: int) -> None:
    """Ctrl-C reaches every process of a terminal: only the parent decides what it means."""
    say_warnings()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _ASKED[:] = [lambda: asked.is_set() or os.getppid() != parent]


def _work(function: Callable[..., R], job: Any) -> R:
    return function(job, stop=_ASKED[0])
