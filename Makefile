# Two commands do everything: `make quickstart` and `make test`. Each installs what it needs into .venv first.
PYTHON ?= python3.11
VENV   ?= .venv
PY     := $(VENV)/bin/python
Q      := runs/quickstart

.PHONY: quickstart test test-all lint bench bench-corpus bench-dial bench-encoder bench-finetuning bench-inference bench-pretraining clean install install-dev
.DELETE_ON_ERROR:

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[corpus,fast,demo,metrics,report]"
	touch $@

# Tests run in two processes, file by file: most of their time is the start of the scripts they launch.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses 2 --dist loadfile

# What tests and benchmarks compare with is large; the quickstart does without it.
install-dev: $(VENV)/.installed-dev
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[corpus,fast,demo,metrics,report,dev]"
	touch $@

test: install-dev
	$(PYTEST)

test-all: install-dev
	$(PYTEST) -m "slow or not slow" --hypothesis-profile=default

lint: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf runs .venv .pytest_cache .ruff_cache .hypothesis

# ---- The quickstart: raw Wikipedia XML to two language models and a report. Each line below is a recipe as you would
# type it. make prints it, runs it, and skips it when its result is newer than the script, its YAML and its inputs.

CLEAN  := recipes/corpus/clean.py recipes/corpus/configs/quickstart.yaml $(wildcard src/lm_recipes/text/*.py)
TOKENS := recipes/corpus/train_tokenizer.py $(wildcard src/lm_recipes/tokenization/*.py)
PACK   := recipes/corpus/pack.py $(wildcard src/lm_recipes/objectives/pack*.py src/lm_recipes/tokenization/fast.py)
TRAIN  := $(wildcard src/lm_recipes/objectives/*.py src/lm_recipes/models/*.py src/lm_recipes/training/*.py)

# A finished model that is out of date makes room for its successor; an unfinished one is resumed.
REPLACE = @test ! -e $@ || rm -rf $(@D)

$(Q)/corpus/results.json: $(CLEAN) | install
	$(PY) recipes/corpus/clean.py --config recipes/corpus/configs/quickstart.yaml

$(Q)/tokenizer-bert/results.json: $(Q)/corpus/results.json $(TOKENS)
	$(PY) recipes/corpus/train_tokenizer.py --data $(Q)/corpus --model_type wordpiece --vocab_size 4096 --output_dir $(Q)/tokenizer-bert

$(Q)/tokenizer-gpt/results.json: $(Q)/corpus/results.json $(TOKENS)
	$(PY) recipes/corpus/train_tokenizer.py --data $(Q)/corpus --model_type bpe --vocab_size 4096 --output_dir $(Q)/tokenizer-gpt

$(Q)/packed-bert/results.json: $(Q)/tokenizer-bert/results.json $(PACK)
	$(PY) recipes/corpus/pack.py --data $(Q)/corpus --tokenizer_name_or_path $(Q)/tokenizer-bert --block_size 128 --output_dir $(Q)/packed-bert

$(Q)/packed-gpt/results.json: $(Q)/tokenizer-gpt/results.json $(PACK)
	$(PY) recipes/corpus/pack.py --data $(Q)/corpus --tokenizer_name_or_path $(Q)/tokenizer-gpt --block_size 256 --output_dir $(Q)/packed-gpt

$(Q)/bert/results.json: $(Q)/packed-bert/results.json recipes/bert/pretrain.py recipes/bert/configs/pretrain-quickstart.yaml $(TRAIN)
	$(REPLACE)
	$(PY) recipes/bert/pretrain.py --config recipes/bert/configs/pretrain-quickstart.yaml

$(Q)/gpt/results.json: $(Q)/packed-gpt/results.json recipes/gpt/pretrain.py recipes/gpt/configs/pretrain-quickstart.yaml $(TRAIN)
	$(REPLACE)
	$(PY) recipes/gpt/pretrain.py --config recipes/gpt/configs/pretrain-quickstart.yaml

TUNING   := finetuning adapters finish preflight callbacks hub
CLASSIFY := recipes/bert/classify.py recipes/bert/configs/classify-quickstart.yaml $(TUNING:%=src/lm_recipes/training/%.py) \
  src/lm_recipes/evaluation/classification.py src/lm_recipes/evaluation/calibration.py $(wildcard src/lm_recipes/reporting/classification*) \
  src/lm_recipes/models/heads.py src/lm_recipes/sources/labelled.py src/lm_recipes/evaluation/baselines.py

$(Q)/sentiment/results.json: $(Q)/bert/results.json $(CLASSIFY)
	$(REPLACE)
	$(PY) recipes/bert/classify.py --config recipes/bert/configs/classify-quickstart.yaml

$(Q)/sentiment-from-scratch/results.json: $(Q)/bert/results.json $(CLASSIFY)
	$(REPLACE)
	$(PY) recipes/bert/classify.py --config recipes/bert/configs/classify-quickstart.yaml --from_scratch --embedding_rate_factor 1 --baselines False --output_dir $(Q)/sentiment-from-scratch

$(Q)/sentiment-minilm/results.json: $(CLASSIFY) recipes/bert/configs/classify-quickstart-minilm.yaml | install
	$(REPLACE)
	$(PY) recipes/bert/classify.py --config recipes/bert/configs/classify-quickstart-minilm.yaml

$(Q)/continuations.json: $(Q)/gpt/results.json recipes/gpt/generate.py
	$(PY) recipes/gpt/generate.py --model_name_or_path $(Q)/gpt --prompt "The history of the city" --strategy greedy beam nucleus --output $@

STEPS := corpus tokenizer-bert tokenizer-gpt packed-bert packed-gpt bert gpt sentiment sentiment-from-scratch sentiment-minilm

$(Q)/report.html: $(STEPS:%=$(Q)/%/results.json) $(Q)/continuations.json recipes/report.py $(wildcard src/lm_recipes/reporting/*)
	$(PY) recipes/report.py --run_dir $(Q) --output $@

quickstart: $(Q)/report.html
	@$(PY) recipes/report.py --run_dir $(Q) --summary

# ---- Benchmarks: side by side in one run; the records go to results/. bench-corpus is stage 1's and takes half an hour.

bench: $(Q)/packed-bert/results.json $(Q)/packed-gpt/results.json bench-corpus
	$(PY) recipes/bench/step.py && $(PY) recipes/report.py --keep runs/bench-step
	$(PY) recipes/bench/framework_tax.py && $(PY) recipes/report.py --keep runs/bench-framework-tax

runs/enwik8/corpus/results.json: recipes/corpus/clean.py recipes/corpus/configs/enwik8.yaml $(wildcard src/lm_recipes/text/*.py)
	$(PY) recipes/corpus/clean.py --config recipes/corpus/configs/enwik8.yaml

bench-corpus: install-dev runs/enwik8/corpus/results.json $(Q)/tokenizer-gpt/results.json
	for name in corpus minhash pii extraction vocabulary memory; do \
	  $(PY) recipes/bench/$$name.py && $(PY) recipes/report.py --keep runs/bench-$$name || exit 1; \
	done

# What 150 seconds of pretraining are worth to an encoder, two dozen ways: three hours; started again it goes on.
bench-encoder: install-dev runs/enwik8/corpus/results.json
	$(PY) recipes/bench/encoder.py && $(PY) recipes/report.py --keep runs/bench-encoder

# Which width, depth and learning rates suit the dial's small sizes: an hour and a half; started again it goes on.
bench-dial: install-dev runs/enwik8/corpus/results.json $(Q)/tokenizer-gpt/results.json $(Q)/tokenizer-bert/results.json
	$(PY) recipes/bench/dial.py && $(PY) recipes/report.py --keep runs/bench-dial

# What each way of fine-tuning costs and reaches, and which way a decoder classifies best: an hour and a quarter.
bench-finetuning: install-dev
	$(PY) recipes/bench/adapter_methods.py && $(PY) recipes/report.py --keep runs/bench-peft
	$(PY) recipes/compare_classifiers.py && $(PY) recipes/report.py --keep runs/classifiers

# Time to loss beside run_clm, run_mlm and nanoGPT: nine hours on two quiet cores; started again it goes on. With
# `make bench-pretraining NANOGPT=path/to/nanoGPT` that one too.
bench-pretraining: install-dev runs/enwik8/corpus/results.json $(Q)/tokenizer-gpt/results.json $(Q)/tokenizer-bert/results.json
	for track in gpt bert; do \
	  $(PY) recipes/bench/pretraining.py --track $$track $(if $(NANOGPT),--nanogpt $(NANOGPT)) \
	  && $(PY) recipes/report.py --keep runs/bench-pretraining-$$track || exit 1; \
	done

runs/llama-10M/results.json: $(Q)/packed-gpt/results.json $(TRAIN)
	$(REPLACE)
	$(PY) recipes/gpt/pretrain.py --config recipes/gpt/configs/pretrain-quickstart.yaml --family llama --size 10M --max_steps 120 --eval_strategy no --output_dir $(@D)

runs/llama-10M-bfloat16/results.json: runs/llama-10M/results.json
	$(REPLACE)
	$(PY) recipes/compress/quantize.py --model_name_or_path runs/llama-10M --method bfloat16 --output_dir $(@D)

# Tokens, texts and requests a second, beside generate(), pipelines, ONNX Runtime and (where its binding is) llama.cpp;
# and whether every form of one model writes the same.
bench-inference: install-dev runs/llama-10M-bfloat16/results.json
	$(PY) recipes/bert/classify.py --config recipes/bert/configs/classify-minilm.yaml
	$(PY) recipes/gpt/sft.py --config recipes/gpt/configs/sft-smollm2-lora.yaml
	for name in generation encoding serving parity; do \
	  $(PY) recipes/bench/$$name.py && $(PY) recipes/report.py --keep runs/bench-$$name || exit 1; \
	done
