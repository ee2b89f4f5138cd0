"""Traces, decisions and comparisons for the eye: terminal tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mlx_gemma.tracing.compare import Comparison, Decided, mean
from mlx_gemma.tracing.record import Candidate, Position

if TYPE_CHECKING:
    from mlx_gemma.tracing.decide import Decision
    from mlx_gemma.tracing.difference import Difference
    from mlx_gemma.tracing.meaning import Rivals
    from mlx_gemma.tracing.pieces import Piece


def visible(token: str, most: int | None = None) -> str:
    """A token's text with its spaces and line breaks made visible, cut to so many characters."""
    text = token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def heat(probability: float) -> str:
    """A colour from red (unlikely) to green (certain)."""
    return next(
        c for bound, c in ((0.5, "red"), (0.8, "yellow"), (0.95, "cyan"), (2.0, "green")) if probability < bound
    )


def table(positions: Sequence[Position], columns: int = 3, uncertain: int | None = None) -> Table:
    """One row a position: token, probability, and the `columns` most probable candidates, the chosen one marked ◀.

    Args:
        uncertain: only so many positions, the most uncertain (by the chosen token's probability) first.
    """
    out = plain_table("#", "token", "prob", "entropy", *(["candidates"] + [""] * (columns - 1)))
    if uncertain is not None:
        positions = sorted(positions, key=lambda p: p.logprob)[:uncertain]
    for p in positions:
        shown = p.candidates[:columns]
        chosen = next(c for c in p.candidates if c.chosen)
        if chosen not in shown:
            shown = [*shown[:-1], chosen]
        name, share = Text(visible(p.text, 12), style=heat(p.probability)), f"{p.probability:.1%}"
        out.add_row(str(p.index), name, share, f"{p.entropy:.2f}", *(_candidate(c, p) for c in shown))
    return out


