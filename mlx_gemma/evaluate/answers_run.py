"""The answers of a data set run against their tests, in the sandbox: `mlx-gemma audit --run`.

    audit(scan_rows("rows.jsonl"), run=Sandboxed.proved())      # the check `runs`: data/checks/runs.py

Here because data/ is below this package, and knows nothing of running untrusted code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlx_gemma.data.checks.runs import Program
from mlx_gemma.evaluate.sandbox import Job, Limits, Wall, choose, prove, run_all, without_wall


@dataclass(frozen=True)
class Sandboxed:
    """Runs programs behind a wall."""

    wall: Wall

    @classmethod
    def proved(cls) -> Sandboxed:
        """Behind the strongest wall of this machine, once it is proved that it holds: 13 s the first time.

        Raises:
            UserError: there is no wall, or it has holes.
        """
        prove().require()
        return cls(choose())

    @classmethod
    def unsafe(cls) -> Sandboxed:
        """Without a wall, with limits on time and memory only."""
        return cls(without_wall())

    @property
    def how(self) -> dict[str, Any]:
        """The wall and the limits."""
        return {"wall": self.wall.kind, "limits": asdict(Limits())}

    def __call__(self, programs: Sequence[Program]) -> Iterator[tuple[str, str]]:
        """(outcome, reason) of each program, in order."""
        jobs = (Job(*program) for program in programs)
        return ((result.outcome, result.reason) for result in run_all(jobs, wall=self.wall))
