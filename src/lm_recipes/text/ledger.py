"""What did each step of stage 1 drop, change and cost?"""

from dataclasses import dataclass, field

EXAMPLES = 3  # kept per step: the first ones in document order, so that they never depend on the processes


@dataclass
class StepRecord:
    """One step's line. Bytes are of UTF-8; seconds are of processor time, summed over processes."""

    step: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)  # reason for a drop -> documents
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, other: "StepRecord") -> None:
        """Add the record of a later batch of documents."""
        for name in ("documents_in", "documents_out", "bytes_in", "bytes_out", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.reasons.items():
            self.count(reason, count)
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    def count(self, reason: str, documents: int = 1) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + documents


def format_ledger(ledger: list[StepRecord]) -> str:
    """The ledger as a plain-text table, with the reasons for drops below each step that has several."""
    header = ("step", "documents in", "out", "dropped", "MB in", "MB out", "seconds")
    rows = [
        (
            record.step,
            f"{record.documents_in:,}",
            f"{record.documents_out:,}",
            f"{record.documents_in - record.documents_out:,}",
            f"{record.bytes_in / 1e6:.2f}",
            f"{record.bytes_out / 1e6:.2f}",
            f"{record.seconds:.1f}",
        )
        for record in ledger
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        first, *others = row
        lines.append(
            "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])
        )
        record = next((record for record in ledger if record.step == first), None)
        if record and len(record.reasons) > 1:
            lines += [
                f"    {count:,} {reason}" for reason, count in sorted(record.reasons.items(), key=lambda item: -item[1])
            ]
    return "\n".join(lines)
