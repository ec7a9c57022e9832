"""The only place that knows Hydra and OmegaConf: override strings in, checked plain values out.

Convention: arguments that come from the run (a vocabulary size, a text) are positional; options
from YAML are keyword-only.
"""

from swe_cli.config.components import Component, Declaration, as_typed, source_of
from swe_cli.config.compose import Composed, choice_options, component, compose, is_plain, said_by
from swe_cli.config.root import ConfigRoot, completions, shipped_conf
from swe_cli.config.words import Tokens, did_you_mean, expand_range, read_tokens

__all__ = ["Component", "Composed", "ConfigRoot", "Declaration", "Tokens", "as_typed"]
__all__ += ["choice_options", "completions", "component", "compose", "did_you_mean"]
__all__ += ["expand_range", "is_plain", "read_tokens", "said_by", "shipped_conf", "source_of"]
