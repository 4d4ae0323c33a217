"""Which pieces does a unigram language model keep, and the same ones every time?"""

import io
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

# tokenizers' own UnigramTrainer sums floats in the order of a hash map: no two runs agree. SentencePiece repeats
# itself for a given number of threads, so that number is fixed, whatever the machine has.
THREADS = 8
LONGEST_WORD = 8192  # characters; SentencePiece leaves longer ones out, so we do, and know which characters it saw


def unigram_pieces(texts: Iterable[str], pre_tokenizer, alphabet: list[str], size: int) -> list[tuple[str, float]]:
    """`size` pieces with their log-probabilities (Kudo 2018, https://arxiv.org/abs/1804.10959), by SentencePiece.

    All characters of `alphabet` are among them, seen or not. Fewer than `size` if the text has no more.

    Args:
        pre_tokenizer: of `tokenizers`; cuts a text into words of the alphabet's characters.
    """
    words: Counter[str] = Counter()
    for text in tqdm(texts, desc="count words", unit=" documents", leave=False):
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(text) if len(word) <= LONGEST_WORD)
    unseen = sorted(set(alphabet) - set().union(*words))
    pieces = _sentencepiece(words, size - len(unseen)) if words else []
    lowest = min((score for _, score in pieces), default=0.0)
    return [*pieces, *((character, lowest - 1) for character in unseen)]


def _sentencepiece(words: Counter[str], size: int) -> list[tuple[str, float]]:
    import sentencepiece

    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "words.tsv")
        lines = (f"{word}\t{count}\n" for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0])))
        table.write_text("".join(lines), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(table),
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=size + 1,  # <unk>, which is left out below
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentence_length=4 * LONGEST_WORD,  # in bytes
            num_threads=THREADS,
            bos_id=-1,
            eos_id=-1,
            unk_id=0,
            # the words are what we say they are
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            minloglevel=2,
        )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(i), trained.get_score(i)) for i in range(1, trained.get_piece_size())]
