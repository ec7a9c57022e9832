"""A Vision Transformer encoder (Dosovitskiy et al. 2021), without a class token.

Shapes: M images, K channels, N patches, C width.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import Count, DataShape, Fraction
from swe_cli.errors import UsageError
from swe_cli.models.transformer import MLP, Attention, Block, initialize_as_gpt2


class VisionTransformer(nn.Module):
    """Images in, one vector per patch out. Patches of ``patch`` × ``patch`` pixels, left to right,
    top to bottom; learned positions; every patch sees every other.
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
            raise UsageError(
                "This model looks at images, and the data set has none.",
                "Choose data=easy_vqa, data=digit_sums or data=image_folder, or model=gpt_nano",
            )
        if width % heads:
            raise UsageError(
                f"model.vision.width={width} is not a multiple of model.vision.heads={heads}."
            )
        channels, height, across = data.image
        if height % patch or across % patch:
            raise UsageError(
                f"model.vision.patch={patch} does not divide images of {across}×{height} pixels.",
                "Choose a patch, or a data.image_size, that fits.",
            )
        self.patch, self.width = patch, width
        self.patches = (height // patch) * (across // patch)
        self.patch_embedding = nn.Linear(channels * patch * patch, width)
        self.position_embedding = nn.Embedding(self.patches, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            Block(
                Attention(width, heads, dropout, causal=False),
                MLP(width, dropout, "gelu", bias=True),
                bias=True,
            )
            for _ in range(layers)
        )
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
