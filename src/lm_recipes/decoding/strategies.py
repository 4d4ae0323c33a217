"""How is the next token chosen? Named strategies, each ready for `model.generate`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from transformers import GenerationConfig, WatermarkingConfig

from lm_recipes.decoding.constrained_beam import constrained_beam_search
from lm_recipes.decoding.contrastive import contrastive_search
from lm_recipes.decoding.diverse_beam import diverse_beam_search
from lm_recipes.decoding.dola import dola
from lm_recipes.decoding.structured import structure
from lm_recipes.launch import UserError

# strategy -> the options it reads, with their defaults. None: the option is off unless it is given; `...`: it must be.
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"num_beams": 4, "length_penalty": 1.0, "num_return_sequences": 1},
    "beam_sample": {
        "num_beams": 4, "length_penalty": 1.0, "temperature": 1.0, "top_k": None, "top_p": None,
        "num_return_sequences": 1,
    },
    "diverse_beam": {
        "num_beams": 8, "num_beam_groups": 4, "diversity_penalty": 0.5, "length_penalty": 1.0,
        "num_return_sequences": None,  # the best of each group
    },
    "constrained_beam": {"phrases": ..., "num_beams": 8, "length_penalty": 1.0},
    "sample": {"temperature": 1.0, "num_return_sequences": 1},
    "top_k": {"temperature": 1.0, "top_k": 50, "num_return_sequences": 1},
    "nucleus": {"temperature": 1.0, "top_k": None, "top_p": 0.9, "num_return_sequences": 1},
    "min_p": {"temperature": 1.0, "min_p": 0.05, "num_return_sequences": 1},
    "typical": {"temperature": 1.0, "typical_p": 0.2, "num_return_sequences": 1},
    "eta": {"temperature": 1.0, "eta_cutoff": 3e-4, "num_return_sequences": 1},
    "contrastive": {"top_k": 4, "penalty_alpha": 0.6},
    "dola": {"dola_layers": "high"},
    "assisted": {"draft_model": ..., "num_assistant_tokens": 8, "temperature": None},
    "prompt_lookup": {"prompt_lookup_num_tokens": 10, "max_matching_ngram_size": 2, "temperature": None},
}  # fmt: skip
# What every strategy reads.
SHARED: dict[str, Any] = {
    "max_new_tokens": 64,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": None,
    "watermark": None,
    "watermark_key": None,
    "json_schema": None,
    "regex": None,
    "grammar": None,
}
# The ones that transformers has not (or no longer) in its core.
METHODS: dict[str, Callable] = {
    "diverse_beam": diverse_beam_search,
    "constrained_beam": constrained_beam_search,
    "contrastive": contrastive_search,
    "dola": dola,
}
WHOLE, ANY = int, float  # kinds of number
# option -> (kind, lowest value, is the lowest value itself allowed, highest value)
RANGES: dict[str, tuple[type, float, bool, float]] = {
    "max_new_tokens": (WHOLE, 1, True, float("inf")),
    "num_return_sequences": (WHOLE, 1, True, float("inf")),
    "repetition_penalty": (ANY, 0, False, float("inf")),
    "no_repeat_ngram_size": (WHOLE, 2, True, float("inf")),
    "watermark": (ANY, 0, False, float("inf")),
    "watermark_key": (WHOLE, 1, True, 2**31 - 1),
    "num_beams": (WHOLE, 2, True, float("inf")),
    "num_beam_groups": (WHOLE, 2, True, float("inf")),
    "diversity_penalty": (ANY, 0, True, float("inf")),
    "length_penalty": (ANY, -float("inf"), False, float("inf")),
    "temperature": (ANY, 0, False, float("inf")),
    "top_k": (WHOLE, 1, True, float("inf")),
    "top_p": (ANY, 0, False, 1),
    "min_p": (ANY, 0, False, 1),
    "typical_p": (ANY, 0, False, 1),
    "eta_cutoff": (ANY, 0, False, 0.999),
    "penalty_alpha": (ANY, 0, True, 1),
    "num_assistant_tokens": (WHOLE, 1, True, float("inf")),
    "prompt_lookup_num_tokens": (WHOLE, 1, True, float("inf")),
    "max_matching_ngram_size": (WHOLE, 1, True, float("inf")),
}
CHOICES = {"dola_layers": ("low", "high")}
# Sampling filters that do nothing; without them `generate` falls back to defaults of its own (top_k=50).
NO_FILTER = {"top_k": 0, "top_p": 1.0, "typical_p": 1.0}
# Options that are not `generate`'s: what becomes of them is said in `strategy`.
OURS = ("phrases", "draft_model", "num_assistant_tokens", "watermark", "watermark_key", "json_schema", "regex")
OURS += ("grammar",)


@dataclass(frozen=True)
class Strategy:
    """A strategy, ready for `generation.continue_prompts`.

    Attributes:
        settings: for `generate(generation_config=...)`.
        method: for `generate(custom_generate=...)`; None: one of transformers' own.
        extra: what `generate` takes beside: the options of `method`, `assistant_model` (see `drafts.with_draft`),
            and, still as text, `phrases` and `structure`, which `continue_prompts` turns into tokens.
        options: every option that is on, by name: what a record of a run holds.
    """

    name: str
    settings: GenerationConfig
    method: Callable | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> int:
        """Continuations of each prompt."""
        return self.settings.num_return_sequences or 1

    @property
    def streams(self) -> bool:
        """Whether it decides token by token: a search decides at its end."""
        return (self.settings.num_beams or 1) == 1 and self.texts == 1

    @property
    def drafts(self) -> bool:
        """Whether several tokens are proposed at a time, which `generate` does for one prompt at a time."""
        return "draft_model" in self.options or "prompt_lookup_num_tokens" in self.options


def strategy(name: str, **options: Any) -> Strategy:
    """A named strategy.

    greedy: the likeliest token each time. beam: the best of `num_beams` hypotheses (score: log-probability / length **
    `length_penalty`); beam_sample draws them. diverse_beam (arXiv:1610.02424): groups of beams that avoid each other's
    tokens. constrained_beam (arXiv:1804.06609): the best text with all `phrases` in it. sample: draws from the model's
    distribution. top_k (Fan et al., 2018), nucleus (top-p; Holtzman et al., 2020), min_p (Nguyen et al., 2024),
    typical (Meister et al., 2023) and eta (Hewitt et al., 2022) cut its tail first, after `temperature`. contrastive
    (arXiv:2202.06417): likely, but unlike what was said. dola (arXiv:2309.03883): what late layers know and early
    ones do not. assisted (arXiv:2211.17192) and prompt_lookup: the text of greedy search (or, given a `temperature`,
    of sampling), faster: a small model, or the prompt, proposes tokens.

    With all of them: `repetition_penalty`, `no_repeat_ngram_size`, `watermark` (arXiv:2301.10226: what is added to the
    logits of green tokens) and one of `json_schema`, `regex` and `grammar` (text, or a file's path).

    Args:
        name: a key of `STRATEGIES`.
        options: None means the default, and options that the strategy does not read are ignored (so that several
            strategies can share one command line, see `refuse_unread`).

    Raises:
        TypeError: for an option that no strategy has.
        UserError: for an unknown strategy, a value that is out of range, or options that contradict each other.
    """
    if name not in STRATEGIES:
        raise UserError(f"--strategy {name}: not one of {', '.join(STRATEGIES)}")
    if unknown := options.keys() - SHARED.keys() - {option for known in STRATEGIES.values() for option in known}:
        raise TypeError(f"no strategy has an option {', '.join(sorted(unknown))}")
    given = {option: value for option, value in options.items() if value is not None}
    chosen = {option: given.get(option, default) for option, default in {**SHARED, **STRATEGIES[name]}.items()}
    chosen = {option: _checked(name, option, value) for option, value in chosen.items() if value is not None}
    if name == "diverse_beam":
        chosen.setdefault("num_return_sequences", chosen["num_beam_groups"])
    _refuse_contradictions(chosen)

    method = METHODS.get(name)
    own = set(signature(method).parameters) if method else set()
    extra = {option: value for option, value in chosen.items() if option in own}
    settings = {option: value for option, value in chosen.items() if option not in own and option not in OURS}
    if "temperature" in settings:
        settings = {"do_sample": True, **NO_FILTER, **settings}
    if "watermark" in chosen:
        key = {"hashing_key": chosen["watermark_key"]} if "watermark_key" in chosen else {}
        settings["watermarking_config"] = WatermarkingConfig(bias=chosen["watermark"], **key)
    if wanted := structure(**{kind: chosen.get(kind) for kind in ("json_schema", "regex", "grammar")}):
        extra["structure"] = wanted
    return Strategy(name, GenerationConfig(**settings), method, extra, chosen)


def strategies(names: Iterable[str], options: dict[str, Any]) -> dict[str, Strategy]:
    """Several strategies that share their options; none of which may be read by no one.

    Raises:
        UserError: see `strategy` and `refuse_unread`.
    """
    names = list(names)
    refuse_unread(names, {option: value for option, value in options.items() if option not in SHARED})
    return {name: strategy(name, **options) for name in names}


def refuse_unread(names: Iterable[str], options: dict[str, Any]) -> None:
    """Refuse an option that none of the strategies reads: it would change nothing, silently.

    Raises:
        UserError: names the option and the strategies that do read it.
    """
    names = list(names)
    read = {option for name in names for option in STRATEGIES.get(name, ())}
    for option, value in options.items():
        if value is not None and option not in read:
            readers = [name for name, known in STRATEGIES.items() if option in known]
            raise UserError(
                f"--{option} {value} changes nothing under --strategy {' '.join(names)}; "
                f"it is read by: {', '.join(readers)}"
            )


def _checked(name: str, option: str, value: Any) -> Any:
    """The value as the number it has to be."""
    if value is ... or value == []:
        raise UserError(f"--strategy {name} needs --{option}")
    if option in CHOICES and value not in CHOICES[option]:
        raise UserError(f"--{option} {value}: must be {' or '.join(CHOICES[option])}")
    if option not in RANGES:
        return value
    kind, low, low_allowed, high = RANGES[option]
    if not (low <= value <= high) or (value == low and not low_allowed):
        expected = f"{'at least' if low_allowed else 'above'} {low}"
        raise UserError(f"--{option} {value}: must be {expected}{'' if high == float('inf') else f', at most {high}'}")
    if kind is WHOLE and value // 1 != value:
        raise UserError(f"--{option} {value}: must be a whole number")
    return kind(value)


def _refuse_contradictions(chosen: dict[str, Any]) -> None:
    beams, texts = chosen.get("num_beams"), chosen.get("num_return_sequences", 1)
    if beams and texts > beams:
        raise UserError(f"--num_return_sequences {texts}: more than the {beams} beams; raise --num_beams")
    if beams and beams % chosen.get("num_beam_groups", 1):
        raise UserError(f"--num_beams {beams}: cannot be dealt to {chosen['num_beam_groups']} groups evenly")
    if "watermark_key" in chosen and "watermark" not in chosen:
        raise UserError(f"--watermark_key {chosen['watermark_key']} changes nothing without --watermark")
