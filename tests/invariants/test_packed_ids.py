"""However a corpus is packed, its ids are those the tokenizer gives each document, and documents stay apart."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_recipes.artifacts import fingerprint
from lm_recipes.evaluation import corpus_peers
from lm_recipes.launch import UserError
from lm_recipes.models import decoder_config
from lm_recipes.objectives import CausalLanguageModeling, read_packed
from lm_recipes.objectives.packing import Packer, write_packed
from lm_recipes.sources import load_texts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def concatenated(tmp_path_factory, corpus_dir, tokenizer_dirs) -> dict[str, Path]:
    """Per track the corpus as `pack.py --packing concatenate` leaves it."""
    made = {}
    for track, tokenizer in tokenizer_dirs.items():
        made[track] = tmp_path_factory.mktemp("concatenated") / track
        flags = f"--data {corpus_dir} --tokenizer_name_or_path {tokenizer} --output_dir {made[track]} --block_size 64"
        command = [sys.executable, ROOT / "recipes" / "corpus" / "pack.py", *flags.split(), "--packing", "concatenate"]
        subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.mark.parametrize("track", ["gpt", "bert"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_concatenated_blocks_are_the_tokenizers_ids_of_all_documents_in_order(
    track, split, concatenated, corpus_dir, tokenizer_dirs
):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dirs[track])
    around = (tokenizer.cls_token_id, tokenizer.sep_token_id) if track == "bert" else (1, 2)
    row = []
    for text in load_texts(str(corpus_dir), split):
        row += [around[0], *tokenizer.encode(text, add_special_tokens=False), around[1]]
    blocks = getattr(read_packed(concatenated[track]), split)["input_ids"]
    np.testing.assert_array_equal(blocks.reshape(-1)[: len(row)], row)
    assert blocks.size - len(row) < 64


@pytest.mark.parametrize("track", ["gpt", "bert"])
def test_best_fit_holds_the_same_tokens_as_concatenation(track, packed, concatenated, tokenizer_dirs):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dirs[track])
    counts = []
    for directory in (packed[track][0], concatenated[track]):
        split = read_packed(directory).train
        ids, first = split["input_ids"], split["position_ids"] == 0
        if track == "gpt" and directory == packed[track][0]:  # a piece repeats the token before it, or has the bos
            ids = ids[~first | (ids == tokenizer.bos_token_id)]
        counts.append(np.bincount(ids.reshape(-1), minlength=len(tokenizer)))
    text = [token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids]
    np.testing.assert_array_equal(counts[0][text], counts[1][text])


@pytest.mark.parametrize("processes", [None, 2])
def test_concatenation_gives_the_ids_of_datasets_map_and_group_texts(
    processes, concatenated, corpus_dir, gpt_tokenizer, tmp_path
):
    parquet = corpus_dir / "train.parquet"
    theirs = corpus_peers.grouped(parquet, corpus_peers.framed(gpt_tokenizer), 64, processes, tmp_path)
    texts = list(load_texts(str(corpus_dir), "train"))
    dropped = corpus_peers.check_grouped(concatenated["gpt"] / "train", theirs, texts, gpt_tokenizer, processes or 1)
    assert 0 < dropped < 64 * (processes or 1)
    with pytest.raises(UserError, match="not the ids of"):  # the comparison can fail
        corpus_peers.check_grouped(concatenated["bert"] / "train", theirs, texts, gpt_tokenizer, processes or 1)


def test_pieces_of_a_concatenated_block_get_the_logits_they_get_alone(concatenated, gpt_tokenizer):
    corpus = read_packed(concatenated["gpt"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(decoder_config("tiny", gpt_tokenizer, corpus.block_size)).eval()
    rows = [row for row in corpus.train if (row["position_ids"] == 0).sum() > 1][:3]
    assert rows
    batch = CausalLanguageModeling(gpt_tokenizer.pad_token_id)(rows)
    del batch["labels"]
    with torch.no_grad():
        together = model(**batch).logits
        for number, row in enumerate(rows):
            starts = [*np.flatnonzero(row["position_ids"] == 0), corpus.block_size]
            for start, end in pairwise(starts):
                alone = model(batch["input_ids"][number : number + 1, start:end], use_cache=False).logits[0]
                torch.testing.assert_close(together[number, start:end], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("packing", ["best_fit", "concatenate"])
def test_the_same_texts_give_the_same_bytes_whatever_the_batches(
    packing, gpt_tokenizer, documents, tmp_path, monkeypatch
):
    packer = Packer.for_tokenizer(gpt_tokenizer, 64, packing)
    write_packed(documents, gpt_tokenizer, packer, tmp_path / "one")
    from lm_recipes.tokenization import fast

    small = fast.encode_batches
    monkeypatch.setattr(
        fast, "encode_batches", lambda tokenizer, texts: small(tokenizer, texts, batch_characters=9_999)
    )
    write_packed(documents, gpt_tokenizer, packer, tmp_path / "other")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "other")
