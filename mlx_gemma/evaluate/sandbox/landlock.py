"""The wall of a Linux without namespaces: Landlock for files, seccomp for everything else. Standard library only.

`enforce` runs inside, as text sent with the job: no capabilities, reading only where it is told, writing only in the
scratch directory, and then the filter of seccomp.py with `alone`. Weaker than bubblewrap: whether a file exists, its
size and times, stay visible, no process or thread can be started, and no file's mode or time be changed.

linux/landlock.h; the numbers are those of every architecture. Needs ABI 3 (Linux 6.2): before it, truncating a file
was not governed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

LEAST_ABI = 3
CREATE, ADD_RULE, RESTRICT = 444, 445, 446
READ_FILE, READ_DIR, EXECUTE = 1 << 2, 1 << 3, 1 << 0
FILE_RIGHTS = {3: (1 << 15) - 1, 5: (1 << 16) - 1}  # with truncate; with ioctl on devices
NETWORK_RIGHTS = {4: 0b11}  # bind and connect TCP
SCOPES = {6: 0b11}  # abstract unix sockets, signals
# What cannot be done to a single file, which the kernel refuses to be named in its rule.
ON_A_FILE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CAPSET = {"x86_64": 126, "aarch64": 91}


def abi() -> int:
    """The kernel's Landlock version; 0: none."""
    return max(0, int(_libc().syscall(CREATE, None, ctypes.c_size_t(0), 1)))


def enforce(given: dict[str, Any]) -> None:
    """Put the wall around this process, for good.

    Args:
        given: `read` and `write` (lists of paths), `filter` (hexadecimal, of seccomp.program).

    Raises:
        OSError: the kernel refused a step.
    """
    libc = _libc()
    _call(libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0))
    _call(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    _call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    no_capabilities = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _call(libc.syscall(CAPSET[os.uname().machine], header, no_capabilities))
    version = abi()
    rights = _of(FILE_RIGHTS, version)
    attributes = struct.pack("<QQQ", rights, _of(NETWORK_RIGHTS, version), _of(SCOPES, version))
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _call(libc.syscall(CREATE, attributes[:size], ctypes.c_size_t(size), 0))
    for paths, allowed in ((given["read"], READ_FILE | READ_DIR), (given["write"], rights & ~EXECUTE)):
        for path in paths:
            _allow(libc, rules, path, allowed)
    _call(libc.syscall(RESTRICT, rules, 0))
    os.close(rules)
    code = bytes.fromhex(given["filter"])
    kept = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    _call(libc.prctl(PR_SET_SECCOMP, 2, fprog, 0, 0))


def _allow(libc: Any, rules: int, path: str, allowed: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            allowed &= ON_A_FILE
        _call(libc.syscall(ADD_RULE, rules, 1, struct.pack("<Qi", allowed, fd), 0))
    finally:
        os.close(fd)


def _of(table: dict[int, int], version: int) -> int:
    return max((value for least, value in table.items() if version >= least), default=0)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _call(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
