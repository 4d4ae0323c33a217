"""Span corruption: nothing is lost between input and target, special tokens stay, pieces of a block stay apart."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from lm_recipes.launch import UserError
from lm_recipes.objectives.isolation import Isolation
from lm_recipes.objectives.packing import Packer
from lm_recipes.objectives.span_corruption import SpanCorruption, isolate_encoder
from lm_recipes.tokenization.fast import encode_batches
from lm_recipes.tokenization.training import train_tokenizer

LENGTH = 96


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, documents):
    directory = tmp_path_factory.mktemp("t5")
    train_tokenizer(documents[:200], "unigram", 512, reserved=["sentinels=64"]).save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def rows(tokenizer, documents) -> list[dict[str, np.ndarray]]:
    """Blocks of several pieces."""
    ids = encode_batches(tokenizer, [text[: 40 + 20 * (number % 6)] for number, text in enumerate(documents[:120])])
    packed = Packer.for_tokenizer(tokenizer, LENGTH).pack(ids)
    rows = [{"input_ids": i, "position_ids": p} for some in packed for i, p in zip(*some, strict=True)]
    return [row for row in rows if (row["position_ids"] == 0).sum() > 1]


def recovered(inputs: list[int], target: list[int], sentinels: set[int]) -> list[int]:
    """The piece that input and target were made from."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in sentinels:
            spans[token] = span = []
        else:
            span.append(token)
    return [original for token in inputs for original in spans.get(token, [token])]


def pieces_of(row: dict[str, np.ndarray], pad: int) -> list[list[int]]:
    starts = [*np.flatnonzero(row["position_ids"] == 0), len(row["input_ids"])]
    pieces = [row["input_ids"][start:stop].tolist() for start, stop in pairwise(starts)]
    return [piece for piece in pieces if piece[0] != pad]


def groups(mask: torch.Tensor, keep: torch.Tensor) -> list[list[int]]:
    """Places of a row that see each other: bool `[L, L]`, of those to `keep`."""
    seen = {tuple(torch.nonzero(line & keep)[:, 0].tolist()): None for line in mask[keep]}
    return [list(group) for group in seen]


def sentinels_of(tokenizer) -> set[int]:
    return set(tokenizer.convert_tokens_to_ids([f"<|extra_{number}|>" for number in range(64)]))


def test_the_papers_example(tokenizer):
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    tokenizer.add_tokens(words)
    piece = np.array(tokenizer.convert_tokens_to_ids(["<|bos|>", *words, "<|eos|>"]))
    taken = np.isin(piece, tokenizer.convert_tokens_to_ids(["for", "inviting", "last"]))
    inputs, target = SpanCorruption(tokenizer, LENGTH).replace(piece, taken)
    assert tokenizer.convert_ids_to_tokens(inputs) == [
        *("<|bos|>", "Thank", "you", "<|extra_0|>", "me", "to", "your", "party", "<|extra_1|>", "week", "<|eos|>")
    ]
    assert tokenizer.convert_ids_to_tokens(target) == [
        *("<|extra_0|>", "for", "inviting", "<|extra_1|>", "last", "<|extra_2|>", "<|eos|>")
    ]


