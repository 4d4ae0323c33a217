"""What is the model asked? Packing into blocks, and the collators that turn blocks into questions."""

from importlib import import_module

_HOMES = {
    "CausalLanguageModeling": "causal",
    "FillInTheMiddle": "fim",
    "HybridLanguageModeling": "hybrid",
    "MaskedLanguageModeling": "masked",
    "Packer": "packing",
    "PermutationLanguageModeling": "permutation",
    "PrefixLanguageModeling": "prefix",
    "ReplacedTokenDetection": "replaced_tokens",
    "SpanCorruption": "span_corruption",
    "StreamedBlocks": "streaming",
    "read_packed": "packing",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Imported when asked for: the collators need torch, which packing does without."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
