"""What does every training of a contest read, and what is its model judged by?"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lm_recipes.evaluation import pretraining_peers as peers
from lm_recipes.evaluation.held_out import (
    bits_per_byte,
    packed_batches,
    stream_batches,
    summed_nats,
    without_isolation,
)
from lm_recipes.evaluation.runs import RECIPES, launch, words


@dataclass
class Texts:
    """One corpus and tokenizer, as ours and the peers read them: made once, before any clock runs.

    Args:
        track: "gpt" or "bert".
        text: directory of a cleaned corpus.
        work: where what is made of it is kept.
        block_size: tokens of a row.
        eval_kilobytes: of the validation split, that losses are measured on.
    """

    track: str
    text: Path
    tokenizer_dir: Path
    work: Path
    block_size: int
    eval_kilobytes: float = 1000.0

    def with_vocabulary(self, entries: int, learn: bool) -> "Texts":
        """The same with a WordPiece tokenizer of so many entries, which is learned from the corpus if it has to be."""
        tokenizer = self.work / f"tokenizer-{entries}"
        if learn and not tokenizer.exists():
            self.work.mkdir(parents=True, exist_ok=True)
            flags = {"data": self.text, "model_type": "wordpiece", "vocab_size": entries, "output_dir": tokenizer}
            launch([RECIPES / "corpus" / "train_tokenizer.py", *words(flags)], self.work)
        return replace(self, tokenizer_dir=tokenizer)

    def packed(self, packing: str) -> Path:
        """Our blocks."""
        output = self._file(f"packed-{packing}")
        if not output.exists():
            flags = {"data": self.text, "tokenizer_name_or_path": self.tokenizer_dir, "output_dir": output}
            flags |= {"block_size": self.block_size, "packing": packing}
            launch([RECIPES / "corpus" / "pack.py", *words(flags)], output.parent)
        return output

    def grouped(self) -> Path:
        """The examples' blocks."""
        output = self._file("grouped")
        if not (output / "state.json").exists():  # `datasets` writes it last
            peers.write_grouped(self.text / "train.parquet", self.tokenizer, self.block_size, output)
        return output

    def stream(self, seed: int) -> Path:
        """nanoGPT's files."""
        from lm_recipes.sources import load_texts

        output = self._file(f"stream-{seed}")
        if not (output / "meta.pkl").exists():  # `write_stream` writes it last
            texts = [load_texts(str(self.text), split) for split in ("train", "validation")]
            train, validation = (peers.stream_of(some, self.tokenizer) for some in texts)
            peers.write_stream(train, validation, len(self.tokenizer), seed, output)
        return output

    def _file(self, name: str) -> Path:
        folder = self.work / "data" / f"{self.tokenizer_dir.name}-{self.block_size}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    @cached_property
    def tokenizer(self):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.tokenizer_dir)

    @cached_property
    def held_out(self) -> list[str]:
        """The first texts of the validation split; the test split is never read."""
        from lm_recipes.tokenization.samples import comparison_texts

        (texts,) = comparison_texts(str(self.text), self.eval_kilobytes).values()
        return texts

    def units_per_nat(self) -> float:
        """What turns a training loss (nats per token, of the examples' tokens) into the unit of `loss_of`."""
        if self.track == "bert":
            return 1.0
        return bits_per_byte(len(peers.stream_of(self.held_out, self.tokenizer)) - 1, self.held_out)

    def loss_of(self, model_dir: Path, packed: bool) -> float:
        """Bits per byte of the held-out text (gpt), nats per masked token at fixed 15 % masks (bert).

        Args:
            packed: the model was trained on our blocks, documents kept apart; else as the examples join them.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

        from lm_recipes.models import isolation_of
        from lm_recipes.models.loading import without_loading_report
        from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling

        kind = AutoModelForCausalLM if self.track == "gpt" else AutoModelForMaskedLM
        with without_loading_report():
            model = kind.from_pretrained(model_dir, dtype=torch.float32).eval()
        size, texts, pad = self.block_size, self.held_out, self.tokenizer.pad_token_id
        if self.track == "bert":
            collator = MaskedLanguageModeling(self.tokenizer, 0.15, isolation=isolation_of(model.config, "sdpa"))
            batches = packed_batches(texts, self.tokenizer, size, collator)
            nats, asked = summed_nats(model, batches if packed else without_isolation(batches, pad))
            return nats / asked
        if packed:
            batches = packed_batches(texts, self.tokenizer, size, CausalLanguageModeling(pad))
        else:
            batches = stream_batches(peers.stream_of(texts, self.tokenizer), size)
        return bits_per_byte(summed_nats(model, batches)[0], texts)
