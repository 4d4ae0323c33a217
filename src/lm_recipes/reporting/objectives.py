"""How does each objective look? Input, labels and attention of two short texts, made by the collators themselves.

`python -m lm_recipes.reporting.objectives docs/objectives` draws the pictures of docs/objectives.md; a test holds that
they are what the code makes. Texts and vocabulary are fixed, and seeds are chosen for rows in which much can be seen.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from lm_recipes import objectives
from lm_recipes.artifacts import write_text
from lm_recipes.objectives.packing import Packer, segments
from lm_recipes.reporting.strips import Matrix, Strip, picture
from lm_recipes.tokenization.special import BERT_TOKENS, FIM_TOKENS, GPT_TOKENS, MASK_TOKEN

TEXTS = ("a waterfall sings below the old stone bridge", "owls sleep until nightfall")
OTHERS = "green seven moon runs tea"  # what a token may be swapped for, besides the words of the texts
WHO = "who sees whom"
SEES = ("sees", "The token of a row sees the token of a column. Light grey: it does not.")
APART = ("", "Two documents share a block, and neither sees the other.")


def causal() -> str:
    tokenizer = gpt()
    row = block(tokenizer, 18)
    batch = objectives.CausalLanguageModeling(tokenizer.pad_token_id)([row])
    strip = strip_of("CausalLanguageModeling", tokenizer, row, batch, answers=-1)
    legend = [
        ("asked", "What has to be said. The token where the arrow begins has to say it: the one before."),
        ("", "The first token of a document is not asked, nor is padding."),
        SEES,
        APART,
        ("", "The batch has no mask. This is the one that transformers makes of position_ids that begin anew with "
             "every document."),
    ]  # fmt: skip
    return picture("Causal language modelling", [strip], [Matrix(WHO, causal_mask(batch), strip, strip)], legend)


def prefix() -> str:
    tokenizer = gpt()
    row = block(tokenizer, 18)
    batch = objectives.PrefixLanguageModeling(tokenizer.pad_token_id, seed=0)([row])
    strip = strip_of("PrefixLanguageModeling", tokenizer, row, batch, answers=-1)
    legend = [
        ("asked", "What has to be said, by the token where the arrow begins."),
        ("", "The tokens of a document up to the first arrow are its prefix. It is read in both directions, as by an "
             "encoder: the full squares on the left. None of it is asked."),
        SEES,
        APART,
    ]  # fmt: skip
    return picture("Prefix language modelling", [strip], [Matrix(WHO, mask_of(batch), strip, strip)], legend)


def fill_in_the_middle() -> str:
    tokenizer = gpt(*FIM_TOKENS)
    row, strips = block(tokenizer, 16), []
    for order, share in (("prefix, suffix, middle (PSM)", 0.0), ("suffix, prefix, middle (SPM)", 1.0)):
        batch = objectives.FillInTheMiddle(tokenizer, fim_rate=1.0, spm_share=share, seed=14)([row])
        strips.append(strip_of(f"FillInTheMiddle: {order}", tokenizer, row, batch, answers=-1))
    first = strips[0].tokens[: strips[0].pieces.index(2)]
    middle = " ".join(first[first.index("middle") + 1 : -1])
    lost = " ".join(word for word in TEXTS[0].split() if word not in first)
    legend = [
        ("hidden", "<|fim_prefix|>, <|fim_suffix|> and <|fim_middle|>, here as one word each."),
        ("asked", "What has to be said, by the token where the arrow begins: everything, as in causal modelling. "
                  f"When it comes to the middle, “{middle}”, what follows it in the text has been read."),
        ("", f"“{lost}” made room for the sentinels. Document 2 is too short for that and stays."),
        SEES,
        APART,
    ]  # fmt: skip
    return picture("Fill in the middle", strips, [Matrix(f"{WHO}, SPM", causal_mask(batch), *strips[1:] * 2)], legend)


def hybrid() -> str:
    tokenizer = gpt(MASK_TOKEN, mask_token=MASK_TOKEN)
    row, strips, matrices = block(tokenizer, 18), [], []
    for kind, share in (("a causal row", 0.0), ("a masked row", 1.0)):
        masks = objectives.MaskedLanguageModeling(tokenizer, mlm_probability=0.3, seed=25)
        batch = objectives.HybridLanguageModeling(masks, masked_share=share)([row])
        strips.append(strip_of(f"HybridLanguageModeling: {kind}", tokenizer, row, batch, answers=-1))
        matrices.append(Matrix(f"{WHO} in {kind}", mask_of(batch), strips[-1], strips[-1]))
    legend = [
        ("hidden", "Hidden."),
        ("swapped", "Swapped for a random token."),
        ("asked", "What has to be said: in both kinds of row by the token before, where the arrow begins."),
        SEES,
    ]
    return picture("Hybrid language modelling", strips, matrices, legend)


def masked() -> str:
    tokenizer = bert()
    row = block(tokenizer, 18)
    batch = objectives.MaskedLanguageModeling(tokenizer, mlm_probability=0.3, seed=36)([row])
    strip = strip_of("MaskedLanguageModeling, mlm_probability=0.3", tokenizer, row, batch)
    kept = next(token for token, asked in zip(strip.tokens, strip.asked, strict=True) if token == asked)
    legend = [
        ("hidden", "Of the chosen tokens eight in ten are hidden,"),
        ("swapped", f"one in ten is swapped for a random token, and one in ten stays: here, “{kept}”."),
        ("asked", "What has to be said, each at its own place."),
        ("", "[CLS], [SEP] and padding are never chosen."),
        SEES,
        APART,
    ]
    return picture("Masked language modelling", [strip], [Matrix(WHO, mask_of(batch), strip, strip)], legend)


def masked_together() -> str:
    tokenizer = bert()
    row, strips = block(tokenizer, 18), []
    for masking in ("token", "whole_word", "ngram", "span"):
        settings = {"mlm_probability": 0.3, "masking": masking, "exact": True, "seed": 2}
        batch = objectives.MaskedLanguageModeling(tokenizer, **settings)([row])
        strips.append(strip_of(f"masking={masking}", tokenizer, row, batch))
    return picture("Masked language modelling: what is hidden together", strips)


def permutation() -> str:
    tokenizer = bert()
    row = block(tokenizer, 18)
    collator = objectives.PermutationLanguageModeling(tokenizer, plm_probability=0.4, max_span_length=3, seed=8)
    batch = collator([row])
    visible, target = batch["perm_mask"][0].numpy() == 0, batch["labels"][0].numpy() != -100
    turns = visible[:, target].sum(1) + 1  # a target sees the targets before it
    strip = strip_of("PermutationLanguageModeling", tokenizer, row, batch, turns=turns.tolist())
    order = [strip.tokens[place] for place in np.argsort(turns) if target[place] and strip.pieces[place] == 1]
    legend = [
        ("asked", "What has to be said, each at its own place, and in which order in its document."),
        ("", f"“{order[-1]}”, the last, sees all that came before it; “{order[0]}”, the first, none. What "
             "is not asked is seen by all of its document, and sees nothing that is asked."),
        SEES,
        APART,
        ("", "This is the view of the stream that has to say the token; XLNet's other stream sees itself, too."),
    ]  # fmt: skip
    return picture("Permutation language modelling", [strip], [Matrix(WHO, visible, strip, strip)], legend)


def replaced_tokens() -> str:
    from lm_recipes.models import encoder_config
    from lm_recipes.models.replaced_tokens import GeneratorAndDiscriminator

    tokenizer = bert()
    row, special = block(tokenizer, 18), tokenizer.all_special_ids
    collator = objectives.ReplacedTokenDetection(tokenizer, 0.3, mask_share=1.0, random_share=0.0, seed=0)
    batch = collator([row])
    asked = batch["labels"] != -100
    originals = batch["labels"][asked]
    # What a generator might think: half of it goes to the original, the rest evenly to all other tokens.
    logits = torch.zeros(len(originals), len(tokenizer))
    logits[torch.arange(len(originals)), originals] = math.log(len(tokenizer) - len(special) - 1)
    networks = GeneratorAndDiscriminator(encoder_config("tiny", tokenizer, 18, "electra"), special)
    read = batch["input_ids"].masked_scatter(asked, networks.sample(logits, batch["draws"][asked]))
    generator = strip_of("ReplacedTokenDetection: the generator", tokenizer, row, batch)
    discriminator = strip_of("the discriminator", tokenizer, row, batch | {"input_ids": read})
    same = read[0].numpy() == row["input_ids"]
    said = np.where(batch["discriminated"][0], np.where(same, "=", "≠"), None)
    discriminator = replace(discriminator, asked=said.tolist())
    legend = [
        ("hidden", "Hidden from the generator, which has to say it."),
        ("swapped", "Drawn from what the generator holds for likely, and not the original."),
        ("asked", "The discriminator is asked of every token: the original (=) or not (≠)? A draw that is the "
                  "original counts as that."),
        SEES,
        APART,
        ("", "Generator and discriminator have the same mask."),
    ]  # fmt: skip
    matrix = Matrix(WHO, mask_of(batch), discriminator, discriminator)
    return picture("Replaced-token detection", [generator, discriminator], [matrix], legend)


def span_corruption() -> str:
    sentinels = [f"<|extra_{number}|>" for number in range(6)]
    tokenizer = gpt(*sentinels)
    row = block(tokenizer, 18)
    batch = objectives.SpanCorruption(tokenizer, 18, noise_density=0.4, mean_noise_span_length=1.5, seed=2)([row])
    names = ("encoder_mask", "attention_mask", "decoder_attention_mask")
    read, crossed, written = (mask_of(batch, name) for name in names)
    ids = batch["input_ids"]
    # Pieces have become shorter: those that see each other are one.
    pieces = np.unique(read.argmax(1), return_inverse=True)[1] + 1
    pieces[ids[0] == tokenizer.pad_token_id] = 0
    source = {"input_ids": ids, "labels": torch.full_like(ids, -100)}
    target = {"input_ids": batch["decoder_input_ids"], "labels": batch["labels"]}
    encoder = strip_of("SpanCorruption: the encoder", tokenizer, row, source, pieces=pieces)
    decoder = strip_of("the decoder", tokenizer, row, target, pieces=pieces[crossed.argmax(1)], aligned=False)
    matrices = [
        Matrix("encoder sees encoder", read, encoder, encoder),
        Matrix("decoder sees encoder", crossed, decoder, encoder),
        Matrix("decoder sees decoder", written, decoder, decoder),
    ]
    legend = [
        ("hidden", "Sentinels, here by their numbers: <|extra_0|>, <|extra_1|>, ... Each stands for a span that is "
                   "taken out, and announces it in the target. Every document starts at 0."),
        ("asked", "What the decoder has to say, each at its own place, having read all before it. It starts with pad."),
        SEES,
        APART,
    ]  # fmt: skip
    return picture("Span corruption", [encoder, decoder], matrices, legend)


DRAWINGS = {
    "causal": causal,
    "prefix": prefix,
    "fim": fill_in_the_middle,
    "hybrid": hybrid,
    "masked": masked,
    "masked-together": masked_together,
    "permutation": permutation,
    "replaced-tokens": replaced_tokens,
    "span-corruption": span_corruption,
}


def write_drawings(directory: str | Path = "docs/objectives") -> list[Path]:
    """One SVG for each of `DRAWINGS`; the same code makes the same bytes. Returns the files."""
    paths = [Path(directory, f"{name}.svg") for name in DRAWINGS]
    for path, draw in zip(paths, DRAWINGS.values(), strict=True):
        write_text(path, draw())
    return paths


@cache
def gpt(*reserved: str, **names: str):
    """A tokenizer of whole words with the special tokens of the GPT track."""
    words = " ".join([*TEXTS, OTHERS]).split()
    pad, bos, eos = GPT_TOKENS[:3]
    return _tokenizer([*GPT_TOKENS, *reserved], words, pad_token=pad, bos_token=bos, eos_token=eos, **names)


@cache
def bert():
    """WordPiece with the special tokens of the BERT track; two words have two pieces."""
    words = " ".join([*TEXTS, OTHERS]).replace("fall", " ##fall").split()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return _tokenizer(BERT_TOKENS, words, **dict(zip(names, BERT_TOKENS, strict=True)))


def _tokenizer(special: Sequence[str], words: Sequence[str], **names: str):
    """Of a fixed vocabulary: a trained one of this size has other ids in every process."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*special, *words]))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    others = [token for token in special if token not in names.values()]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=others, **names)


