"""Attention heads, whole."""

from swe_cli.contracts import Pattern


class Head(Pattern):
    """A head goes with its queries, keys, values and its columns of the projection.

    Its score is the norm of the scores of all its weights. The ratio is of heads, all layers
    together or as the allocation says; the sparsity that comes out is of all prunable weights.
    ``swe prune`` then stores the smaller model.
    """

    unit = "head"
