"""What did each step of stage 1 drop, change and cost?"""

from dataclasses import dataclass, field

EXAMPLES = 3  # kept per step: the first ones in document order, so that they never depend on the processes


@dataclass
class StepRecord:
    """One step's line. Bytes are of UTF-8; tokens are words unless a tokenizer was named to count with; seconds are
    of processor time, summed over processes."""

    step: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)  # reason for a drop -> documents
    changes: dict[str, int] = field(default_factory=dict)  # what a step changed in documents it kept -> times
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, other: "StepRecord") -> None:
        """Add the record of a later batch of documents."""
        for name in ("documents_in", "documents_out", "bytes_in", "bytes_out", "tokens_in", "tokens_out", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.reasons, other.reasons), (self.changes, other.changes)):
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    def enter(self, size: int, tokens: int) -> None:
        self.documents_in += 1
        self.bytes_in += size
        self.tokens_in += tokens

    def leave(self, size: int, tokens: int) -> None:
        self.documents_out += 1
        self.bytes_out += size
        self.tokens_out += tokens

    def drop(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    @property
    def megabytes_per_second(self) -> float:
        return self.bytes_in / 1e6 / self.seconds if self.seconds else float("inf")


def format_ledger(ledger: list[StepRecord]) -> str:
    """The ledger as a plain-text table, with what was dropped and changed below each step that has several reasons."""
    header = ("step", "documents in", "out", "dropped", "MB in", "MB out", "seconds", "MB/s")
    rows = [
        (
            record.step,
            f"{record.documents_in:,}",
            f"{record.documents_out:,}",
            f"{record.documents_in - record.documents_out:,}",
            f"{record.bytes_in / 1e6:.2f}",
            f"{record.bytes_out / 1e6:.2f}",
            f"{record.seconds:.1f}",
            f"{record.megabytes_per_second:.0f}",
        )
        for record in ledger
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    records = {record.step: record for record in ledger}
    lines = []
    for first, *others in (header, *rows):
        cells = [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
        if record := records.get(first):
            reasons = record.reasons if len(record.reasons) > 1 else {}
            counts = sorted([*reasons.items(), *record.changes.items()], key=lambda item: (-item[1], item[0]))
            lines += [f"    {count:,} {what}" for what, count in counts]
    return "\n".join(lines)
