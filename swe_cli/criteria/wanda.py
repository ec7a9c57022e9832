"""Wanda: magnitude times input norm."""

from torch import Tensor

from swe_cli.contracts import Choose, LayerCriterion, LayerInputs


class Wanda(LayerCriterion):
    """``|W_ij| · ‖X_j‖₂``, X the inputs of the layer over the calibration tokens (Sun et al. 2023).

    Published with the scores of one output row compared with each other: ``allocation=row``.
    """

    published = "row"
    needs = ("input_norm",)

    def score_layer(self, weight: Tensor, inputs: LayerInputs) -> Tensor:
        return weight.abs() * inputs.norm

    def prune_layer(self, weight: Tensor, inputs: LayerInputs, choose: Choose) -> Tensor:
        kept = choose(self.score_layer(weight, inputs), 0)
        weight.mul_(kept)
        return kept
