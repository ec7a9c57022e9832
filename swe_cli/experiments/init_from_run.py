"""A tower that starts from what another run learnt."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import nn

from swe_cli.contracts import Dataset, Questions
from swe_cli.errors import RunError
from swe_cli.store import Run

BY_TOKEN = ("token_embedding", "head")  # tensors with a row for every token
BY_POSITION = "position_embedding"
OF_DATA = ("patch_embedding", BY_POSITION)  # tensors whose shapes the images decide
OTHER_IMAGES = "It saw images of another size or number of colours: name a run on such as these."
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Options in which two towers may differ and still do the same with the same weights.
FREE = {"name", "source", "from_run", "context", "dropout", "initialization", "split_heads"}


def init_from_run(
    tower: nn.Module,
    role: str,
    ours: Mapping[str, Any],
    run: Run,
    theirs: Mapping[str, Any],
    dataset: Dataset,
    dataset_of_run: Callable[[], Dataset],
) -> None:
    """Copy into ``tower`` the weights of a run: of its module ``role``, or all.

    ``ours`` describes the tower, ``theirs`` the run's whole model. Tokens are matched by what they
    spell, positions of text by their place. A token that the run did not know, and positions beyond
    its last, keep their fresh weights. Raises RunError, naming the first tensor, where another
    shape does not fit, and the option in which the towers differ.
    """
    misfit = f"{run.name} does not fit model.{role}"
    sizes = f"Give model.{role} the sizes that are in the config.json of that run."
    inside = theirs.get(role, theirs)
    # Shapes would not tell: how many heads share a matrix, or which activation follows it.
    for key in sorted((ours.keys() & inside.keys()) - FREE):
        if ours[key] != inside[key]:
            raise RunError(
                f"{misfit}: its {key} is {inside[key]}, not {ours[key]}.",
                f"Type model.{role}.{key}={inside[key]}, or start from another run.",
            )
    weights = run.tensors("model.safetensors")
    prefix = f"{role}."
    own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)} or weights
    parameters = dict(tower.named_parameters())
    for name in sorted(own.keys() - parameters.keys()):
        raise RunError(f"{misfit}: it has a {name}, which is missing here.", sizes)
    reads = any(name.startswith(BY_TOKEN) for name in parameters)  # positions of images are a grid
    tokens: dict[int, int] | None = None
    for name, parameter in parameters.items():
        learnt = own.get(name)
        fits = learnt is not None and learnt.shape[1:] == parameter.shape[1:]
        if learnt is not None and fits and name.startswith(BY_TOKEN):
            tokens = tokens or shared_tokens(dataset, dataset_of_run())
            for our_id, their_id in tokens.items():
                parameter.data[our_id] = learnt[their_id]
        elif learnt is not None and fits and reads and name.startswith(BY_POSITION):
            rows = min(len(learnt), len(parameter))
            parameter.data[:rows] = learnt[:rows]
        elif learnt is not None and learnt.shape == parameter.shape:
            parameter.data.copy_(learnt)
        else:
            there = "missing" if learnt is None else tuple(learnt.shape)
            raise RunError(
                f"{misfit}: {name} is {tuple(parameter.shape)} here, {there} there.",
                OTHER_IMAGES if name.startswith(OF_DATA) else sizes,
            )


def shared_tokens(ours: Dataset, theirs: Dataset) -> dict[int, int]:
    """Our token id → theirs, of all that spell the same."""
    specials = _specials(ours), _specials(theirs)
    shared = {i: specials[1][name] for name, i in specials[0].items() if name in specials[1]}
    tokenizers = getattr(ours, "tokenizer", None), getattr(theirs, "tokenizer", None)
    if tokenizers[0] and tokenizers[1] and tokenizers[0].sha256 == tokenizers[1].sha256:
        return {i: i for i in range(tokenizers[0].vocabulary_size)} | shared
    known = _spelling(theirs)
    return {i: known[piece] for piece, i in _spelling(ours).items() if piece in known} | shared


def _spelling(dataset: Dataset) -> dict[str, int]:
    """What one token alone spells; half a character is spelt by many, and told by none."""
    specials = _specials(dataset).values()
    spelt = [
        (dataset.decode([i]), i) for i in range(dataset.shape.vocabulary_size) if i not in specials
    ]
    times = Counter(piece for piece, _ in spelt)
    return {piece: i for piece, i in spelt if times[piece] == 1 and piece != REPLACEMENT}


def _specials(dataset: Dataset) -> dict[str, int]:
    """Tokens that spell nothing."""
    if not dataset.questions:
        return {}
    asked = cast(Questions, dataset)
    return {"separator": asked.separator, "end": asked.end}
