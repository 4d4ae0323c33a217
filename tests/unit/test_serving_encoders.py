"""The BERT server over real HTTP: what it answers is what predict.py, ask.py and the pipelines answer."""

import base64

import httpx
import numpy as np
import pytest
from serving_tools import NAMED, running, save_encoder
from tiny_adapters import NAMES, make_adapter
from tiny_models import bert_tokenizer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    pipeline,
)

from lm_recipes.decoding.tagging import tag_texts
from lm_recipes.evaluation.answers import answer
from lm_recipes.evaluation.calibration import Calibration
from lm_recipes.evaluation.choices import choose
from lm_recipes.launch import UserError
from lm_recipes.serving.app import create_app
from lm_recipes.serving.served import asked_of
from lm_recipes.training.embeddings import embeddings_of

TOKENIZER = bert_tokenizer()
TEXTS = [
    "the dog",
    "paris is the capital of france; rome is the capital of italy.",
    "a doctor asks the patient how the knee has been since the fall. " * 8,
]


def ask(address: str, path: str, **asked) -> list[dict]:
    response = httpx.post(f"{address}{path}", json=asked, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()["answers"]


def classes(predict, text: str) -> dict[str, float]:
    """What transformers' pipeline says of a text."""
    (found,) = predict([text], truncation=True, max_length=64, top_k=None)
    return {one["label"]: one["score"] for one in found}


def test_classes_are_the_pipelines_and_evidence_is_what_a_text_loses_with_a_word(tmp_path):
    directory = save_encoder(tmp_path / "m", AutoModelForSequenceClassification, **NAMED)
    predict = pipeline("text-classification", model=directory)
    with running(create_app(directory)) as address:
        together = ask(address, "/classify", texts=TEXTS)
        alone = [ask(address, "/classify", texts=[text])[0] for text in TEXTS]
        (shown,) = ask(address, "/classify", texts=["the dog barks, paris"], evidence=True)
    for text, one, own in zip(TEXTS, together, alone, strict=True):
        expected = classes(predict, text)
        assert one["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert one["probabilities"] == pytest.approx(own["probabilities"], abs=1e-5)
        assert one["label"] == max(expected, key=expected.get)
    assert [one["truncated"] for one in together] == [False, False, True]
    assert [word["text"] for word in shown["evidence"]] == ["the", "dog", "barks", ",", "paris"]
    whole, without = (classes(predict, text) for text in ("the dog barks, paris", "the  barks, paris"))
    for name in NAMES:
        assert shown["evidence"][1]["change"][name] == pytest.approx(whole[name] - without[name], abs=1e-5)


def test_a_saved_calibration_is_kept_to(tmp_path):
    directory = save_encoder(tmp_path / "m", AutoModelForSequenceClassification, **NAMED)
    with running(create_app(directory)) as address:
        (before,) = ask(address, "/classify", texts=["the dog"])
    Calibration("single_label_classification", NAMES, temperature=1e6).save(directory)
    with running(create_app(directory)) as address:
        (after,) = ask(address, "/classify", texts=["the dog"])
    assert after["probabilities"] == pytest.approx(dict.fromkeys(NAMES, 1 / 3), abs=1e-3)
    assert before["probabilities"] != pytest.approx(dict.fromkeys(NAMES, 1 / 3), abs=1e-3)


def test_tags_are_the_taggers(tmp_path):
    names = {0: "O", 1: "B-place", 2: "I-place"}
    directory = save_encoder(tmp_path / "m", AutoModelForTokenClassification, id2label=names)
    model = AutoModelForTokenClassification.from_pretrained(directory).eval()
    expected = tag_texts(TEXTS[:2], model, TOKENIZER, 64, 32)
    with running(create_app(directory)) as address:
        found = ask(address, "/tag", texts=TEXTS[:2])
    for one, wanted in zip(found, expected, strict=True):
        assert [word["tag"] for word in one["words"]] == [word["tag"] for word in wanted["words"]]
        assert [item["text"] for item in one["entities"]] == [item["text"] for item in wanted["entities"]]


def test_answers_are_those_of_ask(tmp_path):
    directory = save_encoder(tmp_path / "m", AutoModelForQuestionAnswering)
    model = AutoModelForQuestionAnswering.from_pretrained(directory).eval()
    expected = answer(model, TOKENIZER, "what is rome?", TEXTS[1], n_best=4)
    with running(create_app(directory)) as address:
        (found,) = ask(address, "/answer", question="what is rome?", context=TEXTS[1], n_best=4)
        long = httpx.post(f"{address}/answer", json={"question": "rome " * 80, "context": "a"})
    assert [span["text"] for span in found["n_best"]] == [span.text for span in expected.spans]
    assert found["answer"] == TEXTS[1][found["start"] : found["end"]] == expected.spans[0].text
    assert found["no_answer_probability"] == pytest.approx(expected.no_answer_probability, abs=1e-5)
    assert long.status_code == 400


def test_choices_are_those_of_ask(tmp_path):
    directory = save_encoder(tmp_path / "m", AutoModelForMultipleChoice)
    model = AutoModelForMultipleChoice.from_pretrained(directory).eval()
    expected = choose(model, TOKENIZER, "who barks?", ["the dog", "the knee", "paris"])
    with running(create_app(directory)) as address:
        (found,) = ask(address, "/choose", question="who barks?", choices=["the dog", "the knee", "paris"])
    assert found["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_masks_are_filled_as_the_pipeline_fills_them(tmp_path):
    directory = save_encoder(tmp_path / "m", AutoModelForMaskedLM)
    texts = ["the quick [MASK] fox", "[MASK] is the capital of [MASK]."]
    expected = pipeline("fill-mask", model=directory)(texts, top_k=3)
    with running(create_app(directory)) as address:
        one, two = ask(address, "/fill-mask", texts=texts, top_k=3)
        without = httpx.post(f"{address}/fill-mask", json={"texts": ["no mask"]})
    assert one["masks"] == [pytest.approx({e["token_str"]: e["score"] for e in expected[0]}, abs=1e-5)]
    assert two["masks"][1] == pytest.approx({e["token_str"]: e["score"] for e in expected[1][1]}, abs=1e-5)
    assert (without.status_code, "no [MASK]" in without.json()["error"]["message"]) == (400, True)


def test_embeddings_come_plain_and_in_openais_two_forms(tmp_path):
    directory = save_encoder(tmp_path / "m", AutoModel)
    model = AutoModel.from_pretrained(directory).eval()
    ids = TOKENIZER(TEXTS, truncation=True, max_length=64)["input_ids"]
    expected = embeddings_of(model, TOKENIZER, ids)
    with running(create_app(directory)) as address:
        plain = ask(address, "/embed", texts=TEXTS)
        forms = [
            httpx.post(f"{address}/v1/embeddings", json={"input": TEXTS, "encoding_format": form}).json()
            for form in ("float", "base64")
        ]
    np.testing.assert_allclose([one["embedding"] for one in plain], expected, atol=1e-5)
    np.testing.assert_allclose([one["embedding"] for one in forms[0]["data"]], expected, atol=1e-5)
    decoded = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in forms[1]["data"]]
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    assert forms[0]["usage"]["prompt_tokens"] == sum(map(len, ids))


def test_requests_name_the_adapter_that_answers_them(tmp_path):
    one, first, _ = make_adapter("bert", tmp_path, "one", seed=1)
    two, second, _ = make_adapter("bert", tmp_path, "two", seed=2)
    expected = {}
    for name, model in (("one", first), ("two", second)):
        predict = pipeline("text-classification", model=model.get_base_model(), tokenizer=TOKENIZER)
        expected[name] = classes(predict, "the dog")
    with running(create_app([one, two])) as address:
        for name in ("one", "two", "one"):
            (found,) = ask(address, "/classify", texts=["the dog"], model=name)
            assert found["probabilities"] == pytest.approx(expected[name], abs=1e-4)
    assert expected["one"] != pytest.approx(expected["two"], abs=1e-4)


def test_a_bad_question_does_not_spoil_its_neighbours(tmp_path):
    """Requests that wait together are read together; the one that is wrong is told so alone."""
    from concurrent.futures import ThreadPoolExecutor

    directory = save_encoder(tmp_path / "m", AutoModelForMaskedLM)
    with running(create_app(directory)) as address, ThreadPoolExecutor(16) as clients:
        texts = ["no mask" if number % 4 == 0 else "the [MASK] fox" for number in range(32)]
        asked = [clients.submit(httpx.post, f"{address}/fill-mask", json={"texts": [text]}) for text in texts]
        statuses = [answer.result().status_code for answer in asked]
    assert statuses == [400 if number % 4 == 0 else 200 for number in range(32)]


def test_a_model_of_no_known_head_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no model"):
        asked_of(str(tmp_path / "empty"))
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text(
        '{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}'
    )
    with pytest.raises(UserError, match="a T5ForConditionalGeneration is not served"):
        asked_of(str(tmp_path / "t5"))
