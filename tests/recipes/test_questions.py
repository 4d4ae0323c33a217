"""answer.py, choose.py and ask.py with every shipped config: two steps on small data, in this process."""

import json
from pathlib import Path

import pytest
from objectives import RECIPES, launch
from tiny_models import bert_config, bert_tokenizer, save
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    set_seed,
)

from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.launch import UserError

CONFIGS = RECIPES / "bert" / "configs"
SMALL = "--max_steps 2 --logging_steps 1 --seed 3 --use_cpu True --bf16 False --report_to none --disable_tqdm True "
PLACES = ["paris", "rome", "france", "italy", "the knee", "a doctor"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    """Tiny encoders, questions about long and short texts of which some have no answer, and choices."""
    directory = tmp_path_factory.mktemp("inputs")
    questions, choices = [], []
    for i in range(60):
        place = PLACES[i % 6]
        context = f"the quick fox {i} jumps over {place}. " + "the lazy dog barks at the fox. " * (i % 4)
        answers = (
            {"text": [place], "answer_start": [context.index(place)]} if i % 5 else {"text": [], "answer_start": []}
        )
        questions.append({"id": f"q{i}", "question": "over what?", "context": context, "answers": answers})
        three = ["paris", "the fox", "a knee"]
        choices.append({"context": f"the dog {i}", "question": f"who {i}?", "choices": three, "label": i % 3})
    columns = [{**row, "sent1": row["context"], "sent2": row["question"]} for row in choices]
    for row in columns:
        row |= {f"ending{i}": text for i, text in enumerate([*row.pop("choices"), "rome"])}
    bad = [{**questions[1], "id": "bad", "answers": {"text": ["berlin"], "answer_start": [0]}}]
    files = {"questions": questions, "choices": choices, "columns": columns, "bad": [*questions, *bad]}
    for name, rows in files.items():
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = {name: str(directory / f"{name}.jsonl") for name in files}
    for kind in ("bert", "modernbert"):
        set_seed(0)
        model = AutoModelForMaskedLM.from_config(bert_config(kind, len(bert_tokenizer())))
        found[kind] = save(directory / kind, model, bert_tokenizer())
    return found


def run(script: str, config: str, inputs: dict, source: str, output: Path, *flags: str, model: str = "bert") -> dict:
    command = f"--config {CONFIGS / config}.yaml --model_name_or_path {inputs[model]} --source {inputs[source]} "
    command += f"--output_dir {output} --per_device_train_batch_size 16 --validation_share 0.2 --test_share 0.2 "
    launch([str(RECIPES / "bert" / script), *(command + SMALL).split(), *" ".join(flags).split()])
    return json.loads((output / "results.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def answering(inputs, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "answers"
    run("answer.py", "answer-disfl-minilm", inputs, "questions", output, "--max_length 32 --doc_stride 8 --num_seeds 2")
    return output


def test_answer_reports_seeds_intervals_baselines_threshold_and_errors(answering):
    metrics = json.loads((answering / "results.json").read_text())["metrics"]
    assert [one["seed"] for one in metrics["per_seed"]] == [3, 4]
    test = metrics["test"]
    assert test["f1_low"] <= test["f1"] <= test["f1_high"]
    assert test["exact_low"] <= test["exact"] <= test["exact_high"]
    assert test["f1"] == pytest.approx(sum(one["test"] for one in metrics["per_seed"]) / 2)
    assert set(metrics["baselines"]) == {"sliding_window", "no_answer"}
    assert metrics["train_windows"] > metrics["train_questions"] > 10  # some texts need several
    assert metrics["train_answers_in_no_window"] == 0
    assert all(row["f1"] < 1 for row in metrics["errors"])
    asking = json.loads((answering / "answering.json").read_text())
    assert asking == {
        "max_length": 32,
        "doc_stride": 8,
        "max_answer_length": 30,
        "null_score_diff_threshold": metrics["null_score_diff_threshold"],
    }
    card = (answering / "README.md").read_text()
    assert "pipeline_tag: question-answering" in card
    assert "AutoModelForQuestionAnswering" in card


def test_asking_the_saved_model_gives_the_reported_numbers(answering, inputs, tmp_path, capsys):
    from lm_recipes.evaluation.answer_scores import exact_and_f1
    from lm_recipes.sources.questions import load_questions

    test = load_questions(inputs["questions"], validation=0.2, test=0.2)[0]["test"]
    (tmp_path / "asked.jsonl").write_text("\n".join(json.dumps(row) for row in test))
    flags = f"--questions_file {tmp_path / 'asked.jsonl'} --output {tmp_path / 'said.jsonl'} --batch_size 3"
    launch([str(RECIPES / "bert" / "ask.py"), "--model_name_or_path", str(answering), *flags.split()])
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    metrics = json.loads((answering / "results.json").read_text())["metrics"]
    f1 = [exact_and_f1(row["answer"], own["answers"]["text"])[1] for row, own in zip(said, test, strict=True)]
    reported = {one["seed"]: one["test"] for one in metrics["per_seed"]}[metrics["saved_seed"]]
    assert sum(f1) / len(f1) == pytest.approx(reported)
    for row, own in zip(said, test, strict=True):
        assert row["id"] == own["id"]
        assert len(row["n_best"]) == 3
        for span in row["n_best"]:
            assert own["context"][span["start"] : span["end"]] == span["text"]
        if row["answer"]:
            assert own["context"][row["start"] : row["end"]] == row["answer"]
    shown = capsys.readouterr().out
    assert "(no answer)" in shown
    assert shown.count("->") == len(test)


@pytest.mark.parametrize(
    ("config", "model", "flags"),
    [
        ("answer-disfl-minilm-lora", "bert", ""),
        ("answer-narrative-minilm", "modernbert", "--from_scratch"),
        ("answer-squad-modernbert", "modernbert", "--learning_rates 1e-3 1e-4"),
    ],
)
def test_every_answering_config_runs(config, model, flags, inputs, tmp_path):
    own = "--max_length 40 --doc_stride 8"
    source = dict(inputs)
    if "squad" in config:  # it names the source's test split
        folder = tmp_path / "data"
        folder.mkdir()
        rows = [json.loads(line) for line in Path(inputs["questions"]).read_text().splitlines()]
        (folder / "train.json").write_text(json.dumps(rows[:50]))
        (folder / "validation.json").write_text(json.dumps(rows[50:]))
        source["questions"] = str(folder)
    found = run("answer.py", config, source, "questions", tmp_path / "out", own, flags, model=model)
    assert found["metrics"]["test"]["rows"] > 0
    directory = tmp_path / "out"
    if "lora" in config:
        assert found["metrics"]["trainable_parameters"] < found["metrics"]["parameters"] / 2
        assert (directory / "adapter_model.safetensors").is_file()
        with pytest.raises(UserError, match="an adapter for QuestionAnswering, not MultipleChoice"):
            load_for_inference(AutoModelForMultipleChoice, str(directory))
        directory = directory / "merged"
        assert (directory / "answering.json").read_text() == (tmp_path / "out" / "answering.json").read_text()
    AutoModelForQuestionAnswering.from_pretrained(directory)
    AutoTokenizer.from_pretrained(directory)


def test_the_best_checkpoint_is_chosen_by_the_f1_of_questions(inputs, tmp_path):
    flags = "--max_length 40 --doc_stride 8 --eval_strategy steps --eval_steps 1 --save_strategy steps --save_steps 1 "
    flags += "--load_best_model_at_end True --metric_for_best_model f1"
    run("answer.py", "answer-disfl-minilm", inputs, "questions", tmp_path / "out", flags)
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    scores = [entry["eval_f1"] for entry in state["log_history"] if "eval_f1" in entry]
    assert len(scores) == 2
    assert state["best_metric"] == max(scores)


@pytest.mark.parametrize(
    ("config", "source"),
    [("choose-siqa-minilm", "choices"), ("choose-swag-modernbert", "columns")],
)
def test_choose_reports_what_guessing_reaches_and_ask_chooses(config, source, inputs, tmp_path, capsys):
    own = dict(inputs)
    if "swag" in config:  # it names the source's test split
        folder = tmp_path / "data"
        folder.mkdir()
        lines = Path(inputs[source]).read_text().splitlines()
        (folder / "train.jsonl").write_text("\n".join(lines[:50]))
        (folder / "validation.jsonl").write_text("\n".join(lines[50:]))
        own[source] = str(folder)
    found = run("choose.py", config, own, source, tmp_path / "out", "--max_length 32", model="modernbert")
    metrics = found["metrics"]
    number = 4 if "swag" in config else 3
    assert metrics["baselines"]["chance"] == pytest.approx(1 / number)
    assert metrics["test"]["accuracy_low"] <= metrics["test"]["accuracy"] <= metrics["test"]["accuracy_high"]
    assert "pipeline_tag: multiple-choice" in (tmp_path / "out" / "README.md").read_text()
    AutoModelForMultipleChoice.from_pretrained(tmp_path / "out")
    asked = ["--question", "who?", "--choice", "the fox", "paris", "--output", str(tmp_path / "said.jsonl")]
    launch([str(RECIPES / "bert" / "ask.py"), "--model_name_or_path", str(tmp_path / "out"), *asked])
    said = json.loads((tmp_path / "said.jsonl").read_text())
    assert said["answer"] in ("the fox", "paris")
    assert sum(said["probabilities"]) == pytest.approx(1)
    assert "->" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "flags", "complaint"),
    [
        ("answer.py", "--source {bad} --model_name_or_path {bert} --max_length 32 --doc_stride 8", "row 61 (id bad)"),
        ("answer.py", "--source {questions} --model_name_or_path {bert} --max_length 65", "reads at most 64 tokens"),
        ("answer.py", "--source {questions} --model_name_or_path {bert} --max_length 32", "shorten it, or change"),
        ("answer.py", "--source {questions}", "--model_name_or_path: which model?"),
        ("answer.py", "--source {choices} --model_name_or_path {bert} --max_length 32", "no column `answers`"),
        ("choose.py", "--source {questions} --model_name_or_path {bert} --max_length 32", "no column `choices`"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2_before_training(script, flags, complaint, inputs, tmp_path, capsys):
    arguments = [*flags.format(**inputs).split(), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        launch([str(RECIPES / "bert" / script), *arguments])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2
    assert last.startswith("error: ")
    assert complaint in last
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--question", "who?"], "neither a context to look for the answer in nor choices"),
        (["--context", "the fox"], "give one of them"),
        (["--question", "who?", "--context", "the fox", "--max_length", "65"], "reads at most 64 tokens"),
        (["--question", "who?", "--context_file", "nowhere.txt"], "not a text that can be read"),
        (["--question", "who?", "--choice", "the fox"], "fewer than two choices"),
    ],
)
def test_what_cannot_be_asked_is_one_line(flags, complaint, answering, capsys):
    with pytest.raises(SystemExit) as end:
        launch([str(RECIPES / "bert" / "ask.py"), "--model_name_or_path", str(answering), *flags])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2
    assert complaint in last
