"""What every sweep is made of: hashes of trainings and cells, and what they are hashes of.

``cells.json`` holds the hashes of whole sweeps, in order, and in words those cells that show
something the others do not: a hash covers all of a description but what is as it was before it
could be chosen.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from . import adapter
from .conftest import HERE, Reference

REPOSITORY = HERE.parent.parent
CONF = REPOSITORY / "conf"
# Threads are part of what a run is: those that the committed tables were made with.
OF_FOLDERS = {"smollm2_oneshot", "smollm2_finetune", "llava_real"}  # models that no checkout has
EXPERIMENTS = {
    "criteria_gpt": "threads=1",
    "averages_gpt": "threads=1",
    "criteria_llava": "threads=1",
    "demo": "threads=2",
    "multimodal_demo": "threads=2",
    "paper_gpt": "threads=1",
    "paper_gpt_cpu": "threads=1",
    "swe_obd": "threads=1",
    "updates_gpt": "threads=1",
}
TABLES = {
    "criteria_gpt": "criteria_gpt.csv",
    "criteria_llava": "criteria_llava.csv",
    "demo": "demo/table.csv",
    "multimodal_demo": "multimodal_demo/table.csv",
}
LARGE = "criteria_gpt"
# Of many seeds one is enough, but for the slow tests.
SEEDS = dict.fromkeys((LARGE, "averages_gpt", "updates_gpt"), "seed=0") | {"swe_obd": "seed=3"}
TEXT = "data=text_file data.path=text.txt data.train_characters=500"
SUMS = "model=llava_nano tokenizer=words data=digit_sums data.train_examples=40"
SUMS = f"{SUMS} data.validation_examples=10 data.test_examples=10"

# Every choice of every group, and options of all of them, several at once where they are free of
# each other. All with TEXT unless they name data.
CHOICES = (
    "criterion=swe ratio=0.5",
    "criterion=swe_mean ratio=0 base=averaged",
    "criterion=swe_sqrt ratio=0.50 base=best recovery=none",
    "criterion=mean_magnitude ratio=1e-1 allocation=uniform prunable=all",
    "criterion=stability criterion.epsilon=1 ratio=0.999 allocation=row",
    "criterion=net_movement ratio=0.5 allocation=sigma fuse=0.75",
    "criterion=path_length rate=1 allocation=sigma fuse=0",
    "criterion=movement rates=0.5,1.25 allocation=sigma base=averaged",
    "criterion=magnitude ratio=0.5 allocation=like",
    "criterion=magnitude ratio=0.5 allocation=like allocation.criterion=wanda",
    "criterion=random ratio=0.5 allocation=ecoflap",
    "criterion=random ratio=0.5 allocation=ecoflap allocation.slack=1 allocation.within=tensor",
    "criterion=snip ratio=0.5 allocation=owl calibration.samples=8",
    "criterion=taylor ratio=0.5 allocation=owl allocation.outlier=7 allocation.strength=0.05",
    "criterion=fisher ratio=0.5 pattern=neuron recovery.steps=10 recovery.batch_size=4",
    "criterion=wanda ratio=0.5 pattern=head calibration.inputs=dense calibration.batch_size=8",
    "criterion=wanda ratio=0.5 patterns=neuron_output,head_output allocation=uniform",
    "criterion=block_influence ratio=0.5 pattern=block calibration.batch_size=8",
    "criterion=flap ratio=0.5 pattern=neuron allocation=published calibration.samples=8",
    "criterion=sparsegpt ratio=0.5 criterion.damping=1 criterion.block=64 pattern=unstructured",
    "criterion=bezier_actual",
    "criterion=bezier_mean criterion.u=1 criterion.by=multiply fuse=0.75",
    "criterion=magnitude pattern=2of4",
    "criterion=swe pattern=4of8 ratio=0.5 base=averaged",
    "criterion=wanda pattern=n_of_m pattern.keep=1 ratios=0.25,0.75",
    "criteria=swe,wanda,sparsegpt,random allocation=published ratio=0.5 criterion.block=64",
    "criterion=swe ratio=0.5 schedule=iterative",
    "criterion=swe ratio=0.5 schedule=iterative schedule.rounds=2 schedule.ramp=linear",
    "criterion=magnitude ratio=0.5 schedule=early",
    "criterion=snip ratio=0.5 schedule=early schedule.at_step=0 schedule.rounds=10",
    "criteria=magnitude,bezier_actual schedules=one_shot,early ratio=0.5 tracking.snapshots=[7]",
    "criterion=swe ratio=0.5 recovery=distill",
    "criterion=swe ratio=0.5 recovery=distill recovery.temperature=1 recovery.teacher_share=1",
    "criterion=swe ratio=0.5 recovery.optimizer=adamw recovery.weight_decay=1",
    "criterion=swe ratio=0.5 recovery.learning_rate=1e-4 recovery.gradient_clip=1",
    "criterion=swe ratio=0.5 recoveries=none,finetune,distill base=final,averaged",
    "criterion=swe ratio=0.5 evaluation.split=validation evaluation.batch_size=8 keep=models",
    "criterion=swe ratio=0.5 evaluation.random_batches=3 dtype=bfloat16",
    "criterion=swe ratio=0.5 threads=2 seeds=1,2",
    "transform=trawl_cp",
    "transform=trawl_tucker transform.layers=all transform.ranks=[8] transform.stack=all base=best",
    "transforms=none,trawl_cp criterion=swe ratio=0.5 recovery=none",
    "criterion=swe_latest ratio=0.5 base=latest controls=[dense_latest,dense_averaged_recovered]",
    "criterion=swe_ema ratio=0.5 base=ema controls=[dense_ema,dense_decayed]",
    # Trainings
    "criterion=swe ratio=0.5 training=adam_paper model=gpt_small",
    "criterion=swe ratio=0.5 training.learning_rate=1e-3 training.weight_decay=0 model=gpt_paper",
    "criterion=swe ratio=0.5 training.gradient_clip=0 training.schedule=constant model.dropout=0",
    "criterion=swe ratio=0.5 training.steps=300 training.checkpoint_every=7 model.bias=true",
    "criterion=swe ratio=0.5 training.steps=300,600 model.width=32,64",
    "criterion=swe ratio=0.5 tracking.every=epoch tracking.start=5 tracking.weighting=sqrt",
    "criterion=swe ratio=0.5 tracking.every=2,3 tracking.weighting=exponential tracking.decay=0.5",
    "criterion=swe ratio=0.5 tracking.start=90% tracking.weighting=exponential tracking.decay=2%",
    "criterion=swe ratio=0.5 training.schedule=linear_average",
    "criterion=swe ratio=0.5 tracking.sample=0 tracking.statistics=[mean] tracking.frozen=true",
    "criterion=swe ratio=0.5 tokenizer=bpe tokenizer.vocabulary_size=300",
    "criterion=swe ratio=0.5 data=kjv_chars data.train_characters=2000",
    "criterion=swe ratio=0.5 data=shakespeare_chars data.train_characters=2000",
    # Vision and language
    f"criterion=swe ratio=0.5 {SUMS} roles=all,vision,projector,language",
    f"criterion=wanda ratio=0.5 {SUMS} roles=vision training=instruct model=llava_small",
    f"criterion=swe ratio=0.5 {SUMS} training=instruct pretraining=align pretraining.steps=10",
    f"criterion=swe ratio=0.5 {SUMS} training.trains=[language] tracking.frozen=true",
    f"criterion=swe ratio=0.5 {SUMS} model.language.from_run=train-gpt_nano-789ef79e",
    f"transform=trawl_cp {SUMS} model.vision.patch=4 model.language.width=32",
    "criterion=swe ratio=0.5 data=easy_vqa tokenizer=words data.train_images=20",
    "criterion=swe ratio=0.5 data=easy_vqa_small tokenizer=words model=llava_nano",
    "criterion=swe ratio=0.5 data=image_folder data.path=images data.image_size=16 tokenizer=words",
    # Since 0.3
    "criteria=swe_obd,obd,squisher,obd_sqrt,ria ratio=0.5",
    "criterion=random ratio=0.5 updates=none,least_squares calibration.samples=64",
    "criterion=swe ratio=0.5 training.on_spike=record,skip,retry",
    "criterion=swe ratio=0.5 training.backward=dense,ssprop,random training.backward_keep=0.2,0.5",
    "criterion=swe ratio=0.5 quantize=none,int8",
    "transform=dsmoe transform.router=published,predicted,soft transform.experts=4",
    # Since 0.4
    "criterion=swe ratio=0.5 evaluation=wanda evaluation.window=8 data=wikitext data.path=wiki",
)
# Another choice, nothing, and what is made of a folder.
UNNAMED = ("allocation=published", "transform=none", "update=none")
UNNAMED += ("model=huggingface", "tokenizer=pretrained")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data that sweeps name, and the results of an earlier training."""
    pytest.importorskip("sklearn")
    pytest.importorskip("easy_vqa")
    pytest.importorskip("tokenizers")
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    text = "In the beginning was a text of words and spaces. "
    (tmp_path / "text.txt").write_text(20 * text)
    adapter.pretend_shakespeare(monkeypatch, tmp_path, (3000 * text).encode())
    (tmp_path / "wiki").mkdir()
    for name in ("train", "valid", "test"):
        (tmp_path / "wiki" / f"wiki.{name}.raw").write_text(20 * f" {text}\n \n")
    (tmp_path / "images").mkdir()
    rows = []
    for place in range(9):
        name, split = f"{place}.png", ("train", "validation", "test")[place % 3]
        image.new("RGB", (16, 16), (place, 0, 255)).save(tmp_path / "images" / name)
        rows.append({"image": name, "question": "which?", "answer": "one", "split": split})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "images" / "questions.jsonl").write_text(lines)
    return tmp_path


