"""How do decoding strategies differ? One self-contained page on which every token shows what else was possible."""

import math
from collections.abc import Callable, Sequence

from lm_recipes.decoding.probabilities import Candidate, Continuation, Step

HEAD = 12  # candidates shown of each distribution
SHOWN = 8  # prompts whose texts are shown; the table counts all
# A token's class: how surprised the model was. (probability at least, class)
LEVELS = ((0.5, "s0"), (0.2, "s1"), (0.05, "s2"), (0.01, "s3"), (0.0, "s4"))
CAP = 8.0  # nats: the tallest bar of a skyline
ABOUT = {
    "greedy": "The likeliest token, each time.",
    "beam": "Keeps several beginnings at once and ends with the likeliest text it found.",
    "beam_sample": "Beam search that draws how its beginnings go on.",
    "diverse_beam": "Beam search in groups; tokens that an earlier group has just taken cost more.",
    "constrained_beam": "The likeliest text it found that says what it was told to say.",
    "sample": "Draws from the model's whole distribution, its long tail included.",
    "top_k": "Draws from the k likeliest tokens, however the rest looks.",
    "nucleus": "Draws from the fewest tokens that together have the probability p (top-p).",
    "min_p": "Draws from tokens with at least a share of the best one's probability.",
    "typical": "Draws from tokens about as surprising as the model expects; the likeliest may be cut.",
    "eta": "Draws from tokens above a threshold that falls where the model is unsure.",
    "contrastive": "Of a few likely tokens the one that is least like what was said before.",
    "dola": "The token whose probability grew most from early layers to the last.",
    "assisted": "A small model proposes tokens, this one checks them: the same text, sooner.",
    "prompt_lookup": "The text so far proposes tokens, the model checks them: the same text, sooner.",
}
# measure -> (heading, how it is written, what it says)
MEASURES: dict[str, tuple[str, Callable[[float], str], str]] = {
    "nats_per_token": (
        "nats/token",
        "{:.2f}".format,
        "how surprising the model finds its own text: minus log-probability, per token",
    ),
    "bits_per_byte": ("bits/byte", "{:.2f}".format, "the same by the size of the text: comparable between tokenizers"),
    "distinct_1": ("distinct-1", "{:.2f}".format, "different words, as a share of all words"),
    "distinct_2": ("distinct-2", "{:.2f}".format, "different pairs of words, as a share of all pairs"),
    "repetition": ("repeated", "{:.0%}".format, "runs of four words that the text said before, as a share of all"),
    "self_bleu": ("self-BLEU", "{:.0f}".format, "how alike the texts of one prompt are: 100 is all the same"),
    "tokens_per_text": ("tokens", "{:.0f}".format, "length of a text"),
    "ended": ("ended", "{:.0%}".format, "texts that an end token ended; the others were cut"),
    "tokens_per_second": (
        "tokens/s",
        "{:,.0f}".format,
        "of one timed run on the machine named below; what draws, draws one text of each prompt",
    ),
}


