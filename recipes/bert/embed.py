"""Fine-tune an encoder on pairs of texts that belong together: sentence embeddings for search and clustering.

Makes a plain transformers directory that `SentenceTransformer` loads too, and says how often a text of the test split
finds its partner: before, after, and by shared words alone.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import done, parse, recipe


@dataclass
class EmbedRecipe:
    """Which pairs, how they are split, and which encoder learns from them."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "Encoder: directory, Hub id, demo:minilm."})
    attn_implementation: str | None = field(default=None, metadata={"help": "sdpa, eager, flash_attention_2, ..."})
    source: str = field(default="demo:wiki-openings", metadata={"help": "Demo set, file, folder or Hub id."})
    anchor_column: str = field(default="anchor", metadata={"help": "Column with a text: a question, a title."})
    positive_column: str = field(default="positive", metadata={"help": "Column with the text that belongs to it."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of pairs, by a hash of the anchor."})
    test_share: float = field(default=0.1, metadata={"help": "Share of pairs, by a hash of the anchor."})
    max_length: int = field(default=128, metadata={"help": "Tokens per text; longer ones are cut."})
    scale: float = field(default=20.0, metadata={"help": "Of similarities in the loss: one over its temperature."})


def main() -> None:
    from lm_recipes.training.finetuning import FineTuningArguments

    args, training_args = parse(EmbedRecipe, FineTuningArguments, description=__doc__)

    from transformers import AutoModel, set_seed

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.retrieval import ranks, retrieval_metrics, tfidf_retrieval
    from lm_recipes.launch import is_main_process
    from lm_recipes.models.heads import classifier_tokenizer
    from lm_recipes.models.loading import loading, without_loading_report
    from lm_recipes.sources import describe
    from lm_recipes.sources.pairs import load_pairs
    from lm_recipes.training import finetuning, preflight
    from lm_recipes.training.embeddings import (
        EmbeddingTrainer,
        PairCollator,
        embeddings_of,
        save_pooling,
        tokenize_pairs,
    )
    from lm_recipes.training.finish import finish

    start = time.perf_counter()
    encoder = finetuning.base_model(args.model_name_or_path, training_args)
    tokenizer = classifier_tokenizer(encoder, args.max_length)
    rows, left_out = load_pairs(
        args.source, anchor_column=args.anchor_column, positive_column=args.positive_column,
        validation=args.validation_share, test=args.test_share,
    )  # fmt: skip
    data = tokenize_pairs(rows, tokenizer, args.max_length)
    identity = preflight.identity_of(training_args, **asdict(args), rows=rows.num_rows, weights=fingerprint(encoder))
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    # The encoder without a head. Batches hold token ids under our own names, which the collator turns into inputs.
    set_seed(training_args.seed)
    with loading(encoder), without_loading_report():
        model = AutoModel.from_pretrained(encoder, dtype="float32", attn_implementation=args.attn_implementation)
    training_args.remove_unused_columns = False
    trainer = EmbeddingTrainer(
        scale=args.scale,
        model=model,
        args=training_args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=PairCollator(tokenizer),
        processing_class=tokenizer,
        callbacks=finetuning.watchers(training_args),
    )

    def found() -> dict[str, float]:
        sides = (list(data["test"][side]) for side in ("anchor", "positive"))
        return retrieval_metrics(ranks(*(embeddings_of(model, tokenizer, side) for side in sides)))

    before = found()
    seconds = finetuning.fit(trainer, training_args.output_dir, checkpoint)
    words = tfidf_retrieval([*rows["train"]["anchor"], *rows["train"]["positive"]], *rows["test"][:].values())
    metrics = {"test": found(), "test_before": before, "baselines": {"tfidf": words}}
    metrics |= {"train_pairs": len(rows["train"]), "pairs_left_out": left_out, "parameters": model.num_parameters()}
    if is_main_process():
        save_pooling(training_args.output_dir, model.config.hidden_size, args.max_length)
    first = {name: one["recall_at_1"] for name, one in (("now", metrics["test"]), ("before", before), ("words", words))}
    result = (
        f"{first['now']:.1%} of {metrics['test']['pairs']} test texts find their partner first (before "
        f"{first['before']:.1%}, by shared words {first['words']:.1%})"
    )
    finish(
        trainer, title="Sentence embeddings", pipeline_tag="sentence-similarity", config=asdict(args), metrics=metrics,
        summary=f"{args.model_name_or_path} fine-tuned on pairs of {args.source}: {result}.",
        limits="A text's vector is the mean of its token vectors (padding left out) at length 1, as "
        "`SentenceTransformer` makes it from this directory; compare vectors by dot product.",
        inputs={"model": args.model_name_or_path, "data": args.source},
        seconds={"total": time.perf_counter() - start, "train": seconds},
        base_model=args.model_name_or_path, datasets=[describe(args.source)],
    )  # fmt: skip
    load = f"from sentence_transformers import SentenceTransformer as S; print(S('{training_args.output_dir}'))"
    done(result, training_args.output_dir, f'python -c "{load}"  # pip install sentence-transformers')


if __name__ == "__main__":
    recipe(main)