def planned(words: str, results: Path = HERE / "results-0.1") -> dict[str, Any]:
    given = words.split()
    default = () if " data=" in f" {words}" or "experiment=" in words else TEXT.split()
    machine = ("device=cpu", *(() if "threads=" in words else ("threads=1",)))
    return adapter.plan((*default, *given, *machine), results)


def outlined(sweeps: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What ``cells.json`` holds of sweeps."""
    outline: dict[str, Any] = {"sweeps": {}, "trainings": {}, "cells": {}}
    shown: set[str] = set()
    for words, plan in sweeps.items():
        outline["sweeps"][words] = {
            "name": plan["name"],
            "trainings": {
                hash_: {key: of[key] for key in ("name", "statistics", "snapshots")}
                for hash_, of in plan["trainings"].items()
            },
            "cells": list(plan["cells"]),
            "axes": {hash_: axes for hash_, axes in plan["axes"].items() if axes},
        }
        outline["trainings"] |= {h: of["identity"] for h, of in plan["trainings"].items()}
        for hash_, description in plan["cells"].items():
            if not shown >= (shows := {*traits(description)}):
                outline["cells"][hash_] = description
                shown |= shows
    return json.loads(json.dumps(outline))


def traits(description: Mapping[str, Any]) -> Iterator[str]:
    """What is told apart: which keys there are, and every value but the training's hash."""
    yield f"{description['kind']} {sorted(description)}"
    yield from (json.dumps(item) for item in description.items() if item[0] != "training")


def test_cells(here: Path, reference: Reference) -> None:
    words = [
        " ".join(filter(None, [f"experiment={name}", threads, SEEDS.get(name)]))
        for name, threads in EXPERIMENTS.items()
    ]
    found = outlined({w: planned(w) for w in (*words, *CHOICES)})
    expected = reference("cells.json", found)
    for part in ("sweeps", "trainings", "cells"):
        assert found[part].keys() == expected[part].keys()
        for key, value in found[part].items():
            assert value == expected[part][key], f"{part}: {key}"


def hashes_of(table: str) -> list[str]:
    with (REPOSITORY / "results" / table).open(newline="") as file:
        return [row["config_hash"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["criteria_llava", "demo", "multimodal_demo"])
def test_the_committed_tables_are_of_these_cells(name: str) -> None:
    cells = json.loads((HERE / "cells.json").read_text())["sweeps"]
    assert sorted(cells[f"experiment={name} {EXPERIMENTS[name]}"]["cells"]) == sorted(
        hashes_of(TABLES[name])
    )


@pytest.mark.slow
def test_the_largest_committed_table_is_of_the_cells_planned_now(here: Path) -> None:
    found = planned(f"experiment={LARGE} {EXPERIMENTS[LARGE]}")["cells"]
    assert sorted(found) == sorted(hashes_of(TABLES[LARGE]))


def test_every_experiment_and_choice_is_among_them() -> None:
    every = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert every - OF_FOLDERS == {*EXPERIMENTS}
    words = json.loads((HERE / "cells.json").read_text())
    named = {json.dumps(value) for value in _names(words)}
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        if group not in ("experiment", "statistic", "launcher", "tracker"):
            choice = f"{group}={path.stem}"
            assert choice in UNNAMED or json.dumps([group, path.stem]) in named, choice


def _names(node: Any) -> Iterator[list[str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, dict) and "name" in value:
                yield [key, value["name"]]
            yield from _names(value)
