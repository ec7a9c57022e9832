"""Bad input: one sentence, the next thing to type, the right exit code, never a traceback."""

import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

from swe_cli.store import Run

USAGE, FAILED = 2, 1


def refused(result, code, *said):
    """The complaint of a command: short, on stderr, with the exit code promised."""
    text = " ".join(result.stderr.split())
    assert result.exit_code == code, result.output
    assert all(words in text for words in said), text
    assert "Traceback" not in text
    assert result.stdout == ""
    return text


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "train data.path=x",
            USAGE,
            "It belongs to data=image_folder or data=shakespeare_chars or",
        ),
        (
            "train data=text_file data.path=x data.validation_characters=4",
            USAGE,
            "is not a key of swe train. It belongs to data=kjv_chars.",
        ),
        ("train modle=gpt_nano", USAGE, "Did you mean model? Write model=…"),
        ("train model=gpt_nanno", USAGE, "Did you mean gpt_nano? Choose one of: gpt_nano"),
        ("train model.layers=abc", USAGE, "should be an integer. Write model.layers=10"),
        ("train seeds=0,1", USAGE, "axes belong to swe sweep. Type: swe sweep seeds=0,1"),
        ("train seeds=0", USAGE, "belongs to swe sweep. Write seed=0"),
        ("train some-run", USAGE, "swe train takes no run; 'some-run' is left over"),
        ("train device=nonsense", USAGE, "is not a device. Try cpu"),
        ("train device=cuda:99", USAGE, "is not present on this machine. Try device=cpu"),
        ("train threads=0", USAGE, "threads=0 must be at least 1"),
        (
            "sweep ratios=0.5 criteria=swe recovery.steps=-1",
            USAGE,
            "recovery.steps=-1 must not be negative",
        ),
        (
            "sweep ratios=0.5 criteria=swe training.steps=1,-1",
            USAGE,
            "training.steps=-1 must not be negative",
        ),
        ("train training.steps=-1", USAGE, "training.steps=-1 must not be negative"),
        ("train data.train_characters=0", USAGE, "must be at least 1"),
        ("train data=text_file", USAGE, "data.path is needed. Add data.path=…"),
        ("train data=text_file data.path=gone.txt", FAILED, "There is no file gone.txt"),
        ("train data=text_file data.path=.", FAILED, "is a directory"),
        ("train --config-dir gone", USAGE, "gone is not a folder"),
        ("train --wrong", USAGE, "No such option: --wrong"),
        ("prune", USAGE, "Say how much to cut"),
        (
            "prune pattern=2of4 ratio=0.6",
            USAGE,
            "cuts 0.5 of every row, no other amount. Write ratio=0.5",
        ),
        (
            "prune criterion=bezier_mean ratio=0.5",
            USAGE,
            "finds its own sparsity; it takes no ratio",
        ),
        ("prune criterion=bezier_mean pattern=neuron", USAGE, "it takes no pattern"),
        (
            "prune criterion=block_influence ratio=0.5",
            USAGE,
            "judges blocks. Add pattern=block",
        ),
        (
            "sweep criteria=block_influence,magnitude pattern=2of4",
            USAGE,
            "criterion=block_influence judges blocks. Add pattern=block",
        ),
        (
            "prune criterion=bezier_mean criterion.a=0.1 criterion.b=0.1 criterion.c=0.1",
            USAGE,
            "flat",
        ),
        ("prune transform=trawl_cp criterion=swe", USAGE, "so criterion has no meaning beside it"),
        ("prune transform=trawl_cp --ratio 0.5", USAGE, "Leave ratio out, or write transform=none"),
        ("prune transform=trawl_cp transform.ranks=[0]", USAGE, "rank"),
        (
            "prune transform=dsmoe transform.target=0",
            USAGE,
            "not in (0, 1]. Write transform.target=",
        ),
        ("prune transform=dsmoe transform.target=1.5", USAGE, "not in (0, 1]"),
        (
            "prune transform=dsmoe transform.experts=0",
            USAGE,
            "transform.experts=0 must be positive",
        ),
        (
            "prune transform=dsmoe transform.router=hard",
            USAGE,
            "'published', 'predicted' or 'soft'",
        ),
        ("prune transform=dsmoe criterion=swe", USAGE, "so criterion has no meaning beside it"),
        ("sweep transform=dsmoe ratio=0.5", USAGE, "so ratio has no meaning beside it"),
        ("prune transform=trawl_cp update=least_squares", USAGE, "so update has no meaning beside"),
        ("prune ratio=0.5 pattern=block update=least_squares", USAGE, "of a block all stays."),
        ("prune ratio=0.5 update.damping=1", USAGE, "It belongs to update=least_squares."),
        (
            "prune ratio=0.5 update=last_squares",
            USAGE,
            "Did you mean least_squares? Choose one of:",
        ),
        (
            "sweep ratio=0.5 updates=none,least_squares update.damping=-1",
            USAGE,
            "update.damping=-1 must not be negative. Write update.damping=0.01",
        ),
        ("sweep transform=trawl_cp criteria=swe,magnitude", USAGE, "cuts nothing, so criterion"),
        ("prune ratio=0.5 schedule=iterative recovery=none", USAGE, "of which recovery=none has 0"),
        ("prune pattern=2of4 schedule=iterative", USAGE, "Write schedule=one_shot"),
        ("prune rate=1 schedule=iterative", USAGE, "not of a rate"),
        ("prune ratio=0.5 schedule=early base=best", USAGE, "not the best of later"),
        ("prune ratio=0.5 schedule.rounds=3", USAGE, "schedule.rounds is not a key of swe prune"),
        (
            "prune ratio=0.5 schedule=iterative schedule.rounds=0",
            USAGE,
            "schedule.rounds=0 must be at",
        ),
        (
            "sweep ratio=0.5 schedule=early schedule.at_step=1500",
            USAGE,
            "Write schedule.at_step=750",
        ),
        ("prune --ratio 0.5 --fuse 1.5", USAGE, "fuse=1.5 is not in [0, 1)"),
        ("prune ratio=0.5 recovery=distill recovery.temperature=0.0", USAGE, "must be positive"),
        (
            "sweep ratio=0.5 schedule=early schedule.at_step=0",
            USAGE,
            "Cut later, schedule.at_step=100",
        ),
        ("prune ratio=0.5 quantize=int4", USAGE, "quantize=int4 is wrong: it should be 'none' or"),
        ("train quantize=int8", USAGE, "It belongs to swe prune and swe sweep"),
        ("train training.on_spike=no", USAGE, "should be 'record', 'skip' or 'retry'"),
        ("train training.backward_keep=0.0", USAGE, "is not in (0, 1]"),
        (
            "train training.backward=ssprop training.compile=true",
            USAGE,
            "Write training.compile=false",
        ),
        ("train tracking.snapshots=[2000]", USAGE, "names step 2000; the training ends at 1500"),
        ("sweep patterns=2of4 rate=1 allocation=sigma", USAGE, "cuts 0.5 of every row"),
        ("sweep transforms=trawl_cp,trawl_tucker ratio=0.5", USAGE, "so ratio has no meaning"),
        (
            "prune ratio=0.5 allocation=like allocation.criterion=bezier_actual",
            USAGE,
            "Name one that scores: allocation.criterion=swe",
        ),
        ("train tracking.start=100%", USAGE, "tracking.start=100% is no part of a training"),
        ("sweep tracking.decay=0%", USAGE, "Write a percentage: tracking.decay=10%"),
        ("sweep controls=[dense_mean]", USAGE, "'dense_averaged_recovered', 'dense_latest', "),
        (
            "prune ratio=0.5 controls=[dense_ema,dense_decayed]",
            USAGE,
            "Type: swe sweep controls=[dense_decayed]",
        ),
        ("train tracking.snapshots=[-1]", USAGE, "names a step before the first"),
        ("prune --ratio 0.5 --rate 1", USAGE, "a ratio or a rate, not both"),
        ("prune --ratio 1", USAGE, "ratio=1 is not in [0, 1)"),
        ("prune --ratio -0.1", USAGE, "is not in [0, 1)"),
        ("prune --ratio nan", USAGE, "is not a finite number"),
        ("prune --rate inf", USAGE, "is not a finite number"),
        ("prune --ratio half", USAGE, "should be a number"),
        ("prune --ratio 0.1,0.2", USAGE, "axes belong to swe sweep"),
        ("prune --ratio 0.5 ratio=0.6", USAGE, "The ratio is given twice"),
        ("prune --rate 1 allocation=global", USAGE, "Add allocation=sigma"),
        ("prune --ratio 0.5 model=gpt_small", USAGE, "swe prune trains nothing"),
        ("prune --ratio 0.5 experiment=demo", USAGE, "Type: swe sweep experiment=demo"),
        ("prune a b --ratio 0.5", USAGE, "takes one run; 'b' is left over"),
        ("prune nobody --ratio 0.5", FAILED, "is called 'nobody'. List them: swe runs"),
        ("prune --ratio 0.5", FAILED, "No finished train run"),
        ("sweep some-run", USAGE, "swe sweep takes no run"),
        ("sweep ratios=0.9..0.1", USAGE, "descends. Write 0.1..0.9"),
        ("sweep ratios=0.1..0.9..0", USAGE, "step of a range must be positive"),
        ("sweep ratios=", USAGE, "names no value"),
        ("sweep ratios=0.1,1", USAGE, "ratio=1 is not in [0, 1)"),
        ("sweep ratios=0.1 rates=1", USAGE, "a ratio or a rate, not both"),
        ("sweep rates=1,2", USAGE, "allocation=global does not know. Add allocation=sigma"),
        ("sweep criteria=swe,magnitde", USAGE, "Did you mean magnitude?"),
        ("evaluate", FAILED, "No finished train or prune run"),
        ("evaluate nobody", FAILED, "is called 'nobody'"),
        ("report", FAILED, "Make some rows: swe sweep experiment=demo"),
        ("report nobody", FAILED, "is called 'nobody'"),
        ("generate --prompt And", FAILED, "Train one: swe train"),
        ("generate --length 0", USAGE, "--length"),
        ("runs extra=1", USAGE, "extra is not a key of swe runs"),
        ("doctor some-run", USAGE, "swe doctor takes no run"),
        ("trian", USAGE, "No such command 'trian'"),
    ],
)
def test_words(swe, line, code, said):
    refused(swe(*line.split()), code, said)
    assert not Path("results").exists()


