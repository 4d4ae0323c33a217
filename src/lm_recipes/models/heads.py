"""How does an encoder get a classification head?"""

from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, set_seed

from lm_recipes.models.loading import loading, without_loading_report


def sequence_classifier(
    encoder: str,
    names: list[str],
    *,
    seed: int,
    from_scratch: bool = False,
    freeze_encoder: bool = False,
    bidirectional: bool = False,
    pad_token_id: int | None = None,
    **options: object,
) -> PreTrainedModel:
    """An encoder with a fresh head for the classes `names`, which the saved config will know by name.

    Args:
        encoder: directory or Hub id that `from_pretrained` takes.
        seed: of the head's (and with `from_scratch` all) initial weights.
        from_scratch: the same architecture with random weights.
        freeze_encoder: train the head only.
        bidirectional: every token of a decoder sees the whole text; saved in its config.
        pad_token_id: a decoder classifies at the last token that is no padding. Default: its config's.
        options: passed to `from_pretrained` (dtype, revision, attn_implementation, quantization_config).
    """
    set_seed(seed)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    with loading(encoder):
        config = AutoConfig.from_pretrained(
            encoder, revision=options.get("revision"), problem_type="single_label_classification", **labels
        )
    if pad_token_id is not None:
        config.pad_token_id = pad_token_id
    if bidirectional:
        config.is_causal = False  # transformers' decoders make their masks by this
    if from_scratch:
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=options["dtype"], attn_implementation=options.get("attn_implementation")
        )
    else:
        # A head for other classes is replaced, not refused: fine-tuning a fine-tuned model is common. That the head
        # is new is the point here, so the loading report that warns of it is left out.
        with loading(encoder), without_loading_report():
            model = AutoModelForSequenceClassification.from_pretrained(
                encoder, config=config, ignore_mismatched_sizes=True, **options
            )
    if freeze_encoder:
        model.base_model.requires_grad_(False)
    return model
