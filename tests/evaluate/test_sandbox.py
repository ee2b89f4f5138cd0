"""The sandbox: what it runs, what it says, how it proves itself, and what happens where there is none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_gemma.data.solutions import CheckFailed, run_checks
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.sandbox import (
    Job,
    Limits,
    Proof,
    Wall,
    bubblewrap,
    canary,
    landlock,
    proof,
    prove,
    run,
    run_all,
    seatbelt,
    seccomp,
    without_wall,
)
from mlx_gemma.evaluate.sandbox.run import choose, starts
from mlx_gemma.evaluate.sandbox.walls import offered, readable

WALLS = [w for w in offered() if starts(w)]
walls = pytest.mark.parametrize("wall", WALLS, ids=lambda w: w.kind)
QUICK = Limits(cpu=1, wall=2.5)

BEHAVED = {
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nassert P(3) == P(3)",
    "files": "open('a', 'w').write('x')\nassert open('a').read() == 'x'",
    "temporary": "import tempfile\nwith tempfile.TemporaryFile(dir='.') as f: f.write(b'x')",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0)\nasyncio.run(f())",
    "modules": "import re, json, math, random, decimal, itertools, collections, hashlib, sqlite3, datetime, unittest",
    "zone": "import sqlite3; sqlite3.connect(':memory:').execute('select 1')",
    "clock": "import time; time.sleep(0.01)",
    "unicode": "assert 'ß'.upper() == 'SS' and 'ä'.encode() == b'\\xc3\\xa4'",
    "exit": "import builtins; assert callable(exit) and callable(quit)",
}


@walls
def test_good_programs_run(wall: Wall) -> None:
    jobs = [Job(source, ("True",)) for source in BEHAVED.values()]
    found = dict(zip(BEHAVED, run_all(jobs, wall=wall), strict=True))
    assert {name: r.reason for name, r in found.items() if not r.passed} == {}


def test_threads_run_behind_bubblewrap() -> None:
    if Wall("bubblewrap") not in WALLS:
        pytest.skip("no bubblewrap here")
    source = "from concurrent.futures import ThreadPoolExecutor as E\nx = list(E(8).map(abs, range(-20, 0)))"
    assert run(Job(source, ("sum(x) == 210",)), wall=Wall("bubblewrap")).passed


@walls
@pytest.mark.parametrize(
    ("job", "outcome", "reason"),
    [
        (Job("def f(): return 1", ("f() == 1",)), "passed", ""),
        (Job("def f(): return 1", ("f() == 2",)), "wrong", "not true: f() == 2"),
        (Job("def g(): return 1", ("f() == 2",)), "wrong", "NameError: name 'f' is not defined"),
        (Job("def f(): return {}[1]", ("f() == 2",)), "raises", "KeyError: 1"),
        (Job("x = (", ()), "raises", "SyntaxError"),
        (Job("print(input())", (), "'Ann\\n'", "Ann\n"), "passed", ""),
        (Job("print('Bob')", (), "'Ann\\n'", "Ann\n"), "wrong", "printed 'Bob\\n', not 'Ann\\n'"),
        (Job("while True: pass", ()), "timeout", "runs too long"),
        (Job("import time; time.sleep(60)", ()), "timeout", "runs too long"),
        (Job("import os; os._exit(3)", ()), "stopped", "ended without a result"),
        (Job("x = [0] * 10**10", ()), "raises", "MemoryError"),
        (Job("raise ValueError('a\\nb' * 999)", ()), "raises", "ValueError: a ba ba b"),
    ],
)
def test_outcomes(wall: Wall, job: Job, outcome: str, reason: str) -> None:
    found = run(job, wall=wall, limits=QUICK)
    assert (found.outcome, found.reason[: len(reason)]) == (outcome, reason), found
    assert "\n" not in found.reason
    assert len(found.reason) < 400


def test_the_solutions_of_the_repository_get_the_same_verdicts() -> None:
    """With the sandbox as without: canonical answers and the same, damaged."""
    root = Path(__file__).parents[2]
    rows = [json.loads(line) for line in (root / "datasets/python3/raw.jsonl").read_text().splitlines()]
    answers = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows}
    items = [json.loads(line) for line in (root / "evals/tasks.jsonl").read_text().splitlines()]
    jobs, expected = [], []
    for item in items:
        if "suite" in item or not (code := re.search(r"```python\n(.*?)```", answers.get(item["prompt"], ""), re.S)):
            continue
        for source in (code[1], code[1].replace("return ", "return not ")):
            tests = item["tests"]
            jobs.append(Job(source, tuple(tests["check"]), tests["prints"], tests["stdin"]))
            expected.append(_passes(jobs[-1]))
    assert len(jobs) >= 40
    assert 0 < sum(expected) < len(expected)
    assert [r.passed for r in run_all(jobs)] == expected


def _passes(job: Job) -> bool:
    try:
        run_checks(job.source, job.check, job.prints, job.stdin)
    except CheckFailed:
        return False
    return True


@walls
def test_the_wall_is_proved(wall: Wall) -> None:
    found = prove(wall=wall, fresh=True)
    assert found.holes == ()
    assert len(found.tried) >= 50
    found.require()


def test_the_canary_sings_without_a_wall() -> None:
    """Every attempt that a wall, not a limit, must stop gets out where there is none: it does try what it says."""
    limits_alone = {
        "the environment", "two gigabytes of memory", "a file of 64 MB", "128 MB of files", "hundreds of open files",
        "more CPU time", "CPU time past its limit", "wall time past its limit", "an inherited descriptor",
    }  # fmt: skip
    needs_more = {"the machine's host (vsock)", "a device of one's own", "io_uring", "a namespace of one's own",
                  "/etc/shadow or master.passwd", "writing into the standard library", "a route out",
                  "the disk's devices", "the kernel's keyring", "shared memory outside"}  # fmt: skip
    made = [a for a in canary.attempts() if not a.harmful and a.name not in limits_alone]
    with canary.outside() as found:
        jobs = [a.job(found.targets(loopback=False)) for a in made]
        results = run_all(jobs, wall=without_wall(), limits=QUICK)
        closed = {
            a.name for a, r in zip(made, results, strict=True) if canary.got_out(r.outcome, r.reason) != "got out"
        }
        traces = found.broken()
    assert closed <= needs_more  # by the machine's rights or kernel, not by us
    assert len(traces) >= 5


def test_a_wall_with_holes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    safe = [a for a in canary.ATTEMPTS if a.name in ("TCP to a listener outside", "the repository", "the environment")]
    monkeypatch.setattr(canary, "attempts", lambda: safe)
    found = prove(wall=without_wall(), fresh=True)
    assert not found.holds
    assert "the repository: got out" in found.holes
    assert "a connection came in (tcp)" in found.holes
    with pytest.raises(UserError, match="holes on this machine: TCP to a listener outside: got out"):
        found.require()


def test_a_proof_is_kept_for_the_same_settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fake(wall: Wall, limits: Limits) -> Proof:
        tried.append(limits)
        return Proof(wall.kind, ("a",), ())

    monkeypatch.setattr(proof, "_tried", fake)
    wall = Wall("landlock")
    assert prove(wall=wall) == prove(wall=wall)
    assert len(tried) == 1
    prove(wall=wall, limits=Limits(cpu=5))
    assert len(tried) == 2
    monkeypatch.setattr(proof, "_boot", lambda: "another start")
    prove(wall=wall, limits=Limits(cpu=5))
    assert len(tried) == 3


def test_without_bubblewrap_landlock_is_taken_and_without_both_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("Linux")
    monkeypatch.setattr(bubblewrap, "binary", lambda: None)
    choose.cache_clear()
    try:
        if Wall("landlock") in WALLS:
            assert choose() == Wall("landlock")
        monkeypatch.setattr(landlock, "abi", lambda: 2)
        choose.cache_clear()
        with pytest.raises(UserError, match="no sandbox for untrusted code"):
            run(Job("x = 1"))
    finally:
        choose.cache_clear()


def test_a_bubblewrap_that_is_forbidden_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where user namespaces are off: the program is there and ends with an error."""
    if sys.platform != "linux":
        pytest.skip("Linux")
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "binary", lambda: str(fake))
    with pytest.raises(UserError, match="did not start: bwrap: No permissions"):
        run(Job("x = 1"), wall=Wall("bubblewrap"))
    choose.cache_clear()
    try:
        if Wall("landlock") in WALLS:
            assert choose() == Wall("landlock")
    finally:
        choose.cache_clear()