def test_a_model_that_cannot_be_leaves_no_run(swe):
    refused(swe("train", "model.heads=3"), USAGE, "is not a multiple of model.heads=3")
    assert "No runs" in swe("runs").stdout


def test_an_empty_prompt(swe):
    refused(swe("generate", "--prompt", ""), USAGE, "The prompt is empty")


def test_runs_of_an_empty_root_are_not_an_error(swe):
    assert swe("runs").exit_code == 0
    assert "swe sweep experiment=demo" in swe("runs").stdout


# Text


TEXT = "In the beginning was the word. " * 100
SMALL = [
    "model.layers=1",
    "model.heads=2",
    "model.width=16",
    "model.context=16",
    "training.steps=1",
    "training.batch_size=2",
    "data=text_file",
]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        ("é".encode("latin-1") * 500, "is not UTF-8: byte 0"),
        (b"too short", "needs 17. Lower model.context"),
        (TEXT[:200].encode(), "The validation split"),
    ],
)
def test_texts_that_cannot_be_used_leave_no_run(swe, tmp_path, content, said):
    (tmp_path / "text.txt").write_bytes(content)
    refused(swe("train", *SMALL, "data.path=text.txt"), FAILED, said)
    assert "No runs" in swe("runs").stdout


@pytest.mark.parametrize("name", ["a b.txt", "a=b.txt", "a, (b).txt", "été.txt", "it's ${x}.txt"])
def test_a_path_with_signs_in_it_works(swe, tmp_path, name):
    (tmp_path / name).write_text(TEXT, encoding="utf-8")
    trained = swe("train", "-q", *SMALL, f"data.path={name}")
    assert trained.exit_code == 0, trained.output
    pruned = swe("prune", "-q", "--ratio", "0.5", "recovery=none", trained.stdout.split()[0])
    assert pruned.exit_code == 0, pruned.output


