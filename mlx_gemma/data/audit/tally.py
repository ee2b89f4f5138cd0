"""The counts of an audit: rows by check and by kind of thing found, and the first examples of each check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mlx_gemma.data.audit.findings import Found
from mlx_gemma.data.policy import CHECKS, FilterPolicy

EXAMPLES = 5  # of each check


class Tally:
    """Counted once, in one pass over what was found; the cache keeps it as JSON."""

    def __init__(self) -> None:
        self.rejected = 0
        self.checks = Counter[str]()
        self.names: dict[str, Counter[str]] = {check: Counter() for check in CHECKS}
        self.examples: dict[str, list[str]] = {check: [] for check in CHECKS}

    @classmethod
    def of(cls, findings: Iterable[Found], policy: FilterPolicy) -> Tally:
        tally = cls()
        for found in findings:
            tally.rejected += policy.rejects(found.reasons)
            tally.checks.update({r.check for r in found.reasons})
            for check, name in {(r.check, r.name) for r in found.reasons if r.name}:
                tally.names[check][name] += 1
            for reason in found.reasons:
                examples = tally.examples[reason.check]
                if len(examples) < EXAMPLES:
                    examples.append(f"{found.where}: {reason.message}")
        return tally

    def as_json(self) -> dict[str, Any]:
        return {"rejected": self.rejected, "checks": self.checks, "names": self.names, "examples": self.examples}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        """Raises KeyError or TypeError where it is none."""
        tally = cls()
        tally.rejected, tally.checks = int(value["rejected"]), Counter(value["checks"])
        tally.names = {check: Counter(value["names"][check]) for check in CHECKS}
        tally.examples = {check: list(value["examples"][check]) for check in CHECKS}
        return tally
