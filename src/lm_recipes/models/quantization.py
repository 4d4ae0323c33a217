"""How is a model loaded in 4 bits, so that an adapter can be trained on it?"""

from importlib.util import find_spec

from lm_recipes.launch import UserError


def quantization(model_args):
    """The `BitsAndBytesConfig` that --load_in_4bit describes; None without it.

    QLoRA (arXiv 2305.14314): the base is kept in 4-bit NormalFloat and multiplied in --dtype, on GPUs and CPUs. The
    adapter is not rounded (TRL's trainers keep it in bfloat16 then).

    Args:
        model_args: `trl.ModelConfig`.

    Raises:
        UserError: 8 bits, nothing would be trained, no type to multiply in, or bitsandbytes is not installed.
    """
    from trl import get_quantization_config

    if model_args.load_in_8bit:
        # LLM.int8 rounds activations too: what an adapter learns on it no merged model has, and on a CPU a third
        # of SmolLM2-135M's likeliest next tokens change.
        raise UserError("--load_in_8bit rounds the activations too, which no merged model does; take --load_in_4bit")
    if not model_args.load_in_4bit:
        return None
    if not model_args.use_peft:
        raise UserError("--load_in_4bit: rounded weights cannot be trained; add --use_peft")
    if model_args.dtype == "auto":
        raise UserError("--load_in_4bit --dtype auto: say in which type weights are multiplied, float32 or bfloat16")
    need_bitsandbytes("--load_in_4bit")
    import bitsandbytes

    # On a CPU with AVX512-BF16 an evaluation packs 4-bit weights for products that have no gradient, and for good:
    # training after it would go on, wrong, without a word.
    bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
    return get_quantization_config(model_args)


def need_bitsandbytes(what: str) -> None:
    """UserError, beginning with `what`, where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{what} needs bitsandbytes: pip install -e '.[quantize]'")
