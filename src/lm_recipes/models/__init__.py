"""What is trained? One size dial for both tracks, onto configurations of transformers' own models."""

from lm_recipes.models.size import SIZES, count_parameters, decoder_config, encoder_config, isolation_of

__all__ = ["SIZES", "count_parameters", "decoder_config", "encoder_config", "isolation_of"]
