"""The guide to choosing a vocabulary shows the sweep that was measured."""

from pathlib import Path

from lm_recipes.artifacts import read_json
from lm_recipes.reporting.tokenizers import CLOSE, OPEN, vocabulary_table, with_vocabulary_table

ROOT = Path(__file__).parents[2]
ROW = {
    "name": "BPE, 512", "bytes_per_token": 2.0, "rare_share": 0.25, "parameters": 1_000_000,
    "non_embedding_parameters": 750_000, "tokens_per_second": 1234.5, "megabytes_read": 1.5, "bits_per_byte": 2.5,
}  # fmt: skip


def test_the_table_in_the_guide_is_the_one_that_was_measured():
    shown = (ROOT / "docs" / "tokenizers.md").read_text().split(OPEN)[1].split(CLOSE)[0].strip()
    record = ROOT / "results" / "bench-vocabulary.json"
    assert shown == (vocabulary_table(read_json(record, "record")) if record.exists() else "No record yet.")


def test_a_record_becomes_the_table_and_nothing_else_changes():
    record = {"metrics": {"vocabularies": [ROW, {**ROW, "name": "BPE, 1,024", "bits_per_byte": 2.25}]}}
    page = with_vocabulary_table(f"before\n{OPEN}\nold\n{CLOSE}\nafter\n", record)
    assert page.startswith(f"before\n{OPEN}\n| vocabulary |")
    assert page.endswith(f"|\n{CLOSE}\nafter\n")
    assert "| BPE, 512 | 2.00 | 25% | 1.00M | 25% | 1,234 | 1.50 | 2.500 |" in page
    assert "**2.250** |" in page
