"""A model and a loop of one's own: tracked, swept, exported, opened; and loops of libraries."""

import copy
import csv
import re
from pathlib import Path

import pytest
import torch

from swe_cli.training.own_loop import WeightTracker, merge_lora, read_trajectory

from .families import CONTEXT, network, save_folder, transformers
from .test_huggingface import SMALL

PAGE = (Path(__file__).parents[2] / "docs/own-model.md").read_text()
TEXT = "In the beginning God created the heaven and the earth. " * 20


def batches(folder, steps):
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
    for step in range(steps):
        start = step * 7
        rows = [ids[start + i : start + i + CONTEXT] for i in range(2)]
        yield {"input_ids": torch.tensor(rows), "labels": torch.tensor(rows)}


def tuned(folder, lived, steps=4, family="gpt2", **options):
    """A training as one writes it, which swe knows nothing of but the tracker."""
    model = transformers.AutoModelForCausalLM.from_pretrained(save_folder(family, folder)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tracker = WeightTracker(model, optimizer, **options)
    for batch in batches(folder, steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tracker.save(lived)
    return model, tracker


def test_the_story(swe, tmp_path):
    folder, lived = tmp_path / "mine", tmp_path / "lived"
    model, tracker = tuned(folder, lived, statistics=("weighted_average", "square_gradient"))
    words = ["model=huggingface", f"model.path={folder}", f"trajectory={lived}", *SMALL]
    made = swe("sweep", "-q", *words, "criteria=swe,swe_obd,magnitude", "ratios=0.3,0.6")
    assert made.exit_code == 0, made.output
    (run,) = (tmp_path / "results" / "runs").glob("sweep-*")
    with (run / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [row["kind"] for row in rows]
    assert kinds == ["dense", "dense_recovered", "dense_averaged"] + ["pruned"] * 6
    assert {row["model"] for row in rows} == {"mine"}
    cut = swe("prune", "-q", *words, "--ratio", 0.5, "criterion=swe", "allocation=uniform")
    assert cut.exit_code == 0, cut.output
    name, out = cut.stdout.split()[0], tmp_path / "out"
    assert swe("export", name, out).exit_code == 0
    there = transformers.AutoModelForCausalLM.from_pretrained(out)
    averages, dense = tracker.statistics["weighted_average"].state(), dict(model.named_parameters())
    layers = [n for n in dense if n.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))]
    assert len(layers) == 8
    for name in layers:  # by hand: the half whose average is smallest is zero, the rest as it was
        gone = averages[name].abs().flatten().argsort()[: averages[name].numel() // 2]
        expected = dense[name].detach().flatten().clone()
        expected[gone] = 0.0
        assert torch.equal(there.get_parameter(name).flatten(), expected), name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["criterion=stability"], "needs weighted_variance, which"),
        (["criterion=swe", "training.steps=2"], "training.steps=0"),
    ],
)
def test_what_a_trajectory_does_not_hold_is_said(swe, tmp_path, words, said):
    folder, lived = tmp_path / "mine", tmp_path / "lived"
    tuned(folder, lived)
    told = ["model=huggingface", f"model.path={folder}", f"trajectory={lived}", *SMALL]
    for command in ("prune", "sweep"):
        refused = swe(command, "-q", *told, "ratio=0.5", *words)
        assert refused.exit_code != 0, refused.output
        assert said in " ".join(refused.output.split())


def test_a_trajectory_of_other_weights_is_refused(swe, tmp_path):
    folder, lived = tmp_path / "mine", tmp_path / "lived"
    tuned(folder, lived)
    network("gpt2").save_pretrained(folder)  # as it was before
    told = ["model=huggingface", f"model.path={folder}", f"trajectory={lived}", *SMALL]
    refused = swe("prune", "-q", *told, "ratio=0.5", "criterion=swe")
    assert refused.exit_code == 1
    assert "did not lead to these weights" in " ".join(refused.output.split())
    fresh = network("gpt2")
    WeightTracker(fresh, torch.optim.SGD(fresh.parameters(), lr=0.1)).save(tmp_path / "none")
    told[2] = f"trajectory={tmp_path / 'none'}"
    said = swe("prune", *told, "ratio=0.5", "criterion=swe").output
    assert "saw no step" in " ".join(said.split())
    told[2] = f"trajectory={tmp_path}"
    assert "holds no trajectory.json" in swe("prune", *told, "ratio=0.5").output


def test_a_control_that_a_trajectory_has_no_average_for_is_refused(swe, tmp_path):
    folder, lived = tmp_path / "mine", tmp_path / "lived"
    tuned(folder, lived)
    told = ["model=huggingface", f"model.path={folder}", f"trajectory={lived}", *SMALL]
    for command in ("prune", "sweep"):
        refused = swe(command, *told, "ratio=0.5", "criterion=swe", "controls=[dense_latest]")
        assert refused.exit_code != 0
        assert "needs latest_average" in " ".join(refused.output.split())


def test_gradients_that_may_have_been_clipped_are_told_where_a_criterion_looks_at_them(
    swe, tmp_path
):
    folder, lived = tmp_path / "mine", tmp_path / "lived"
    tuned(folder, lived, statistics=("weighted_average", "square_gradient"))
    told = ["model=huggingface", f"model.path={folder}", f"trajectory={lived}", *SMALL]
    said = {}
    for criterion in ("swe_obd", "swe"):
        cut = swe("prune", *told, "--ratio", 0.5, f"criterion={criterion}")
        assert cut.exit_code == 0, cut.output
        said[criterion] = "before_clip()" in cut.output
    assert said == {"swe_obd": True, "swe": False}