def test_home_is_expanded(swe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text(TEXT)
    assert swe("train", "-q", *SMALL, "data.path=~/text.txt").exit_code == 0


def test_a_text_that_changed_is_refused(swe, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    run = swe("train", "-q", *SMALL, "data.path=text.txt").stdout.split()[0]
    (tmp_path / "text.txt").write_text(TEXT + "More.")
    assert run not in swe("train", "-q", *SMALL, "data.path=text.txt").stdout
    refused(swe("evaluate", run, "evaluation.batch_size=7"), FAILED, "has changed")


# Places


def test_a_results_root_that_is_a_file(swe, tmp_path, tiny_words):
    (tmp_path / "taken").write_text("")
    said = ("taken", "Not a directory", "results_dir=PATH")
    refused(swe("train", "-q", *tiny_words, "results_dir=taken"), FAILED, *said)
    told = " ".join(swe("doctor", "results_dir=taken").stdout.split())
    assert "not a folder" in told


def test_a_results_root_that_is_read_only(swe, tiny_words, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused(swe("train", "-q", *tiny_words), FAILED, "Cannot write", "Permission denied")


def test_a_refusal_nobody_foresaw_is_still_a_sentence(swe, monkeypatch):
    def refuse(*args, **options):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("swe_cli.commands.inventory.list_runs", refuse)
    refused(swe("runs"), FAILED, "somewhere: No space left on device")


# Runs


def test_a_prefix_of_two_runs_is_ambiguous(swe, own_run):
    shutil.copytree(own_run.path, own_run.path.with_name(own_run.name + "x"))
    prefix = own_run.name[:-1]
    refused(swe("prune", prefix, "--ratio", "0.5"), FAILED, "could be", "the newest is")
    assert swe("evaluate", own_run.name).exit_code == 0  # a whole name is never ambiguous


def test_a_run_of_another_kind(swe, own_run):
    for name in (own_run.pruned, own_run.pruned_path):
        refused(swe("prune", name, "--ratio", "0.5"), FAILED, "is no train run", "swe runs")


@pytest.mark.parametrize("command", ["prune --ratio 0.4", "evaluate", "generate"])
def test_an_unfinished_run(swe, own_run, command):
    manifest = own_run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"status": "done"', '"status": "running"'))
    name, *options = command.split()
    shutil.rmtree(own_run.results / "runs" / "cells")
    refused(swe(name, own_run.name, *options), FAILED, "is stopped: it has no final weights")
    assert swe("runs").stdout.count("stopped") == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b"[]", b"\xff"])
@pytest.mark.parametrize("file", ["manifest.json", "config.json"])
@pytest.mark.parametrize("kind", ["train", "prune"])
def test_damaged_descriptions_are_named(swe, own_run, kind, file, damage):
    path = own_run.path if kind == "train" else own_run.pruned_path
    (path / file).write_bytes(damage)
    for command in ("evaluate", "generate"):
        refused(swe(command, path.name), FAILED, str(path / file), "damaged")
    assert swe("runs").exit_code == 0
    if kind == "train":
        refused(swe("prune", path.name, "--ratio", "0.4"), FAILED, str(path / file))


@pytest.mark.parametrize("kind", ["train", "prune"])
def test_truncated_weights_are_named(swe, own_run, kind):
    path = (own_run.path if kind == "train" else own_run.pruned_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    shutil.rmtree(own_run.results / "runs" / "cells")
    for command in ("evaluate", "generate"):
        refused(swe(command, path.parent.name), FAILED, str(path), "truncated or was changed")


def test_a_pruned_run_whose_training_is_gone(swe, own_run):
    shutil.rmtree(own_run.path)
    for command in ("evaluate", "generate", "report"):
        said = f"{own_run.pruned} was cut from {own_run.name}, which is not in"
        refused(swe(command, own_run.pruned), FAILED, said)


def test_a_statistic_that_was_not_recorded_is_found_before_any_work(swe, own_run):
    before = sorted(os.listdir(own_run.results / "runs"))
    result = swe("prune", own_run.name, "--ratio", "0.5", "criterion=swe_mean")
    refused(result, FAILED, "criterion=swe_mean needs mean", "tracking.statistics=[mean]")
    for word in ("base=latest", "controls=[dense_latest]"):
        result = swe("prune", own_run.name, "--ratio", "0.5", word)
        said = f"{word} needs latest_average, which {own_run.name} did not record."
        refused(result, FAILED, said, "tracking.statistics=[latest_average]")
    assert sorted(os.listdir(own_run.results / "runs")) == before


def test_a_statistic_that_was_asked_for_is_recorded(swe, tiny_words):
    trained = swe("train", "-q", *tiny_words, "tracking.statistics=[mean]")
    run = trained.stdout.split()[0]
    assert swe("prune", "-q", run, "--ratio", "0.5", "criterion=swe_mean").exit_code == 0
    refused(swe("train", *tiny_words, "tracking.statistics=[men]"), USAGE, "Did you mean mean?")


def test_a_prompt_outside_the_vocabulary(swe, own_run):
    refused(swe("generate", own_run.name, "--prompt", "Жук"), FAILED, "does not hold 'Ж'")


def test_a_run_that_is_held(swe, own_run, tiny_words):
    """The second process is told who holds the run; with --wait it waits until it is let go."""
    manifest = own_run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"status": "done"', '"status": "running"'))
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with Run(own_run.path).hold():
            held.set()
            let_go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10)
        said = (f"{own_run.name} is held by process {os.getpid()}", "Add --wait")
        refused(swe("train", "-q", *tiny_words), FAILED, *said)
        assert "running" in swe("runs").stdout
        started = time.monotonic()
        threading.Timer(0.5, let_go.set).start()
        waited = swe("train", "-q", "--wait", *tiny_words)
    finally:
        let_go.set()
        holder.join()
    assert waited.exit_code == 0, waited.output
    assert waited.stdout.startswith(own_run.name)
    assert time.monotonic() - started >= 0.5


def test_debug_shows_where(swe):
    shown = swe("train", "--debug", "modle=x")
    assert shown.exit_code == USAGE
    assert "modle is not a key" in shown.stderr


def test_a_sweep_with_failed_cells_is_done_and_says_so(swe, tiny_words):
    """Two of two heads cannot all go; the other cells are there to be reported."""
    words = (*tiny_words, "pattern=head", "criteria=magnitude", "recovery=none")
    found = swe("sweep", "-q", *words, "allocation=uniform", "ratios=0.5,0.9")
    assert found.exit_code == FAILED
    assert "1 of 6 cells failed, first: This would remove every head of" in found.stderr
    assert "What failed, and only that, is run by: swe sweep" in found.stderr
    assert "done, 1 failed" in swe("runs").stdout
    reported = swe("report")
    assert reported.exit_code == 0
    assert "remove every head" in " ".join(reported.stdout.split())
    alone = swe("sweep", "-q", *words, "allocation=uniform", "ratio=0.9")
    assert alone.exit_code == FAILED
    assert "cells failed, first: This would remove every head" in alone.stderr


BOMB = "\n".join(
    ["_target_: swe_cli.criteria.weights.Magnitude", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)


@pytest.mark.parametrize("text", [BOMB, "a: " + "[" * 200 + "]" * 200, "a: " + "x" * 200_000])
def test_a_yaml_that_holds_too_much_is_refused_at_once(swe, tmp_path, text):
    (tmp_path / "own/criterion").mkdir(parents=True)
    (tmp_path / "own/criterion/mine.yaml").write_text(text)
    started = time.monotonic()
    refused(
        swe("sweep", "--config-dir", "own", "criterion=mine"), USAGE, "mine.yaml is larger than"
    )
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        "[1, 2]",
        "{}",
        '{"kind": "pruned", "model": "m", "data": "d", "seed": 1, "training": "t"}',
        "not json",
    ],
)
def test_a_row_that_is_none_is_said_and_left_out(swe, own_run, text):
    paths = sorted((own_run.results / "runs" / "cells").glob("*/row.json"))
    cut = next(path for path in paths if '"kind": "pruned"' in path.read_text())
    cut.write_text(text)
    told = swe("report", own_run.name)
    assert told.exit_code == 0, told.output
    assert "It is left out" in " ".join(told.output.split())


def test_a_number_that_is_none_is_no_row(swe, own_run):
    paths = sorted((own_run.results / "runs" / "cells").glob("*/row.json"))
    cut = next(path for path in paths if '"kind": "pruned"' in path.read_text())
    cut.write_text(re.sub('"loss_nats": [0-9.]+', '"loss_nats": "low"', cut.read_text()))
    told = swe("report", own_run.name)
    assert told.exit_code == 0, told.output
    assert "loss_nats is no number" in " ".join(told.output.split())
