"""An encoder with any head answers in ONNX Runtime as in torch, to batches of sizes that tracing has not seen."""

import pytest
from tiny_models import bert_config, bert_tokenizer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    set_seed,
)

from lm_recipes.compression.agreement import agreement, probe, torch_answers
from lm_recipes.compression.onnx_export import export_onnx
from lm_recipes.compression.onnx_models import OnnxEncoder
from lm_recipes.compression.parity import numpy_answers

HEADS = {
    "classes": (AutoModelForSequenceClassification, {"num_labels": 3}),
    "tags": (AutoModelForTokenClassification, {"num_labels": 3}),
    "answers": (AutoModelForQuestionAnswering, {}),
    "choices": (AutoModelForMultipleChoice, {}),
    "masks": (AutoModelForMaskedLM, {}),
    "vectors": (AutoModel, {}),
}
# Each is seconds of tracing: one of each family in the ordinary run.
QUICK = {("classes", "bert"), ("tags", "modernbert")}
CASES = [
    pytest.param(head, kind, marks=() if (head, kind) in QUICK else pytest.mark.slow)
    for head in HEADS
    for kind in ("bert", "modernbert")
]


@pytest.mark.parametrize(("head", "kind"), CASES)
def test_an_encoder_answers_alike_in_onnx(head, kind, tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    auto_class, settings = HEADS[head]
    tokenizer = bert_tokenizer()
    set_seed(0)
    model = auto_class.from_config(bert_config(kind, len(tokenizer), **settings)).eval()
    export_onnx(model, tokenizer, tmp_path)
    # one row alone, and rows of all that the model reads
    batches = [probe(model, tokenizer, rows, length) for rows, length in ((1, 3), (4, 23), (5, 64))]
    found = agreement(torch_answers(model), numpy_answers(OnnxEncoder(tmp_path)), batches)
    assert found["max_answer"] > 0.1
    assert found["max_difference"] <= 1e-5 * max(1.0, found["max_answer"])
    assert found["same_decisions"] == 1.0
