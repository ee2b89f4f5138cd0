"""Attempts to get out of the sandbox, each a few lines that raise where it is closed, and what they are aimed at.

An attempt got out when it ran to its end, or when something outside shows its trace. Each is harmless where it
succeeds: signals go to a process made for it, bombs stop at a number, files are made for the purpose.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma.evaluate.sandbox.job import Job

# Errors by which a closed way shows itself; any other says that the attempt could not be made.
CLOSED = ("OSError", "PermissionError", "FileNotFoundError", "NotADirectoryError", "ConnectionRefusedError", "gaierror",
          "AssertionError", "MemoryError", "RuntimeError", "ProcessLookupError", "BlockingIOError", "ValueError",
          "IsADirectoryError", "TimeoutError", "FileExistsError", "InterruptedError", "ConnectionError")  # fmt: skip

PRELUDE = """
import os, sys, socket, time, errno
T = {targets}
def c(name, *arguments):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
escaped = False
"""


@dataclass(frozen=True)
class Attempt:
    """One way out.

    Args:
        code: raises where the way is closed.
        linux: tried on Linux only.
        harmful: not to be run without a wall, not even to see whether the attempt works.
    """

    name: str
    code: str
    linux: bool = False
    harmful: bool = False

    def job(self, targets: dict[str, Any]) -> Job:
        source = PRELUDE.format(targets=repr(targets)) + self.code + "\nescaped = True\n"
        return Job(source, ("not escaped",))


ATTEMPTS = (
    Attempt("TCP to a listener outside", "socket.create_connection(('127.0.0.1', T['tcp']), 1).send(b'x')"),
    Attempt(
        "UDP to a listener outside",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', T['udp']))\n"
        "assert s.sendto(b'x', ('127.0.0.1', T['udp'])) and not T['walled_loopback']",
    ),
    Attempt("a host's name", "socket.getaddrinfo('example.com', 443)", harmful=True),
    Attempt("a route out", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9))"),
    Attempt("a unix socket outside", "socket.socket(socket.AF_UNIX).connect(T['unix'])"),
    Attempt("an abstract unix socket outside", "socket.socket(socket.AF_UNIX).connect('\\0' + T['abstract'])", True),
    Attempt("the machine's host (vsock)", "socket.socket(40, socket.SOCK_STREAM)", True),
    Attempt("netlink", "socket.socket(16, socket.SOCK_RAW, 0)", True),
    Attempt("a file of the home directory", "open(T['home_file']).read()"),
    Attempt("a list of the home directory", "assert T['home_name'] in os.listdir(T['home'])"),
    Attempt("the repository", "open(T['repository']).read()"),
    Attempt("a file of another temporary directory", "open(T['outside_file']).read()"),
    Attempt("a list of the temporary directory", "assert T['outside_name'] in os.listdir(T['temporary'])"),
    Attempt("/etc/shadow or master.passwd", "open(T['passwords']).read(1)"),
    Attempt("/etc/passwd", "assert 'root' in open('/etc/passwd').read()"),
    Attempt("parent directories", "open('../' * 20 + T['outside_file'].lstrip('/')).read()"),
    Attempt("a symbolic link outside", "os.symlink(T['outside_file'], 'link'); open('link').read()"),
    Attempt("a hard link outside", "os.link(T['outside_file'], 'hard'); open('hard').read()"),
    Attempt(
        "an inherited descriptor",
        "import stat\nfound = []\nfor fd in range(3, 32):\n"
        "    try: kind = os.fstat(fd).st_mode\n    except OSError: continue\n"
        "    if stat.S_ISDIR(kind) or stat.S_ISREG(kind): found.append(fd)\nassert found",
        harmful=True,
    ),
    Attempt("writing into the home directory", "open(T['home'] + '/' + T['trace'], 'w').write('x')"),
    Attempt("writing into the temporary directory", "open(T['temporary'] + '/' + T['trace'], 'w').write('x')"),
    Attempt("writing into a file outside", "open(T['outside_file'], 'a').write('x')"),
    Attempt("truncating a file outside", "os.truncate(T['outside_file'], 0)"),
    Attempt("changing a file's mode outside", "os.chmod(T['outside_file'], 0o777)"),
    Attempt("changing a file's time outside", "os.utime(T['outside_file'], (1, 1))"),
    Attempt("moving a file outside", "os.rename(T['outside_file'], 'mine')", harmful=True),
    Attempt("removing a file outside", "os.remove(T['outside_file'])", harmful=True),
    Attempt("writing into the standard library", "open(os.path.dirname(os.__file__) + '/' + T['trace'], 'w')"),
    Attempt("shared memory outside", "open('/dev/shm/' + T['trace'], 'w').write('x')", True),
    Attempt("the environment", "assert set(os.environ) - {'PWD', 'LC_CTYPE', '__CF_USER_TEXT_ENCODING'}"),
    Attempt("the disk's devices", "assert any(n.startswith(('sd', 'vd', 'nvme', 'mem')) for n in os.listdir('/dev'))"),
    Attempt("kernel messages", "open('/dev/kmsg').read(1)", True, True),
    Attempt("the terminal", "open('/dev/tty')", harmful=True),
    Attempt("a device of one's own", "import stat; os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3))"),
    Attempt("another process's environment", "open(f\"/proc/{T['victim']}/environ\", 'rb').read()", True),
    Attempt("a list of processes", "assert str(T['victim']) in os.listdir('/proc')", True),
    Attempt("a signal to a process", "os.kill(T['victim'], 0)"),
    Attempt("an end to a process", "os.kill(T['victim'], 15)", harmful=True),
    Attempt("a signal by a descriptor's owner", "import fcntl; fcntl.fcntl(1, 8, T['victim'])", True),
    Attempt("tracing a process", "c('ptrace', 16, T['victim'], None, None)", True, True),
    Attempt("another process's limits", "import resource; resource.prlimit(T['victim'], resource.RLIMIT_CORE)", True),
    Attempt("another process's priority", "os.setpriority(os.PRIO_PROCESS, T['victim'], 19)"),
    Attempt("a descriptor of a process", "os.close(os.pidfd_open(T['victim']))", True),
    Attempt("a new process", "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)"),
    Attempt(
        "a process that stays",
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(0.2)\n"
        "    open(T['temporary'] + '/' + T['trace'], 'w')\n    os._exit(0)",
        harmful=True,
    ),
    Attempt("another program", "import subprocess; subprocess.run([sys.executable, '-c', ''], check=True)"),
    Attempt(
        "hundreds of threads",
        "import threading\nthreading.stack_size(65536)\nended = threading.Event()\n"
        "try:\n    for _ in range(300): threading.Thread(target=ended.wait, daemon=True).start()\n"
        "finally: ended.set()",
    ),
    Attempt("two gigabytes of memory", "assert len(bytearray(2**31)) == 2**31"),
    Attempt(
        "a file of 64 MB", "with open('big', 'wb') as f:\n    for _ in range(64): f.write(bytes(2**20)); f.flush()"
    ),
    Attempt(
        "128 MB of files",
        "for i in range(128):\n    with open(f'f{i}', 'wb') as f: f.write(bytes(2**20 - 1))\n"
        "    time.sleep(0.01)\ntime.sleep(0.3)",
    ),
    Attempt("hundreds of open files", "opened = [open(os.devnull) for _ in range(200)]"),
    Attempt("more CPU time", "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))"),
    Attempt("CPU time past its limit", "while time.process_time() < 20: pass"),
    Attempt("wall time past its limit", "time.sleep(20)"),
    Attempt("being root", "os.setuid(0); assert open(os.path.expanduser('~root/.x'), 'w')", True, True),
    Attempt("mounting", "c('mount', b'none', os.getcwd().encode(), b'tmpfs', 0, None)", True, True),
    Attempt("a namespace of one's own", "c('unshare', 0x10000000)", True),
    Attempt("another root directory", "os.chroot('.')", harmful=True),
    Attempt("the clock", "time.clock_settime(time.CLOCK_REALTIME, time.time())", harmful=True),
    Attempt("io_uring", "c('syscall', 425, 1, (__import__('ctypes').c_char * 120)())", True),
    Attempt("the kernel's keyring", "c('syscall', 250 if os.uname().machine == 'x86_64' else 219, 0, -3, 1)", True),
)


def attempts() -> list[Attempt]:
    """The attempts that can be made on this system."""
    return [a for a in ATTEMPTS if sys.platform == "linux" or not a.linux]


class Outside:
    """What the attempts are aimed at; `broken()` names what bears a trace of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Path(os.path.expanduser("~"))
        self.home.mkdir(parents=True, exist_ok=True)
        self.trace = f"canary-{os.getpid()}-{os.urandom(6).hex()}"
        self.file = folder / "outside.txt"
        self.file.write_text("outside")
        fd, name = tempfile.mkstemp(prefix=".canary-", dir=self.home)
        os.write(fd, b"secret")
        os.close(fd)
        self.secret = Path(name)
        self.before = (self.file.stat().st_mode, self.file.stat().st_mtime_ns)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(folder / "s"))
        self.unix.listen()
        self.abstract = socket.socket(socket.AF_UNIX)
        if sys.platform == "linux":
            self.abstract.bind("\0" + self.trace)
            self.abstract.listen()
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.setblocking(False)
        self.victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], env={})

    def targets(self, *, loopback: bool) -> dict[str, Any]:
        """The names that attempts use as T[...]. `loopback`: there is one inside, where a datagram goes nowhere."""
        return {
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "walled_loopback": loopback,
            "unix": str(self.folder / "s"),
            "abstract": self.trace,
            "home": str(self.home),
            "home_name": self.secret.name,
            "home_file": str(self.secret),
            "repository": __file__,
            "outside_file": str(self.file),
            "outside_name": self.folder.name,
            "temporary": str(self.folder.parent),
            "passwords": "/etc/master.passwd" if sys.platform == "darwin" else "/etc/shadow",
            "trace": self.trace,
            "victim": self.victim.pid,
        }

    def broken(self) -> list[str]:
        """What an attempt has left outside, in words."""
        found = []
        for name, listener in (("tcp", self.tcp), ("unix", self.unix), ("abstract", self.abstract)):
            with contextlib.suppress(OSError):
                listener.accept()[0].close()
                found.append(f"a connection came in ({name})")
        with contextlib.suppress(OSError):
            self.udp.recv(16)
            found.append("a datagram came in")
        if self.victim.poll() is not None:
            found.append("a process outside was ended")
        if not self.file.exists() or self.file.read_text() != "outside":
            found.append("a file outside was written or removed")
        elif (self.file.stat().st_mode, self.file.stat().st_mtime_ns) != self.before:
            found.append("a file's mode or time was changed")
        for place in (self.home, self.folder.parent, Path(os.__file__).parent, Path("/dev/shm")):
            if (place / self.trace).exists():
                (place / self.trace).unlink()
                found.append(f"a file was made in {place}")
        return found

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.close()
        self.secret.unlink(missing_ok=True)


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Targets for the time of the attempts."""
    with tempfile.TemporaryDirectory(prefix="canary-") as folder:
        found = Outside(Path(folder))
        try:
            yield found
        finally:
            found.close()


def got_out(outcome: str, reason: str) -> str | None:
    """What an attempt's result means: None where the way was closed, else why it counts as open."""
    if outcome in ("timeout", "stopped"):
        return None
    if outcome == "raises" and reason.split(":")[0] in CLOSED:
        return None
    if outcome == "wrong" and reason == "not true: not escaped":
        return "got out"
    return f"could not be tried: {json.dumps(reason)}"
