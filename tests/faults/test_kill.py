"""Real processes and real signals: swe train in the hands of kill."""

import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
from training.toys import assert_same, contents, metrics, spec_of, trained, words_for, write_text

from swe_cli.app import app, main
from swe_cli.store import find_run

LONGER = ("training.steps=80", "training.evaluate_every=20", "training.checkpoint_every=9")
PATIENCE = 60.0


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("a = b, c"))


@pytest.fixture(scope="module")
def expected(text, tmp_path_factory):
    """The same training, left alone."""
    results = tmp_path_factory.mktemp("uninterrupted")
    return contents(trained(spec_of(text, *LONGER, statistics=()), results))


@pytest.fixture(scope="module")
def processes():
    """Processes fork from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["swe_cli.commands.model", "torch._dynamo"]
    )  # optimizers need it
    return context


def swe(words, output) -> None:
    """What the console script does, in a process of its own."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["swe", *words]
    main()


def start(processes, text, results):
    words = ["train", *words_for(text, *LONGER), f"results_dir={results}"]
    process = processes.Process(target=swe, args=(words, results / "output"))
    process.start()
    return process


def signal_when_at(process, results, step: int, number: int) -> None:
    """Send a signal once ``step`` steps were recorded, whatever the process is just doing."""
    end = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < end:
        paths = results.glob("runs/train-*/metrics.jsonl")
        if sum(path.read_text().count("\n") for path in paths) >= step:
            os.kill(process.pid, number)
            process.join(PATIENCE)
            return
        time.sleep(0.001)
    process.kill()
    pytest.fail(f"never came to step {step}: {(results / 'output').read_text()}")


def test_kill_9_at_random_moments_then_the_same_command(processes, text, tmp_path, expected):
    random.seed(20)
    for step in sorted(random.sample(range(5, 70), 2)):
        process = start(processes, text, tmp_path)
        signal_when_at(process, tmp_path, step, signal.SIGKILL)
        assert process.exitcode == -signal.SIGKILL
        run = find_run("train", tmp_path)
        assert run.status == "stopped"  # the lock died with its process
    process = start(processes, text, tmp_path)
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert run.name in (tmp_path / "output").read_text()
    assert_same(contents(run), expected)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_the_same_command_resumes(
    number, code, processes, text, tmp_path, expected
):
    process = start(processes, text, tmp_path)
    signal_when_at(process, tmp_path, 23, number)
    assert process.exitcode == code
    output = (tmp_path / "output").read_text()
    assert "checkpoint is safe" in output
    assert "Type the same again to resume: swe train" in output
    run = find_run("train", tmp_path)
    stopped = metrics(run).count("\n")
    assert 23 <= stopped < 80
    assert (run.path / "checkpoints" / f"step-{stopped:08d}").is_dir()
    with pytest.raises(SystemExit) as ended:
        app(["train", *words_for(text, *LONGER), f"results_dir={tmp_path}", "--quiet"])
    assert ended.value.code == 0
    assert_same(contents(run), expected)
