"""A vision–language model in the manner of LLaVA (Liu et al. 2023): see, project, read on.

Shapes: B rows, M images, N image tokens, T text positions, C width of the language model.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from swe_cli.contracts import DataShape, Prediction
from swe_cli.errors import UsageError
from swe_cli.models.gpt import GPT, token_losses
from swe_cli.models.transformer import MLP, Transformer
from swe_cli.models.vision import VisionTransformer
from swe_cli.records import Batch


class LLaVA(Transformer):
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
        width = self.language.width
        self.projector = MLP(self.vision.width, 0.0, "gelu", bias=True, hidden=width, out=width)
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

    def role_of(self, name: str) -> str:
        return name.partition(".")[0]

    def blocks(self) -> list[nn.Module]:
        return [*self.vision.layers, self.projector, *self.language.layers]
