"""Weights a few at a time, for statistics that pass over them more than once."""

from collections.abc import Iterator

from torch import Tensor

from swe_cli.contracts import Tensors


def parts(weights: Tensors, *states: Tensors) -> Iterator[tuple[list[Tensor], ...]]:
    """Lists of weights, in float32, and of what ``states`` hold by the same names.

    On a CPU tensor by tensor: the second pass finds in cache what the first one read, and no
    temporary is as large as the model. Elsewhere all at once: few kernels are launched.
    """
    names = list(states[0])
    size = 1 if all(w.device.type == "cpu" for w in weights.values()) else len(names)
    for first in range(0, len(names), size):
        some = names[first : first + size]
        yield [weights[n].float() for n in some], *([state[n] for n in some] for state in states)
