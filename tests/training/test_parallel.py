"""swe train over two processes of gloo: what one process makes, to rounding."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from swe_cli.app import main
from swe_cli.contracts import IGNORED
from swe_cli.errors import UsageError
from swe_cli.store import find_run, list_runs
from swe_cli.training.parallel import ALONE, Ranks

from .toys import FILES, assert_same_tensors, recipe, words_for, write_text

# 20 steps of float32 without dropout; five statistics, of which one looks at gradients and one at
# Adam's; biases and an odd vocabulary, so that rows do not divide evenly.
HOW = (
    "model.dropout=0",
    "model.layers=2",
    "training.steps=20",
    "training.accumulation=2",
    "training.batch_size=4",
    "training.evaluate_every=7",
    "training.checkpoint_every=5",
    "tracking.statistics=[mean,weighted_variance,path_length,square_gradient,adam_v]",
)
PATIENCE = 60.0
TOGETHER = pytest.mark.parametrize("parallel", ["ddp", "fsdp"])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def processes():
    """Processes fork from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["swe_cli.commands.model", "torch._dynamo", "torch.distributed.fsdp"]
    )
    return context


def rank(words, output, environment) -> None:
    """What torchrun starts, once for each rank."""
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["swe", *words]
    main()


def started(processes, count, words, folder):
    """``count`` ranks of a command, which write what they say to ``folder``/N.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "none"}
    if count == 1:
        common = {}
    ranks = []
    for number in range(count):
        mine = common | ({"RANK": str(number), "LOCAL_RANK": str(number)} if common else {})
        arguments = words, folder / f"{number}.txt", mine
        ranks.append(processes.Process(target=rank, args=arguments))
        ranks[-1].start()
    return ranks


def ended(ranks) -> list[int]:
    """Their exit codes. One that hangs fails the test."""
    end = time.monotonic() + PATIENCE
    for process in ranks:
        process.join(max(0.0, end - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    assert None not in codes, codes
    return codes


def train(processes, count, text, results, *words):
    words = ["train", *words_for(text, *HOW, *words), f"results_dir={results}"]
    codes = ended(started(processes, count, words, results / "said"))
    said = "".join((results / "said" / f"{n}.txt").read_text() for n in range(count))
    assert codes == [0] * count, said
    return find_run("train", results)


def assert_close(run, other, atol):
    for name in FILES:
        one, two = load_file(run.path / name), load_file(other.path / name)
        assert list(one) == list(two)
        for key, tensor in one.items():
            torch.testing.assert_close(
                tensor, two[key], rtol=0, atol=atol, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.fixture(scope="module")
def alone(processes, text, tmp_path_factory):
    """The same by one process."""
    return train(processes, 1, text, tmp_path_factory.mktemp("alone"))


@TOGETHER
def test_two_ranks_give_what_one_process_gives(parallel, processes, text, tmp_path, alone):
    """Every weight, every statistic and the sampled weights, after 20 steps to 1e-5; and the
    trajectory is the average of the weights that these ranks had after every step, to 1e-6.
    """
    kept = f"tracking.snapshots={list(range(21))}".replace(" ", "")
    how = f"training.parallel={parallel}"
    run = train(processes, 2, text, tmp_path, how, kept)
    assert_close(run, alone, 1e-5)
    first, other = ((tmp_path / "said" / f"{n}.txt").read_text() for n in (0, 1))
    assert run.name in first
    assert other == ""  # one speaks
    told, of_one = run.manifest, alone.manifest
    assert told["measures"] == of_one["measures"]  # FLOPs are those of the whole batch
    assert told["results"] == pytest.approx(of_one["results"], abs=1e-5)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(of) for of in (alone.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    for line, of in zip(lines, expected, strict=True):
        assert line == pytest.approx(of, abs=1e-5)
    paths = sorted((run.path / "snapshots").glob("step-*"))
    weights = [load_file(path / "model.safetensors") for path in paths]
    assert len(weights) == 21
    trajectory = load_file(run.path / "trajectory.safetensors")
    total, last = sum(range(1, 21)), load_file(run.path / "model.safetensors")
    for name in last:
        steps = [of[name].double() for of in weights]
        mean = sum(i * of for i, of in enumerate(steps)) / total
        variance = sum(i * (of - mean) ** 2 for i, of in enumerate(steps)) / total
        path = sum((b - a).abs() for a, b in pairwise(steps))
        said = {"weighted_average": mean, "weighted_variance": variance, "path_length": path}
        for statistic, of in said.items():
            found = trajectory[f"{statistic}/{name}"].double()
            torch.testing.assert_close(found, of, rtol=0, atol=1e-6)
        assert torch.equal(last[name], weights[-1][name])


@pytest.mark.parametrize(
    ("parallel", "before", "after"), [("ddp", 2, 1), ("fsdp", 2, 1), ("fsdp", 1, 2)]
)
def test_another_number_of_ranks_goes_on(parallel, before, after, processes, text, tmp_path, alone):
    """One rank is asked to stop, all stop at one step; what they left is whole."""
    how = f"training.parallel={parallel}"
    words = ["train", *words_for(text, *HOW, how, "training.steps=20"), f"results_dir={tmp_path}"]
    ranks = started(processes, before, words, tmp_path / "said")
    wait_for_step(tmp_path, ranks, 3)
    os.kill(ranks[-1].pid, signal.SIGTERM)
    assert all(code in (130, 143) for code in ended(ranks)), said(tmp_path)
    (run,) = list_runs(tmp_path)
    assert run.status == "stopped"
    assert len(list((run.path / "checkpoints").glob("step-*"))) >= 1
    train(processes, after, text, tmp_path, how)
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 20
    assert_close(run, alone, 1e-5)


def said(results) -> str:
    return "\n".join(path.read_text() for path in sorted((results / "said").glob("*.txt")))


def wait_for_step(results, ranks, step) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and all(process.is_alive() for process in ranks):
        paths = results.glob("runs/train-*/metrics.jsonl")
        if sum(path.read_text().count("\n") for path in paths) >= step:
            return
        time.sleep(0.001)
    pytest.fail(f"never came to step {step}: {said(results)}")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_the_other_and_the_same_command_goes_on(
    killed, processes, text, tmp_path, alone
):
    how = "training.parallel=fsdp"
    words = ["train", *words_for(text, *HOW, how), f"results_dir={tmp_path}"]
    ranks = started(processes, 2, words, tmp_path / "said")
    wait_for_step(tmp_path, ranks, 6)
    os.kill(ranks[killed].pid, signal.SIGKILL)
    codes = ended(ranks)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 1
    if killed == 1:
        assert "Another process of this training ended" in said(tmp_path)
    run = train(processes, 2, text, tmp_path, how)
    assert_close(run, alone, 1e-5)


def test_one_rank_is_one_process(processes, text, tmp_path, alone):
    """Bit for bit, which is why another number of ranks can take over; under another name."""
    run = train(processes, 1, text, tmp_path, "training.parallel=ddp")
    assert "this is one process. Of two: torchrun --nproc-per-node=2" in said(tmp_path)
    for name in FILES:
        assert_same_tensors(load_file(run.path / name), load_file(alone.path / name), name)
    assert run.config["identity"]["training"].pop("parallel") == "ddp"
    assert run.name != alone.name


def test_ctrl_c_reaches_ranks_from_terminal_and_from_torchrun(text, tmp_path):
    """Each gets it twice, and still leaves a checkpoint."""
    words = words_for(text, *HOW, "training.parallel=ddp", "training.steps=4000")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "swe_cli", "train", *words, f"results_dir={tmp_path}"]
    (tmp_path / "said").mkdir()
    with (tmp_path / "said" / "0.txt").open("w") as out:
        torchrun = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for_step(tmp_path, [], 3)
        os.killpg(torchrun.pid, signal.SIGINT)
        assert torchrun.wait(PATIENCE) != 0
    finally:
        torchrun.kill()
    told = said(tmp_path)
    assert told.count("a checkpoint is safe") == 1
    assert "resume: torchrun --nproc-per-node=2 -m swe_cli train" in told
    (run,) = list_runs(tmp_path)
    assert len(list((run.path / "checkpoints").glob("step-*"))) >= 1


def test_rows_are_weighed_by_how_many_tokens_they_predict():
    """Of questions, whose answers are long and short, about images that rows share."""
    targets = torch.full((4, 3), IGNORED)
    targets[0, 0], targets[1, :2], targets[2, :], targets[3, 1:] = 1, 2, 3, 4
    images = torch.arange(5 * 12).view(5, 3, 2, 2).byte()
    image = torch.tensor([4, 1, 1, 0])
    batch = {"tokens": torch.arange(12).view(4, 3), "targets": targets}
    batch |= {"image": image, "images": images}
    losses = torch.rand(4, 3).masked_fill(targets == IGNORED, 0.0)
    means = []
    for number in (0, 1):
        rows = slice(2 * number, 2 * number + 2)
        ours, share = Ranks(number, 2).part(batch)
        assert torch.equal(ours["tokens"], batch["tokens"][rows])
        assert torch.equal(ours["images"][ours["image"]], images[image[rows]])
        assert len(ours["images"]) == 2
        mean = losses[rows].sum() / (ours["targets"] != IGNORED).sum()
        means.append(mean * share)
    whole = losses.sum() / (targets != IGNORED).sum()
    torch.testing.assert_close(sum(means) / 2, whole)
    assert ALONE.part(batch) == (batch, 1.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train"], "Each of the 2 processes that torchrun started would do the same training."),
        (["train", "training.parallel=ddp", "training.batch_size=3"], "batches of 3 evenly"),
        (["sweep"], "swe sweep is the work of one process, and torchrun started several."),
        (["prune"], "swe prune is the work of one process"),
        (["evaluate"], "swe evaluate is the work of one process"),
    ],
)
def test_what_ranks_cannot_share_is_refused(words, expected, swe, text, tmp_path, monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("RANK", "0")
    command, *rest = words
    options = words_for(text, *rest) if command == "train" else rest
    result = swe(command, *options)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())
    assert not (tmp_path / "results").exists()  # nothing was begun


@pytest.mark.parametrize(
    "options", [{"compile": True}, {"backward": "random"}, {"steps": 0}], ids=lambda of: min(of)
)
def test_recipes_that_ranks_cannot_follow_are_refused(options):
    (key,) = options
    with pytest.raises(UsageError, match=rf"training\.parallel=fsdp does not go with {key}="):
        recipe(parallel="fsdp", **options)
