"""The only place that knows Hydra and OmegaConf: override strings in, checked plain values out.

``words`` tells a command's words apart, ``tree`` lets Hydra put YAMLs and overrides together,
``check`` holds every node against the signature of what it builds, ``configuration`` is the sum.

Convention: arguments that come from the run (a vocabulary size, a text) are positional; options
from YAML are keyword-only.
"""

from swe_cli.compose.check import Part, described_options
from swe_cli.compose.configuration import Composed, choice_options, compose, default_part, part
from swe_cli.compose.root import ConfigRoot, shipped_conf
from swe_cli.compose.words import Tokens, expand_range, is_path_key, read_tokens

__all__ = [
    "Composed",
    "ConfigRoot",
    "Part",
    "Tokens",
    "choice_options",
    "compose",
    "default_part",
    "described_options",
    "expand_range",
    "is_path_key",
    "part",
    "read_tokens",
    "shipped_conf",
]
