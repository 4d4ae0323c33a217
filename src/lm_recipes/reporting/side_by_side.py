"""Which of several ways of doing the same is the faster, and by how much? A table for each thing that was done."""

from lm_recipes.reporting.cards import markdown_rows


def markdown_tables(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row per way; a way that has not a number that others have leaves its cell empty.

    Args:
        found: what was done -> way -> name of a number (units in it, `_` for spaces) -> value.
    """
    parts = []
    for title, ways in found.items():
        columns = list(dict.fromkeys(name for numbers in ways.values() for name in numbers))
        rows = [[way, *(_show(numbers.get(name)) for name in columns)] for way, numbers in ways.items()]
        parts.append(markdown_rows([title, *(name.replace("_", " ") for name in columns)], rows))
    return "\n\n".join(parts)


def _show(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
