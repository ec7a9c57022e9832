"""What the parts of a block are called, and by which keys a config counts them, per family; and how
families that look are shown images.

Shapes: B images, C channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Names:
    """Of an MLP, the matrices that read the stream and, last, the one that writes to it, and the
    key of its neurons; of attention, those of queries, keys and values, and the one that writes.

    A fused matrix of gate and up has a neuron's rows twice. Where a config has no number that would
    say how many are left, there are no names: nothing is taken out.
    """

    mlp: tuple[str, ...] = ()
    neurons: str = ""
    attention: tuple[str, ...] = ()


SPLIT = ("q_proj", "k_proj", "v_proj")
LLAMA = Names(("gate_proj", "up_proj", "down_proj"), "intermediate_size", (*SPLIT, "o_proj"))
FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"), LLAMA),
    "phi": Names(("fc1", "fc2"), "intermediate_size", (*SPLIT, "dense")),
    "phi3": Names(("gate_up_proj", "down_proj"), "intermediate_size"),
    "opt": Names(("fc1", "fc2"), "ffn_dim"),
    "gpt2": Names(("c_fc", "c_proj"), "n_inner"),
    "gpt_neox": Names(("dense_h_to_4h", "dense_4h_to_h"), "intermediate_size"),
    "falcon": Names(("dense_h_to_4h", "dense_4h_to_h"), "ffn_hidden_size"),
}


def _patches(pixels: Tensor, vision: Any) -> dict[str, Tensor]:
    """Patch by patch, those that are merged side by side; a still image is a film that stands."""
    patch, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    number, channels, height, width = pixels.shape
    down, across = height // patch, width // patch
    grid = (down // merge, merge, patch, across // merge, merge, patch)
    apart = pixels.reshape(number, channels, *grid).permute(0, 2, 5, 3, 6, 1, 4, 7)
    films = apart[..., None, :, :].expand(*apart.shape[:6], frames, patch, patch)
    thw = torch.tensor([[1, down, across]], device=pixels.device).expand(number, 3)
    return {"pixel_values": films.flatten(5).flatten(0, 4), "image_grid_thw": thw}


# Families that look: what their projector is called in ``base_model``, and how normalised pixels
# (B, C, height, width) are laid out for them, by the config of their vision.
SIGHTS: dict[str, tuple[str, Callable[[Tensor, Any], dict[str, Tensor]]]] = {
    "llava": ("multi_modal_projector", lambda pixels, _: {"pixel_values": pixels}),
    "smolvlm": ("connector", lambda pixels, _: {"pixel_values": pixels[:, None]}),
    "qwen2_vl": ("visual.merger", _patches),
}


def image_size(given: Sequence[int], vision: Any) -> Sequence[int]:
    """Height and width a tower is made for; of one that takes any, the nearest it can divide."""
    if side := getattr(vision, "image_size", None):
        return (side, side) if isinstance(side, int) else tuple(side)
    unit = vision.patch_size * vision.spatial_merge_size
    return tuple(max(1, round(length / unit)) * unit for length in given)
