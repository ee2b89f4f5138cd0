"""NF4 against an implementation written from the paper, in numpy and scipy."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from scipy.stats import norm

from mlx_gemma.gemma4 import nf4

Call = Callable[[mx.array], mx.array]


def paper_code_book() -> np.ndarray:
    """Section 3: quantiles of N(0, 1), eight for each side with a zero between, divided by the largest.

    The outermost is at 1 - (1 / 32 + 1 / 30) / 2, so that none is infinite.
    """
    outer = 1 - (1 / 32 + 1 / 30) / 2
    positive = norm.ppf(np.linspace(outer, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(outer, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([positive, [0.0], negative]))
    return values / values.max()


def reference(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes [rows, columns], scales [rows, columns / 64] and dense weights, by nearest value."""
    book = np.array(nf4.CODE_BOOK, np.float32)
    blocks = weight.reshape(len(weight), -1, 64)
    scales = np.abs(blocks).max(-1)
    quotients = blocks / np.where(scales == 0, 1, scales)[..., None]
    codes = np.abs(quotients[..., None] - book).argmin(-1)
    return codes.reshape(weight.shape), scales, (book[codes] * scales[..., None]).reshape(weight.shape)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_code_book_is_the_paper_s() -> None:
    assert np.abs(np.array(nf4.CODE_BOOK) - paper_code_book()).max() < 1e-6


@pytest.mark.parametrize("at_once", [2**25, 1000])
def test_codes_and_weights(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Whole and in pieces of a few rows; a block of zeros among them; the first of two codes in the high half."""
    monkeypatch.setattr(nf4, "QUANTISED_AT_ONCE", at_once)
    weight = random(48, 256)
    weight[5, 64:128] = 0
    wanted_codes, wanted_scales, wanted = reference(weight)
    codes, scales = nf4.quantise_by_rows(mx.array(weight), nf4.quantise)
    assert (np.asarray(codes) == wanted_codes[:, ::2] * 16 + wanted_codes[:, 1::2]).all()
    assert (np.asarray(scales) == wanted_scales).all()
    assert (np.asarray(nf4.dequantise(codes, scales)) == wanted).all()


def test_error_on_a_normal_matrix() -> None:
    weight = random(256, 1024)
    dense = np.asarray(nf4.dequantise(*nf4.quantise(mx.array(weight))))
    assert 0.09 < np.linalg.norm(dense - weight) / np.linalg.norm(weight) < 0.093


WAYS: dict[str, Callable[[Call], Call]] = {
    "plain": lambda f: f,
    "compiled": mx.compile,
    "checkpointed": mx.checkpoint,
    "both": lambda f: mx.compile(mx.checkpoint(f)),
}


@pytest.mark.parametrize("at_once", [2**25, 5000])
@pytest.mark.parametrize("way", WAYS)
def test_input_gradient(monkeypatch: pytest.MonkeyPatch, way: str, at_once: int) -> None:
    """T27: the gradient through frozen 4-bit weights is that of the dense product."""
    monkeypatch.setattr(nf4, "DENSE_AT_ONCE", at_once)
    layer = nf4.NF4Linear(mx.array(random(96, 128)))
    dense = mx.array(reference(random(96, 128))[2])
    x, other = mx.array(random(2, 5, 128, seed=1)), mx.array(random(2, 5, 96, seed=2))

    def gradient(product: Call) -> mx.array:
        return mx.grad(WAYS[way](lambda x: (mx.tanh(product(x)) * other).sum()))(x)

    wanted = gradient(lambda x: x @ dense.T)
    assert mx.linalg.norm(gradient(layer) - wanted) < 1e-6 * mx.linalg.norm(wanted)
    assert mx.linalg.norm(layer(x) - x @ dense.T) < 1e-6 * mx.linalg.norm(wanted)


def test_embedding_and_tied_head() -> None:
    weight = random(300, 128)
    table, dense = nf4.NF4Embedding(mx.array(weight)), mx.array(reference(weight)[2])
    tokens, x = mx.array([[3, 299], [0, 3]]), mx.array(random(4, 128, seed=1))
    assert (table(tokens) == dense[tokens]).all()
    assert mx.abs(table.as_linear(x) - x @ dense.T).max() < 1e-4
    wanted = mx.grad(lambda x: mx.square(x @ dense.T).sum())(x)
    found = mx.grad(lambda x: mx.square(table.as_linear(x)).sum())(x)
    assert mx.linalg.norm(found - wanted) < 1e-6 * mx.linalg.norm(wanted)
    assert nf4.NF4Embedding(mx.array(weight).astype(mx.bfloat16))(tokens).dtype == mx.bfloat16


def test_nothing_of_it_is_trained() -> None:
    layer = nf4.NF4Linear(mx.array(random(96, 128)))
    assert not nn.Module.trainable_parameters(layer)
    layer.train()
    assert layer.weight.nbytes + layer.scales.nbytes == 96 * 128 * 4.5 / 8
