"""Retrieval in the prompt: a decision's nearest rows as examples, turns that stand before the query.

decision = gate.route(query, k=8)
messages = [*examples(decision, k=3, budget=600, template=gemma.template), {"role": "user", "content": query}]
"""

from __future__ import annotations

from mlx_gemma.errors import UserError
from mlx_gemma.gate.decision import Decision
from mlx_gemma.gemma4.template import ChatTemplate, Message


def examples(decision: Decision, k: int, budget: int, template: ChatTemplate) -> list[Message]:
    """Nearest rows as turns of user and model, the nearest last, next to the query. Empty where none fits.

    A row is left out where its prompt has been taken already, its answer being another or not, and where it would go
    beyond the budget; a farther, shorter one may then still fit.

    Args:
        k: rows at most, 1 or more; `decision.nearest` must hold so many to choose from.
        budget: tokens that the examples may add to the prompt, rendered with `template`.

    Raises:
        UserError: k or budget is below 1.
        DataError: a row holds a control token.

    Cost: rendering, about 0.2 ms a row that is tried.
    """
    if k < 1 or budget < 1:
        raise UserError(f"{k} examples in {budget} tokens", fix="give at least 1 of both, or use no examples")
    empty = _length([], template)
    chosen: list[Message] = []
    seen: set[str] = set()
    for near in decision.nearest:
        if len(seen) == k:
            break
        if near.prompt in seen:
            continue
        more = [{"role": "user", "content": near.prompt}, {"role": "assistant", "content": near.answer}, *chosen]
        if _length(more, template) - empty <= budget:
            chosen = more
            seen.add(near.prompt)
    return chosen


def _length(messages: list[Message], template: ChatTemplate) -> int:
    """Tokens of a prompt that begins with these turns and ends in a query."""
    return len(template.prompt([*messages, {"role": "user", "content": "?"}]))
