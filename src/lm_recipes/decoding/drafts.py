"""Which small model proposes tokens for a large one to check? Speculative decoding (arXiv:2211.17192)."""

from dataclasses import replace

from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.decoding.strategies import Strategy
from lm_recipes.launch import UserError


def with_draft(strategy: Strategy, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Strategy:
    """The strategy with the draft model it names, loaded; any other strategy as it is.

    A draft changes how fast a text comes, not which: the model checks every token it proposes. It stops proposing
    after `num_assistant_tokens`, or behind a token it was unsure of (transformers: a probability below 0.4, a limit
    that moves with how often the model agreed).

    Raises:
        UserError: the draft has another vocabulary, so that its tokens mean nothing to the model.
    """
    name = strategy.options.get("draft_model")
    if name is None:
        return strategy
    draft, spoken = load_for_inference(AutoModelForCausalLM, name)
    sizes = [one.config.get_text_config().vocab_size for one in (model, draft)]
    if spoken.get_vocab() != tokenizer.get_vocab() or sizes[0] != sizes[1]:
        raise UserError(f"--draft_model {name}: has other tokens than the model; take one with the same tokenizer")
    draft.generation_config.num_assistant_tokens = strategy.options["num_assistant_tokens"]
    return replace(strategy, extra={**strategy.extra, "assistant_model": draft})
