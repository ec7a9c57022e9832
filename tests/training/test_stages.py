"""Frozen parts, two stages, and towers that start from other runs."""

import pytest
import torch

from swe_cli.config import ConfigRoot, compose
from swe_cli.data.text import StringSource, Text
from swe_cli.data.tokenizers import BpeTokenizer
from swe_cli.data.tokens import TextDataset
from swe_cli.errors import PruningError, RunError, UsageError
from swe_cli.experiments.ensure import build, ensure_trained, shared_tokens
from swe_cli.experiments.training import training_spec
from swe_cli.files import read_tensors
from swe_cli.store import Run, find_run

from .toys import NOWHERE, Silent, assert_same, contents, never, opened

pytest.importorskip("sklearn", reason="the optional package scikit-learn is missing")

GERMAN = "ein mäßig langer Satz, größer als üblich. " * 60
TINY = (
    "model=llava_nano",
    "model.vision.layers=1",
    "model.vision.width=8",
    "model.vision.heads=2",
    "model.language.layers=1",
    "model.language.width=8",
    "model.language.heads=2",
    "model.language.context=24",
    "data=digit_sums",
    "data.train_examples=40",
    "data.validation_examples=8",
    "data.test_examples=10",
    "tokenizer=words",
    "training.steps=6",
    "training.batch_size=4",
    "training.evaluate_every=3",
    "training.checkpoint_every=2",
)
TWO_STAGES = (
    *TINY,
    "pretraining=align",
    "pretraining.steps=4",
    "pretraining.batch_size=4",
    "training=instruct",
)


def spec_of(results, *words):
    composed = compose("train", (*TINY, *words), ConfigRoot())
    return training_spec(composed, ConfigRoot(), results, ("mean",))


def train(results, *words, stop=never) -> Run:
    plan = spec_of(results, *words)
    ensure_trained(plan, Silent(), stop)
    return plan.run


def fresh(results, *words):
    return copied(spec_of(results, *words))


def copied(plan):
    """The weights that a training starts from."""
    weights = build(plan).setup.model.weights()
    return {name: weight.clone() for name, weight in weights.items()}


def weights(run):
    return run.tensors("model.safetensors")


def unchanged(before, after, role):
    same = [torch.equal(t, after[n]) for n, t in before.items() if n.startswith(f"{role}.")]
    assert same
    return all(same)


def test_the_projector_alone_leaves_the_others_bit_identical_and_untracked(tmp_path):
    words = ("training.trains=[projector]",)
    before, run = fresh(tmp_path, *words), train(tmp_path, *words)
    after = weights(run)
    assert unchanged(before, after, "vision")
    assert unchanged(before, after, "language")
    assert not unchanged(before, after, "projector")
    model = opened(run)
    tracked = model.trajectory["mean"]
    assert tracked
    assert all(name.startswith("projector.") for name in tracked)
    lens = model.lens("linear", "all")
    assert all(name.startswith("projector.") for name in lens(after))
    averaged = model.weights("averaged")
    assert averaged.keys() == after.keys()
    assert unchanged(after, averaged, "language")
    assert not unchanged(after, averaged, "projector")


def test_frozen_parts_are_tracked_when_asked(tmp_path):
    run = train(tmp_path, "training.trains=[projector]", "tracking.frozen=true")
    model = opened(run)
    tracked = model.trajectory["mean"]
    assert tracked.keys() == weights(run).keys()
    name = "language.layers.0.mlp.expand.weight"
    torch.testing.assert_close(tracked[name], weights(run)[name])


def test_a_role_that_the_model_lacks_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match=r"training\.trains: this model has no head"):
        spec_of(tmp_path, "training.trains=[head]")
    assert not list(tmp_path.iterdir())


def test_two_stages_are_two_runs_and_the_second_starts_where_the_first_ended(tmp_path):
    plan = spec_of(tmp_path, *TWO_STAGES)
    assert plan.first is not None
    assert plan.first.run.name != plan.run.name
    start, second = copied(plan.first), train(tmp_path, *TWO_STAGES)
    first = plan.first.run
    assert first.finished
    aligned, tuned = weights(first), weights(second)
    assert unchanged(start, aligned, "language")
    assert unchanged(start, tuned, "vision")
    assert not unchanged(start, aligned, "projector")
    assert not unchanged(aligned, tuned, "language")
    assert all(torch.equal(weight, aligned[n]) for n, weight in copied(plan).items())
    assert first.manifest["tracker"]["count"] == 4
    assert second.manifest["tracker"]["count"] == 6


@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_stopped_in_either_stage_the_same_command_goes_on_bit_for_bit(after, tmp_path):
    whole = train(tmp_path / "whole", *TWO_STAGES)
    asked = iter(range(100))
    with pytest.raises(Exception, match="Stopped"):
        train(tmp_path / "again", *TWO_STAGES, stop=lambda: next(asked) >= after - 1)
    again = train(tmp_path / "again", *TWO_STAGES)
    assert_same(contents(again), contents(whole))


def test_the_stages_belong_to_the_identity_and_no_stage_to_none():
    one, two = spec_of(NOWHERE), spec_of(NOWHERE, *TWO_STAGES)
    longer = spec_of(NOWHERE, *TWO_STAGES, "pretraining.steps=5")
    assert len({one.hash, two.hash, longer.hash}) == 3