def test_how_far_the_weights_moved_is_in_every_row_of_what_was_trained_on(swe, tmp_path):
    folder, lived = tmp_path / "mine", tmp_path / "lived"
    tuned(folder, lived)
    words = ["model=huggingface", f"model.path={folder}", *SMALL, "criterion=swe", "ratio=0.5"]
    on = ["training.steps=2", "training.batch_size=2", "training.learning_rate=1e-8"]
    for number, more in enumerate(([f"trajectory={lived}"], on)):
        made = swe("sweep", *words, *more, f"results_dir={tmp_path / str(number)}")
        assert made.exit_code == 0, made.output
        (run,) = (tmp_path / str(number) / "runs").glob("sweep-*")
        with (run / "table.csv").open(newline="") as file:
            moved = {float(row["weights_moved"]) for row in csv.DictReader(file)}
        (far,) = moved
        same = "swe cuts what magnitude cuts" in " ".join(made.output.split())
        assert "Training moved the weights by" in made.output
        assert (far > 0.01, same) == (number == 0, number == 1)


def by_hand(observations):
    """W̄ in float64 of a list of weights by name."""
    total = len(observations) * (len(observations) + 1) / 2
    return {
        name: sum(i * of[name].double() for i, of in enumerate(observations, 1)) / total
        for name in observations[0]
    }


def holds(lived, weights, observations):
    tensors, told = read_trajectory(lived, weights, "")
    assert told["count"] == len(observations)
    for name, expected in by_hand(observations).items():
        found = tensors[f"weighted_average/{name}"].double()
        bound = 1e-6 * float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=bound)


def now(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def documented(base):
    """The callback of a library's loop, as docs/own-model.md shows it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (shown,) = (block for block in blocks if f"class Tracks({base})" in block)
    told = {}
    exec(shown.partition("\n\n\ntrainer =")[0], told)
    return told["Tracks"]()


def test_the_trainer_of_transformers(tmp_path, monkeypatch):
    pytest.importorskip("accelerate", reason="accelerate is missing")
    monkeypatch.chdir(tmp_path)
    folder, model, seen = save_folder("gpt2", tmp_path / "m"), network("gpt2"), []

    class Sees(transformers.TrainerCallback):
        def on_optimizer_step(self, args, state, control, **more):
            seen.append(now(model))

    rows = [{k: v[0] for k, v in batch.items()} for batch in batches(folder, 16)]
    arguments = transformers.TrainingArguments(
        tmp_path / "out",
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=2,
    )
    callbacks = [documented("TrainerCallback"), Sees()]
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks)
    trainer.train()
    holds(tmp_path / "lived", now(model), seen)
    with pytest.raises(RuntimeError, match="resumed no longer knows how its weights lived"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


@pytest.mark.filterwarnings("ignore")  # of theirs
def test_lightning(tmp_path, monkeypatch):
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is missing")
    folder, seen = save_folder("gpt2", tmp_path / "m"), []

    class Tuned(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network("gpt2").train()

        def training_step(self, batch, index):
            return self.model(**batch).loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
            optimizer.register_step_post_hook(lambda *_: seen.append(now(self.model)))
            return optimizer

    def fitted(steps, checkpoint=None):
        model = Tuned()
        trainer = lightning.Trainer(
            max_steps=steps,
            accumulate_grad_batches=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[documented("Callback")],
            default_root_dir=tmp_path,
        )
        rows = torch.utils.data.DataLoader(list(batches(folder, 24)), batch_size=None)
        trainer.fit(model, rows, ckpt_path=checkpoint, weights_only=False)
        return model.model, trainer

    monkeypatch.chdir(tmp_path)
    model, trainer = fitted(3)
    assert len(seen) == 3
    holds(tmp_path / "lived", now(model), seen)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    model, _ = fitted(5, tmp_path / "half.ckpt")
    assert len(seen) == 5
    holds(tmp_path / "lived", now(model), seen)


@pytest.mark.filterwarnings("ignore")  # of theirs
def test_of_lora_it_follows_the_merged_weights(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is missing")
    folder = save_folder("llama", tmp_path / "m")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model, seen = peft.get_peft_model(base, config).train(), []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    tracker = WeightTracker(model, optimizer)

    def merged():
        return now(copy.deepcopy(model).merge_and_unload())

    for batch in batches(folder, 3):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(merged())
    tracker.save(tmp_path / "lived")
    whole = model.merge_and_unload()
    holds(tmp_path / "lived", now(whole), seen)


@pytest.mark.filterwarnings("ignore")  # of theirs
def test_lora_merged_into_what_was_cut_keeps_its_zeros(swe, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is missing")
    folder, out = save_folder("llama", tmp_path / "m"), tmp_path / "out"
    words = ["model=huggingface", f"model.path={folder}", *SMALL, "--ratio", 0.5]
    cut = swe("prune", "-q", *words, "criterion=magnitude", "allocation=uniform")
    assert cut.exit_code == 0, cut.output
    assert swe("export", cut.stdout.split()[0], out).exit_code == 0
    kept = {}
    for merge in (merge_lora, lambda model: model.merge_and_unload()):
        base = transformers.AutoModelForCausalLM.from_pretrained(out)
        zero = {n: p == 0 for n, p in base.named_parameters() if "q_proj" in n}
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        model = peft.get_peft_model(base, config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for batch in batches(folder, 2):
            model(**batch).loss.backward()
            optimizer.step()
        whole = dict(merge(model).named_parameters())
        assert all(mask.float().mean() == 0.5 for mask in zero.values())
        kept[merge] = all(torch.equal(whole[name] == 0, mask) for name, mask in zero.items())
    assert [*kept.values()] == [True, False]
