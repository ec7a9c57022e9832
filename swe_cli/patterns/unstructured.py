"""Any weight may go."""

from swe_cli.contracts import Pattern


class Unstructured(Pattern):
    """The lowest scores of each tensor, or of each row, exactly as many as allocated."""