def terminal_table(summaries: dict[str, dict]) -> str:
    """A row per strategy, a column per measure."""
    rows = [["", *(heading for heading, _, _ in MEASURES.values())]]
    rows += [[name, *(_written(summary, measure) for measure in MEASURES)] for name, summary in summaries.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(f"{first:<{widths[0]}}  " + "  ".join(cells))
    return "\n".join(lines)


def markdown_table(summaries: dict[str, dict]) -> str:
    """The same for a page in Markdown."""
    lines = [f"| | {' | '.join(heading for heading, _, _ in MEASURES.values())} |"]
    lines.append("| --- |" + " ---: |" * len(MEASURES))
    for name, summary in summaries.items():
        lines.append(f"| {name} | {' | '.join(_written(summary, measure) for measure in MEASURES)} |")
    return "\n".join(lines) + "\n"


def _written(summary: dict, measure: str) -> str:
    value = summary[measure]
    return "–" if value is None else MEASURES[measure][1](value)


def comparison_page(record: dict, prompts: Sequence[str], found: dict[str, list[list[Continuation]]]) -> str:
    """The page: HTML with pictures, style and script inside, nothing loaded from anywhere. It reads without its script
    too, which shows the distribution behind a token that is pointed at.

    Args:
        record: results.json of the comparison. found: strategy -> prompt -> its texts.
    """
    from jinja2 import Environment, PackageLoader

    summaries, options = record["metrics"]["decoding"], record["config"]["strategies"]
    sections, steps = [], {}
    for row, prompt in enumerate(prompts[:SHOWN]):
        cards = []
        for number, (name, by_prompt) in enumerate(found.items()):
            steps[f"{row}-{number}"] = [compact(step) for step in by_prompt[row][0].tokens]
            cards.append(
                {
                    "key": f"{row}-{number}",
                    "name": name,
                    "about": ABOUT.get(name, ""),
                    "options": shown_options(options[name]),
                    "texts": [_text(text) for text in by_prompt[row]],
                }
            )
        sections.append({"prompt": prompt, "cards": cards})
    firsts = [
        (prompt, {name: by_prompt[row][0].tokens[0] for name, by_prompt in found.items() if by_prompt[row][0].tokens})
        for row, prompt in enumerate(prompts[:SHOWN])
    ]
    for section, (_, cuts) in zip(sections, firsts, strict=True):
        section["cuts"] = cut_table(cuts)
    environment = Environment(loader=PackageLoader("lm_recipes.reporting", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {"visible": visible, "comma": "{:,}".format}
    return environment.get_template("decoding.html.jinja").render(
        record=record,
        config=record["config"],
        choices=choices(firsts),
        sections=sections,
        left_out=len(prompts) - len(sections),
        steps=steps,
        measures=measure_table(summaries),
        headings=[(heading, about) for heading, _, about in MEASURES.values()],
        tiles=tiles(summaries),
        bar=bar,
    )


def tiles(summaries: dict[str, dict]) -> list[tuple[str, str, str]]:
    """(question, strategy, number) for what a reader asks first; questions that no strategy answers are left out."""
    asked = [
        ("Least surprising to the model", "nats_per_token", min, "{:.2f} nats a token"),
        ("Most different words", "distinct_2", max, "distinct-2 of {:.2f}"),
        ("Says the same again most", "repetition", max, "{:.0%} of its four-word runs"),
        ("Least like each other", "self_bleu", min, "self-BLEU of {:.0f} between texts of a prompt"),
    ]
    found = []
    for question, measure, choose, written in asked:
        values = {name: summary[measure] for name, summary in summaries.items() if summary[measure] is not None}
        if values:
            best = choose(values, key=values.get)
            found.append((question, best, written.format(values[best])))
    return found


def measure_table(summaries: dict[str, dict]) -> list[tuple[str, list[tuple[str, float]]]]:
    """For each strategy its measures as (written, share of the column's largest)."""
    largest = {key: max((one[key] or 0 for one in summaries.values()), default=0) for key in MEASURES}
    return [
        (name, [(_written(one, key), (one[key] or 0) / largest[key] if largest[key] else 0.0) for key in MEASURES])
        for name, one in summaries.items()
    ]


def choices(firsts: Sequence[tuple[str, dict[str, Step]]]) -> dict | None:
    """What strategies may say next, where the model is sure and where it is not: after the prompts whose likeliest
    first token is likeliest and least likely.

    Args:
        firsts: of each prompt its text, and strategy -> the first step of one of its texts.

    Returns:
        places: (prompt, likeliest token, its probability), one or two. rows: (names, what they do, a strip for each
        place); the strategies that cut nothing come first, together. lesson: what to see. None: no text has a token.
    """
    asked = sorted((pair for pair in firsts if pair[1]), key=lambda pair: -_likeliest(pair[1]).probability)
    if not asked:
        return None
    asked = asked[:1] if len(asked) == 1 else [asked[0], asked[-1]]
    names = [name for name in asked[0][1] if all(name in cuts for _, cuts in asked)]
    whole = [name for name in names if all(cuts[name].mass > 0.9999 for _, cuts in asked)]
    rows = [(whole, "Nothing is cut: drawn from as it is, or searched for a likely whole text.")] if whole else []
    rows += [([name], ABOUT.get(name, "")) for name in names if name not in whole]
    return {
        "places": [(prompt, visible(_likeliest(cuts).token), _likeliest(cuts).probability) for prompt, cuts in asked],
        "rows": [(group, about, [strip(cuts[group[0]]) for _, cuts in asked]) for group, about in rows],
        "lesson": _lesson([cuts for _, cuts in asked]),
    }


def _lesson(places: Sequence[dict[str, Step]]) -> str | None:
    """What to see, in numbers: a nucleus widens where the model is unsure, a fixed number does not."""
    if len(places) < 2 or not all({"nucleus", "top_k"} <= cuts.keys() for cuts in places):
        return None
    (sure, unsure), (sure_k, unsure_k) = ([cuts[name] for cuts in places] for name in ("nucleus", "top_k"))
    return (
        f"The nucleus is as wide as the model is unsure: to hold {sure.mass:.0%} of the probability it takes "
        f"{sure.kept:,} {'token' if sure.kept == 1 else 'tokens'} where the model is sure, and {unsure.kept:,} where "
        f"it is not. Top-k does not ask: its {sure_k.kept:,} tokens are {sure_k.mass:.0%} in one place and "
        f"{unsure_k.mass:.0%} in the other."
    )


def _likeliest(cuts: dict[str, Step]) -> Candidate:
    return next(iter(cuts.values())).head[0]


def strip(step: Step) -> dict:
    """The whole distribution as a strip, the likeliest token first: a part for each of the head, and two for the rest.

    Returns:
        kept, mass: of the step. parts: (label, hint, share, whether it was kept); the shares add up to 1.
    """
    head = [(visible(one.token), f"{one.probability:.3f}", one.probability, one.drawn > 0) for one in step.head]
    kept = step.kept - sum(was_kept for *_, was_kept in head)
    tail_kept = max(0.0, step.mass - sum(share for *_, share, was_kept in head if was_kept)) if kept else 0.0
    tail_cut = max(0.0, 1 - sum(share for _, _, share, _ in head) - tail_kept)
    tail = [
        (f"{kept:,} more", f"{tail_kept:.3f} together", tail_kept, True),
        ("", f"{tail_cut:.3f} cut", tail_cut, False),
    ]
    parts = []
    for label, hint, share, was_kept in head + tail:
        if share <= 0:
            continue
        label_fits = share > 0.02 + 0.022 * len(label)
        if not (was_kept or label_fits or not parts or parts[-1][3] or parts[-1][0]):  # grey beside grey is one
            parts[-1] = ("", f"{parts[-1][2] + share:.3f} cut", parts[-1][2] + share, False)
        else:
            parts.append((label if label_fits else "", f"{label} {hint}".strip(), share, was_kept))
    return {"kept": step.kept, "mass": step.mass, "parts": parts}


def cut_table(cuts: dict[str, Step]) -> dict | None:
    """One next-token distribution, and what each strategy makes of it. Strategies that leave it as it is, searches over
    whole texts among them, share a column.

    Args:
        cuts: strategy -> the first step of one of its texts. All saw the same distribution there.

    Returns:
        columns: (names, tokens kept); rows: (token, probability, sum so far, what each column gives it).
    """
    if not cuts:
        return None
    columns: dict[tuple, tuple[list[str], Step]] = {}
    for name, step in cuts.items():
        drawn = (step.kept, *(round(candidate.drawn, 4) for candidate in step.head))
        columns.setdefault(drawn, ([], step))[0].append(name)
    head, so_far, rows = next(iter(cuts.values())).head, 0.0, []
    for place, candidate in enumerate(head):
        so_far += candidate.probability
        given = [step.head[place].drawn for _, step in columns.values()]
        rows.append((candidate.token, candidate.probability, so_far, given))
    return {"columns": [(names, step.kept) for names, step in columns.values()], "rows": rows}


def _text(text: Continuation) -> dict:
    return {
        "logprob": text.logprob,
        "per_token": text.logprob_per_token,
        "count": len(text.tokens),
        "ended": text.ended,
        "skyline": skyline(text.tokens),
        "pieces": [
            (step.text.replace("\n", "⏎\n"), level(step), hint(step), text.ended and step is text.tokens[-1])
            for step in text.tokens
        ],
    }


def level(step: Step) -> str:
    """The class of a token by its probability."""
    return next(name for least, name in LEVELS if math.exp(step.logprob) >= least)


def hint(step: Step) -> str:
    return f"{visible(step.token)}  probability {math.exp(step.logprob):.3f}, rank {step.rank:,}, {step.kept:,} kept"


def compact(step: Step) -> list:
    """What the page's script needs of a step: [token, probability, rank, kept, mass, head], where head is a list of
    [token, probability, drawn, chosen].

    A token that was chosen from below the head is added to it.
    """
    head = list(step.head)
    if step.id not in {candidate.id for candidate in head}:
        head.append(Candidate(step.token, step.id, math.exp(step.logprob), step.drawn))
    rows = [[visible(one.token), _short(one.probability), _short(one.drawn), int(one.id == step.id)] for one in head]
    return [visible(step.token), _short(math.exp(step.logprob)), step.rank, step.kept, _short(step.mass), rows]


def _short(number: float) -> float:
    """To four digits: the page holds thousands of them."""
    return float(f"{number:.4g}")


def skyline(steps: Sequence[Step], height: int = 34, step_width: int = 6) -> str:
    """The surprise of each token as a bar, in plain SVG: people's texts go up and down, a beam's stay low."""
    bars = ""
    for place, step in enumerate(steps):
        tall = max(1.0, height * min(-step.logprob, CAP) / CAP)
        bars += (
            f'<rect class="{level(step)}" x="{place * step_width}" y="{height - tall:.1f}" width="{step_width - 1}" '
            f'height="{tall:.1f}"/>'
        )
    width = max(1, len(steps)) * step_width
    return (
        f'<svg class="skyline" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>surprise of each token, up to {CAP:g} nats</title>{bars}</svg>"
    )


def bar(share: float) -> str:
    """A horizontal bar over `share` of the room there is, 0 to 1, in plain SVG."""
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * min(max(share, 0.0), 1.0):.1f}" height="6" rx="1"/></svg>'
    )


def shown_options(options: dict) -> str:
    """The options that say what a strategy does, in a line."""
    left_out = {"max_new_tokens", "num_return_sequences"}
    neutral = {("repetition_penalty", 1.0), ("temperature", 1.0), ("length_penalty", 1.0)}
    shown = {
        name: value
        for name, value in options.items()
        if name not in left_out and (isinstance(value, list) or (name, value) not in neutral)
    }
    return ", ".join(
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in shown.items()
    )


def visible(token: str) -> str:
    """A token as text a reader can see: spaces and line breaks as signs."""
    return token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
