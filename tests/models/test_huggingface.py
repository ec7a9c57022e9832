"""Models of transformers from folders: read, cut as they are, trained on, refused in a sentence."""

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import IGNORED, DataShape, Setup
from swe_cli.device import resolve
from swe_cli.experiments.training import load_dataset
from swe_cli.files import read_tensors
from swe_cli.models.gpt import greedy
from swe_cli.pruning.calibration import CalibratedModel, Calibration, watching
from swe_cli.pruning.shrink import load

from .families import (
    CONTEXT,
    FAMILIES,
    FAST,
    IMAGE,
    IMAGE_TOKEN,
    LOOKS,
    VOCABULARY,
    auto,
    network,
    processor,
    save_folder,
    transformers,
)

SMALL = [
    f"model.context={CONTEXT}",
    "data.train_characters=4000",
    "data.validation_characters=400",
    "data.test_characters=800",
    "calibration.samples=4",
    "evaluation.batch_size=4",
]
ASKED = [
    "data=digit_sums",
    f"model.context={CONTEXT}",
    "data.scale=1",
    "data.train_examples=12",
    "data.validation_examples=3",
    "data.test_examples=4",
    "calibration.samples=4",
]
EVERY = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.families) for name in FAMILIES
]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Family → its folder, made once."""
    made = {}

    def folder(family):
        if family not in made:
            made[family] = save_folder(family, tmp_path_factory.mktemp(family) / "model")
        return made[family]

    return folder


def looks(folder):
    config = folder / "config.json"  # which may be damaged, or missing
    return config.is_file() and "vision_config" in config.read_text()


def opened(folder):
    options = {"path": str(folder), "context": CONTEXT}
    shape = DataShape(VOCABULARY, IMAGE if looks(folder) else None)
    return component("model", "huggingface", ConfigRoot(), options).build(shape)


def batch(family="", windows=3):
    """Two of three rows are about one image, where the family looks."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(IMAGE_TOKEN, (windows, CONTEXT), generator=generator)
    targets = tokens.roll(-1, 1)
    targets[:, -1] = IGNORED
    seen = {}
    if family in LOOKS:
        images = torch.randint(256, (2, *IMAGE), dtype=torch.uint8, generator=generator)
        seen = {"images": images, "image": torch.tensor([0, 1, 1])}
    return {"tokens": tokens, "targets": targets, **seen}


def as_theirs(family, given):
    """A batch as the library's own processors would make it, and the labels of its text."""
    ids = labels = given["tokens"]
    if family not in LOOKS:
        return {"input_ids": ids}, labels
    pixels = given["images"][given["image"]].permute(0, 2, 3, 1).numpy()
    shown = dict(processor(family)([*pixels], return_tensors="pt"))
    if family == "smolvlm":  # an image a row
        shown = {"pixel_values": shown["pixel_values"].view(len(ids), 1, *IMAGE)}
    side = 4 if family.startswith("llava") else 2  # of the grid of image tokens
    ids = torch.nn.functional.pad(ids, (side * side, 0), value=IMAGE_TOKEN)
    if family == "qwen2_vl":
        shown["mm_token_type_ids"] = (ids == IMAGE_TOKEN).int()
    labels = ids.clone()
    labels[:, : side * side + 1] = IGNORED  # nor the first token, which only an image goes before
    return {"input_ids": ids, **shown}, labels


