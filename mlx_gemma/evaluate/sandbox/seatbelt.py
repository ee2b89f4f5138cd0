"""The wall of macOS: a Seatbelt profile, applied by `sandbox-exec`. Written from documentation, not yet tried on a Mac.

Everything is denied that is not named: no network, no fork, no signal but to itself, no service of the system, files
of Python and of the system for reading, the scratch directory for writing. macOS keeps no limit on address space, so
the process's memory is measured from outside. Where the profile is wrong the proof fails, and nothing is run.

The language: Apple's own profiles in /System/Library/Sandbox/Profiles; Chromium's sandbox/policy/mac/common.sb.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SYSTEM = ("/usr/lib", "/System/Library", "/System/Volumes/Preboot/Cryptexes/OS", "/private/var/db/dyld")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
RUSAGE_INFO_V2, PHYS_FOOTPRINT = 2, 16 + 7 * 8  # struct rusage_info_v2 of <sys/resource.h>: a uuid, then 64-bit numbers


def binary() -> str | None:
    return shutil.which("sandbox-exec")


def profile(executable: Path, readable: Iterable[Path], scratch: Path) -> str:
    """The profile's text. Paths must be real ones: Seatbelt resolves links before it compares."""
    places = [*map(Path, SYSTEM), *readable]
    # realpath() and dyld look at every folder above a file, not at what is in it.
    above = sorted({str(parent) for place in [*places, scratch] for parent in place.parents})
    return "\n".join(
        [
            "(version 1)",
            "(deny default)",
            f"(allow process-exec (literal {_quoted(executable)}))",
            "(allow process-info* (target self))",
            "(allow signal (target self))",
            "(allow sysctl-read)",
            "(allow file-read-metadata " + " ".join(f"(literal {_quoted(p)})" for p in above) + ")",
            '(allow file-read-data (literal "/"))',
            "(allow file-read* " + " ".join(f"({_kind(p)} {_quoted(p)})" for p in [executable, *places]) + ")",
            "(allow file-read* " + " ".join(f"(literal {_quoted(d)})" for d in DEVICES) + ")",
            '(allow file-write-data (literal "/dev/null"))',
            f"(allow file-read* file-write* (subpath {_quoted(scratch)}))",
            "",
        ]
    )


def memory(pid: int) -> int:
    """Bytes of physical footprint of a process; 0 where it cannot be told (it has ended)."""
    buffer = ctypes.create_string_buffer(512)
    libproc: Any = ctypes.CDLL("/usr/lib/libproc.dylib")
    if libproc.proc_pid_rusage(pid, RUSAGE_INFO_V2, buffer):
        return 0
    return int.from_bytes(buffer.raw[PHYS_FOOTPRINT : PHYS_FOOTPRINT + 8], "little")


def _kind(path: Path) -> str:
    return "literal" if path.is_file() else "subpath"


def _quoted(path: Path | str) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
