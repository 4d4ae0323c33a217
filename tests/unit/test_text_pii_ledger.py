"""What was found in a document never stands in the ledger, which people read and publish."""

import pytest

from lm_recipes.evaluation.pii import generate
from lm_recipes.sources.documents import RawDocument
from lm_recipes.text import parts
from lm_recipes.text.pii import find
from lm_recipes.text.settings import CleaningSettings
from lm_recipes.text.steps import Cleaner, clean_batch


@pytest.mark.parametrize("steps", [["normalize", "pii"], ["pii", "normalize"], ["normalize", "length", "pii"]])
def test_examples_in_the_ledger_hold_no_personal_data(tmp_path, steps):
    cleaner = Cleaner(CleaningSettings(steps=steps, min_words=60))
    examples = 0
    for number, document in enumerate(generate(130, 0, "test")):
        path = tmp_path / f"{number}.parquet"
        raw = RawDocument(f"reply to {document.text[:200]}", document.text)
        parts.write(path, clean_batch(cleaner, [raw]))
        ledger = parts.ledger_of(path)
        shown = " ".join(text for record in ledger for example in record.examples for text in example.values())
        examples += bool(shown)
        for start, end, type in find(document.text):
            assert document.text[start:end] not in shown, (type, document.format)
    assert examples > 60
