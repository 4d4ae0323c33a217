"""How is the next token chosen? Named strategies, each a `GenerationConfig` for `model.generate`."""

from collections.abc import Iterable

from transformers import GenerationConfig

from lm_recipes.launch import UserError

# strategy -> the options it reads, with their defaults. None: the option is off unless it is given.
STRATEGIES: dict[str, dict[str, float | None]] = {
    "greedy": {},
    "beam": {"num_beams": 4, "length_penalty": 1.0},
    "sample": {"temperature": 1.0},
    "top_k": {"temperature": 1.0, "top_k": 50},
    "nucleus": {"temperature": 1.0, "top_k": None, "top_p": 0.9},
    "min_p": {"temperature": 1.0, "min_p": 0.05},
    "typical": {"temperature": 1.0, "typical_p": 0.9},
}
# option -> (lowest value, is the lowest value itself allowed, highest value)
RANGES: dict[str, tuple[float, bool, float]] = {
    "max_new_tokens": (1, True, float("inf")),
    "repetition_penalty": (0, False, float("inf")),
    "num_beams": (2, True, float("inf")),
    "length_penalty": (-float("inf"), False, float("inf")),
    "temperature": (0, False, float("inf")),
    "top_k": (1, True, float("inf")),
    "top_p": (0, False, 1),
    "min_p": (0, False, 1),
    "typical_p": (0, False, 1),
}
# Sampling filters that do nothing; without them `generate` falls back to defaults of its own (top_k=50).
NO_FILTER = {"top_k": 0, "top_p": 1.0, "typical_p": 1.0}


def strategy(
    name: str, *, max_new_tokens: int = 64, repetition_penalty: float = 1.0, **options: float | None
) -> GenerationConfig:
    """The `GenerationConfig` of a named strategy.

    greedy: the likeliest token each time. beam: the best of `num_beams` hypotheses (score: log-probability /
    length ** `length_penalty`). sample: draws from the model's distribution. top_k (Fan et al., 2018), nucleus
    (top-p; Holtzman et al., 2020), min_p (Nguyen et al., 2024) and typical (Meister et al., 2023) cut its tail
    first, after `temperature`.

    Args:
        name: a key of `STRATEGIES`.
        options: options of any strategy; None means the default, and options the strategy does not read are
            ignored (so that several strategies can share one command line, see `refuse_unread`).

    Raises:
        UserError: for an unknown strategy, or a value that is out of range.
    """
    if name not in STRATEGIES:
        raise UserError(f"--strategy {name}: not one of {', '.join(STRATEGIES)}")
    settings = {"max_new_tokens": max_new_tokens, "repetition_penalty": repetition_penalty}
    for option, default in STRATEGIES[name].items():
        value = options.get(option)
        settings[option] = default if value is None else value
    settings = {option: value for option, value in settings.items() if value is not None}
    for option, value in settings.items():
        _refuse_out_of_range(option, value)
    if "temperature" in settings:
        settings = {"do_sample": True, **NO_FILTER, **settings}
    return GenerationConfig(**settings)


def refuse_unread(names: Iterable[str], options: dict[str, float | None]) -> None:
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


def _refuse_out_of_range(option: str, value: float) -> None:
    low, low_allowed, high = RANGES[option]
    if not (low <= value <= high) or (value == low and not low_allowed):
        expected = f"{'at least' if low_allowed else 'above'} {low}"
        raise UserError(f"--{option} {value}: must be {expected}{'' if high == float('inf') else f', at most {high}'}")
