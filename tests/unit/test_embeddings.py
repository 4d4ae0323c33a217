"""Sentence embeddings: vectors, loss, retrieval numbers, pairs, and the script from pairs to a loadable directory."""

import json

import numpy as np
import pytest
import torch
from objectives import RECIPES, launch
from scipy import sparse
from tiny_models import TEXT, bert_config, bert_tokenizer, save
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from lm_recipes.evaluation.retrieval import ranks, retrieval_metrics, tfidf_retrieval
from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.sources.demo import DEMOS
from lm_recipes.sources.pairs import load_pairs
from lm_recipes.training.embeddings import PairCollator, embeddings_of, in_batch_loss, sentence_vectors


def test_a_sentence_is_the_mean_of_its_tokens_without_padding():
    hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    found = sentence_vectors(hidden, mask)
    assert torch.allclose(found[0], functional.normalize(hidden[0, :3].mean(0), dim=0))
    assert torch.allclose(found.norm(dim=1), torch.ones(2))


def test_the_loss_is_that_of_picking_the_own_positive():
    anchors, positives = (functional.normalize(torch.randn(4, 8), dim=1) for _ in range(2))
    similar = 20 * anchors @ positives.T
    expected = -torch.stack([similar[i].log_softmax(0)[i] for i in range(4)]).mean()
    assert torch.allclose(in_batch_loss(anchors, positives, 20.0), expected)
    assert in_batch_loss(anchors, anchors, 100.0) < in_batch_loss(anchors, positives, 100.0)


def test_a_batch_is_anchors_and_then_positives():
    tokenizer = bert_tokenizer()
    batch = PairCollator(tokenizer)(
        [{"anchor": [2, 7, 3], "positive": [2, 3]}, {"anchor": [2, 3], "positive": [2, 9, 8, 3]}]
    )
    assert batch["input_ids"].tolist() == [[2, 7, 3, 0], [2, 3, 0, 0], [2, 3, 0, 0], [2, 9, 8, 3]]
    assert batch["attention_mask"].sum(1).tolist() == [3, 2, 2, 4]


def test_vectors_come_in_order_and_do_not_depend_on_batches():
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    model = AutoModel.from_config(bert_config("bert", len(tokenizer))).eval()
    rows = [tokenizer(text[: 5 + 7 * i])["input_ids"] for i in range(4) for text in TEXT]
    alone, together = (embeddings_of(model, tokenizer, rows, size) for size in (1, 8))
    assert np.allclose(alone, together, atol=1e-5)
    with torch.no_grad():
        one = sentence_vectors(model(torch.tensor([rows[5]])).last_hidden_state, torch.ones(1, len(rows[5])))
    assert np.allclose(alone[5], one[0], atol=1e-5)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_ranks_count_who_is_nearer_and_ties_against(kind):
    anchors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    positives = np.array([[1.0, 0.0], [2.0, 0.5], [1.0, 0.0]])
    assert ranks(kind(anchors), kind(positives)).tolist() == [3, 1, 3]


def test_retrieval_numbers():
    found = retrieval_metrics(np.array([1, 1, 2, 20]))
    assert (found["recall_at_1"], found["recall_at_10"], found["mrr_at_10"]) == (0.5, 0.75, 2.5 / 4)
    assert found["recall_at_1_low"] <= 0.5 <= found["recall_at_1_high"]


def test_shared_words_find_each_other():
    anchors, positives = ["a red fox", "the old dog", "paris in spring"], ["fox, red", "dog, old", "paris"]
    assert tfidf_retrieval(anchors + positives, anchors, positives)["recall_at_1"] == 1.0


def write_pairs(path, rows) -> str:
    path.write_text("\n".join(json.dumps({"question": one, "answer": other}) for one, other in rows))
    return str(path)


COLUMNS = {"anchor_column": "question", "positive_column": "answer"}


def test_a_text_stands_in_one_pair_only(tmp_path):
    pairs = [(f"q {i}", f"a {i}") for i in range(200)]
    source = write_pairs(tmp_path / "faq.jsonl", [*pairs, ("Q  7", "new"), ("new", "A 8"), ("more", "text")])
    rows, left_out = load_pairs(source, **COLUMNS)
    assert left_out == 2
    assert sum(map(len, rows.values())) == 201
    assert all(set(table.column_names) == {"anchor", "positive"} for table in rows.values())


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([("q", "a"), ("r", " ")] * 9, COLUMNS, "row 2: no text in `answer`"),
        ([("q", "a")] * 9, {}, "no column `anchor`; it has question, answer"),
        ([("q", "a")] * 9, COLUMNS, "pairs for the .* split"),
    ],
)
def test_pairs_that_cannot_be_learned_from_are_refused(rows, columns, said, tmp_path):
    with pytest.raises(UserError, match=said):
        load_pairs(write_pairs(tmp_path / "faq.jsonl", rows), **columns)


def test_openings_of_articles_are_cut_after_a_sentence():
    table = load_table("demo:wiki-openings")
    assert len(table) == DEMOS["demo:wiki-openings"].rows
    assert all(row["anchor"][-1] in ".!?" and row["positive"][0].isupper() for row in table)


def test_embed_learns_pairs_and_leaves_a_plain_model_with_its_pooling(tmp_path):
    torch.manual_seed(0)
    encoder = save(
        tmp_path / "encoder", AutoModel.from_config(bert_config("bert", len(bert_tokenizer()))), bert_tokenizer()
    )
    words = ("fox", "dog", "doctor", "patient", "paris", "rome", "knee", "capital")
    pairs = [(f"the {words[i % 8]} {i}", f"{i} of the {words[i % 8]} and italy") for i in range(160)]
    source = write_pairs(tmp_path / "faq.jsonl", pairs)
    flags = (
        f"--config {RECIPES}/bert/configs/embed-minilm.yaml --model_name_or_path {encoder} --source {source} "
        "--anchor_column question --positive_column answer --max_length 32 --max_steps 40 --learning_rate 3e-3 "
        "--per_device_train_batch_size 32 --use_cpu True --bf16 False --disable_tqdm True --eval_strategy epoch "
        f"--output_dir {tmp_path / 'out'}"
    )
    launch([f"{RECIPES}/bert/embed.py", *flags.split()])
    metrics = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]
    assert metrics["test"]["mrr_at_10"] > metrics["test_before"]["mrr_at_10"]
    assert set(metrics["baselines"]["tfidf"]) == set(metrics["test"])
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("the fox")["input_ids"]
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    pooling = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == model.config.hidden_size
    assert [name for name, used in pooling.items() if used is True] == ["pooling_mode_mean_tokens"]
    assert "pipeline_tag: sentence-similarity" in (tmp_path / "out" / "README.md").read_text()
