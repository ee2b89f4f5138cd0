"""A trace as one HTML document that needs nothing else: `page(trace, branches)`.

Everything shown is in the page as JSON, computed here; its script (page.js) only formats. How it is kept from loading
or running anything else: html_page.py. Sizes: about 1.6 KB a token with ten candidates, 3 KB a branch of 24 tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from textwrap import shorten
from typing import Any

from mlx_gemma.decode.sample import Sampling
from mlx_gemma.errors import UserError
from mlx_gemma.html_page import html, html_page
from mlx_gemma.tracing.branches import Branch
from mlx_gemma.tracing.pieces import UNITS, Piece, pieces
from mlx_gemma.tracing.record import Candidate, Position, Trace
from mlx_gemma.tracing.render import heat

TEMPLATE = Path(__file__).with_name("page.html")  # and page.css, page.js
MORE = 24  # tokens
DIGITS = 7  # significant ones: float32 has no more
BROKEN = "\N{REPLACEMENT CHARACTER}"


def page(trace: Trace, branches: Sequence[Branch] = ()) -> str:
    """The document, UTF-8. `branches` are those of this trace; alternatives without one are shown, but lead nowhere.

    Raises:
        UserError: the trace has no tokens, or a number in it is not finite.
    """
    if not trace.positions:
        raise UserError("the trace has no tokens, so there is nothing to show", fix="allow one token or more")
    try:
        data = json.dumps(_data(trace, branches), allow_nan=False, separators=(",", ":"))
    except ValueError as e:
        raise UserError("the trace holds a number that is not finite", fix="check the model's weights") from e
    prompt = trace.messages[-1]["content"] if trace.messages else trace.text
    title = html(shorten(f"{trace.model}: {prompt}", 80, placeholder=" …"))
    return html_page(TEMPLATE, title=title, data=_in_script(data))


def _in_script(data: str) -> str:
    """JSON that ends no script element and opens no comment; other than ASCII is escaped already."""
    return data.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _data(trace: Trace, branches: Sequence[Branch]) -> dict[str, Any]:
    logprob = math.fsum(p.logprob for p in trace.positions)
    mean = logprob / len(trace.positions)
    of = {(b.position, b.alternative.token): i for i, b in enumerate(branches)}
    return {
        "model": trace.model,
        "adapter": trace.adapter,
        "messages": trace.messages,
        "choice": "a given text" if trace.finish == "given" else _choice(trace.sampling),
        "finish": trace.finish,
        "totals": {
            "tokens": len(trace.positions),
            "prompt_tokens": len(trace.prompt_tokens),
            "entropy": _short(math.fsum(p.entropy for p in trace.positions) / len(trace.positions)),
            "perplexity": _short(math.exp(-mean)),
        }
        | _joint(logprob),
        "answer": _positions(trace.positions, shown(trace.positions, trace.text), of),
        "prompt": _positions(trace.prompt, [p.text for p in trace.prompt], {}),
        "pieces": {unit: [_piece(p) for p in pieces(trace.positions, unit)] for unit in UNITS},
        "branches": [_branch(trace, b) for b in branches],
    }


def _choice(sampling: Sampling) -> str:
    if sampling.greedy:
        return "greedy"
    cuts = [f"top-k {sampling.top_k}"] * (sampling.top_k > 0) + [f"top-p {sampling.top_p:g}"] * (sampling.top_p < 1)
    return ", ".join([f"temperature {sampling.temperature:g}", *cuts, f"seed {sampling.seed}"])


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _joint(logprob: float) -> dict[str, Any]:
    return {"logprob": _short(logprob), "probability": _short(math.exp(logprob)), "heat": heat(math.exp(logprob))}


def _positions(
    positions: Sequence[Position], texts: Sequence[str], branch_of: dict[tuple[int, int], int]
) -> list[dict[str, Any]]:
    return [
        {
            "index": p.index,
            "token": p.token,
            "text": p.text,
            "shown": text,
            "rank": p.rank,
            "entropy": _short(p.entropy),
            "margin": _short(p.margin),
            "drawn": None if p.drawn is None else _short(p.drawn),
            "candidates": [
                {
                    "token": c.token,
                    "text": c.text,
                    "chosen": c.chosen,
                    "drawn": None if c.drawn is None else _short(c.drawn),
                    "branch": branch_of.get((p.index, c.token)),
                }
                | _joint(c.logprob)
                for c in p.candidates
            ],
        }
        | _joint(p.logprob)
        for p, text in zip(positions, texts, strict=True)
    ]


def _piece(piece: Piece) -> dict[str, Any]:
    """Its entropy is that of its least certain token: a filter must not hide a decision inside a long line."""
    first = piece.positions[0].index
    return {
        "first": first,
        "count": len(piece.positions),
        "least": piece.least.index - first,
        "entropy": _short(max(p.entropy for p in piece.positions)),
    } | _joint(piece.logprob)


def _branch(trace: Trace, branch: Branch) -> dict[str, Any]:
    """Beside it, the answer from the same place; `same` marks what both have, as difflib matches them.

    Of the answer as many tokens, and so many more where the branch came to its end, that it may come to its own.
    """
    tokens = [branch.alternative, *branch.continuation]
    end = branch.position + len(tokens) + (MORE if branch.finish == "stop" else 0)
    original = trace.positions[branch.position : end]
    matcher = SequenceMatcher(None, [c.token for c in tokens], [p.token for p in original], autojunk=False)
    blocks = matcher.get_matching_blocks()
    kept = {b.a + i for b in blocks for i in range(b.size)}
    kept_original = {b.b + i for b in blocks for i in range(b.size)}
    texts = shown(tokens, branch.text)
    return {
        "position": branch.position,
        "alternative": branch.alternative.text,
        "continuation": _joint(branch.logprob),
        "finish": branch.finish,
        "tokens": [
            {"shown": text, "same": i in kept} | _joint(c.logprob)
            for i, (c, text) in enumerate(zip(tokens, texts, strict=True))
        ],
        "original": [i in kept_original for i in range(len(original))],
        "original_joint": _joint(math.fsum(p.logprob for p in original)),
    } | _joint(branch.alternative.logprob + branch.logprob)


def shown(tokens: Sequence[Position] | Sequence[Candidate], text: str) -> list[str]:
    """What each token adds to `text`, the decoding of all of them.

    Where characters span several tokens, each of which is U+FFFD by itself, all of them go to the first of the run.
    """
    texts = [t.text for t in tokens]
    out: list[str] = []
    at = 0
    for i, own in enumerate(texts):
        if BROKEN not in own:
            out.append(own)
            at += len(own)
        elif i and BROKEN in texts[i - 1]:
            out.append("")
        else:
            after = next((t for t in texts[i:] if BROKEN not in t), None)
            end = len(text) if after is None else text.find(after, at + 1)
            out.append(text[at:end])
            at = end
    return out if "".join(out) == text else texts
