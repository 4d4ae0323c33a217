"""The card says what the record says, in a form the Hub reads."""

from huggingface_hub import ModelCard

from lm_recipes.artifacts import write_results
from lm_recipes.reporting.cards import model_card
from lm_recipes.sources import describe

METRICS = {
    "test": {"accuracy": 0.87654321, "accuracy_low": 0.85, "accuracy_high": 0.9, "rows": 1000},
    "baselines": {"majority": 0.5},
    "sample": {"prompt": "My knee\nhurts.", "after": "Since when?"},
}


def make_card(tmp_path, config, **options) -> str:
    record = write_results(
        tmp_path, config=config, inputs={"model": "demo:minilm"}, metrics=METRICS, seconds={"train": 12.3}
    )
    return model_card(title="Reviews", summary="Sorts reviews.", record=record, **options)


def test_metadata_names_task_base_model_data_and_test_results(tmp_path):
    text = make_card(
        tmp_path,
        {"learning_rate": 1e-4},
        pipeline_tag="text-classification",
        base_model="demo:minilm",
        datasets=[describe("demo:movie-reviews"), describe("some/dataset")],
    )
    data = ModelCard(text).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.datasets == ["some/dataset"]
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-classification", "apache-2.0")
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.87654321, "test")


def test_a_card_states_the_licence_of_data_that_forbids_commercial_use(tmp_path):
    text = make_card(
        tmp_path, {}, pipeline_tag="text-generation", base_model="demo:smollm2", datasets=[describe("demo:legal-qa")]
    )
    assert ModelCard(text).data.license == "cc-by-nc-4.0"


def test_every_number_sample_licence_and_setting_is_on_the_card(tmp_path):
    text = make_card(
        tmp_path,
        {"learning_rate": 1e-4, "unused": None},
        pipeline_tag="text-classification",
        datasets=[describe("demo:movie-reviews")],
        limits="English film reviews only.",
    )
    for expected in (
        "| test: accuracy | 0.8765 (95 %: 0.85 to 0.9) |",
        "| test: rows | 1,000 |",
        "| baselines: majority | 0.5 |",
        "> My knee\n> hurts.",
        "Licence: MIT.",
        "learning_rate: 0.0001",
        "English film reviews only.",
        "train 12 s",
        "transformers 5.",
    ):
        assert expected in text
    assert "accuracy low" not in text
    assert "unused" not in text


def test_an_adapter_is_a_peft_model_and_a_local_base_is_no_hub_id(tmp_path):
    text = make_card(
        tmp_path,
        {"use_peft": True, "assistant_only_loss": True},
        pipeline_tag="text-generation",
        base_model=str(tmp_path),
    )
    assert ModelCard(text).data.library_name == "peft"
    assert ModelCard(text).data.base_model is None
    assert '{"role": "user"' in text
