"""Hugging Face recipes from raw text to a served language model, on a BERT and a GPT track."""

import os
import sys

__version__ = "0.1.0"

# Nothing phones home unless the user asks for it; set before any library below us is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRACKIO_DISABLE_TELEMETRY", "1")
# Rust threads are wanted, but forked dataloader workers would warn about them on every start.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# A progress bar redraws itself ten times a second: for people; in a log file twice a minute will do.
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "30")
