"""Which steps clean a corpus, and how strict are they?"""

from dataclasses import dataclass, field

from lm_recipes.launch import UserError

# Steps that compare documents: they come last, in this order.
ACROSS_DOCUMENTS = ("exact_duplicates", "decontamination", "near_duplicates", "duplicate_paragraphs")
# What runs unless the YAML says otherwise.
STEPS = (
    "redirect",
    "markup",
    "normalize",
    "length",
    "quality",
    "repetition",
    "language",
    "inappropriate",
    "pii",
    *ACROSS_DOCUMENTS,
)
# What a YAML can add: rules that suit crawled pages and would cost an encyclopedia its headings, lists and formulas,
# a second way to treat offensive lines, and a model that wants a reference text.
OPTIONAL_STEPS = ("inappropriate_lines", "c4_lines", "c4", "fineweb", "perplexity")
# In order of precedence: where two overlap, the earlier one stays.
PII_TYPES = ("secret", "email", "iban", "credit_card", "ip_address", "national_id", "phone")
EVALUATION_SETS = (
    "demo:movie-reviews",
    "demo:doctor-patient",
    "demo:boolq",
    "demo:piqa",
    "demo:siqa",
    "demo:commonsenseqa",
    "demo:openbookqa",
    "demo:mmlu",
    "demo:truthfulqa",
    "demo:hellaswag",
    "demo:medqa",
    "demo:pubmedqa",
)


