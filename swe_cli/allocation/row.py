"""Every output row loses the same fraction."""

from swe_cli.allocation.uniform import Uniform


class Row(Uniform):
    """As ``uniform``, and inside a tensor every row loses the same (Wanda, Sun et al. 2023).

    Where it does not come out even, the first rows lose one weight more.
    """

    within = "row"
