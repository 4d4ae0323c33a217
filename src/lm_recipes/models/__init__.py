"""What is trained? One size dial for all families, onto configurations of transformers' own models."""

from lm_recipes.models.families import (
    DECODERS,
    ENCODERS,
    decoder_config,
    encoder_config,
    encoder_decoder_config,
    expert_load,
    isolation_of,
    new_model,
    override,
    positions_of,
)
from lm_recipes.models.size import SIZES, count_parameters, describe_model, flops_per_token, parameters_per_token

__all__ = [
    "DECODERS",
    "ENCODERS",
    "SIZES",
    "count_parameters",
    "decoder_config",
    "describe_model",
    "encoder_config",
    "encoder_decoder_config",
    "expert_load",
    "flops_per_token",
    "isolation_of",
    "new_model",
    "override",
    "parameters_per_token",
    "positions_of",
]