def block(tokenizer, length: int) -> dict[str, np.ndarray]:
    """Both texts in one block of this length, as packing makes it."""
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    documents = np.concatenate(texts), np.cumsum([0, *map(len, texts)])
    ((ids, position_ids),) = Packer.for_tokenizer(tokenizer, length).pack([documents])
    return {"input_ids": ids[0], "position_ids": position_ids[0]}


def strip_of(
    caption: str,
    tokenizer,
    row: dict[str, np.ndarray],
    batch: dict[str, torch.Tensor],
    *,
    pieces: np.ndarray | None = None,
    answers: int = 0,
    turns: Sequence[int] | None = None,
    aligned: bool = True,
) -> Strip:
    """The first row of a batch.

    Args:
        row: what the batch was made of.
        pieces: ints `[L]`; default: those of `row`.
        answers, turns: as in `Strip`.
        aligned: labels are what stands, or stood, at their places, so that another token there was swapped.
    """
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    if pieces is None:
        pieces = np.where(row["input_ids"] == tokenizer.pad_token_id, 0, segments(row["position_ids"]))
    named = ("pad", "bos", "eos", "cls", "sep")
    frame = [getattr(tokenizer, f"{name}_token_id") for name in named]

    def look(token: int, label: int) -> str:
        if token in frame:
            return "special"
        if token in tokenizer.all_special_ids:
            return "hidden"
        return "swapped" if aligned and label not in (-100, token) else "text"

    tokens = [_name(tokenizer, token) for token in ids]
    asked = [None if label == -100 else _name(tokenizer, label) for label in labels]
    return Strip(caption, tokens, list(map(look, ids, labels)), pieces.tolist(), asked, answers, turns)


def _name(tokenizer, token: int) -> str:
    """A special token is told by its colour and needs no brackets: fim_middle is middle, extra_0 is 0."""
    name = tokenizer.convert_ids_to_tokens(token)
    return name.strip("[]<|>").removeprefix("fim_").removeprefix("extra_")


def mask_of(batch: dict[str, torch.Tensor], name: str = "attention_mask") -> np.ndarray:
    """The mask of the first row, bool `[queries, keys]`."""
    return batch[name][0, 0].numpy()


def causal_mask(batch: dict[str, torch.Tensor]) -> np.ndarray:
    """What transformers' decoders make of the `position_ids` of a batch without a mask: bool `[L, L]`."""
    from transformers import LlamaConfig
    from transformers.masking_utils import create_causal_mask

    ids = batch["input_ids"]
    config = LlamaConfig(attn_implementation="sdpa")
    return create_causal_mask(config, ids[..., None].float(), None, None, batch["position_ids"])[0, 0].numpy()


if __name__ == "__main__":
    write_drawings(*sys.argv[1:])