@walls
def test_nothing_is_left_running(wall: Wall) -> None:
    if sys.platform != "linux":
        pytest.skip("a process is named as Linux does it")
    name = f"left-{os.getpid()}"
    source = f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0); time.sleep(60)"

    def running() -> bool:
        return name in subprocess.run(["ps", "-eo", "comm"], capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(run, Job(source), wall=wall, limits=QUICK)
        seen = False
        while not found.done():
            seen = seen or running()
    assert seen
    time.sleep(0.2)
    assert not running()


def test_the_filters_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    generic = Path("/usr/include/asm-generic/unistd.h")
    if not (header.exists() and generic.exists()):
        pytest.skip("no kernel headers here")
    known = [dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", p.read_text())) for p in (header, generic)]
    compared = 0
    for name, numbers in {**seccomp.CALLS, **seccomp.ALONE, **seccomp.KILL}.items():
        for number, table in zip(numbers, known, strict=True):
            if name in table:
                assert number == int(table[name]), name
                compared += 1
    assert compared > 100


def test_the_filter_is_well_formed() -> None:
    if not seccomp.supported():
        pytest.skip("another architecture")
    for alone in (False, True):
        code = seccomp.program(alone=alone, pid=7)
        assert len(code) % 8 == 0
        assert len(code) // 8 <= 4096  # BPF_MAXINSNS


def test_the_seatbelt_profile_is_closed_but_for_what_is_named() -> None:
    text = seatbelt.profile(Path('/opt/py"thon'), [Path("/opt/lib")], Path("/private/tmp/s"))
    lines = text.splitlines()
    assert lines[:2] == ["(version 1)", "(deny default)"]
    assert text.count("(") == text.count(")")
    assert "network" not in text
    assert "fork" not in text
    assert "mach" not in text
    assert '(allow process-exec (literal "/opt/py\\"thon"))' in lines
    writes = [line for line in lines if "file-write" in line]
    assert writes == [
        '(allow file-write-data (literal "/dev/null"))',
        '(allow file-read* file-write* (subpath "/private/tmp/s"))',
    ]
    assert "/Users" not in text
    assert all("signal" not in line or line == "(allow signal (target self))" for line in lines)


def test_home_and_repository_are_not_among_what_can_be_read() -> None:
    repository = Path(__file__).parents[2]
    assert not any(repository.is_relative_to(p) for p in readable())
    assert not any(Path("~").expanduser().is_relative_to(p) or p == Path("/") for p in readable())
