"""The commands on a tiny run: what they print and leave behind."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from swe_cli import decompressed


def test_prune_takes_the_newest_training_and_cuts_exactly_half(own_run):
    tensors = load_file(own_run.pruned_path / "model.safetensors")
    cut = {n: t for n, t in tensors.items() if n.startswith("layers.") and t.dim() == 2}
    zeros = sum(int((t == 0).sum()) for t in cut.values())
    assert zeros == sum(t.numel() for t in cut.values()) // 2


def test_a_rate_alone_means_the_paper_s_allocation(swe, own_run):
    made = swe("prune", "-q", "--rate", "0.5", "recovery=none", own_run.name)
    assert made.exit_code == 0, made.output
    name = made.stdout.split()[0]
    stored = json.loads((own_run.results / "runs" / name / "config.json").read_text())
    assert stored["cut"]["allocation"] == {"name": "sigma"}
    assert stored["cut"]["rate"] == 0.5


def test_a_cut_shows_the_controls_that_are_asked_for(swe, own_run):
    words = ("prune", "-q", own_run.name, "--ratio", "0.5", "recovery.steps=2")
    plain, asked = swe(*words), swe(*words, "controls=[dense_averaged_recovered]")
    assert asked.exit_code == 0, asked.output
    assert "averaged recovered" in asked.stdout
    assert "averaged recovered" not in plain.stdout
    assert asked.stdout.split()[0] == plain.stdout.split()[0] == own_run.pruned
    assert "averaged recovered" in " ".join(swe("report", own_run.name).stdout.split())


def test_a_run_is_found_by_prefix_by_its_tail_and_by_path(swe, own_run):
    for token in (own_run.name[:-2], own_run.name.removeprefix("train-"), own_run.path):
        shown = swe("evaluate", token)
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.split()[0] == own_run.name


def test_options_work_in_any_position(swe, own_run):
    for words in (["--ratio", "0.5", own_run.name], [own_run.name, "--ratio=0.5"], ["ratio=0.5"]):
        made = swe("prune", "-q", *words, "recovery.steps=2")
        assert made.exit_code == 0, made.output
        assert made.stdout.split()[0] == own_run.pruned


def test_dense_and_pruned_text_side_by_side(swe, own_run):
    shown = swe("generate", own_run.pruned, "--prompt", "And", "--length", 5).stdout
    assert "dense" in shown
    assert "50 % cut" in shown
    assert shown.count("And") == 2
    assert max(map(len, shown.splitlines())) <= 80
    assert shown == swe("generate", own_run.pruned, "--prompt", "And", "--length", 5).stdout


def test_a_run_in_int8_is_smaller_and_is_evaluated_generated_and_started_from(
    swe, own_run, tiny_words
):
    made = swe("prune", "-q", own_run.name, "--ratio", "0.5", "recovery.steps=2", "quantize=int8")
    assert made.exit_code == 0, made.output
    name, runs = made.stdout.split()[0], own_run.results / "runs"
    assert name != own_run.pruned
    small, whole = (runs / of / "model.safetensors" for of in (name, own_run.pruned))
    assert small.stat().st_size < whole.stat().st_size
    told, again = (
        [line.split() for line in out.splitlines() if line.startswith(("loss  ", "bytes  "))]
        for out in (made.stdout, swe("evaluate", name).stdout)
    )
    assert len(told) == 2
    assert again == told
    assert "int8" in swe("runs").stdout
    assert swe("generate", name, "--prompt", "And", "--length", 5).exit_code == 0
    begun = swe("train", "-q", *tiny_words, f"+model.from_run={name}")
    assert begun.exit_code == 0, begun.output


@pytest.mark.parametrize("router", ["published", "predicted", "soft"])
def test_a_gated_model_is_opened_again_as_it_was_measured(swe, own_run, router):
    options = ("transform.samples=4", "transform.experts=4", "recovery.steps=1")
    made = swe("prune", "-q", "transform=dsmoe", f"transform.router={router}", *options)
    assert made.exit_code == 0, made.output
    name, said = made.stdout.split()[0], made.stdout.splitlines()
    kept = load_file(own_run.results / "runs" / name / "model.safetensors")
    assert f"layers.0.mlp.router.{router}.weight" in kept
    shown = swe("evaluate", name).stdout.splitlines()
    for label in ("loss  ", "active blocks", "activated parameters", "activated flops per token"):
        # Columns are as wide as the widest label of a command.
        (found,) = [" ".join(line.split()) for line in shown if line.startswith(label)]
        assert found in [" ".join(line.split()) for line in said]
    asked = swe("generate", name, "--prompt", "And", "--length", 5)
    assert asked.exit_code == 0, asked.output
    assert "dsmoe, 0 % cut" in asked.stdout


def test_runs_are_listed_newest_first(swe, own_run):
    lines = swe("runs").stdout
    assert lines.index(own_run.pruned) < lines.index(own_run.name)


def test_doctor_names_places(swe, tmp_path):
    shown = swe("doctor").stdout
    assert str(tmp_path / "cache") in "".join(shown.split())  # a long path is wrapped
    assert "threads" in shown


def test_every_kind_of_cut_of_a_training_can_be_reported(swe, own_run):
    """Of what an option is made (a list, a criterion that was consulted) is no matter."""
    short = ("recovery.steps=1", "calibration.samples=4")
    for words in (
        ("allocation=owl", "ratio=0.5", *short),
        ("allocation=like", "criterion=random", "ratio=0.5", *short),
        ("criterion=bezier_actual", "recovery.steps=1"),
        ("pattern=neuron", "ratio=0.5", "recovery=none"),
        ("criterion=flap", "pattern=head_output", "ratio=0.5", "allocation=uniform", *short),
        ("transform=trawl_cp", "transform.ranks=[2,4]", "recovery.steps=1"),
        ("transform=dsmoe", "transform.router=soft", "recovery.steps=1"),
        ("rate=1.0", "prunable=all", "fuse=0.9", "recovery.steps=2"),
    ):
        assert swe("prune", "-q", own_run.name, *words).exit_code == 0, words
    found = swe("report", own_run.name, "--rows")
    assert found.exit_code == 0, found.output
    for name in ("owl", "like", "bezier_actual", "neuron", "trawl_cp", "fuse 0.9"):
        assert name in found.stdout, name
    assert "transform.ranks 2,4" in found.stdout
    assert "transform.router soft" in found.stdout
    assert "transform.iterations" not in found.stdout  # as its YAML has it


def test_runs_say_what_tells_them_apart(swe, own_run):
    swe("prune", "-q", own_run.name, "pattern=head", "ratio=0.5", "recovery=none")
    said = swe("runs").stdout
    assert "ratio 0.5, head, loss" in said
    assert "ratio 0.5, loss" in said
    assert "validation" in said


@pytest.mark.parametrize("name", ["my.pt", "weights/model.safetensors"])
def test_a_file_of_weights_is_told_what_can_be_cut(swe, name):
    refused = swe("prune", name, "--ratio", "0.5")
    assert refused.exit_code == 1
    assert f"{name} is a file of weights; what can be cut is a training of swe train" in (
        refused.stderr
    )
    assert "List them: swe runs. Train one: swe train model=gpt_nano" in refused.stderr


@pytest.mark.parametrize("failing", [False, True])
def test_a_done_sweep_is_reported_from_its_table_once_its_cells_are_gone(
    swe, tmp_path, tiny_words, failing
):
    words = ["criteria=magnitude", "ratios=0.5,0.9", "recovery.steps=1"]
    words += ["pattern=head", "allocation=uniform"] if failing else []  # of two heads both
    assert swe("sweep", "-q", *tiny_words, *words).exit_code == int(failing)
    (run,) = (tmp_path / "results/runs").glob("sweep-*")
    before, shown = (run / "table.csv").read_bytes(), swe("report", "-q").stdout
    shutil.rmtree(run.parent / "cells")
    reported = swe("report", "-q")
    assert reported.exit_code == 0, reported.output
    hurt = "What it hurt is not told"
    assert reported.stdout.partition(hurt)[0] == shown.partition(hurt)[0]
    assert (run / "table.csv").read_bytes() == before


def test_evaluate_measures_the_model_as_it_is_and_nothing_else(swe, own_run):
    cells = own_run.results / "runs" / "cells"
    before = {path.name for path in cells.glob("*")}
    assert swe("evaluate", own_run.name, "evaluation.split=validation").exit_code == 0
    (new,) = {path.name for path in cells.glob("*")} - before
    assert json.loads((cells / new / "row.json").read_text())["kind"] == "dense"


def test_what_to_ship_is_recommended_made_and_exported_as_small_as_the_row_says(
    swe, tmp_path, tiny_words, monkeypatch
):
    words = [
        "data.test_characters=2000",
        "criteria=magnitude",
        "ratios=0.5,0.9",
        "recovery.steps=1",
    ]
    assert swe("sweep", "-q", *tiny_words, *words, "costs=measured").exit_code == 0
    found = swe("recommend", "--max-loss-increase", "5")
    assert found.exit_code == 0, found.output
    assert "choice: 0.9, magnitude" in found.stdout
    at = tmp_path / "results"
    with monkeypatch.context() as moved:  # where results are looked for elsewhere, by its path
        moved.setenv("SWE_RESULTS_DIR", str(tmp_path / "others"))
        told = swe("recommend", "--max-loss-increase", "5", f"results_dir={at}").stdout
    assert f"make it: swe prune {at}/runs/train-" in told
    command = re.search(r"make it: swe (.*)", found.stdout).group(1)
    made = swe(*command.split())
    assert made.exit_code == 0, made.output
    name = made.stdout.split()[0]
    assert swe("export", name, str(tmp_path / "out"), "--compress").exit_code == 0
    file = tmp_path / "out" / "model.compressed.safetensors"
    row = json.loads((tmp_path / "results/runs" / name / "manifest.json").read_text())["row"]
    assert file.stat().st_size == row["measures"]["bytes_compressed"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model"]["width"]
    again = swe("export", name, str(tmp_path / "out"), "--compress")
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    same = swe(*command.split())
    assert "Already cut." in same.stderr
    whole = load_file(tmp_path / "results/runs" / name / "model.safetensors")
    back = decompressed(file)
    assert all(torch.equal(back[n], whole[n]) for n in whole)
    faster = swe("evaluate", name, "--runtime", "csr", "costs=measured", "--json")
    assert faster.exit_code == 0, faster.output
    told = json.loads(faster.stdout)
    assert told["layers"].keys() <= whole.keys()
    assert told["loss_nats"] == pytest.approx(row["loss_nats"], abs=1e-4)
    for cost in ("latency", "flops"):
        assert swe("recommend", "--minimise", cost).exit_code == 0
    unread = swe("recommend", "--minimise", "energy").output
    assert "No row tells its energy" in unread
    assert "energy.watts" in unread
    for loss in ("nan", "-1"):
        assert swe("recommend", "--max-loss-increase", loss).exit_code == 2
    assert swe("recommend", "--minimise", "energy", "energy.watts=65").exit_code == 0


def test_what_is_dense_has_no_zeros_to_skip(swe, own_run):
    found = swe("evaluate", own_run.name, "--runtime", "csr")
    assert found.exit_code == 2
    assert "nothing was cut of it" in found.output


def test_a_report_bears_seeds_that_failed_and_were_made_since(swe, tmp_path, tiny_words):
    words = [
        *tiny_words,
        "seeds=0,1",
        "criteria=fisher,magnitude",
        "ratios=0.3,0.6",
        "recovery.steps=1",
    ]
    assert swe("sweep", "-q", *words).exit_code == 0
    (sweep,) = (tmp_path / "results/runs").glob("sweep-*")
    rows = {path: json.loads(path.read_text()) for path in sweep.parent.glob("cells/*/row.json")}
    cuts = {path: row for path, row in rows.items() if row["criterion"] == "fisher"}
    spent = [json.loads(p.with_name("timing.json").read_text())["seconds"] for p in cuts]
    # Scores serve both ratios: the second is charged with them, too.
    assert sum("score" in of for of in spent) == 2
    for seed in (0, 1):
        of_seed = [of for row, of in zip(cuts.values(), spent, strict=True) if row["seed"] == seed]
        one, two = (of["cut"] + of.get("score", 0.0) for of in of_seed)
        assert one == pytest.approx(two, rel=0.2, abs=0.01)  # but for laying on the masks
    told = {path: (row["criterion"], row["seed"]) for path, row in rows.items()}
    lost = {path: row for path, row in rows.items() if told[path] == ("magnitude", 1)}
    failed = [{**row, "status": "failed", "error": "no memory"} for row in lost.values()]
    (sweep / "failed.json").write_text(json.dumps(failed))
    for path in lost:
        path.rename(path.with_suffix(".gone"))
    told = swe("report")
    assert told.exit_code == 0, told.output
    assert "No cut of magnitude was measured at all seeds of dense" in " ".join(told.stdout.split())
    for path in lost:
        path.with_suffix(".gone").rename(path)
    again = swe("report")
    assert again.exit_code == 0, again.output
    assert "failed" not in again.stdout


def test_a_plan_says_what_is_there_and_runs_nothing(swe, tmp_path, tiny_words):
    words = ["sweep", *tiny_words, "criteria=swe,magnitude", "ratios=0.3,0.6", "threads=1"]
    before = swe(*words, "--plan", "launcher.workers=3")
    assert before.exit_code == 0, before.output
    lines = [" ".join(line.split()) for line in before.stdout.splitlines()]
    assert "1 training, 8 cells; 3 workers of 1 thread" in lines[0]
    for line in ("trainings 0 1 unknown", "controls 0 4 unknown", "cuts by swe 0 2 unknown"):
        assert line in lines
    queued = swe(*words, "--plan", "launcher=slurm", "launcher.array=7")  # where there is no Slurm
    assert "1 training, 8 cells; 7 workers of 1 thread" in " ".join(queued.stdout.split())
    assert not (tmp_path / "results").exists()
    assert swe(*words, "-q", "launcher.workers=1").exit_code == 0
    told = json.loads(swe(*words, "seeds=1337,5", "--plan", "--json").stdout)
    jobs = {of["jobs"]: of for of in told["jobs"]}
    assert [(of["there"], of["missing"]) for of in jobs.values()] == [
        (1, 1),
        (4, 4),
        (2, 2),
        (2, 2),
    ]
    assert all(of["seconds"] > 0 for of in jobs.values())
