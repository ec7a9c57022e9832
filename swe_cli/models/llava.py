"""A vision–language model in the manner of LLaVA (Liu et al. 2023): see, project, read on.

Shapes: B rows, M images, K channels, N patches (image tokens), T text positions, C width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import Count, DataShape, Fraction, Prediction
from swe_cli.errors import UsageError
from swe_cli.models.gpt import GPT, token_losses
from swe_cli.models.transformer import MLP, Block, Transformer, initialize_as_gpt2
from swe_cli.records import Batch


class VisionTransformer(nn.Module):
    """Images in, one vector per patch out (Dosovitskiy et al. 2021, without a class token).

    Patches of ``patch`` × ``patch`` pixels, left to right, top to bottom; learned positions; every
    patch sees every other.
    """

    def __init__(
        self,
        data: DataShape,
        *,
        patch: Count,
        layers: Count,
        heads: Count,
        width: Count,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if data.image is None:
            hint = "Choose data=easy_vqa, data=digit_sums or data=image_folder, or model=gpt_nano"
            raise UsageError("This model looks at images, and the data set has none.", hint)
        if width % heads:
            why = f"model.vision.width={width} is not a multiple of model.vision.heads={heads}."
            raise UsageError(why)
        channels, height, across = data.image
        if height % patch or across % patch:
            why = f"model.vision.patch={patch} does not divide images of {across}×{height} pixels."
            raise UsageError(why, "Choose a patch, or a data.image_size, that fits.")
        self.patch, self.width = patch, width
        self.patches = (height // patch) * (across // patch)
        self.patch_embedding = nn.Linear(channels * patch * patch, width)
        self.position_embedding = nn.Embedding(self.patches, width)
        self.dropout = nn.Dropout(dropout)
        options = {"causal": False, "bias": True}
        blocks = (Block(width, heads, dropout, "gelu", **options) for _ in range(layers))
        self.layers = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        initialize_as_gpt2(self, layers)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (M, K, height, width) → (M, N, C)."""
        scaled = images.to(self.patch_embedding.weight.dtype) / 127.5 - 1.0
        patches = F.unfold(scaled, self.patch, stride=self.patch).transpose(1, 2)
        x = self.dropout(self.patch_embedding(patches) + self.position_embedding.weight)
        for block in self.layers:
            x = block(x)
        seen: Tensor = self.norm(x)
        return seen


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
            tokens, key = self.image_tokens, "model.language.context"
            why = f"{tokens} image tokens leave no room for text in {key}={self.language.context}."
            raise UsageError(why, f"Write {key}={tokens + 32}, or a larger model.vision.patch")

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
