"""The wall of a Linux with bubblewrap: a process in namespaces of its own, where only Python's files are mounted.

Run by an ordinary user it makes a user namespace. Run by root it does without one, and the program inside becomes
`nobody` before the job starts: no namespace would make the kernel count root's threads against a limit.

There is no /proc, three devices, no network but an empty loopback, and one writable place, a tmpfs of bounded size.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

NOBODY = 65534
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
SCRATCH = "/scratch"


def binary() -> str | None:
    return shutil.which("bwrap")


def arguments(readable: Iterable[Path], hidden: Iterable[Path], *, scratch: int, filter_fd: int) -> list[str]:
    """bubblewrap's arguments, up to the command.

    Args:
        readable: files and folders that are mounted read-only.
        hidden: folders within them that are empty.
        scratch: bytes of the writable place.
        filter_fd: where bubblewrap reads the seccomp filter.
    """
    root = os.geteuid() == 0
    found = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    found += ["--cap-drop", "ALL"]
    found += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user"]
    found += ["--die-with-parent", "--new-session", "--clearenv"]
    readable = list(readable)
    # bubblewrap would make the folders above them for the caller alone, and nobody could not pass.
    for folder in sorted({parent for path in readable for parent in path.parents if parent != Path("/")}):
        found += ["--perms", "0755", "--dir", str(folder)]
    for path in readable:
        if path.is_symlink():
            found += ["--symlink", os.readlink(path), str(path)]
        else:
            found += ["--ro-bind", str(path), str(path)]
    for path in hidden:
        found += ["--tmpfs", str(path)]
    for device in DEVICES:
        found += ["--dev-bind", device, device]
    found += ["--size", str(scratch), "--perms", "1777", "--tmpfs", SCRATCH, "--remount-ro", "/", "--chdir", SCRATCH]
    return [*found, "--seccomp", str(filter_fd)]