def test_a_tower_starts_from_another_run_and_identity_is_its_content(tmp_path):
    source = train(tmp_path, "seed=7", "training.steps=3")
    words = ("training.trains=[projector]", f"model.vision.from_run={source.name}")
    plan = spec_of(tmp_path, *words)
    learnt = weights(source)
    begun = fresh(tmp_path, *words)
    assert unchanged(learnt, begun, "vision")
    assert not unchanged(learnt, begun, "language")
    stored = plan.config["identity"]["model"]["vision"]["from_run"]
    assert stored == source.manifest["files"]["model.safetensors"]
    assert plan.config["paths"]["model.vision.from_run"] == str(source.path)
    run = train(tmp_path, *words)
    assert opened(run).weights("final").keys() == learnt.keys()
    by_path = spec_of(tmp_path, words[0], f"model.vision.from_run='{source.path}'")
    assert by_path.hash == plan.hash


def test_the_language_model_starts_from_a_text_run_token_by_token(tmp_path):
    text = (
        *("model=gpt_nano", "model.layers=1", "model.heads=2", "model.width=8"),
        *("model.context=16", "data=kjv_chars", "data.train_characters=2000"),
        *("data.validation_characters=200", "data.test_characters=200", "training.steps=3"),
        *("training.batch_size=2", "training.evaluate_every=3"),
    )
    composed = compose("train", text, ConfigRoot())
    plan = training_spec(composed, ConfigRoot(), tmp_path)
    ensure_trained(plan, Silent(), never)
    source = plan.run
    words = ("tokenizer=chars", "model.language.context=40")
    named = (*words, f"model.language.from_run={source.name}")
    learnt, before, begun = weights(source), fresh(tmp_path, *words), fresh(tmp_path, *named)
    name = "layers.0.mlp.expand.weight"
    assert torch.equal(begun[f"language.{name}"], learnt[name])
    places = "position_embedding.weight"
    assert torch.equal(begun[f"language.{places}"][:16], learnt[places])
    assert torch.equal(begun[f"language.{places}"][16:], before[f"language.{places}"][16:])
    ours = build(spec_of(tmp_path, *named)).setup.dataset
    theirs = opened(source).dataset
    tokens, rows = learnt["token_embedding.weight"], begun["language.token_embedding.weight"]
    for piece in "what is the sum":
        assert torch.equal(rows[ours.encode(piece)[0]], tokens[theirs.encode(piece)[0]])
    digit = ours.encode("7")[0]  # the Bible spells its numbers
    assert torch.equal(rows[digit], before["language.token_embedding.weight"][digit])


def test_a_run_of_another_shape_is_refused_by_name(tmp_path):
    source = train(tmp_path, "training.steps=3")
    words = ("model.vision.width=16", f"model.vision.from_run={source.name}")
    with pytest.raises(RunError, match=rf"{source.name} does not fit model\.vision"):
        build(spec_of(tmp_path, *words))


@pytest.mark.parametrize(
    ("option", "said"),
    [("heads=4", "its heads is 2, not 4"), ("layers=1", "its layers is 2, not 1")],
)
def test_a_tower_that_was_built_otherwise_is_refused(option, said, tmp_path):
    source = train(tmp_path, "training.steps=3", "model.vision.layers=2")
    words = (
        *("model.vision.layers=2", f"model.vision.{option}"),
        f"model.vision.from_run={source.name}",
    )
    with pytest.raises(RunError, match=said):
        build(spec_of(tmp_path, *words))


def test_byte_tokens_are_shared_by_two_sets_of_the_same_tokenizer():
    pytest.importorskip("tokenizers", reason="the optional package tokenizers is missing")
    splits = {"train": (0, 2400), "validation": (2400, 2450), "test": (2450, 2500)}
    data = Text(StringSource(GERMAN), splits)
    tokenized = TextDataset(data, BpeTokenizer(data, vocabulary_size=300))
    size = tokenized.shape.vocabulary_size
    assert shared_tokens(tokenized, tokenized) == {i: i for i in range(size)}


def test_a_criterion_that_needs_what_was_frozen_says_so(tmp_path, swe):
    run = train(tmp_path / "results", "training.trains=[projector]")
    found = swe("prune", run.name, "--ratio", "0.5", "roles=vision", "recovery=none")
    assert found.exit_code == PruningError.exit_code
    assert "tracking.frozen=true" in found.output
    assert not list(tmp_path.glob("**/prune-*"))  # nothing half-made stays in the list of runs
    cut = ("--ratio", "0.5", "roles=vision", "criterion=magnitude", "recovery.steps=2")
    assert swe("prune", run.name, *cut, "recovery.batch_size=2").exit_code == 0
    pruned = find_run("prune-llava_nano-magnitude", tmp_path / "results")
    before, after = weights(run), read_tensors(pruned.path / "model.safetensors")
    matrix = "vision.layers.0.mlp.expand.weight"
    kept = after[matrix] != 0
    assert 0.2 < float(kept.float().mean()) < 0.8
    assert torch.equal(after[matrix][kept], before[matrix][kept])  # frozen through recovery too
    assert unchanged(before, after, "language")
