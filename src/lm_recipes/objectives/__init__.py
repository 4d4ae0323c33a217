"""What is the model asked? Packing into blocks, and the collators that turn blocks into questions."""

from lm_recipes.objectives.causal import CausalLanguageModeling
from lm_recipes.objectives.masked import MaskedLanguageModeling
from lm_recipes.objectives.packing import Packer, read_packed

__all__ = ["CausalLanguageModeling", "MaskedLanguageModeling", "Packer", "read_packed"]
