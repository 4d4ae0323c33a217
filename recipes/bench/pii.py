"""Measure what text/pii.py finds and what it takes for personal data, beside presidio's pattern recognisers.

Two corpora: generated documents with gold spans, of templates that detection was not developed on (recall, precision,
MB/s of both, rounds in turn), and a real one, whose every hit is counted by type and listed with its characters
masked, to be read and judged.
"""

import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from statistics import median

from lm_recipes.launch import done, parse, recipe

# Presidio's entity -> our type. It knows no secrets, and no ids of France, the Netherlands and Brazil.
ENTITIES = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "credit_card", "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip_address",
} | dict.fromkeys(
    "US_SSN UK_NHS UK_NINO ES_NIF ES_NIE IT_FISCAL_CODE PL_PESEL DE_TAX_ID IN_AADHAAR IN_PAN".split(), "national_id"
)  # fmt: skip

RECOGNISERS = "Email Phone CreditCard Iban Ip UsSsn Nhs UkNino EsNif EsNie ItFiscalCode PlPesel DeTaxId InAadhaar InPan"


@dataclass
class PiiBench:
    """How many documents, of what seed, and which real corpus beside them."""

    documents: int = field(default=2600, metadata={"help": "Generated documents: every format in every locale."})
    seed: int = field(default=0, metadata={"help": "Of the generated documents."})
    split: str = field(default="test", metadata={"help": "test; or dev, the templates detection is developed on."})
    rounds: int = field(default=3, metadata={"help": "Timings of both, in turn."})
    presidio: bool = field(default=True, metadata={"help": "False to leave it out, where it is not installed."})
    source: str = field(default="demo:enwik8", metadata={"help": "A real corpus to look for false alarms in."})
    source_documents: int | None = field(default=None, metadata={"help": "Its first so many; None for all."})
    output_dir: str = field(default="runs/bench-pii", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(PiiBench, description=__doc__)

    from itertools import islice

    import faker
    from tqdm import tqdm

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.evaluation.pii import generate, score
    from lm_recipes.sources import load_documents
    from lm_recipes.text.markup import strip_markup
    from lm_recipes.text.normalize import normalize
    from lm_recipes.text.pii import Span, find, scrub

    def presidio():
        import logging

        import spacy
        import tldextract.tldextract
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
        from presidio_analyzer.nlp_engine import SpacyNlpEngine

        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
        # Its e-mail recogniser would fetch the public suffix list: the copy in the package does.
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        kinds = [getattr(predefined_recognizers, f"{name}Recognizer") for name in RECOGNISERS.split()]
        engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
        engine.nlp = {"en": spacy.blank("en")}
        registry = RecognizerRegistry([kind(supported_language="en") for kind in kinds], supported_languages=["en"])
        return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

    start = time.perf_counter()
    documents = generate(args.documents, args.seed, args.split)
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    detectors = {"ours": lambda text: [(span, 1.0) for span in find(text)]}
    if args.presidio:
        analyze = presidio().analyze
        detectors["presidio"] = lambda text: [
            (Span(hit.start, hit.end, ENTITIES[hit.entity_type]), hit.score)
            for hit in analyze(text, language="en", entities=list(ENTITIES))
        ]
    times = {name: [] for name in detectors}
    found = {}
    for _ in tqdm(range(args.rounds), desc="rounds"):
        for name, detect in detectors.items():
            began = time.perf_counter()
            found[name] = [detect(document.text) for document in documents]
            times[name].append(time.perf_counter() - began)
    metrics = {"generated": {"ours": score(documents, [[span for span, _ in hits] for hits in found["ours"]])}}
    for threshold in (0.0, 0.4) if args.presidio else ():
        spans = [[span for span, sure in hits if sure >= threshold] for hits in found["presidio"]]
        metrics["generated"][f"presidio_score_{threshold}"] = score(documents, spans)
    metrics["generated_megabytes_per_second"] = {name: megabytes / median(taken) for name, taken in times.items()}
    counts, elapsed, size, number, hits = Counter(), 0.0, 0, 0, []
    for document in tqdm(islice(load_documents(args.source), args.source_documents), desc=args.source):
        text = normalize(strip_markup(document.text, document.kind))
        began = time.perf_counter()
        _, replaced = scrub(text)
        elapsed += time.perf_counter() - began
        counts.update(replaced)
        size, number = size + len(text.encode()), number + 1
        hits += [f"{span.type}: {re.sub('[A-Za-z]', 'x', re.sub('[0-9]', '9', text[slice(*span[:2])]))}"
                 for span in (find(text) if replaced else ())]  # fmt: skip
    metrics["corpus"] = {
        "documents": number,
        "bytes": size,
        "megabytes_per_second": size / 1e6 / elapsed,
        "replaced": dict(counts),
        "hits_masked": hits,
    }
    with atomic_directory(args.output_dir) as directory:
        config = asdict(args) | {"faker": faker.VERSION, "generated_bytes": int(megabytes * 1e6)}
        total = {"total": time.perf_counter() - start}
        write_results(directory, config=config, inputs={"source": args.source}, metrics=metrics, seconds=total)
    done("recall and precision per type", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


if __name__ == "__main__":
    recipe(main)
