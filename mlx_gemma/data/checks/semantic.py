"""Semantic duplicates, an option: prompts that ask the same in other words.

    for twin in semantic_duplicates([row.prompt for row in rows], threshold=0.75):
        ...    # rows[twin.row] asks what rows[twin.of] asks, at twin.similarity (cosine)

Without a model, texts are compared by latent semantic analysis of the data's own prompts (Deerwester et al. 1990):
TF-IDF of character n-grams, brought to 256 dimensions by a truncated SVD. Nothing is downloaded. With `model`, a folder
or hub id, a model of sentence-transformers embeds them (not measured: none was at hand). As with other duplicates, a
row is compared with the rows kept before it.

Measured on datasets/python3/train.jsonl, 5,000 prompts, where two of one family ask the same in other words and two of
different families do not (12.5 M pairs; by LSA, and by the Jaccard similarity that finds near duplicates):

    cosine at least     0.90   0.85   0.80   0.75   0.70   0.65   0.60   0.50
    precision of pairs  1.000  0.999  0.997  0.988  0.973  0.953  0.926  0.835
    recall of pairs     0.095  0.129  0.161  0.200  0.252  0.317  0.392  0.555
    precision of twins                0.998  0.995  0.984  0.973

    recall at a precision of 0.99 / 0.95 / 0.90: LSA 0.19 / 0.33 / 0.45, Jaccard 0.15 / 0.15 / 0.16

The search is exact, in blocks: 0.5 s of CPU time for 20,000 vectors of 256. Semhash 0.5 took 6 to 8 s on the same ones,
kept 8,813 rows or 8,814 from run to run, and brings 57 MB of packages. (One thread of an Intel Xeon at 2.10 GHz.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_gemma.data.reason import Reason
from mlx_gemma.errors import UserError

CHECK = "semantic"
THRESHOLD = 0.75
DIMENSIONS = 256
SAMPLE = 20_000  # distinct prompts that the analysis is made from, evenly drawn
TERMS = 50_000  # n-grams, the most frequent
NGRAMS = (2, 5)  # characters, within words
BLOCK = 2048

Vectors = npt.NDArray[np.float32]
"""Embeddings of length 1, or 0 where a text has nothing in common with others: float32 [n, d]."""


@dataclass(frozen=True)
class Twin:
    """A row that asks what an earlier, kept row asks; both by their number from 0."""

    row: int
    of: int
    similarity: float

    def reason(self, where: str) -> Reason:
        """As the audit reports it; `where` is of the earlier row."""
        return Reason(CHECK, f"asks the same as {where} in other words ({self.similarity:.2f})", of=where)


def semantic_duplicates(
    prompts: Sequence[str], threshold: float = THRESHOLD, model: str | None = None
) -> Iterator[Twin]:
    """Every prompt at least `threshold` similar (cosine) to one kept before it, with the most similar, in order.

    Memory: 1 kB a prompt. Time grows with prompts times prompts kept: some 20 minutes for a million, by that of 20,000.

    Raises:
        UserError: a model that cannot be loaded.
    """
    if not prompts:
        return
    embed = lsa(prompts) if model is None else sentence_encoder(model)
    kept, places, n = np.empty((0, 0), np.float32), np.empty(len(prompts), np.int64), 0
    for start in range(0, len(prompts), BLOCK):
        block = embed(prompts[start : start + BLOCK])
        if start == 0:
            kept = np.empty((len(prompts), block.shape[1]), np.float32)
        near, best = _nearest(block, kept[:n])
        among, new = block @ block.T, list[int]()
        for i in range(len(block)):
            similarity, of = float(best[i]), int(places[near[i]]) if n else 0
            if new:
                j = int(np.argmax(among[i, new]))
                if among[i, new[j]] > similarity:
                    similarity, of = float(among[i, new[j]]), start + new[j]
            if similarity >= threshold:
                yield Twin(start + i, of, min(1.0, similarity))
            else:
                new.append(i)
        kept[n : n + len(new)] = block[new]
        places[n : n + len(new)] = np.array(new, np.int64) + start
        n += len(new)


def clusters(twins: Sequence[Twin]) -> dict[int, list[Twin]]:
    """Kept row -> its twins."""
    found: dict[int, list[Twin]] = {}
    for twin in twins:
        found.setdefault(twin.of, []).append(twin)
    return found


def _nearest(block: Vectors, kept: Vectors) -> tuple[npt.NDArray[np.int64], Vectors]:
    """Number and similarity of the most similar kept vector, for each of a block; similarity -1 where none is kept."""
    number, best = np.zeros(len(block), np.int64), np.full(len(block), -1, np.float32)
    for start in range(0, len(kept), 8 * BLOCK):
        similarity = block @ kept[start : start + 8 * BLOCK].T
        at = similarity.argmax(axis=1)
        value = similarity[np.arange(len(block)), at]
        better = value > best
        number[better], best[better] = at[better] + start, value[better]
    return number, best


def lsa(prompts: Sequence[str]) -> Callable[[Sequence[str]], Vectors]:
    """Latent semantic analysis of prompts: a function from texts to vectors. About 1 ms a prompt.

    With few prompts, all dimensions are kept, and the similarities are those of TF-IDF itself.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    distinct = [p for p in dict.fromkeys(prompts) if p.strip()]
    if not distinct:
        return lambda texts: np.zeros((len(texts), 1), np.float32)
    sample = distinct[:: -(-len(distinct) // SAMPLE)]
    terms = TfidfVectorizer(
        sublinear_tf=True, analyzer="char_wb", ngram_range=NGRAMS, max_features=TERMS, dtype=np.float32
    )
    counts = terms.fit_transform(sample)
    if min(counts.shape) <= DIMENSIONS:
        return lambda texts: _unit(_full(terms.transform(texts), counts))
    svd = TruncatedSVD(DIMENSIONS, random_state=0).fit(counts)
    return lambda texts: _unit(svd.transform(terms.transform(texts)))


def sentence_encoder(model: str) -> Callable[[Sequence[str]], Vectors]:
    """A model of sentence-transformers, from a folder or the hub, as a function from texts to vectors.

    Raises:
        UserError: it cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        encoder = SentenceTransformer(model, device="cpu")
    except Exception as e:  # of many kinds: no such folder, no network, no such repository, files that are missing
        first = str(e).strip().splitlines()[0][:150] if str(e).strip() else type(e).__name__
        fix = "give the folder of a sentence-transformers model, or no model at all"
        raise UserError(f"no embedding model can be loaded: {first}", where=model, fix=fix) from e
    return lambda texts: _unit(encoder.encode(list(texts), batch_size=64, show_progress_bar=False))


def _full(some: Any, sample: Any) -> Any:
    """TF-IDF rows in an orthonormal basis of the sample's span: [n, rank]; their inner products stay what they are."""
    values, vectors = np.linalg.eigh((sample @ sample.T).toarray().astype(np.float64))
    used = values > 1e-6
    return (some @ sample.T).toarray() @ (vectors[:, used] / np.sqrt(values[used]))


def _unit(vectors: Any) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 1e-9, lengths, np.inf), np.float32)
