"""A seccomp filter, as bytes: which system calls fail with EPERM behind the wall.

A list of what is refused, not of what is allowed: Python's own needs differ between builds. It takes away what
namespaces and Landlock do not: new processes, tracing, other address families, kernel interfaces with a history of
holes. Without namespaces (`alone`) also everything by which one process reaches another, and changes of file modes,
owners and times, which Landlock does not govern.

Classic BPF over `struct seccomp_data` (int nr; u32 arch; u64 ip; u64 args[6]), linux/seccomp.h and linux/filter.h.
Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import platform
import struct

# name: (x86_64, aarch64); None where the machine has no such call.
CALLS: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "inotify_init1": (294, 26), "inotify_init": (253, None), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280), "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "userfaultfd": (323, 282), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "syslog": (103, 116), "quotactl": (179, 60),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "vhangup": (153, 58),
    "personality": (135, 92), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42), "fork": (57, None),
    "vfork": (58, None), "memfd_secret": (447, 447), "mq_open": (240, 180), "shmget": (29, 194), "shmat": (30, 196),
    "msgget": (68, 186), "semget": (64, 190), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "memfd_create": (319, 279),
}  # fmt: skip
ALONE: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "sched_setaffinity": (203, 122), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None), "fchown": (93, 55),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "clone": (56, 220), "execve": (59, 221), "execveat": (322, 281),
    "file_setattr": (469, 469),
}  # fmt: skip
KILL = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131)}
CLONE, CLONE3, SOCKET, FCNTL, PRLIMIT = (56, 220), (435, 435), (41, 198), (72, 25), (302, 261)
IOCTL = (16, 29)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6, which the network namespace cuts off; AF_VSOCK it would not
CLONE_THREAD = 0x00010000
SETS_OWNER = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: a signal to whoever owns the descriptor
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into the terminal

_LOAD, _EQUAL, _ABOVE, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NR, _ARCH = 0, 4


def _argument(index: int) -> int:
    return 16 + 8 * index  # its low half; both machines are little-endian


def _refuse(number: int = errno.EPERM) -> int:
    return 0x00050000 | number


def supported() -> bool:
    return platform.machine() in ARCHITECTURES


def program(*, alone: bool, pid: int = 0) -> bytes:
    """The filter, an array of `struct sock_filter`, for this machine.

    Args:
        alone: there are no namespaces around it.
        pid: with `alone`, the process that may send signals to itself.

    Raises:
        KeyError: a machine that is neither x86_64 nor aarch64.
    """
    column, architecture = ARCHITECTURES[platform.machine()]
    ops: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR),
        (_ABOVE, 0, 1, 0x40000000),  # x32 calls have other numbers
        (_RETURN, 0, 0, _KILL),
    ]

    def refuse(number: int | None, result: int = errno.EPERM) -> None:
        if number is not None:
            ops.extend([(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _refuse(result))])

    def when(number: int, index: int, tests: list[tuple[int, int]], *, matched: int, other: int) -> None:
        """One call by one argument: `matched` where a test (instruction, value) holds, else `other`."""
        body: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, _argument(index))]
        for i, (instruction, value) in enumerate(tests):
            body.append((instruction, len(tests) - i, 0, value))
        body += [(_RETURN, 0, 0, other), (_RETURN, 0, 0, matched)]
        ops.append((_EQUAL, 0, len(body), number))
        ops.extend(body)

    for call in {**CALLS, **(ALONE if alone else {})}.values():
        refuse(call[column])
    refuse(CLONE3[column], errno.ENOSYS)  # its flags are in memory, out of a filter's sight; libc then uses clone
    if alone:
        for numbers in KILL.values():
            when(numbers[column], 0, [(_EQUAL, pid)], matched=_ALLOW, other=_refuse())
    else:
        when(CLONE[column], 0, [(_BITS, CLONE_THREAD)], matched=_ALLOW, other=_refuse())
        when(SOCKET[column], 0, [(_EQUAL, f) for f in FAMILIES], matched=_ALLOW, other=_refuse())
    when(FCNTL[column], 1, [(_EQUAL, f) for f in SETS_OWNER], matched=_refuse(), other=_ALLOW)
    when(IOCTL[column], 1, [(_EQUAL, f) for f in (TIOCSTI, TIOCLINUX)], matched=_refuse(), other=_ALLOW)
    when(PRLIMIT[column], 0, [(_EQUAL, 0)], matched=_ALLOW, other=_refuse())  # 0: one's own
    ops.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *op) for op in ops)
