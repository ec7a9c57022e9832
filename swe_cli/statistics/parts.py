"""What statistics are made of: float32 tensors like the weights, passed over a few at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from swe_cli.records import Tensors


def zeros(weights: Tensors) -> Tensors:
    """Float32 zeros, one tensor a parameter."""
    return {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}


def copies(weights: Tensors) -> Tensors:
    """Float32 copies of the weights as they are."""
    return {name: w.detach().to(torch.float32, copy=True) for name, w in weights.items()}


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
