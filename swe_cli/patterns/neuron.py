"""Hidden neurons of MLPs, whole."""

from swe_cli.contracts import Pattern


class Neuron(Pattern):
    """A hidden neuron goes with its row of the first matrix and its column of the second.

    Its score is the norm of the scores of all its weights. The ratio is of neurons, all layers
    together or as the allocation says; the sparsity that comes out is of all prunable weights.
    ``swe prune`` then stores the smaller model.
    """

    unit = "neuron"
