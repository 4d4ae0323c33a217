"""How large a vocabulary? For each size a tokenizer and a small GPT that is trained for equal time: bits per byte.

At 4,096 entries also GPT-4's and Qwen2's pre-tokenizers, Unigram, and 103 reserved tokens. Models take turns of a few
seconds, so that all of them meet the same machine; rates, batch and schedule are those of `make quickstart`.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace

from lm_recipes.launch import done, parse, recipe

BLOCK, BATCH, TURNS = 256, 16, 5
NAMES = ("input_ids", "position_ids")


@dataclass
class VocabularyBench:
    """Which text, which sizes, how long."""

    data: str = field(default="runs/quickstart/corpus", metadata={"help": "Corpus directory made by clean.py."})
    sizes: list[int] = field(
        default_factory=lambda: [2**n for n in range(9, 16)], metadata={"help": "Vocabulary sizes."}
    )
    seconds: float = field(default=30.0, metadata={"help": "Training time of each model."})
    megabytes: float = field(default=8.0, metadata={"help": "Text to learn tokenizers from and train on, at most."})
    eval_kilobytes: float = field(default=120.0, metadata={"help": "Validation text to measure on."})
    output_dir: str = field(default="runs/bench-vocabulary", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(VocabularyBench, description=__doc__)

    import numpy as np
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.models import count_parameters, decoder_config
    from lm_recipes.objectives import CausalLanguageModeling, Packer
    from lm_recipes.tokenization.fast import encode_batches
    from lm_recipes.tokenization.samples import comparison_texts, texts_by_language
    from lm_recipes.tokenization.training import train_tokenizer
    from lm_recipes.training.optimizer import MuonAdamW

    start = time.perf_counter()
    (train,) = texts_by_language([args.data], "train", megabytes=args.megabytes).values()
    (held_out,) = comparison_texts(args.data, args.eval_kilobytes).values()
    held_out_bytes = sum(len(text.encode()) for text in held_out)
    plans = {f"BPE, {size:,}": ("bpe", size, {}) for size in args.sizes} | {
        "BPE, 4,096, GPT-4's pre-tokenizer": ("bpe", 4096, {"pre_tokenizer": "gpt4"}),
        "BPE, 4,096, Qwen2's pre-tokenizer": ("bpe", 4096, {"pre_tokenizer": "qwen2"}),
        "BPE, 4,096, 103 of them reserved": ("bpe", 4096, {"reserved": ["fim", "sentinels"]}),
        "Unigram, 4,096": ("unigram", 4096, {}),
    }

    # 1. A tokenizer, packed blocks and a fresh model for each.
    runs, records = [], []
    for name, (kind, size, options) in tqdm(plans.items(), desc="tokenizers"):
        begun = time.perf_counter()
        tokenizer = train_tokenizer(train, kind, size, **options)
        record = {"name": name, "vocab_size": len(tokenizer), "tokenizer_seconds": time.perf_counter() - begun}
        torch.manual_seed(0)
        run, config = SimpleNamespace(steps=0, seconds=0.0), decoder_config("1M", tokenizer, BLOCK)
        run.model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
        run.optimizer = MuonAdamW(run.model, learning_rate=5e-3, muon_learning_rate=0.03)
        run.collator, packer = CausalLanguageModeling(tokenizer.pad_token_id), Packer.for_tokenizer(tokenizer, BLOCK)
        packed = [packer.pack(encode_batches(tokenizer, documents)) for documents in (train, held_out)]
        run.blocks, run.held_out = ([rows for some in each for rows in zip(*some, strict=True)] for each in packed)
        run.order = np.random.default_rng(0).permutation(len(run.blocks))
        rare = np.bincount(np.concatenate([ids for ids, _ in run.blocks]), minlength=len(tokenizer)) < 100
        records.append(record | {"rare_share": float(rare.mean()), **count_parameters(run.model)})
        runs.append(run)

    # 2. Train in turns; 3. measure on text nobody has seen: the likelihood of all of it, per byte.
    for run, until in tqdm([(run, args.seconds * (n + 1) / TURNS) for n in range(TURNS) for run in runs], desc="turns"):
        while run.seconds < until:
            begun = time.perf_counter()
            rows = run.order[np.arange(run.steps * BATCH, (run.steps + 1) * BATCH) % len(run.blocks)]
            with torch.autocast("cpu", torch.bfloat16):
                run.model(
                    **run.collator([dict(zip(NAMES, run.blocks[row], strict=True)) for row in rows])
                ).loss.backward()
            for group, peak in zip(run.optimizer.param_groups, (0.03, 5e-3), strict=True):
                group["lr"] = peak * max(min(1, (run.steps + 1) / 10, (1 - run.seconds / args.seconds) / 0.4), 0)
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.steps += 1
            run.seconds += time.perf_counter() - begun
    for run, record in zip(tqdm(runs, desc="measure"), records, strict=True):
        nats, tokens = 0.0, 0
        for first in range(0, len(run.held_out), BATCH):
            batch = run.collator([dict(zip(NAMES, row, strict=True)) for row in run.held_out[first : first + BATCH]])
            asked = int((batch["labels"] != -100).sum())
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                nats += float(run.model.eval()(**batch).loss) * asked
            tokens += asked
        record |= {
            "bytes_per_token": held_out_bytes / tokens,
            "tokens_per_second": run.steps * BATCH * BLOCK / run.seconds,
            "megabytes_read": run.steps * BATCH * BLOCK * held_out_bytes / tokens / 1e6,
            "bits_per_byte": nats / math.log(2) / held_out_bytes,
        }
    with atomic_directory(args.output_dir) as directory:
        write_results(
            directory,
            config=asdict(args) | {"threads": torch.get_num_threads()},
            inputs={"data": args.data},
            metrics={"bits_per_byte": {r["name"]: r["bits_per_byte"] for r in records}, "vocabularies": records},
            seconds={"total": time.perf_counter() - start},
        )
    done(
        f"bits per byte of {len(records)} vocabularies",
        args.output_dir,
        f"python recipes/report.py --keep {args.output_dir}",
    )


if __name__ == "__main__":
    recipe(main)
