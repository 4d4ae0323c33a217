"""How does a reader see what tokenizers do? A page that holds several against each other, and the guide's table."""

import re
from pathlib import Path

from lm_recipes.reporting.quickstart import visible

SENTENCES = (
    "The AI researcher's breakthrough was unexpected.",
    "How many r's are in strawberry, and in antidisestablishmentarianism?",
    "L'œuvre inachevée fut retrouvée à Besançon en août 1897.",
    "¿Cuándo volverá el pingüino de la montaña?",
    "def area(self, r: float = 0.5) -> float:\n    return 3.14159 * r ** 2",
    "In 2024, 1,234,567 people paid $9.99 each: 12333324.33 in all.",
    "naïve café, 日本語, Ελλάδα 🙂",
)
BYTES = re.compile(r"<[0-9a-f]{2}( [0-9a-f]{2})*>")  # how tokenization.fertility.cut writes parts of characters
MEASURES = {  # key -> title, format, whether more is better, what it says
    "bytes_per_token": (
        "Bytes per token",
        "{:.2f}",
        True,
        "How much text a token holds. At equal model size, more means a longer context and cheaper training per byte.",
    ),
    "tokens_per_word": (
        "Fertility: tokens per word",
        "{:.2f}",
        False,
        "Into how many tokens a word (what spaces separate) falls. Code has few spaces, so its words are long.",
    ),
    "unknown_rate": (
        "Unknown tokens",
        "{:.2%}",
        False,
        "The share of tokens that say only “something was here”. Tokenizers over bytes have none.",
    ),
    "lossless_share": (
        "Texts that come back as they were",
        "{:.0%}",
        True,
        "Documents that decoding gives back character for character. WordPiece drops case, accents and spaces.",
    ),
}


def comparison_page(record: dict) -> str:
    """HTML of a comparison's results.json: one page, no scripts, nothing loaded from anywhere."""
    from jinja2 import Environment, PackageLoader

    metrics = record["metrics"]
    environment = Environment(loader=PackageLoader("lm_recipes.reporting", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {"share": "{:.1%}".format, "comma": "{:,}".format, "visible": visible}
    return environment.get_template("tokenizers.html.jinja").render(
        record=record,
        tokenizers=metrics["tokenizers"],
        texts=list(metrics["text_kilobytes"]),
        kilobytes=metrics["text_kilobytes"],
        cuts=[
            {
                "sentence": cut["sentence"],
                "tokens": {
                    name: [(token, bool(BYTES.fullmatch(token))) for token in t] for name, t in cut["tokens"].items()
                },
            }
            for cut in metrics["cuts"]
        ],
        tables=[_table(key, metrics) for key in MEASURES],
        tiles=_tiles(metrics["tokenizers"]),
    )


def _table(key: str, metrics: dict) -> dict:
    """Rows of (value as text, shade 0 to 1: better is darker) per tokenizer; the shade compares within a text."""
    title, form, more, about = MEASURES[key]
    by_text = {text: [r[key][text] for r in metrics["tokenizers"].values()] for text in metrics["text_kilobytes"]}

    def shade(value: float, values: list[float]) -> float:
        low, high = min(values), max(values)
        share = (value - low) / (high - low) if high > low else 1.0
        return share if more or high == low else 1 - share

    rows = {
        name: [(form.format(r[key][text]), shade(r[key][text], by_text[text])) for text in by_text]
        for name, r in metrics["tokenizers"].items()
    }
    return {"title": title, "about": about, "rows": rows}


def _tiles(tokenizers: dict[str, dict]) -> list[tuple[str, str, str]]:
    """(question, number, who) for the head of the page."""

    def mean(record: dict) -> float:
        return sum(record["bytes_per_token"].values()) / len(record["bytes_per_token"])

    lossless = [name for name, r in tokenizers.items() if min(r["lossless_share"].values()) == 1]
    longest = max(lossless or tokenizers, key=lambda name: mean(tokenizers[name]))
    fastest = max(tokenizers, key=lambda name: tokenizers[name]["megabytes_per_second"])
    what = "of the lossless ones" if lossless else "mean of the texts"
    tiles = [
        (f"most bytes per token, {what}", f"{mean(tokenizers[longest]):.2f}", longest),
        ("fastest, all cores", f"{tokenizers[fastest]['megabytes_per_second']:.1f} MB/s", fastest),
        ("lossless on every text", f"{len(lossless)} of {len(tokenizers)}", ", ".join(lossless) or "none"),
    ]
    fair = {name: r["parity"] for name, r in tokenizers.items() if r["parity"]}
    if fair:
        fairest = min(fair, key=fair.get)
        tiles.insert(1, ("most even over languages (1 is equal)", f"{fair[fairest]:.2f}", fairest))
    return tiles


def comparison_picture(record: dict, path: str | Path) -> None:
    """A PNG: bytes per token of each tokenizer on each text, the better the darker."""
    from lm_recipes.reporting.plots import INK, STYLE, plt

    metrics = record["metrics"]
    names, texts = list(metrics["tokenizers"]), list(metrics["text_kilobytes"])
    rows = [[metrics["tokenizers"][name]["bytes_per_token"][text] for text in texts] for name in names]
    with plt.rc_context({**STYLE, "figure.facecolor": "white", "axes.grid": False}):
        figure, axes = plt.subplots(figsize=(2.4 + 1.05 * len(texts), 1.1 + 0.5 * len(names)))
        axes.imshow(rows, cmap="BuGn", aspect="auto", vmin=min(map(min, rows)) - 0.5, vmax=max(map(max, rows)) + 1)
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                best = value == max(other[x] for other in rows)
                axes.text(
                    x, y, f"{value:.2f}", ha="center", va="center", color=INK, weight="bold" if best else "normal"
                )
        entries = [f"{name}  ({metrics['tokenizers'][name]['vocab_size']:,})" for name in names]
        axes.set_yticks(range(len(names)), entries)
        axes.set_xticks(range(len(texts)), texts, color=INK)
        axes.tick_params(length=0, top=False)
        axes.spines[:].set_visible(False)
        axes.set_title("Bytes per token (entries in brackets); bold: most per text", fontsize=12, loc="left", pad=12)
        figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(figure)


def vocabulary_table(record: dict) -> str:
    """The sweep of recipes/bench/vocabulary.py as Markdown; docs/tokenizers.md shows this very text."""
    names = ["vocabulary", "bytes per token", "entries seen < 100 times", "parameters", "in embeddings", "tokens/s"]
    names += ["text read, MB", "bits per byte"]
    rows = record["metrics"]["vocabularies"]
    best = min(row["bits_per_byte"] for row in rows)
    cells = [names, ["---", *["---:"] * (len(names) - 1)]]
    for row in rows:
        bits = f"{row['bits_per_byte']:.3f}"
        cells.append([
            row["name"],
            f"{row['bytes_per_token']:.2f}",
            f"{row['rare_share']:.0%}",
            f"{row['parameters'] / 1e6:.2f}M",
            f"{1 - row['non_embedding_parameters'] / row['parameters']:.0%}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['megabytes_read']:.2f}",
            f"**{bits}**" if row["bits_per_byte"] == best else bits,
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


OPEN, CLOSE = "<!-- vocabulary: made from results/bench-vocabulary.json -->", "<!-- /vocabulary -->"


def with_vocabulary_table(page: str, record: dict) -> str:
    """The text of docs/tokenizers.md with the table of this record between its two marks."""
    before, rest = page.split(OPEN)
    return f"{before}{OPEN}\n{vocabulary_table(record)}\n{CLOSE}{rest.split(CLOSE)[1]}"