@dataclass
class CleaningSettings:
    """Which steps run, in which order, and their thresholds. text/filters.py says what each means, and its paper."""

    steps: list[str] = field(
        default_factory=lambda: list(STEPS),
        metadata={"help": "the steps to run, in order; leave one out to switch it off"},
    )
    normal_form: str = field(
        default="NFC", metadata={"help": "normalize: NFC, or NFKC, which loses meaning (10² becomes 102)"}
    )
    quotes: str = field(default="straight", metadata={"help": "normalize: straight (\" and '), or keep as written"})
    dashes: str = field(default="keep", metadata={"help": "normalize: keep as written, or ascii (- and --)"})
    min_words: int = field(default=50, metadata={"help": "length: words a document must have"})
    max_words: int = field(default=100_000, metadata={"help": "length: words a document may have"})
    min_mean_word_length: float = field(default=3.0, metadata={"help": "quality: characters"})
    max_mean_word_length: float = field(default=10.0, metadata={"help": "quality: characters"})
    max_symbol_word_ratio: float = field(default=0.1, metadata={"help": "quality: # or ... per word"})
    max_bullet_lines: float = field(default=0.9, metadata={"help": "quality: share of lines"})
    max_ellipsis_lines: float = field(default=0.3, metadata={"help": "quality: share of lines"})
    min_alphabetic_words: float = field(default=0.8, metadata={"help": "quality: share of words with a letter"})
    min_stop_words: int = field(default=2, metadata={"help": "quality: of 8 English ones; 0 for other languages"})
    max_duplicate_lines: float = field(default=0.3, metadata={"help": "repetition: share of lines, of paragraphs"})
    max_duplicate_characters: float = field(
        default=0.2, metadata={"help": "repetition: share of characters in repeated lines, in repeated paragraphs"}
    )
    max_top_ngrams: list[float] = field(
        default_factory=lambda: [0.20, 0.18, 0.16],
        metadata={"help": "repetition: share of characters in the most frequent n-gram of 2, 3, 4 words"},
    )
    max_duplicate_ngrams: list[float] = field(
        default_factory=lambda: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
        metadata={"help": "repetition: share of characters in repeated n-grams of 5, 6, 7, 8, 9, 10 words"},
    )
    min_words_per_line: int = field(default=3, metadata={"help": "c4_lines: words a line must have"})
    max_word_length: int = field(default=1000, metadata={"help": "c4_lines: characters a word may have"})
    min_sentences: int = field(default=5, metadata={"help": "c4: sentences a document must have"})
    min_punctuated_lines: float = field(
        default=0.12, metadata={"help": "fineweb: share of lines that end in punctuation"}
    )
    max_short_lines: float = field(default=0.67, metadata={"help": "fineweb: share of lines"})
    short_line_length: int = field(default=30, metadata={"help": "fineweb: characters"})
    max_duplicate_line_characters: float = field(default=0.01, metadata={"help": "fineweb: share of characters"})
    max_line_breaks_per_word: float = field(default=0.3, metadata={"help": "fineweb: many of them make a list"})
    languages: list[str] = field(
        default_factory=lambda: ["en"], metadata={"help": "language: ISO codes to keep, such as en de fr"}
    )
    min_language_score: float = field(default=0.5, metadata={"help": "language: probability of the best guess"})
    inappropriate_line_score: float = field(
        default=0.8, metadata={"help": "inappropriate(_lines): probability from which a line counts as offensive"}
    )
    max_inappropriate_share: float = field(
        default=0.1, metadata={"help": "inappropriate: share of a document's characters in offensive lines"}
    )
    lexicon: str | None = field(
        default=None,
        metadata={
            "help": "inappropriate(_lines): lines with one of these words count as offensive too: a language code "
            "(en, de, fr, ...) for a well-known list, or a file with a word or phrase a line"
        },
    )
    perplexity_reference: str | None = field(
        default=None, metadata={"help": "perplexity: good text to compare with: a corpus directory, a file or a source"}
    )
    perplexity_percentile: float = field(
        default=99.0,
        metadata={"help": "perplexity: documents harder than this percentage of the reference's own are dropped"},
    )
    max_bits_per_byte: float | None = field(
        default=None, metadata={"help": "perplexity: a fixed limit in place of perplexity_percentile"}
    )

    pii_types: list[str] = field(
        default_factory=lambda: list(PII_TYPES), metadata={"help": "pii: what is replaced by placeholders"}
    )
    evaluation_sets: list[str] = field(
        default_factory=lambda: list(EVALUATION_SETS),
        metadata={"help": "decontamination: sets whose text must not be trained on: demo sets, files, Hub ids"},
    )
    overlap_words: int = field(default=13, metadata={"help": "decontamination: words in a row that are no accident"})
    common_overlap_documents: int = field(
        default=10, metadata={"help": "decontamination: what stands in more documents than this is a mere phrase"}
    )
    contaminated: str = field(
        default="cut", metadata={"help": "decontamination: cut the text around an overlap, or drop the document"}
    )
    min_paragraph_words: int = field(
        default=20, metadata={"help": "duplicate_paragraphs: shorter ones may stand in many documents"}
    )
    near_duplicate_similarity: float = field(
        default=0.8, metadata={"help": "near_duplicates: Jaccard similarity of the documents' 5-word shingles"}
    )
    count_tokens_with: str | None = field(
        default=None, metadata={"help": "tokenizer whose tokens the ledger counts; default: words between spaces"}
    )

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS + OPTIONAL_STEPS:
                known = ", ".join(STEPS + OPTIONAL_STEPS)
                raise UserError(f"steps: unknown step `{step}`; there are {known}")
        across = [step for step in self.steps if step in ACROSS_DOCUMENTS]
        if self.steps[len(self.steps) - len(across) :] != sorted(across, key=ACROSS_DOCUMENTS.index):
            raise UserError(
                f"steps: those that compare documents come last, in this order: {', '.join(ACROSS_DOCUMENTS)}"
            )
        if not 0 < self.near_duplicate_similarity <= 1:
            raise UserError("near_duplicate_similarity: a share above 0, up to 1")
        for key, choices in (
            ("normal_form", ("NFC", "NFKC")),
            ("quotes", ("straight", "keep")),
            ("dashes", ("keep", "ascii")),
            ("contaminated", ("cut", "drop")),
        ):
            if getattr(self, key) not in choices:
                raise UserError(f"{key}: `{getattr(self, key)}` is none of {', '.join(choices)}")
        for key, sizes in (("max_top_ngrams", "2, 3, 4"), ("max_duplicate_ngrams", "5, 6, 7, 8, 9, 10")):
            if len(getattr(self, key)) != sizes.count(",") + 1:
                raise UserError(f"{key}: one number for each n-gram size: {sizes}")
        for kind in self.pii_types:
            if kind not in PII_TYPES:
                raise UserError(f"pii_types: `{kind}` is none of {', '.join(PII_TYPES)}")
        if "perplexity" in self.steps and not self.perplexity_reference:
            raise UserError("perplexity_reference: the step `perplexity` needs a text to compare with; name one")
