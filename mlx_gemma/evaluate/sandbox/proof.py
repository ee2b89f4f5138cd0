"""The proof that the sandbox holds on this machine: every attempt of canary.py, made, and found closed.

It is kept until the machine is started anew, or until Python, the wall, the limits, the user or this package change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.sandbox import bubblewrap, canary, seatbelt, walls
from mlx_gemma.evaluate.sandbox.job import Job, Limits
from mlx_gemma.evaluate.sandbox.run import choose, run, run_all
from mlx_gemma.evaluate.sandbox.walls import Wall

LEFT_BEHIND_SECONDS = 0.4  # in which a process that stayed would have left its trace


@dataclass(frozen=True)
class Proof:
    """What the canary found.

    Args:
        wall: the kind of wall that was tried.
        tried: names of the attempts.
        holes: what got out, or could not be tried; empty: the wall holds.
    """

    wall: str
    tried: tuple[str, ...]
    holes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.holes

    def require(self) -> None:
        """Raises UserError, which names the holes, unless the wall holds."""
        if self.holes:
            raise UserError(
                f"the sandbox has holes on this machine: {'; '.join(self.holes)}", where=self.wall, fix=walls.FIX
            )


def prove(*, wall: Wall | None = None, limits: Limits | None = None, fresh: bool = False) -> Proof:
    """Try every way out; 13 s on two busy Xeon cores, at once where it has been done since the machine was started.

    Args:
        wall: the one to try; by default the strongest that is offered.
        fresh: do not use what was found before.

    Raises:
        UserError: there is no wall to be tried.
    """
    wall, limits = wall or choose(), limits or Limits()
    key = _settings(wall, limits)
    if not fresh and (kept := _kept(key)) is not None:
        return kept
    proof = _tried(wall, limits)
    if proof.holds:
        _keep(key, proof)
    return proof


def _tried(wall: Wall, limits: Limits) -> Proof:
    made = canary.attempts()
    quick = replace(limits, cpu=1, wall=3.0)
    with canary.outside() as outside:
        targets = outside.targets(loopback=wall.kind == "bubblewrap")
        holes = [] if run(Job("x = 6 * 7", ("x == 42",)), wall=wall, limits=limits).passed else ["nothing runs"]
        results = run_all([a.job(targets) for a in made], wall=wall, limits=quick)
        for attempt, result in zip(made, results, strict=True):
            if why := canary.got_out(result.outcome, result.reason):
                holes.append(f"{attempt.name}: {why}")
        time.sleep(LEFT_BEHIND_SECONDS)
        holes += outside.broken()
    return Proof(wall.kind, tuple(a.name for a in made), tuple(holes))


def _settings(wall: Wall, limits: Limits) -> str:
    """A digest of everything the proof depends on."""
    program = {"bubblewrap": bubblewrap.binary(), "seatbelt": seatbelt.binary()}.get(wall.kind)
    told = [wall.kind, program, asdict(limits), str(walls.python()), sys.version, os.geteuid(), platform.release()]
    digest = hashlib.sha256(json.dumps([*told, _boot()]).encode())
    for path in sorted(walls.HERE.glob("*.py")):
        digest.update(path.read_bytes())
    if program:
        digest.update(Path(program).read_bytes())
    return digest.hexdigest()


def _boot() -> str:
    """What differs between two starts of this machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    asked = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or os.urandom(8).hex()


def _file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "mlx-gemma", "sandbox.json")


def _kept(key: str) -> Proof | None:
    try:
        found = json.loads(_file().read_text())
        return Proof(found["wall"], tuple(found["tried"]), ()) if found["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(key: str, proof: Proof) -> None:
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        _file().write_text(json.dumps({"key": key, "wall": proof.wall, "tried": proof.tried}))
