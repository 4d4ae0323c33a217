"""How does an encoder or decoder get a head for a task?"""

import torch
from transformers import AutoConfig, PreTrainedModel, set_seed

from lm_recipes.launch import UserError
from lm_recipes.models.loading import load_tokenizer, loading, without_loading_report


def classifier_tokenizer(encoder: str, max_length: int | None, revision: str | None = None):
    """The tokenizer of an encoder or decoder that is to read whole texts, in batches.

    Raises:
        UserError: as `load_tokenizer`, and where rows cannot be padded.
    """
    tokenizer = load_tokenizer(encoder, max_length, revision)
    if tokenizer.pad_token is None:
        raise UserError(f"{encoder}: the tokenizer has no pad token, so rows cannot share a batch; give it one")
    if not tokenizer.num_special_tokens_to_add():  # a GPT's: texts begin and end as documents do in its pretraining
        tokenizer.add_bos_token = tokenizer.add_eos_token = True
    return tokenizer


def with_head(
    auto_class: type,
    encoder: str,
    names: list[str] | None = None,
    *,
    seed: int,
    problem_type: str | None = None,
    from_scratch: bool = False,
    freeze_encoder: bool = False,
    bidirectional: bool = False,
    pad_token_id: int | None = None,
    **options: object,
) -> PreTrainedModel:
    """An encoder or decoder with a fresh head of the kind that `auto_class` stands for.

    Args:
        auto_class: of transformers: `AutoModelForSequenceClassification`, `...TokenClassification`,
            `...QuestionAnswering` (two logits a token: is it the answer's first, its last) or `...MultipleChoice` (one
            logit a choice).
        encoder: directory or Hub id that `from_pretrained` takes.
        names: of the classes or tags, which the saved config will know; of a regression one, that of the number. None:
            a head that points or chooses.
        seed: of the head's (and with `from_scratch` all) initial weights.
        problem_type: of sequence classifiers; `pipeline` takes from it what to make of the logits.
        from_scratch: the same architecture with random weights.
        freeze_encoder: train the head only.
        bidirectional: every token of a decoder sees the whole text; saved in its config.
        pad_token_id: a decoder classifies at the last token that is no padding. Default: its config's.
        options: passed to `from_pretrained` (dtype, revision, attn_implementation, quantization_config).

    Raises:
        UserError: it cannot be loaded, or transformers has no such head for this architecture.
    """
    set_seed(seed)
    settings: dict[str, object] = {"num_labels": 2} if names is None else {}
    if names is not None:
        settings |= {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    if problem_type is not None:
        settings["problem_type"] = problem_type
    with loading(encoder):
        config = AutoConfig.from_pretrained(encoder, revision=options.get("revision"), **settings)
    if type(config) not in auto_class._model_mapping:
        task = auto_class.__name__.removeprefix("AutoModelFor")
        raise UserError(f"{encoder}: transformers has no {task} for a {config.model_type}; take another architecture")
    if pad_token_id is not None:
        config.pad_token_id = pad_token_id
    if bidirectional:
        config.is_causal = False  # transformers' decoders make their masks by this
    if options.get("quantization_config") is not None:  # a head is trained, and rounded weights cannot be
        with torch.device("meta"):
            options["quantization_config"].llm_int8_skip_modules = head_modules(auto_class.from_config(config))
    if from_scratch:
        model = auto_class.from_config(
            config, dtype=options["dtype"], attn_implementation=options.get("attn_implementation")
        )
    else:
        # A head for other classes is replaced, not refused: fine-tuning a fine-tuned model is common. That the head
        # is new is the point here, so the loading report that warns of it is left out.
        with loading(encoder), without_loading_report():
            model = auto_class.from_pretrained(encoder, config=config, ignore_mismatched_sizes=True, **options)
    if freeze_encoder:
        model.base_model.requires_grad_(False)
    return model


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules with weights between an encoder's layers and the logits, its pooler included."""
    outside = {name: child for name, child in model.named_children() if child is not model.base_model}
    if getattr(model.base_model, "pooler", None) is not None:
        outside[f"{model.base_model_prefix}.pooler"] = model.base_model.pooler
    return [name for name, module in outside.items() if any(True for _ in module.parameters())]


def parameter_counts(model: torch.nn.Module) -> dict[str, int]:
    """`parameters` and `trainable_parameters` of a model or of one with an adapter, prompts included."""
    if hasattr(model, "get_nb_trainable_parameters"):  # peft's; `num_parameters` would be the base's
        trainable, total = model.get_nb_trainable_parameters()
    else:
        trainable, total = model.num_parameters(only_trainable=True), model.num_parameters()
    return {"parameters": total, "trainable_parameters": trainable}
