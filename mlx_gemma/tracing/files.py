"""A trace as JSON: OpenAI's chat completion with log-probabilities, and beside it what that shape has no room for.

    {"object": "chat.completion", "model": …,
     "choices": [{"message": {"role": "assistant", "content": …}, "finish_reason": "stop",
                  "logprobs": {"content": [ENTRY, …]}}],
     "usage": {"prompt_tokens": …, "completion_tokens": …},
     "trace": {"schema": 1, "adapter": …, "messages": …, "sampling": …, "prompt_ids": […], "prompt": [ENTRY, …],
               "stop": ENTRY or null, "finish": …}}

An ENTRY has `token`, `logprob`, `bytes` and `top_logprobs` as OpenAI has them, natural logarithms before temperature,
and our `id`, `rank` (0 is the most probable), `entropy` (nats) and, where it was sampled, `drawn`: the probability
after temperature, top-k and top-p. The stop token is no part of the content, so it stands apart.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_gemma import run
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.tracing.record import Candidate, Position, Trace

SCHEMA = 1
FINISH = {"stop": "stop", "length": "length", "given": "stop"}


def as_json(trace: Trace, template: ChatTemplate) -> dict[str, Any]:
    """JSON values of a trace; the template is the model's."""
    stopped = bool(trace.positions) and template.vocabulary.bytes_of(trace.positions[-1].token) is None
    content = trace.positions[: len(trace.positions) - stopped]
    message = {"role": "assistant", "content": template.decode([p.token for p in content])}
    used = {"prompt_tokens": len(trace.prompt_tokens), "completion_tokens": len(trace.positions)}
    ours = {
        "schema": SCHEMA,
        "adapter": trace.adapter,
        "messages": trace.messages,
        "sampling": asdict(trace.sampling),
        "prompt_ids": trace.prompt_tokens,
        "prompt": [_entry(p, template) for p in trace.prompt],
        "stop": _entry(trace.positions[-1], template) if stopped else None,
        "finish": trace.finish,
    }
    logprobs = {"content": [_entry(p, template) for p in content]}
    choice = {"index": 0, "message": message, "finish_reason": FINISH[trace.finish], "logprobs": logprobs}
    usage = used | {"total_tokens": sum(used.values())}
    return {"object": "chat.completion", "model": trace.model, "choices": [choice], "usage": usage, "trace": ours}


def _entry(position: Position, template: ChatTemplate) -> dict[str, Any]:
    def one(token: int, text: str, logprob: float, drawn: float | None) -> dict[str, Any]:
        data = template.vocabulary.bytes_of(token)
        shown = {"token": text, "logprob": logprob, "bytes": list(data) if data is not None else None, "id": token}
        return shown if drawn is None else shown | {"drawn": drawn}

    own = one(position.token, position.text, position.logprob, position.drawn)
    own |= {"rank": position.rank, "entropy": position.entropy}
    return own | {"top_logprobs": [one(c.token, c.text, c.logprob, c.drawn) for c in position.candidates]}


def save(trace: Trace, template: ChatTemplate, path: Path) -> None:
    """Write a trace, whole or not at all."""
    run.write_json(path, as_json(trace, template))


def read(path: Path) -> Trace:
    """A saved trace.

    Raises:
        UserError: no such file, no trace, or one of another schema.
    """
    again = "save it again: mlx-gemma trace … --save FILE"
    try:
        held = json.loads(path.read_text(encoding="utf8"))
        ours = held["trace"]
        if (schema := ours["schema"]) != SCHEMA:
            raise UserError(f"a trace of schema {schema}; this version reads {SCHEMA}", where=path, fix=again)
        entries = held["choices"][0]["logprobs"]["content"] + ([ours["stop"]] if ours["stop"] else [])
        positions = [_position(i, e) for i, e in enumerate(entries)]
        before = [_position(i, e) for i, e in enumerate(ours["prompt"], -len(ours["prompt"]))]
        sampling = Sampling(**ours["sampling"])
        return Trace(
            ours["prompt_ids"],
            positions,
            "".join(p.text for p in positions),
            ours["finish"],
            before,
            held["model"],
            ours["adapter"],
            ours["messages"],
            sampling,
        )
    except OSError as e:
        raise UserError(f"cannot be read: {e.strerror or e}", where=path, fix="give a file of trace --save") from e
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError("no saved trace", where=path, fix=again) from e


def _position(index: int, entry: dict[str, Any]) -> Position:
    token = int(entry["id"])
    candidates = [
        Candidate(int(c["id"]), str(c["token"]), float(c["logprob"]), c["id"] == token, c.get("drawn"))
        for c in entry["top_logprobs"]
    ]
    if sum(c.chosen for c in candidates) != 1:
        raise ValueError("the token is not among its candidates")
    return Position(
        index, token, str(entry["token"]), float(entry["logprob"]), int(entry["rank"]), entry["entropy"], candidates
    )
