"""What did each way of making a model smaller cost and bring? The comparison as a table."""

# key of a measured variant -> heading, format, factor
COLUMNS = {
    "bytes": ("MB on disk", "{:,.1f}", 1e-6),
    "milliseconds_per_token": ("ms per token, 1 prompt", "{:.2f}", 1),
    "tokens_per_second": ("tokens/s, batch", "{:,.0f}", 1),
    "milliseconds_per_text": ("ms per text, 1 text", "{:.2f}", 1),
    "texts_per_second": ("texts/s, batches", "{:,.0f}", 1),
    "bits_per_byte": ("bits per byte", "{:.4f}", 1),
    "accuracy": ("test accuracy, %", "{:.1f}", 100),
}


def markdown_table(variants: dict[str, dict[str, float]]) -> str:
    """A row per variant, the original first; what was not measured of a variant is empty.

    Args:
        variants: name -> key of COLUMNS -> value.
    """
    shown = [key for key in COLUMNS if any(key in measured for measured in variants.values())]
    lines = [f"| | {' | '.join(COLUMNS[key][0] for key in shown)} |", "| --- |" + " ---: |" * len(shown)]
    for name, measured in variants.items():
        cells = [COLUMNS[key][1].format(measured[key] * COLUMNS[key][2]) if key in measured else "" for key in shown]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