@given(
    length=st.integers(0, 400), density=st.floats(0.05, 0.6), mean=st.floats(1, 6), seed=st.integers(0, 2**32 - 1),
    specials=st.booleans(),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_input_and_target_give_the_piece_back(tokenizer, length, density, mean, seed, specials):
    collator = SpanCorruption(tokenizer, 64, density, mean)
    rng = np.random.default_rng(seed)
    text = rng.choice(np.flatnonzero(~collator._is_special), length)
    piece = np.array([tokenizer.bos_token_id, *text, tokenizer.eos_token_id] if specials else text, dtype=np.int64)
    taken = collator.choose(piece, rng)
    inputs, target = collator.replace(piece, taken)
    assert recovered(inputs.tolist(), target.tolist(), sentinels_of(tokenizer)) == piece.tolist()
    # As many tokens and spans as T5 takes from a text of this length, wherever they stand
    noise = min(max(round(length * density), 1), length - 1) if length > 1 else 0
    assert taken.sum() == noise
    spans = min(max(round(noise / mean), 1), length - noise) if noise else 0
    assert np.isin(inputs, list(sentinels_of(tokenizer))).sum() == (spans if spans < 64 else 0)


def test_a_batch_gives_every_piece_back_and_never_takes_a_special_token(tokenizer, rows):
    batch = SpanCorruption(tokenizer, LENGTH)(rows)
    sentinels, pad, asked = sentinels_of(tokenizer), tokenizer.pad_token_id, 0
    for number, row in enumerate(rows):
        inputs, labels = batch["input_ids"][number], batch["labels"][number]
        together = groups(batch["encoder_mask"][number, 0], inputs != pad)
        pieces = pieces_of(row, pad)
        assert len(together) == len(pieces)
        for group, piece in zip(together, pieces, strict=True):
            # the decoder's places that read this piece
            target = labels[batch["attention_mask"][number, 0][:, group[0]] & (labels != -100)].tolist()
            special = [token for token in target if token in set(tokenizer.all_special_ids) - sentinels]
            assert special == ([tokenizer.eos_token_id] if target else [])
            assert recovered(inputs[group].tolist(), target, sentinels) == piece
            asked += bool(target)
    assert asked > 0.9 * sum(len(pieces_of(row, pad)) for row in rows)


def test_where_targets_do_not_all_fit_every_piece_has_its_turn(tokenizer, documents):
    ids = tokenizer(documents[0])["input_ids"][:LENGTH]
    row = {"input_ids": np.array(ids), "position_ids": np.tile(np.arange(4), LENGTH // 4)}
    heard = set()
    for epoch in range(40):
        batch = SpanCorruption(tokenizer, LENGTH, epoch=epoch)([row])
        assert (batch["labels"] != -100).sum() <= batch["labels"].shape[1]
        asked = batch["attention_mask"][0, 0][batch["labels"][0] != -100]
        assert 0 < len({tuple(line.tolist()) for line in asked}) < LENGTH // 4
        assert batch["labels"].eq(tokenizer.eos_token_id).sum() == len({tuple(line.tolist()) for line in asked})
        heard |= {int(line.nonzero()[0]) // 4 for line in asked}
    assert heard == set(range(LENGTH // 4))


def test_the_decoder_reads_its_labels_shifted_as_transformers_shifts_them(tokenizer, documents):
    ids = np.array(tokenizer(" ".join(documents[:9]))["input_ids"][:LENGTH])
    batch = SpanCorruption(tokenizer, LENGTH)([{"input_ids": ids, "position_ids": np.arange(LENGTH)}])
    asked = batch["labels"] != -100
    assert asked.sum() == round(0.15 * LENGTH) + round(round(0.15 * LENGTH) / 3) + 2
    assert torch.equal(batch["decoder_input_ids"][asked], model_of(tokenizer)._shift_right(batch["labels"])[asked])


def test_a_rows_corruption_depends_on_seed_epoch_and_row_alone(tokenizer, rows):
    def same(one: dict, other: dict) -> bool:
        return all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in one)

    collator = SpanCorruption(tokenizer, LENGTH, seed=3, epoch=2)
    together = collator(rows[:6])
    for number in reversed(range(6)):
        alone = collator([rows[number]])
        assert torch.equal(together["labels"][number], alone["labels"][0])
        assert torch.equal(together["encoder_mask"][number], alone["encoder_mask"][0])
    assert same(together, SpanCorruption(tokenizer, LENGTH, seed=3, epoch=2)(rows[:6]))
    for other in (SpanCorruption(tokenizer, LENGTH, seed=3), SpanCorruption(tokenizer, LENGTH, epoch=2)):
        assert not same(together, other(rows[:6]))


def model_of(tokenizer, attention: str = "sdpa") -> T5ForConditionalGeneration:
    """A tiny T5 whose weights are large enough that a leak shows in the logits."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config._attn_implementation = attention
    model = T5ForConditionalGeneration(config).eval()
    isolate_encoder(model)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_pieces_of_a_block_do_not_see_each_other(tokenizer, rows, attention):
    model = model_of(tokenizer, attention)
    batch = SpanCorruption(tokenizer, LENGTH, isolation=Isolation(additive=attention == "eager"))(rows[:8])
    plain = SpanCorruption(tokenizer, LENGTH)(rows[:8])
    leak = {name: torch.ones_like(mask) for name, mask in plain.items() if name == "encoder_mask"}
    labels, pad = batch.pop("labels"), tokenizer.pad_token_id
    with torch.no_grad():
        logits, leaking = model(**batch).logits, model(**plain | leak).logits
        compared, leaked = 0, 0.0
        for number in range(8):
            inputs = batch["input_ids"][number]
            for group in groups(plain["encoder_mask"][number, 0], inputs != pad):
                places = plain["attention_mask"][number, 0][:, group[0]] & (labels[number] != -100)
                if places.any():
                    ids, decoder_ids = inputs[group][None], batch["decoder_input_ids"][number][places][None]
                    alone = model(input_ids=ids, decoder_input_ids=decoder_ids).logits[0]
                    assert (logits[number][places] - alone).abs().max() < 1e-4
                    leaked = max(leaked, (leaking[number][places] - alone).abs().max().item())
                    compared += 1
    assert compared > 8
    assert leaked > 1e-1
    assert torch.isfinite(logits).all()


def test_tokenizers_and_rates_that_will_not_do_are_refused_in_one_line(tokenizer, bert_tokenizer, gpt_tokenizer):
    for other in (bert_tokenizer, gpt_tokenizer):
        with pytest.raises(UserError, match=r"10 sentinels \(there are 0\).*--reserved_tokens sentinels=10"):
            SpanCorruption(other, 180)
    with pytest.raises(UserError, match=r"needs pad, eos and 103 sentinels \(there are 64\)"):
        SpanCorruption(tokenizer, 2048)
    for wrong in ({"noise_density": 1.0}, {"mean_noise_span_length": 0.5}):
        with pytest.raises(UserError, match="noise_density is"):
            SpanCorruption(tokenizer, LENGTH, **wrong)
