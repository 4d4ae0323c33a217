"""Where do embeddings begin? Not at random: with which tokens stand near which in the training text.

The matrix of positive pointwise mutual information between tokens, cut down to its leading singular vectors, is what
word2vec approximates (Levy and Goldberg, https://papers.nips.cc/paper/5477). Counting takes seconds; gradients take
hundreds of steps to learn the same, on a plateau where a masked language model knows how frequent tokens are and little
else (docs/LOG.md).
"""

import logging
import time

import numpy as np
import torch
from scipy import sparse

logger = logging.getLogger(__name__)

WINDOW = 4  # tokens; a pair k apart counts 1/k
SMOOTHING = 0.75  # of context frequencies: rare contexts would have the largest values (aclanthology.org/Q15-1016)
TOKENS_PER_ENTRY = 500  # of text that is counted, so that it takes seconds whatever the corpus
INPUT_SCALE, OUTPUT_SCALE = 0.1, 0.05  # root mean square of the weights
NOISE = 0.1  # of that: tokens that were not seen are apart


@torch.no_grad()
def embed_by_cooccurrence(model, blocks, causal: bool, seed: int = 0) -> None:
    """Set the embeddings of a fresh model by counts over `blocks`, those of its output layer too.

    Args:
        model: `new_model`'s.
        blocks: an `objectives.PackedSplit`; pairs never cross pieces.
        causal: the model predicts what follows. If its two matrices are apart, the input's is of tokens that come first
            and the output's of those that follow: it begins as a bigram model. All others count pairs in both orders.
        seed: of the directions that singular vectors are turned to, and of the noise.
    """
    from sklearn.utils.extmath import randomized_svd

    start = time.perf_counter()
    first, second = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    counts, seen = count_pairs(blocks, len(first))
    if first is second or not causal:
        counts = counts + counts.T
    entries, width = first.shape
    left, values, right = randomized_svd(informative(counts), min(width, entries - 1), n_iter=4, random_state=seed)
    # Any rotation says the same. Without one, the first coordinates would be the large ones.
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(width, len(values), generator=generator))[0].T
    for weight, vectors, scale in [(second, right.T, OUTPUT_SCALE), (first, left, INPUT_SCALE)]:
        vectors = torch.from_numpy(vectors * np.sqrt(values)) @ turn
        noise = NOISE * torch.randn(vectors.shape, generator=generator)
        weight.copy_(scale * (vectors / vectors.square().mean().sqrt() + noise))
    logger.info("embeddings begin with the pairs in %s tokens: %.1f s", f"{seen:,}", time.perf_counter() - start)


def count_pairs(blocks, entries: int) -> tuple[sparse.csr_array, int]:
    """How often which token (column) follows which (row) within `WINDOW`, each pair 1 / distance; tokens read."""
    tokens = len(blocks) * len(blocks[0]["input_ids"])
    some = blocks.select(range(0, len(blocks), max(1, tokens // (TOKENS_PER_ENTRY * entries))))
    ids, positions = (some[name].astype(np.int32) for name in ("input_ids", "position_ids"))
    counts = sparse.csr_array((entries, entries), dtype=np.float32)
    for distance in range(1, min(WINDOW, ids.shape[1] - 1) + 1):
        together = positions[:, distance:] - positions[:, :-distance] == distance  # of one piece
        pairs = ids[:, :-distance][together], ids[:, distance:][together]
        weights = np.full(len(pairs[0]), 1 / distance, np.float32)
        counts += sparse.coo_array((weights, pairs), counts.shape).tocsr()
    return counts, ids.size


def informative(counts: sparse.csr_array) -> sparse.csr_array:
    """Pointwise mutual information of pairs, in nats, with smoothed contexts; what is below 0 is left out."""
    pairs, rows, columns = counts.tocoo(), counts.sum(1), counts.sum(0) ** SMOOTHING
    nats = np.log(pairs.data * columns.sum() / (rows[pairs.coords[0]] * columns[pairs.coords[1]]))
    more = nats > 0
    return sparse.csr_array((nats[more], [place[more] for place in pairs.coords]), counts.shape, dtype=np.float32)