@pytest.mark.parametrize("family", EVERY)
def test_the_loss_is_that_of_transformers(folder_of, family):
    """Which shifts its labels by itself, and takes the mean."""
    model, given = opened(folder_of(family)), batch(family)
    theirs, labels = as_theirs(family, given)
    with torch.no_grad():
        losses = model(given).losses
        theirs = network(family)(**theirs, labels=labels).loss
    ours = losses.sum() / (given["targets"] != IGNORED).sum()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_half_of_it_is_cut_exactly(swe, folder_of, family, criterion, tmp_path):
    folder = folder_of(family)
    cut = swe("prune", "-q", "--ratio", 0.5, *words_of(folder, f"criterion={criterion}"))
    assert cut.exit_code == 0, cut.output
    run = tmp_path / "results" / "runs" / cut.stdout.split()[0]
    row = json.loads((run / "manifest.json").read_text())["row"]
    assert row["sparsity"] == 0.5
    model = opened(folder)
    dense = {name: weight.clone() for name, weight in model.weights().items()}
    load(model, read_tensors(run / "model.safetensors"))
    cut_names = model.prunable(model.weights(), "linear")
    assert sum(int((w == 0).sum()) for w in cut_names.values()) == (
        sum(w.numel() for w in cut_names.values()) // 2
    )
    inside = {name.partition("[")[0] for name in cut_names}
    for name, weight in model.weights().items():
        if name not in inside:
            assert torch.equal(weight, dense[name])


# What one does with it


@pytest.fixture
def llama(folder_of):
    return folder_of("llama_tied")


def words_of(folder, *more):
    small = ASKED if looks(folder) else SMALL
    return ["model=huggingface", f"model.path={folder}", *small, *more]


def folder_and_weights(swe, family, folder, tmp_path, *words):
    """A cut, exported, opened by transformers alone: its network, and what swe stored."""
    made = swe("prune", "-q", *words_of(folder, *words))
    assert made.exit_code == 0, made.output
    name, out = made.stdout.split()[0], tmp_path / "out"
    said = swe("export", name, out)
    assert said.exit_code == 0, said.output
    stored = read_tensors(tmp_path / "results" / "runs" / name / "model.safetensors")
    return auto(family).from_pretrained(out), stored, out


@pytest.mark.parametrize("family", EVERY)
def test_an_exported_cut_opens_in_transformers_with_equal_logits(swe, folder_of, family, tmp_path):
    folder = folder_of(family)
    words = ("criterion=magnitude", "ratio=0.5")
    opened_there, stored, out = folder_and_weights(swe, family, folder, tmp_path, *words)
    model = opened(folder)
    load(model, stored)
    with torch.no_grad():
        theirs = opened_there(**as_theirs(family, batch(family))[0]).logits[:, -CONTEXT:]
        ours = model(batch(family)).logits
    assert torch.equal(theirs, ours)
    card = (out / "README.md").read_text()
    for word in ("dense loss", "sparsity", "50.0%", "magnitude", "fingerprint"):
        assert word in card
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.decode(tokenizer("In the beginning").input_ids) == "In the beginning"


