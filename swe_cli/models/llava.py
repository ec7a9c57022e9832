"""A vision–language model in the manner of LLaVA (Liu et al. 2023): see, project, read on.

Shapes: B rows, M images, N image tokens, T text positions, C width of the language model.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import DataShape, Model, Prediction, PrunableSet, UnitKind, Units
from swe_cli.errors import UsageError
from swe_cli.models.gpt import GPT, token_losses
from swe_cli.models.transformer import neurons_of, units_of
from swe_cli.models.vision import VisionTransformer
from swe_cli.records import Batch, Tensors


class LLaVA(Model):
    """A vision encoder, a two-layer GELU MLP that projects, and a GPT that reads what comes out.

    The GPT sees N image tokens, then the text; its ``context`` holds both, and ``self.context`` is
    what that leaves for the text. A batch brings ``images`` uint8 (M, K, height, width) and
    ``image`` int64 (B,), which of them each row is about: questions about one image share its
    encoding. Losses and logits are of the T text positions only.
    """

    roles = ("vision", "projector", "language")

    def __init__(
        self,
        data: DataShape,
        *,
        vision: Callable[[DataShape], VisionTransformer],
        language: Callable[[DataShape], GPT],
    ) -> None:
        super().__init__()
        self.vision = vision(data)
        self.language = language(data)
        self.projector = Projector(self.vision.width, self.language.width)
        self.image_tokens = self.vision.patches
        self.context = self.language.context - self.image_tokens
        if self.context < 1:
            raise UsageError(
                f"{self.image_tokens} image tokens leave no room for text in "
                f"model.language.context={self.language.context}.",
                f"Write model.language.context={self.image_tokens + 32}, or a larger "
                "model.vision.patch",
            )

    def forward(self, batch: Batch) -> Prediction:
        hidden = self.language.hidden(self.inputs(batch))[:, self.image_tokens :]
        logits = self.language.logits(hidden)
        return Prediction(token_losses(logits, batch["targets"]), logits)

    def inputs(self, batch: Batch) -> Tensor:
        """The embedded sequence, image tokens first: (B, N + T, C)."""
        seen: Tensor = self.projector(self.vision(batch["images"]))  # (M, N, C)
        seen = seen + self.language.position_embedding.weight[: self.image_tokens]
        tokens = batch["tokens"]
        positions = torch.arange(tokens.shape[1], device=tokens.device) + self.image_tokens
        read = self.language.embed(tokens, positions)
        return torch.cat([self.language.dropout(seen)[batch["image"]], read], dim=1)

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        """Views of the prunable part of ``tensors``, tower by tower; see ``contracts.Model``."""
        chosen: Tensors = {}
        for role in self.roles:
            prefix = f"{role}."
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            tower = getattr(self, role)
            chosen |= {prefix + n: t for n, t in tower.prunable(own, which).items()}
        return chosen

    def role_of(self, name: str) -> str:
        return name.partition(".")[0]

    def blocks(self) -> list[nn.Module]:
        return [*self.vision.layers, self.projector, *self.language.layers]

    def units(self, kind: UnitKind) -> list[Units]:
        projector = [neurons_of(self.projector, "projector", F.gelu)] if kind == "neuron" else []
        return [
            *units_of(self.vision, kind, "vision."),
            *projector,
            *units_of(self.language, kind, "language."),
        ]


class Projector(nn.Module):
    """From what the encoder sees to what the language model reads: (…, C_vision) → (…, C)."""

    def __init__(self, seen: int, read: int) -> None:
        super().__init__()
        self.expand = nn.Linear(seen, read)
        self.contract = nn.Linear(read, read)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.contract(F.gelu(self.expand(x)))
        return projected

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        """Both matrices, or with ``all`` the biases too."""
        wanted = {n: t for n, t in tensors.items() if which == "all" or n.endswith("weight")}
        return {name: wanted[name] for name, _ in self.named_parameters() if name in wanted}
