"""How is a model loaded in 4 or 8 bits, so that an adapter can be trained on it?"""

from importlib.util import find_spec

from lm_recipes.launch import UserError


def quantization(model_args):
    """The `BitsAndBytesConfig` that --load_in_4bit or --load_in_8bit describe; None without them.

    QLoRA (arXiv 2305.14314): the base is kept in 4-bit NormalFloat and multiplied in --dtype, the adapter is not
    rounded. Both run on CPUs.

    Args:
        model_args: `trl.ModelConfig`.

    Raises:
        UserError: nothing would be trained, no type to multiply in, or bitsandbytes is not installed.
    """
    from trl import get_quantization_config

    if not (model_args.load_in_4bit or model_args.load_in_8bit):
        return None
    flag = "--load_in_4bit" if model_args.load_in_4bit else "--load_in_8bit"
    if not model_args.use_peft:
        raise UserError(f"{flag}: rounded weights cannot be trained; add --use_peft")
    if model_args.dtype == "auto":
        raise UserError(f"{flag} --dtype auto: say in which type the weights are multiplied, float32 or bfloat16")
    need_bitsandbytes(flag)
    import bitsandbytes

    # On a CPU with AVX512-BF16 an evaluation packs 4-bit weights for products that have no gradient, and for good:
    # training after it would go on, wrong, without a word.
    bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
    return get_quantization_config(model_args)


def need_bitsandbytes(what: str) -> None:
    """UserError, beginning with `what`, where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{what} needs bitsandbytes: pip install 'lm-recipes[quantize]'")
