"""A tower that starts from what another run learnt."""

from collections.abc import Callable, Mapping

from torch import nn

from swe_cli.contracts import Dataset, Questions, Tensors
from swe_cli.errors import RunError

BY_TOKEN = ("token_embedding", "head")  # tensors with a row for every token
BY_POSITION = "position_embedding"


def adopt(
    tower: nn.Module,
    role: str,
    weights: Tensors,
    source: str,
    tokens: Callable[[], Mapping[int, int]],
) -> None:
    """Copy into ``tower`` the weights of the run ``source``: of its module ``role``, or all.

    Tokens are matched by what they spell (``tokens``: our id → theirs), positions by their place. A
    token that the run did not know, and positions beyond its last, keep their fresh weights.
    Raises RunError, naming the first tensor, where another shape does not fit.
    """
    prefix = f"{role}."
    own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)} or weights
    for name, parameter in tower.named_parameters():
        learnt = own.get(name)
        fits = learnt is not None and learnt.shape[1:] == parameter.shape[1:]
        if learnt is not None and fits and name.startswith(BY_TOKEN):
            for ours, theirs in tokens().items():
                parameter.data[ours] = learnt[theirs]
        elif learnt is not None and fits and name.startswith(BY_POSITION):
            rows = min(len(learnt), len(parameter))
            parameter.data[:rows] = learnt[:rows]
        elif learnt is not None and learnt.shape == parameter.shape:
            parameter.data.copy_(learnt)
        else:
            found = "nothing of that name" if learnt is None else tuple(learnt.shape)
            raise RunError(
                f"{source} does not fit model.{role}: {name} is {tuple(parameter.shape)} here, "
                f"{found} there.",
                f"Give model.{role} the sizes that are in the config.json of that run.",
            )


def shared_tokens(ours: Dataset, theirs: Dataset) -> dict[int, int]:
    """Our token id → theirs, of all that spell the same."""
    known = _spelling(theirs)
    return {i: known[piece] for piece, i in _spelling(ours).items() if piece in known}


def _spelling(dataset: Dataset) -> dict[str | tuple[str], int]:
    spelt: dict[str | tuple[str], int] = {
        dataset.decode([i]): i for i in range(dataset.shape.vocabulary_size)
    }
    if isinstance(dataset, Questions):  # tokens that spell nothing
        spelt.pop("", None)
        spelt |= {("separator",): dataset.separator, ("end",): dataset.end}
    return spelt
