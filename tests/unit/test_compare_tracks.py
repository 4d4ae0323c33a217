"""The paired experiment: what it plans, keeps and shows; decoders as classifiers; pseudo-perplexity."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from lm_recipes.evaluation import tracks
from lm_recipes.evaluation.pseudo_perplexity import passages, pseudo_perplexity
from lm_recipes.evaluation.tracks import REFERENCE, TASKS, TRACKS, Run
from lm_recipes.launch import UserError
from lm_recipes.reporting.tracks import accuracy_plot, markdown_table

ROOT = Path(__file__).parents[2]
SHAPE = {"size": "1M", "vocab_size": 4096}
TEXTS = ["the quick brown fox jumps over the lazy dog", "rome is the capital of italy, and the dog barks"]


# --- pseudo-perplexity ---


def masked_one_by_one(model, rows: list[list[int]], mask: int, shift: int) -> list[float]:
    """Nats of each token but the first and last of a row, hidden alone, in a batch of one; the answer stands `shift`
    places before it."""
    nats = []
    for ids, place in ((row, place) for row in rows for place in range(1, len(row) - 1)):
        hidden = torch.tensor([[*ids[:place], mask, *ids[place + 1 :]]])
        with torch.no_grad():
            logits = model(input_ids=hidden).logits
        nats.append(-float(logits[0, place - shift].double().log_softmax(-1)[ids[place]]))
    return nats


@pytest.mark.parametrize("batch_tokens", [1, 50, 10_000])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_pseudo_perplexity_asks_every_token_alone(kind, batch_tokens):
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(bert_config(kind, len(tokenizer))).eval()
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    nats = masked_one_by_one(model, rows, tokenizer.mask_token_id, shift=0)
    measured = pseudo_perplexity(model, tokenizer, TEXTS, batch_tokens)
    assert measured["pseudo_perplexity"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    assert measured["pseudo_bits_per_byte"] == pytest.approx(np.sum(nats) / np.log(2) / sum(map(len, TEXTS)), rel=1e-5)
    assert measured["tokens"] == sum(map(len, rows)) - 4


def test_a_hybrid_is_asked_one_place_earlier_and_sees_both_sides(tmp_path):
    tokenizer = gpt_tokenizer()
    tokenizer.mask_token = "<|im_start|>"  # any special token: what counts is that it stands for another
    directory = save(tmp_path / "hybrid", gpt("llama"), tokenizer)
    model = AutoModelForCausalLM.from_pretrained(directory)
    causal = pseudo_perplexity(model, tokenizer, TEXTS)["pseudo_perplexity"]
    model.config.is_causal = False
    rows = [[1, *tokenizer(text)["input_ids"], 2] for text in TEXTS]
    nats = masked_one_by_one(model, rows, tokenizer.mask_token_id, shift=1)
    both_ways = pseudo_perplexity(model, tokenizer, TEXTS)["pseudo_perplexity"]
    assert both_ways == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    assert both_ways != pytest.approx(causal, rel=0.01)


def test_pseudo_perplexity_needs_a_mask_token():
    with pytest.raises(UserError, match="no mask token"):
        pseudo_perplexity(gpt("llama"), gpt_tokenizer(), TEXTS)


def test_passages_are_whole_paragraphs_spread_over_the_texts(documents):
    chosen = passages(documents, 20, shortest=40, longest=60)
    lines = {line.strip(): number for number, text in enumerate(documents) for line in text.split("\n")}
    assert len(chosen) == len(set(chosen)) == 20
    assert all(40 <= len(passage) <= 60 for passage in chosen)
    assert lines[chosen[0]] < len(documents) / 10
    assert lines[chosen[-1]] > 0.9 * len(documents)


# --- decoders as classifiers ---


def classifier(family: str, directory: Path, attention: str, is_causal: bool):
    """A decoder with a head, saved and loaded by transformers alone."""
    shape = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.4}
    shape |= {"hidden_size": 32} if family == "gpt2" else {"hidden_size": 32, "intermediate_size": 64, "head_dim": 16}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **shape, **special, num_labels=3, num_key_value_heads=2)
    config.is_causal = is_causal
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    return AutoModelForSequenceClassification.from_pretrained(directory, attn_implementation=attention).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_a_saved_config_decides_whether_a_decoder_sees_what_comes_later(family, attention, tmp_path):
    ids = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, -1] = 3 + (ids[:, -1] - 2) % 47
    for is_causal in (True, False):
        model = classifier(family, tmp_path / str(is_causal), attention, is_causal)
        with torch.no_grad():
            hidden = [
                model(one, attention_mask=torch.ones_like(one), output_hidden_states=True).hidden_states[-1][:, :-1]
                for one in (ids, changed)
            ]
        assert torch.equal(*hidden) == is_causal


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_padding_does_not_change_what_a_decoder_classifies(family, is_causal, tmp_path):
    model = classifier(family, tmp_path, "eager", is_causal)
    row = torch.tensor([[1, 7, 9, 11, 2]])
    padded = torch.nn.functional.pad(row, (0, 4), value=0)
    with torch.no_grad():
        alone = model(row, attention_mask=torch.ones_like(row)).logits
        together = model(padded, attention_mask=(padded != 0).long()).logits
    assert torch.allclose(alone, together, atol=1e-5)


def test_classify_reads_a_decoder_both_ways_with_the_best_of_several_rates(tmp_path, monkeypatch):
    rows = [{"text": f"{'a fox' if i % 2 else 'the dog'} {i}", "label": "cat" if i % 2 else "dog"} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = save(tmp_path / "hybrid", gpt("llama"), gpt_tokenizer())
    flags = (
        f"--model_name_or_path {model} --source {tmp_path / 'rows.jsonl'} --max_length 16 --bidirectional True "
        "--train_rows 20 --learning_rates 1e-7 1e-2 --num_seeds 2 --max_steps 15 --eval_strategy no "
        f"--save_strategy no --baselines False --disable_tqdm True --use_cpu True --output_dir {tmp_path / 'out'}"
    )
    monkeypatch.setattr(sys, "argv", ["classify.py", *flags.split()])
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    runpy.run_path(str(ROOT / "recipes" / "bert" / "classify.py"), run_name="__main__")
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    scores = record["metrics"]["validation_accuracy_by_learning_rate"]
    assert record["metrics"]["learning_rate"] == 0.01
    assert scores["0.01"] > scores["1e-07"]
    assert record["metrics"]["train_rows"] == 20
    assert [run["seed"] for run in record["metrics"]["per_seed"]] == [0, 1]
    assert AutoConfig.from_pretrained(tmp_path / "out").is_causal is False
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("a fox")["input_ids"]
    assert (ids[0], ids[-1]) == (1, 2)  # as documents began and ended in pretraining


# --- which runs, and which of them again ---


def test_the_default_experiment_takes_less_than_two_hours():
    script = runpy.run_path(str(ROOT / "recipes" / "compare_tracks.py"))
    args = script["CompareTracks"]()
    cells = tracks.finetuning_runs(Path("runs"), args.tasks, args.labels, num_seeds=args.num_seeds, jobs=2, **SHAPE)
    before = tracks.pretraining_runs(
        Path("runs"), corpus=args.corpus, family=args.family, block_size=256, tokens=args.train_tokens, **SHAPE
    )
    assert len(cells) == 3 * 3 * len(TRACKS)
    assert len({run.output_dir for run in [*before, *cells.values()]}) == len(before) + len(cells)
    assert tracks.plan([*before, *cells.values()])[1] <= 120


def test_all_tracks_are_trained_on_the_same_tokens_of_the_same_blocks():
    runs = tracks.pretraining_runs(Path("r"), corpus="c", family="qwen3", block_size=128, tokens=100_000, **SHAPE)
    given = {run.name: dict(zip(run.flags[::2], run.flags[1::2], strict=True)) for run in runs}
    for shared in ("--data", "--tokenizer_name_or_path", "--max_steps", "--per_device_train_batch_size", "--size"):
        assert given["encoder"][shared] == given["decoder"][shared] == given["hybrid"][shared]
    steps, rows = int(given["hybrid"]["--max_steps"]), int(given["hybrid"]["--per_device_train_batch_size"])
    assert 0 <= 100_000 - steps * rows * 128 < rows * 128


def test_tracks_differ_in_nothing_but_the_model_and_how_it_is_read():
    cells = tracks.finetuning_runs(Path("r"), ["topic"], ["300"], num_seeds=3, jobs=1, **SHAPE)
    rest = {
        tuple(flag for flag in run.flags if flag not in ("r/encoder", "r/decoder", "r/hybrid", *TRACKS[track][1]))
        for (_, _, track), run in cells.items()
    }
    assert len(rest) == 1


def test_the_scripts_know_every_flag():
    from trl import ModelConfig

    from lm_recipes.training.arguments import PretrainingArguments
    from lm_recipes.training.finetuning import FineTuningArguments

    runs = tracks.pretraining_runs(Path("r"), corpus="c", family="qwen3", block_size=256, tokens=10**6, **SHAPE)
    runs += tracks.finetuning_runs(Path("r"), ["topic"], ["300"], num_seeds=1, jobs=1, **SHAPE).values()
    for run in runs:
        script = runpy.run_path(str(ROOT / run.script))
        own = [thing for thing in script.values() if dataclasses.is_dataclass(thing)]
        known = [*own, PretrainingArguments, FineTuningArguments, ModelConfig]
        names = {field.name for one in known for field in dataclasses.fields(one)} | {"config"}
        unknown = {flag for flag in run.command if flag.startswith("--") and flag[2:] not in names}
        assert not unknown, (run.script, unknown)


@pytest.fixture
def counting(tmp_path) -> Run:
    """A run of a script that counts how often it was started."""
    script, data = tmp_path / "script.py", tmp_path / "data.txt"
    data.write_text("one")
    script.write_text(
        "import sys; from pathlib import Path; from lm_recipes.artifacts import write_results\n"
        "data, out = Path(sys.argv[2]), sys.argv[-1]\n"
        "write_results(out, config={}, inputs={'data': str(data)}, metrics={}, seconds={'total': 90.0})\n"
        "if data.read_text() == 'broken': sys.exit('error: nothing to learn from')\n"
    )
    return Run("one", script, ("--data", str(data)), tmp_path / "out", 60.0)


def test_a_finished_run_is_known_again_and_one_of_another_command_or_other_data_is_refused(counting, tmp_path):
    assert counting.record() is None
    assert counting.carry_out() == counting.record()
    with pytest.raises(UserError, match="made by another command"):
        dataclasses.replace(counting, flags=(*counting.flags, "--more", "1")).record()
    (tmp_path / "data.txt").write_text("two")
    with pytest.raises(UserError, match="has changed since"):
        counting.record()


def test_a_run_that_fails_is_one_line_and_is_not_finished(counting, tmp_path):
    (tmp_path / "data.txt").write_text("broken")
    with pytest.raises(UserError, match=r"one: failed \(error: nothing to learn from\); all it said is in .*out.log"):
        counting.carry_out()
    assert counting.record() is None


def test_the_plan_learns_from_what_runs_have_taken(counting):
    other = dataclasses.replace(counting, name="other", output_dir=counting.output_dir.with_name("other"))
    assert tracks.plan([counting, other])[1] == 2.0
    together = [dataclasses.replace(run, at_a_time=2) for run in (counting, other)]
    assert tracks.plan(together)[1] == 1.0
    counting.carry_out()  # says that it took 90 seconds, where 60 were expected
    table, left = tracks.plan([counting, other])
    assert left == 1.5
    assert table.splitlines()[0] == "done    1.5 min  one"


@pytest.mark.parametrize(
    ("tasks", "labels", "family", "said"),
    [
        ("sentience", "300", "qwen3", r"--tasks sentience: .* sentiment, topic, question"),
        ("topic", "many", "qwen3", "--labels many: neither a number nor all"),
        ("topic", "300", "nanochat", "--family nanochat: .* qwen3, llama, gpt2"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(tasks, labels, family, said):
    def plan() -> None:
        tracks.pretraining_runs(Path("r"), corpus="c", family=family, block_size=256, tokens=10**6, **SHAPE)
        tracks.finetuning_runs(Path("r"), [tasks], [labels], num_seeds=1, jobs=1, **SHAPE)

    with pytest.raises(UserError, match=said):
        plan()


# --- what they found ---


def cell(*accuracies: float) -> dict:
    return tracks.found(
        {
            "metrics": {
                "per_seed": [{"seed": i, "validation": 0.0, "test": one} for i, one in enumerate(accuracies)],
                "learning_rate": 1e-3,
                "validation_accuracy_by_learning_rate": {"0.001": 0.5},
                "train_rows": 300,
            }
        }
    )


@pytest.fixture
def measured() -> dict:
    cells = {track: cell(0.5 + 0.01 * i, 0.52 + 0.01 * i) for i, track in enumerate(TRACKS)}
    cells[REFERENCE] = cell(0.99)
    return {
        "language_modelling": {"decoder": {"bits_per_byte": 1.95}, "encoder": {"pseudo_perplexity": 40.0}},
        "tasks": {"sentiment": {"300": cells, "all": cells}},
    }


def test_the_table_has_means_and_deviations_and_marks_the_best_track(measured):
    lines = markdown_table(measured).splitlines()
    assert lines[0] == "|  | bits per byte | pseudo-perplexity | sentiment, 300 | sentiment, all |"
    assert lines[2] == "| encoder |  | **40.0** | 51.0 ± 1.4 | 51.0 ± 1.4 |"
    assert lines[3].startswith("| decoder | **1.950** |  |")
    assert lines[2 + len(TRACKS) - 1].endswith("**56.0 ± 1.4** | **56.0 ± 1.4** |")
    assert lines[-1] == f"| {REFERENCE} |  |  | 99.0 | 99.0 |"


def test_the_plot_names_every_track_and_number_of_labels(measured):
    picture = accuracy_plot(measured["tasks"])
    assert picture.lstrip().startswith("<svg")
    for text in (*TRACKS, REFERENCE, "sentiment", ">300<", ">all<"):
        assert text in picture


def test_the_reference_reads_as_much_of_a_text_as_a_model():
    reference = tracks.reference(TASKS["question"], "300", 2, gpt_tokenizer())
    assert len(set(reference["per_seed"])) == 2  # other rows for each seed
    assert 0.4 < reference["accuracy"] < 0.8


def test_the_docs_show_the_kept_record():
    record = json.loads((ROOT / "results" / "tracks.json").read_text())
    assert markdown_table(record["metrics"]) in (ROOT / "docs" / "tracks.md").read_text()
