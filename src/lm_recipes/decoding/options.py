"""Which flags does a script have for strategies? One dataclass, so that every script has the same ones."""

from dataclasses import dataclass, field


@dataclass
class StrategyOptions:
    """How strategies choose: see lm_recipes/decoding/strategies.py. What no chosen strategy reads is refused."""

    max_new_tokens: int = field(default=64, metadata={"help": "Tokens after which a continuation is cut."})
    num_return_sequences: int | None = field(default=None, metadata={"help": "Sampling and beams: texts a prompt (1)."})
    temperature: float | None = field(default=None, metadata={"help": "Below 1 sharpens, above flattens (1)."})
    top_k: int | None = field(
        default=None, metadata={"help": "top_k: keep the k likeliest tokens (50); contrastive: candidates (4)."}
    )
    top_p: float | None = field(default=None, metadata={"help": "nucleus: keep the fewest of mass p (0.9)."})
    min_p: float | None = field(default=None, metadata={"help": "min_p: keep what has p x the best (0.05)."})
    typical_p: float | None = field(default=None, metadata={"help": "typical: mass kept of the most typical (0.2)."})
    eta_cutoff: float | None = field(default=None, metadata={"help": "eta: cut below it or by entropy (3e-4)."})
    num_beams: int | None = field(default=None, metadata={"help": "Beam searches: hypotheses kept alive (4 or 8)."})
    length_penalty: float | None = field(default=None, metadata={"help": "Beam searches: above 0 favours length (1)."})
    num_beam_groups: int | None = field(default=None, metadata={"help": "diverse_beam: groups, a text from each (4)."})
    diversity_penalty: float | None = field(
        default=None, metadata={"help": "diverse_beam: nats off a token per beam before that took it (0.5)."}
    )
    phrases: list[str] | None = field(default=None, metadata={"help": "constrained_beam: what must be said."})
    penalty_alpha: float | None = field(
        default=None, metadata={"help": "contrastive: weight of being unlike what was said, 0 to 1 (0.6)."}
    )
    dola_layers: str | None = field(default=None, metadata={"help": "dola: early layers, low or high (high)."})
    draft_model: str | None = field(default=None, metadata={"help": "assisted: a small model of the same tokens."})
    num_assistant_tokens: int | None = field(default=None, metadata={"help": "assisted: tokens a draft proposes (8)."})
    prompt_lookup_num_tokens: int | None = field(
        default=None, metadata={"help": "prompt_lookup: tokens proposed from the text so far (10)."}
    )
    max_matching_ngram_size: int | None = field(
        default=None, metadata={"help": "prompt_lookup: last tokens that are looked up there (2)."}
    )
    repetition_penalty: float = field(default=1.0, metadata={"help": "Above 1: repeat less."})
    no_repeat_ngram_size: int | None = field(
        default=None, metadata={"help": "Never say a run of so many tokens again, the prompt's included."}
    )
    json_schema: str | None = field(default=None, metadata={"help": "Write JSON of this schema (or a file with it)."})
    regex: str | None = field(default=None, metadata={"help": "Write what this expression matches."})
    grammar: str | None = field(default=None, metadata={"help": "Write by this Lark or GBNF grammar (or its file)."})
    watermark: float | None = field(
        default=None, metadata={"help": "Mark texts: nats for green tokens, 2 say. See detect_watermark.py."}
    )
    watermark_key: int | None = field(default=None, metadata={"help": "A number to keep secret; else a known one."})
