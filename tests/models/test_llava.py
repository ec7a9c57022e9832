"""The vision–language model: what sees what, what is predicted, what can be cut."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from swe_cli.config import Component, ConfigRoot, component
from swe_cli.contracts import IGNORED, DataShape
from swe_cli.errors import UsageError
from swe_cli.models.gpt import greedy
from swe_cli.models.llava import LLaVA, VisionTransformer

SHAPE = DataShape(13, image=(3, 8, 8))
SMALL = {"layers": 2, "heads": 2, "width": 16, "context": 20, "patch": 4}
encoder = partial(VisionTransformer, heads=2, width=16, dropout=0.0)


def llava(shape=SHAPE, **options) -> LLaVA:
    inside = component("model", "llava_nano", ConfigRoot()).options
    small = {
        name: {key: SMALL[key] for key in tower.options if key in SMALL} | options.get(name, {})
        for name, tower in inside.items()
        if isinstance(tower, Component)
    }
    torch.manual_seed(0)
    return component("model", "llava_nano", ConfigRoot(), small).build(shape)


def batch_of(rows=4, text=6, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(SHAPE.vocabulary_size, (rows, text), generator=generator)
    return {
        "tokens": tokens,
        "targets": tokens.roll(-1, 1),
        "images": torch.randint(256, (images, *SHAPE.image), generator=generator).byte(),
        "image": torch.arange(rows) % images,
    }


def sharp(model):
    """Weights large enough that answers differ from row to row."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return model.eval()


def test_the_preset_is_small_enough_for_a_laptop():
    with torch.device("meta"):
        model = component("model", "llava_nano", ConfigRoot()).build(DataShape(40, (3, 64, 64)))
    assert sum(p.numel() for p in model.parameters()) <= 1_000_000


def test_patches_are_cut_left_to_right_then_top_to_bottom():
    model = encoder(SHAPE, patch=4, layers=1)
    image = torch.arange(64).view(1, 1, 8, 8).expand(1, 3, 8, 8).byte()
    seen = []
    model.patch_embedding.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model(image)
    pixels = ((seen[0] + 1) * 127.5).round().view(4, 3, 4, 4)
    for place, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        assert torch.equal(pixels[place], image[0, :, top : top + 4, left : left + 4].float())


def test_every_patch_sees_every_other():
    model = encoder(SHAPE, patch=4, layers=1).eval()
    first, last = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)
    last = last.clone()
    last[..., -1, -1] = 255
    assert not torch.equal(model(first)[:, 0], model(last)[:, 0])


def test_image_tokens_are_neither_predicted_nor_in_the_loss():
    model, batch = llava().eval(), batch_of()
    batch["targets"][:, :3] = IGNORED
    losses, logits = model(batch)
    assert losses.shape == batch["tokens"].shape
    assert logits.shape == (*batch["tokens"].shape, SHAPE.vocabulary_size)
    assert (losses[:, :3] == 0).all()
    expected = F.cross_entropy(logits[:, 3:].flatten(0, 1), batch["targets"][:, 3:].flatten())
    torch.testing.assert_close(losses.sum() / losses[:, 3:].numel(), expected)


def test_text_sees_its_own_image_and_no_other():
    model, batch = sharp(llava()), batch_of()
    changed = batch | {"images": batch["images"].clone()}
    changed["images"][1] = 255 - changed["images"][1]
    before, after = model(batch).logits, model(changed).logits
    assert torch.equal(before[0::2], after[0::2])
    assert not torch.isclose(before[1::2], after[1::2]).all()


def test_a_row_is_what_it_is_alone_with_its_image():
    model, batch = sharp(llava()), batch_of()
    together = model(batch).logits
    for row in range(4):
        alone = {k: batch[k][row : row + 1] for k in ("tokens", "targets")}
        image = batch["images"][batch["image"][row]][None]
        logits = model({**alone, "images": image, "image": torch.tensor([0])}).logits
        torch.testing.assert_close(logits[0], together[row], rtol=1e-4, atol=1e-4)


def test_a_later_token_never_changes_earlier_logits():
    model, batch = sharp(llava()), batch_of()
    changed = batch | {"tokens": batch["tokens"].clone()}
    changed["tokens"][:, -1] = (changed["tokens"][:, -1] + 1) % SHAPE.vocabulary_size
    before, after = model(batch).logits, model(changed).logits
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_the_context_is_what_the_image_leaves_for_the_text():
    model = llava()
    assert (model.image_tokens, model.context) == (4, 16)
    model(batch_of(text=16))
    with pytest.raises(UsageError, match="4 image tokens leave no room"):
        llava(language={"context": 4})


@pytest.mark.parametrize(
    ("shape", "vision", "words"),
    [
        (DataShape(13), {}, "the data set has none"),
        (SHAPE, {"patch": 3}, "does not divide images of 8×8"),
        (SHAPE, {"heads": 3}, "is not a multiple"),
        (SHAPE, {"dropout": 1.0}, "is not in"),
        (SHAPE, {"layers": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(shape, vision, words):
    with pytest.raises(UsageError, match=words):
        llava(shape, vision=vision)


def prompts_of(lengths, seed=1):
    given = batch_of(rows=len(lengths), text=max(lengths), images=len(lengths), seed=seed)
    return {
        "tokens": given["tokens"],
        "lengths": torch.tensor(lengths),
        "images": given["images"],
        "image": given["image"],
    }


def test_a_batch_answers_as_one_by_one_whatever_stands_beside():
    model, prompts = sharp(llava()), prompts_of([2, 5, 3, 4])
    together = greedy(model, prompts, length=8)
    assert len({tuple(answer) for answer in together}) > 1
    for row, length in enumerate(prompts["lengths"].tolist()):
        alone = {
            "tokens": prompts["tokens"][row : row + 1, :length],
            "lengths": prompts["lengths"][row : row + 1],
            "images": prompts["images"][row : row + 1],
            "image": torch.tensor([0]),
        }
        assert greedy(model, alone, length=8) == together[row : row + 1]


def likeliest(model, prompts, row, length):
    """The slow way: the whole of one row is read again for every token."""
    tokens = prompts["tokens"][row : row + 1, : prompts["lengths"][row]]
    start, seen = tokens.shape[1], {"images": prompts["images"], "image": prompts["image"][[row]]}
    for _ in range(length):
        logits = model({**seen, "tokens": tokens, "targets": tokens}).logits
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], dim=1)
    return tokens[0, start:].tolist()


def test_decoding_is_the_likeliest_token_of_the_whole_pass_again_and_again():
    model, prompts = sharp(llava()), prompts_of([2, 5, 3, 4])
    cached = greedy(model, prompts, length=9)
    assert cached == [likeliest(model, prompts, row, 9) for row in range(4)]
    assert all(len(answer) == 9 for answer in cached)


def test_an_answer_stops_at_its_end_and_where_the_positions_do():
    model, prompts = sharp(llava()), prompts_of([2, 3])
    free = greedy(model, prompts, length=6)
    end = free[0][2]
    ended = greedy(model, prompts, length=6, end=end)
    assert ended == [row[: row.index(end) + 1] if end in row else row for row in free]
    longest = greedy(model, prompts_of([14, 15, 2, 16]), length=9)
    assert [len(row) for row in longest] == [3, 2, 9, 1]  # 16 text positions, and the token after


def test_a_long_question_beside_it_shortens_no_answer():
    model, prompts = sharp(llava()), prompts_of([3, 15])
    beside = greedy(model, prompts, length=9)
    assert beside == [likeliest(model, prompts, 0, 9), likeliest(model, prompts, 1, 2)]