TAKEN_OUT = {  # of which families what can be taken out, and the keys of config that then change
    "neuron": (
        *("llama", "llama_tied", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "phi"),
        *("gpt2", "opt", "neox", "falcon", "llava", "llava_clip", "smolvlm"),
    ),
    "head": (
        *("llama", "llama_tied", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi"),
        *("llava", "llava_clip", "smolvlm"),
    ),
}
STRUCTURED = [
    pytest.param(kind, name, marks=() if name in FAST else pytest.mark.families)
    for kind, names in TAKEN_OUT.items()
    for name in names
]


@pytest.mark.parametrize(("kind", "family"), STRUCTURED)
def test_what_is_taken_out_whole_is_smaller_there_too(swe, folder_of, kind, family, tmp_path):
    folder = folder_of(family)
    words = ("criterion=magnitude", f"pattern={kind}", "allocation=uniform", "ratio=0.5")
    there, stored, _ = folder_and_weights(swe, family, folder, tmp_path, *words)
    dense = network(family)
    assert there.num_parameters() < 0.95 * dense.num_parameters()
    model = opened(folder)
    load(model, stored)
    with torch.no_grad():
        shown = as_theirs(family, batch(family))[0]
        theirs, ours = there(**shown).logits[:, -CONTEXT:], model(batch(family)).logits
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    # By hand: the dense model with the same rows at zero gives the same.
    masked = opened(folder)
    with torch.no_grad():
        whole = masked.weights()
        cut = masked.units(kind)
        for units, left in zip(cut, model.units(kind), strict=True):
            assert len(left) == len(units) // 2
            along, index = units.owned[units.output]
            norms = sum(
                whole[name].movedim(d, 0)[at].flatten(1).square().sum(1)
                for name, (d, at) in units.owned.items()
                if whole[name].dim() > 1
            )
            gone = index[norms.argsort()[: len(units) // 2]].flatten()
            whole[units.output].movedim(along, 0)[gone] = 0
        torch.testing.assert_close(theirs, masked(batch(family)).logits, rtol=0, atol=1e-5)


def test_layers_of_different_widths_have_no_config(swe, llama, tmp_path):
    words = words_of(llama, "criterion=random", "pattern=neuron", "allocation=global", "ratio=0.5")
    made = swe("prune", "-q", *words)
    refused = swe("export", made.stdout.split()[0], tmp_path / "out")
    assert refused.exit_code == 1
    assert "Cut as many from each: allocation=uniform" in " ".join(refused.output.split())


@pytest.mark.families
@pytest.mark.parametrize(
    ("kind", "family"),
    [(kind, name) for kind in TAKEN_OUT for name in FAMILIES if name not in TAKEN_OUT[kind]],
)
def test_of_others_nothing_is_taken_out(swe, folder_of, kind, family):
    words = words_of(folder_of(family), "criterion=magnitude", f"pattern={kind}", "ratio=0.5")
    refused = swe("prune", "-q", *words)
    assert refused.exit_code == 1
    assert f"pattern={kind} finds none" in refused.output


def test_it_is_exported_in_another_dtype_and_never_over_something(swe, llama, tmp_path):
    made = swe("prune", "-q", *words_of(llama, "criterion=magnitude", "ratio=0.5"))
    name, out = made.stdout.split()[0], tmp_path / "half"
    assert swe("export", name, out, "--dtype", "bfloat16").exit_code == 0
    there = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert there.dtype == torch.bfloat16
    again = swe("export", name, out)
    assert again.exit_code == 2
    assert "is there already" in again.output


def test_our_own_models_are_no_folders_of_transformers(swe, own_run, tmp_path):
    refused = swe("export", own_run.pruned, tmp_path / "out")
    assert refused.exit_code == 2
    assert "is a gpt_nano, which no other library can open" in " ".join(refused.output.split())


def test_a_sweep_cuts_it_as_it_is_beside_the_controls_that_exist(swe, llama, tmp_path):
    made = swe("sweep", "-q", *words_of(llama, "criteria=magnitude,wanda", "ratios=0.3,0.6"))
    assert made.exit_code == 0, made.output
    (run,) = (tmp_path / "results" / "runs").glob("sweep-*")
    with (run / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["dense", "dense_recovered"] + ["pruned"] * 4
    assert {row["model"] for row in rows} == {"model"}  # the folder's name
    assert rows[0]["loss_nats"] == rows[1]["loss_nats"]  # recovery=none


def test_it_is_trained_on_and_cut_by_how_its_weights_lived(swe, llama, tmp_path):
    words = words_of(llama, "training.steps=3", "training.batch_size=2", "recovery=finetune")
    words += ["criteria=swe,swe_obd", "ratio=0.5", "recovery.steps=2", "threads=1"]
    made = swe("sweep", "-q", *words)
    assert made.exit_code == 0, made.output
    (run,) = (tmp_path / "results" / "runs").glob("train-*")
    tracked, now = (
        read_tensors(run / "trajectory.safetensors"),
        read_tensors(run / "model.safetensors"),
    )
    averaged = {n.partition("/")[2]: t for n, t in tracked.items() if n.startswith("weighted_a")}
    assert {*averaged} == {*now}
    assert any(not torch.equal(averaged[name], now[name]) for name in now)
    for path in (tmp_path / "results" / "runs" / "cells").glob("*/row.json"):
        row = json.loads(path.read_text())
        assert 0 < row["measures"]["weights_moved"] < 0.01
        assert row["kind"] != "pruned" or row["sparsity"] == pytest.approx(0.5, abs=1e-3)
    said = swe("generate", run.name, "--prompt", "In the", "--length", 3)
    assert said.exit_code == 0, said.output


def damaged(folder, tmp_path, how):
    there = shutil.copytree(folder, tmp_path / "damaged")
    how(there)
    return there


def rewritten(**changes):
    def how(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return how


def as_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights, *.safetensors"),
        (as_pickle, "pytorch_model.bin is a pickle, which can run any code; swe reads none"),
        (rewritten(intermediate_size=64), "cannot open"),
        (rewritten(num_hidden_layers=3), "do not fit its config.json"),
        (rewritten(num_hidden_layers=1), "is too much there"),
        (rewritten(model_type="mine"), "cannot open"),
        (rewritten(quantization_config={"quant_method": "bnb"}), "are quantised (bnb)"),
        (rewritten(vocab_size=200), "cannot open"),
        (rewritten(max_position_embeddings=16), "is longer than the 16 positions"),
        (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_a_sentence(swe, llama, tmp_path, how, said):
    folder = damaged(llama, tmp_path, how)
    refused = swe("prune", "-q", *words_of(folder, "criterion=magnitude", "ratio=0.5"))
    assert refused.exit_code in (1, 2)
    assert said in " ".join(refused.output.split())
    assert "defect of swe" not in refused.output
    assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["criterion=swe"], "criterion=swe or its allocation judges by how weights lived, and in"),
        (["base=averaged"], "base=averaged starts from how weights lived, and in training.steps=0"),
        (["controls=[dense_latest]"], "base=latest starts from how weights lived"),
        (["tokenizer=chars", "tokenizer.path=x"], "tokenizer.path is not a key of"),
        (["data.test_characters=20"], "The test split has"),
    ],
)
def test_what_it_lacks_is_said(swe, llama, words, said):
    words = words_of(llama, "ratio=0.5", *words)
    words += [] if any(w.startswith("criterion") for w in words) else ["criterion=magnitude"]
    refused = swe("prune", "-q", *words)
    assert refused.exit_code in (1, 2), refused.output
    assert said in " ".join(refused.output.split())


def test_a_folder_that_is_not_there_and_a_path_that_is_not_given(swe, tmp_path):
    none = swe("prune", *words_of(tmp_path / "none", "ratio=0.5", "criterion=magnitude"))
    assert "There is no folder" in none.output
    missing = swe("prune", "model=huggingface", "ratio=0.5")
    assert missing.exit_code == 2
    assert "model.path" in missing.output


def test_a_run_and_a_model_are_not_both_cut(swe, llama, own_run):
    refused = swe("prune", own_run.name, *words_of(llama, "ratio=0.5"))
    assert refused.exit_code == 2
    assert "takes a run or a model" in " ".join(refused.output.split())


def test_weights_that_changed_are_another_model(swe, llama, tmp_path):
    words = ("criterion=magnitude", "ratio=0.5")
    folder = shutil.copytree(llama, tmp_path / "model")
    first = swe("prune", "-q", *words_of(folder, *words)).stdout.split()[0]
    assert swe("prune", "-q", *words_of(folder, *words)).stdout.split()[0] == first
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "model")
    assert swe("prune", "-q", *words_of(moved, *words)).stdout.split()[0] == first
    named = shutil.copytree(folder, tmp_path / "other")
    assert swe("prune", "-q", *words_of(named, *words)).exit_code == 0
    shown = swe("report", "train-other")
    assert shown.exit_code == 0, shown.output
    assert "magnitude" in shown.output
    weights = read_tensors(folder / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert swe("prune", "-q", *words_of(folder, *words)).stdout.split()[0] != first


# Those that look

SEEING = [pytest.param(n, marks=() if n in FAST else pytest.mark.families) for n in LOOKS]


@pytest.mark.parametrize("family", SEEING)
def test_roles_divide_all_parameters_up(folder_of, family):
    model = opened(folder_of(family))
    own, owner = network(family), {}
    for name in model.weights():
        owner.setdefault(model.role_of(name), set()).add(name.removeprefix("network."))
    assert set(owner) == {"vision", "projector", "language"} == set(model.roles)
    of_tower = {n for n, p in own.named_parameters() if any(p is q for q in tower(own))}
    assert owner["vision"] == of_tower - owner["projector"]
    decoder = {id(p) for p in own.get_decoder().parameters()}
    head = own.get_output_embeddings().weight
    language = {n for n, p in own.named_parameters() if id(p) in decoder or p is head}
    assert owner["language"] == language
    assert all(
        any(word in name for word in ("projector", "connector", "merger"))
        for name in owner["projector"]
    )
    tied = family == "llava"
    assert ("lm_head.weight" in owner["language"]) != tied
    cut = {model.role_of(name) for name in model.prunable(model.weights(), "linear")}
    assert cut == set(model.roles)


def tower(own):
    return [*own.get_encoder(modality="image").parameters()]


@pytest.mark.parametrize("family", SEEING)
def test_blocks_are_replayed_exactly(folder_of, family):
    """What a walk shows every matrix is what a whole pass shows it."""
    folder = folder_of(family)
    data = {"scale": 1, "train_examples": 6, "validation_examples": 2, "test_examples": 2}
    root = ConfigRoot()
    dataset = load_dataset(
        component("data", "digit_sums", root, data),
        component("tokenizer", "pretrained", root, {"path": str(folder)}),
    )
    options = {"path": str(folder), "context": CONTEXT}
    model = component("model", "huggingface", root, options).build(dataset.shape)
    setup = Setup(model, dataset, resolve("cpu", "float32", 1), 0)
    calibration = Calibration(samples=4, batch_size=2, inputs="dense")
    calibrated = CalibratedModel(setup, calibration, lambda t: model.prunable(t, "linear"))
    wanda = component("criterion", "wanda", root).build()
    walked = calibrated.dense_scores(wanda)
    with torch.no_grad(), watching(model, model.linear_layers(), gram=False) as fed:
        for given in calibration.batches(setup, 2):
            model(given)
    assert walked.keys() == model.prunable(model.weights(), "linear").keys() == fed.keys()
    for name, scores in walked.items():
        expected = wanda.score_layer(model.weights()[name], fed[name])
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", SEEING)
def test_an_answer_is_what_the_library_generates(folder_of, family):
    model, given = opened(folder_of(family)), batch(family)
    lengths = torch.tensor([4, 7, 5])
    prompts = {**given, "tokens": given["tokens"][:, :7], "lengths": lengths}
    decoded = greedy(model, prompts, length=5)
    own = network(family)
    for row, length in enumerate(lengths.tolist()):
        asked = {
            "tokens": given["tokens"][[row], :length],
            "images": given["images"],
            "image": given["image"][[row]],
        }
        shown, _ = as_theirs(family, asked)
        limits = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
        theirs = own.generate(**shown, **limits)[0, shown["input_ids"].shape[1] :]
        assert decoded[row] == theirs.tolist()


def test_a_gray_image_of_another_size_is_resized_in_three_channels(folder_of):
    folder = folder_of("llava")
    options = {"path": str(folder), "context": CONTEXT}
    made = component("model", "huggingface", ConfigRoot(), options)
    model = made.build(DataShape(VOCABULARY, (1, 14, 56)))
    level = torch.full((2, 1, 14, 56), 51, dtype=torch.uint8)
    pixels = model._laid(level)["pixel_values"]
    mean, std = (torch.tensor(getattr(processor("llava"), f"image_{of}")) for of in ("mean", "std"))
    expected = ((0.2 - mean) / std)[:, None, None].expand(2, 3, 28, 28)
    torch.testing.assert_close(pixels, expected)


def test_questions_end_with_tokens_that_the_folder_has(folder_of):
    root, folder = ConfigRoot(), folder_of("llava")
    tokenizer = component("tokenizer", "pretrained", root, {"path": str(folder)})
    options = {"scale": 1, "train_examples": 6, "validation_examples": 2, "test_examples": 2}
    dataset = load_dataset(component("data", "digit_sums", root, options), tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert dataset.end == theirs.eos_token_id
    assert [dataset.separator] == theirs("\n").input_ids
    assert dataset.shape.vocabulary_size == len(theirs)


def test_the_projector_is_aligned_and_any_module_cut(swe, folder_of, tmp_path):
    align = ["pretraining=align", "pretraining.steps=2", "pretraining.warmup_steps=1"]
    align += ["pretraining.batch_size=2", "controls=[]", "threads=1"]
    words = words_of(folder_of("llava"), *align, "criterion=magnitude", "allocation=uniform")
    made = swe("sweep", "-q", *words, "roles=vision,projector,language,all", "ratio=0.5")
    assert made.exit_code == 0, made.output
    (run,) = (tmp_path / "results" / "runs").glob("sweep-*")
    with (run / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "pruned"]
    roles = {"vision", "projector", "language"}
    for row in rows:
        cut = {of for of in roles if row[f"sparsity.{of}"] == "0.5"}
        assert cut == (roles if row["roles"] == "all" else {row["roles"]})
    runs = {run.name for run in (tmp_path / "results" / "runs").glob("train-*")}
    assert len(runs) == 2
    before = opened(folder_of("llava"))
    dense = {name: weight.clone() for name, weight in before.weights().items()}
    moved = set()
    for name in runs:
        after = read_tensors(tmp_path / "results" / "runs" / name / "model.safetensors")
        moved |= {before.role_of(n) for n, w in after.items() if not torch.equal(w, dense[n])}
    assert moved == {"projector"}


@pytest.mark.parametrize(
    ("family", "words", "said"),
    [
        ("llava", SMALL, "looks at images, and the data set has none. Choose data=easy_vqa"),
        ("llama_tied", ASKED, "reads only text. Name a folder of an image–text model"),
        ("llava", [*ASKED, "model.context=64"], "is longer than the 48 positions"),
        ("llava", [*ASKED, "roles=audio"], "this model has no audio. Its roles are vision"),
    ],
)
def test_images_and_models_must_fit(swe, folder_of, family, words, said):
    folder = folder_of(family)
    cut = ["ratio=0.5", "criterion=magnitude"]
    refused = swe("prune", "-q", "model=huggingface", f"model.path={folder}", *words, *cut)
    assert refused.exit_code in (1, 2)
    assert said in " ".join(refused.output.split())


def test_a_family_whose_eye_is_not_known_is_refused(swe, folder_of, tmp_path):
    folder = damaged(folder_of("llava"), tmp_path, rewritten(model_type="blip"))
    refused = swe("prune", "-q", *words_of(folder, "ratio=0.5", "criterion=magnitude"))
    assert refused.exit_code == 1
    assert "is shown images is not known here. Those that are: llava" in " ".join(
        refused.output.split()
    )


def test_a_named_run_is_cut_by_what_goes_with_its_model(swe, llama):
    """As it is, unless a recovery is typed; and its training, which was none, is not described."""
    words = words_of(llama, "criterion=magnitude", "ratio=0.5")
    first = swe("prune", *words)
    name = first.stdout.split()[0]
    run = first.output.split()[-1]  # of "next: swe report …"
    of_model = ("model", "data", "tokenizer", "training", "tracking")
    data = [word for word in words if not word.startswith(of_model)]
    again = swe("prune", run, *data)
    assert again.exit_code == 0, again.output
    assert again.stdout.split()[0] == name
    assert "spikes" not in again.output
    assert "training flops" not in again.output
    other = swe("prune", run, *data, "recovery.steps=1")
    assert other.exit_code == 0, other.output
    assert other.stdout.split()[0] != name