def plain_table(*names: str) -> Table:
    """A table without lines; columns of numbers on the right."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        number = name in ("#", "nats", "prob", "entropy", "KL", "A", "B", "points", "tokens")
        out.add_column(name, justify="right" if number else "left", no_wrap=True, style="dim" if name == "#" else "")
    return out


def _candidate(candidate: Candidate, position: Position) -> Text:
    text = Text(f"{visible(candidate.text, 9)} {candidate.probability:.1%}")
    if candidate.drawn is not None:
        text.append(f"→{candidate.drawn:.1%}")
    if candidate.chosen:
        text.append(" ◀")
        text.stylize(f"bold {heat(position.probability)}")
    return text


def piece_table(pieces: Sequence[Piece], uncertain: int | None = None) -> Table:
    """One row a word or line: its joint probability, and its least probable token with the best rival."""
    out = plain_table("#", "text", "prob", "tokens", "decided at", "rival")
    if uncertain is not None:
        pieces = sorted(pieces, key=lambda p: p.logprob)[:uncertain]
    for piece in pieces:
        least = piece.least
        rival = next((c for c in least.candidates if not c.chosen), None)
        out.add_row(
            str(piece.positions[0].index),
            Text(visible(piece.text, 30), style=heat(piece.probability)),
            f"{piece.probability:.1%}",
            str(len(piece.positions)),
            f"{visible(least.text, 8)} {least.probability:.1%}",
            f"{visible(rival.text, 8)} {rival.probability:.1%}" if rival else "",
        )
    return out


def decision(found: Decision) -> Group:
    """Competing continuations, the most probable first, and what none of them takes."""
    out = plain_table("continuation", "prob", "in tokens")
    for c in sorted(found.continuations, key=lambda c: -c.probability):
        text = Text(visible(c.text), style=heat(c.probability))
        out.add_row(text, f"{c.probability:.1%}", " ".join(visible(t) for t in c.tokens))
    rest = max(0.0, 1 - math.fsum(c.probability for c in found.continuations))
    out.add_row("anything else", f"{rest:.1%}")
    where = f"after …{visible(found.before[-20:] + found.shared)}" if found.before + found.shared else "at the start"
    return Group(Text(f"decided at position {found.index}, {where}", style="bold"), out)


def rivals(found: Sequence[Rivals]) -> Group:
    """Positions where answers of different meaning compete."""
    if not found:
        return Group(Text("no rival within the margin leads to another meaning"))
    out = plain_table("#", "token", "prob", "rival", "prob", "which leads to")
    for r in found:
        c = r.branch.alternative
        kinds = f"{r.kinds[0]} → {r.kinds[1]}: " if r.kinds[0] != r.kinds[1] else ""
        out.add_row(
            str(r.position.index),
            visible(r.position.text, 12),
            f"{r.position.probability:.1%}",
            visible(c.text, 12),
            f"{c.probability:.1%}",
            kinds + visible(r.branch.text, 24 if kinds else 44),
        )
    return Group(Text("where answers of different meaning compete", style="bold"), out)


def difference(found: Difference, tolerance: float) -> list[str]:
    """Two saved traces: the verdict, what moved most, and where they part."""
    largest, (a, b) = found.largest, found.lengths
    verdict = "the same" if found.within(tolerance) else "different"
    lines = [
        f"{verdict}: largest change {largest.change:.1e} nats at position {largest.a.index} "
        f"({visible(largest.a.text)}), accepted {tolerance:g}; {len(found.flips)} most probable tokens changed"
    ]
    if found.parted:
        one, other = found.parted.a, found.parted.b
        lines.append(
            f"the answers part at position {one.index}: {visible(one.text)} {one.probability:.1%} against "
            f"{visible(other.text)} {other.probability:.1%}"
        )
    elif a != b:
        lines.append(f"one has {a} tokens, the other {b}")
    return lines


def side(name: str, system: str | None) -> str:
    return f'{name}, "{system}"' if system else name


def comparison(found: Comparison, names: tuple[str, str], rows: int) -> list[Any]:
    """One prompt: the decision or the largest shift first, then the positions that part most, by KL."""
    out: list[Any] = [f"A  {names[0]}\nB  {names[1]}", found.answer]
    if found.decided:
        out.append(_decided(found.decided))
    top = sorted(found.places, key=lambda p: (-p.kl, p.index))[:rows]
    places = plain_table("#", "token", "A", "B", "KL", "what moved most, in points", "")
    for p in top:
        moved = [f"{visible(s.text, 8)} {s.points:+.1f}" for s in p.shifts[:2]]
        flip = f" ({visible(p.best[0].text, 6)}→{visible(p.best[1].text, 6)})" if p.flipped else ""
        name = visible(p.token.text, 9) + flip
        places.add_row(str(p.index), name, f"{p.token.a:.1%}", f"{p.token.b:.1%}", f"{p.kl:.3f}", *moved)
    mean = f"mean KL {found.kl:.4f} nats a token; another most probable token in {found.flips} of {len(found.places)}"
    return [*out, places, mean]


def _decided(found: Decided) -> Table:
    table = plain_table("decided at " + str(found.index), "A", "B", "points")
    for a, b, points in zip(found.a, found.b, found.points, strict=True):
        table.add_row(visible(a.text), f"{a.probability:.1%}", f"{b.probability:.1%}", f"{points:+.1f}")
    return table


def comparisons(found: Sequence[Comparison], names: tuple[str, str]) -> list[Any]:
    """A file of prompts: mean shifts with their intervals."""
    kl, flips = mean([c.kl for c in found]), sum(c.flips for c in found)
    total = sum(len(c.places) for c in found)
    out: list[Any] = [f"A  {names[0]}\nB  {names[1]}"]
    decided = [c.decided for c in found if c.decided]
    sides = [d.a for d in decided], [d.b for d in decided]
    if decided:
        table = plain_table(
            f"decided in {len(decided)} of {len(found)}", "A", "B", "points", "95 % interval of the mean"
        )
        for i, continuation in enumerate(decided[0].a):
            shift = mean([d.points[i] for d in decided])
            a, b = (math.fsum(s[i].probability for s in both) / len(decided) for both in sides)
            interval = f"{shift.low:+.1f} to {shift.high:+.1f}" if shift.size > 1 else ""
            table.add_row(visible(continuation.text), f"{a:.1%}", f"{b:.1%}", f"{shift.value:+.1f}", interval)
        out.append(table)
    out.append(
        f"mean KL {kl.value:.4f} nats a token ({kl.low:.4f}-{kl.high:.4f}, bootstrap over {kl.size} prompts)\n"
        f"another most probable token in {flips} of {total}"
    )
    return out
