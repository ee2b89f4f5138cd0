"""Other programs, asked for logits and greedy continuations: transformers, PEFT, mlx-lm and llama.cpp.

Each function loads a model in float32 where it can and returns its `Functions`. All of them fail where the program
itself would only warn: a tensor that is missing or that nobody expected.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.checkpoint import read_json
from mlx_gemma.gemma4.load import complete_config
from mlx_gemma.interop import compare
from mlx_gemma.interop.compare import Logits

GGML_ERROR = 4  # of ggml_log_level
MODULES = {"transformers": "torch", "peft": "peft", "llama.cpp": "llama_cpp", "mlx-lm": "mlx_lm"}


class Functions(NamedTuple):
    """See `opening.Opened`."""

    logits: Callable[[Sequence[int]], Logits]
    greedy: Callable[[Sequence[int], int], list[int]]


def installed(program: str) -> bool:
    return find_spec(MODULES[program]) is not None


def ours(text: Any) -> Functions:
    """mlx-lm's text decoder, as this package computes with it."""
    return Functions(lambda tokens: compare.logits(text, tokens), lambda tokens, n: compare.greedy(text, tokens, n))


def transformers_model(folder: Path) -> Any:
    """transformers' own class for a folder, its loading report clean.

    Raises:
        ModelError: tensors are missing, unexpected or misshapen; transformers would go on with random ones.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            example = sorted(map(str, report[kind]))[0]
            what = f"transformers reports {len(report[kind])} {kind.replace('_', ' ')}, for example {example}"
            raise ModelError(what, where=folder, fix="give a folder that transformers or mlx-gemma wrote")
    return model.eval()


def with_peft(model: Any, adapter: Path) -> Any:
    """A transformers model with PEFT's adapter on it.

    Raises:
        ModelError: PEFT finds no place for it, or warns of missing keys.
    """
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = PeftModel.from_pretrained(model, str(adapter))
        except (ValueError, RuntimeError, KeyError, TypeError) as e:
            raise ModelError(f"PEFT does not load it: {e}", where=adapter, fix="check its base") from e
    lost = [str(w.message) for w in told if "missing adapter keys" in str(w.message)]
    if lost:
        raise ModelError(f"PEFT: {lost[0][:200]}", where=adapter, fix="give the class that it was saved for (base)")
    return found.eval()


def torch_functions(model: Any) -> Functions:
    import torch

    def logits(tokens: Sequence[int]) -> Logits:
        with torch.no_grad():
            return np.asarray(model(input_ids=torch.tensor([list(tokens)])).logits[0].float().numpy())

    def greedy(tokens: Sequence[int], count: int) -> list[int]:
        with torch.no_grad():
            ids = torch.tensor([list(tokens)])
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count,
                min_new_tokens=count, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        return [int(t) for t in out[0, len(tokens) :]]

    return Functions(logits, greedy)


def mlx_lm_model(folder: Path, adapter: Path | None = None) -> Any:
    """mlx-lm's text decoder, loaded by its own loader; in the dtype of the files.

    Raises:
        ModelError: it does not load.
    """
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    try:
        model, _ = load_model(folder, model_config=complete_config(read_json(folder / "config.json")))
        if adapter is not None:
            model = load_adapters(model, str(adapter))
    except (ValueError, RuntimeError, FileNotFoundError, KeyError, TypeError) as e:
        raise ModelError(f"mlx-lm does not load it: {e!r}"[:300], where=adapter or folder, fix="check its base") from e
    model.eval()
    return getattr(model, "language_model", model)


@cache
def _llama_errors() -> tuple[Any, list[str]]:
    """llama.cpp's log, errors only, as lines: its Python wrapper takes warnings for errors and prints them."""
    import llama_cpp

    told: list[str] = []

    def keep(level: int, text: bytes, _: Any) -> None:
        if level == GGML_ERROR:
            told.append(text.decode("utf8", "replace").strip())

    callback = llama_cpp.llama_log_callback(keep)  # must live as long as llama.cpp does
    llama_cpp.llama_log_set(callback, None)
    return callback, told


def llama(model: Path, adapter: Path | None, longest: int) -> Functions:
    """llama.cpp with K and V in float32, no flash attention, every position's logits.

    Args:
        longest: tokens that a sequence and its continuation may have together.

    Raises:
        ModelError: it does not load.

    Cost: beside the model, logits of `longest` tokens: 1 MB each at a vocabulary of 262,144.
    """
    import llama_cpp

    _, told = _llama_errors()
    told.clear()
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))  # they spin where a core is not theirs
    try:
        program = llama_cpp.Llama(
            str(model), n_ctx=longest, n_batch=longest, n_threads=threads, n_threads_batch=threads, logits_all=True,
            verbose=False, lora_path=str(adapter) if adapter else None, type_k=0, type_v=0, flash_attn=False,
        )  # fmt: skip
    except (ValueError, RuntimeError, AssertionError) as e:
        what = f"llama.cpp does not load it: {told[0] if told else e}"
        raise ModelError(what, where=adapter or model, fix="check what it was made from") from e

    def logits(tokens: Sequence[int]) -> Logits:
        program.reset()
        program.eval(list(tokens))
        return np.array(program.scores[: len(tokens)], np.float32)

    def greedy(tokens: Sequence[int], count: int) -> list[int]:
        program.reset()
        new, out = list(tokens), []
        for _ in range(count):
            program.eval(new)
            new = [int(np.argmax(program.scores[program.n_tokens - 1]))]
            out += new
        return out

    return Functions(logits, greedy)
