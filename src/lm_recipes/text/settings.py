"""Which steps clean a corpus, and how strict are they?"""

from dataclasses import dataclass, field

from lm_recipes.launch import UserError

DUPLICATES = "exact_duplicates"
STEPS = ("redirect", "markup", "normalize", "length", "quality", "repetition", "language", "inappropriate", DUPLICATES)


@dataclass
class CleaningSettings:
    """Which steps run, in which order, and their thresholds. text/filters.py says what each means, and its paper."""

    steps: list[str] = field(
        default_factory=lambda: list(STEPS),
        metadata={"help": "the steps to run, in order; leave one out to switch it off"},
    )
    min_words: int = field(default=50, metadata={"help": "length: words a document must have"})
    max_words: int = field(default=100_000, metadata={"help": "length: words a document may have"})
    min_mean_word_length: float = field(default=3.0, metadata={"help": "quality: characters"})
    max_mean_word_length: float = field(default=10.0, metadata={"help": "quality: characters"})
    max_symbol_word_ratio: float = field(default=0.1, metadata={"help": "quality: # or ... per word"})
    max_bullet_lines: float = field(default=0.9, metadata={"help": "quality: share of lines"})
    max_ellipsis_lines: float = field(default=0.3, metadata={"help": "quality: share of lines"})
    min_alphabetic_words: float = field(default=0.8, metadata={"help": "quality: share of words with a letter"})
    min_stop_words: int = field(default=2, metadata={"help": "quality: of 8 English ones; 0 for other languages"})
    max_duplicate_lines: float = field(default=0.3, metadata={"help": "repetition: share of lines"})
    max_duplicate_characters: float = field(default=0.2, metadata={"help": "repetition: share of characters"})
    languages: list[str] = field(
        default_factory=lambda: ["en"], metadata={"help": "language: ISO codes to keep, such as en de fr"}
    )
    min_language_score: float = field(default=0.5, metadata={"help": "language: probability of the best guess"})
    inappropriate_line_score: float = field(
        default=0.8, metadata={"help": "inappropriate: probability from which a line counts as offensive"}
    )
    max_inappropriate_share: float = field(
        default=0.1, metadata={"help": "inappropriate: share of a document's characters in offensive lines"}
    )

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise UserError(f"steps: unknown step `{step}`; there are {', '.join(STEPS)}")
        if DUPLICATES in self.steps[:-1]:
            raise UserError(f"steps: `{DUPLICATES}` looks at all documents and must come last")
