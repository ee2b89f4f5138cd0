"""What is in a data set, what would be trained on, and what not, with the reason for every row left out.

    report = audit(scan_rows("raw.jsonl"), FilterPolicy(contamination=["evals/tasks.jsonl"]))
    print("\\n".join(report.summary_lines()))
    report.write("clean.jsonl", "rejected.jsonl")

Every check has the name of its key in the policy. A row is first judged alone (its code, its likeness to evals); only
rows that pass are compared with the rows kept before them, so that a fault never stands in for a good row.

    spool.py      where the rows wait: in memory, or many of them on the disk
    checks.py     the checks of one row
    scan.py       first pass: every row alone, a chunk at a time; where it is asked for, answers are run after it
    workers.py    that, in several processes
    columns.py    second pass: duplicates and contradictions, by columns
    semantic.py   a pass more, where the policy asks for it: prompts that ask the same in other words
    held_out.py   the kept rows beside validation and test: leakage, differences in length
    findings.py   what was found
    tally.py      its counts
    report.py     what comes of it: counts, rows, files (written.py)
    rendering.py  third pass, where there is a recipe: the kept rows as its model's tokens
    cache.py      audits of files, kept as long as nothing changes
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma.data.audit.checks import TOKENIZER, control_tokens, row_checks
from mlx_gemma.data.audit.columns import compare
from mlx_gemma.data.audit.findings import Findings, Found
from mlx_gemma.data.audit.held_out import Splits, compare_splits
from mlx_gemma.data.audit.report import Judged, Report
from mlx_gemma.data.audit.scan import Scan, Traits
from mlx_gemma.data.audit.semantic import asked_before
from mlx_gemma.data.audit.spool import Rows, Spool, collect
from mlx_gemma.data.audit.workers import processors, scanned
from mlx_gemma.data.balance.counts import Balance
from mlx_gemma.data.checks.contamination import read_evals
from mlx_gemma.data.checks.form import Shapes
from mlx_gemma.data.checks.runs import Runner, Runs
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.data.policy import CHECKS, FilterPolicy
from mlx_gemma.data.reason import Reason

__all__ = ["CHECKS", "Judged", "Progress", "Reason", "Report", "audit"]

Progress = Callable[[str, int, int | None], None]
"""Told a stage (reading, checking, comparing ...), the rows done in it, and of how many; None: nobody knows yet."""

UNTRIED = {"contamination": "there are no eval files", "runs": "answers were not run (mlx-gemma audit --run)"}


def audit(
    rows: Iterable[Row | BadRow],
    policy: FilterPolicy | None = None,
    against: Iterable[Path] = (),
    *,
    held_out: Splits | None = None,
    run: Runner | None = None,
    balance: bool = True,
    tokenizer: Path = TOKENIZER,
    workers: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Report:
    """Judge every row. Some 1.5 ms a row of this project's size on one core.

    Memory: the rows where they are few (spool.FEW); else, whatever the texts' length, some 500 bytes a row, 100 a
    reason, and 200 MB a worker process. The texts then wait in a temporary file (TMPDIR says where), whose space is
    free again when the report is gone.

    Args:
        rows: from `read_rows`, or from `scan_rows` where bad rows shall be reported rather than stop the audit.
        policy: what is rejected; None for the defaults.
        against: eval files besides those the policy names.
        held_out: rows of validation and test, which the kept rows are compared with.
        run: who runs answers against their tests; None: they are not run.
        balance: whether to count what the set is made of too; False saves training the second that loading the language
            identifier takes.
        tokenizer: the tokenizer.json whose control tokens no text may hold.
        workers: processes to check with where the rows are many; None: as many as there are processors, at most eight.

    Raises:
        DataError: a malformed row where the policy says `malformed: stop`; an eval file that cannot be read.
        UserError: the disk is full.
    """
    policy, started = policy or FilterPolicy(), time.perf_counter()
    evals = read_evals([*policy.contamination, *against])
    scan, shapes = Scan(policy, row_checks(evals, control_tokens(tokenizer)), balance), Shapes()
    shaped = _shaped(rows, shapes)
    waiting = collect(shaped, lambda done: progress("reading", done, None), stop=policy.malformed == "stop")
    traits, alone, made_of, done = np.zeros(len(waiting), scan.traits), Findings(), Balance(), 0
    for chunk in scanned(waiting, scan, workers or processors()):
        traits[done : done + len(chunk.traits)] = chunk.traits
        for found in chunk.found:
            alone.add(Found(done + found.row, found.where, found.reasons))
        made_of.merge(chunk.balance)
        done += len(chunk.traits)
        progress("checking", done, len(waiting))
    if isinstance(waiting, Spool):
        waiting.unlink()
    whole: dict[str, Any] = {"shapes": shapes.by_file()}
    remarks = shapes.mixed()
    if run is not None:
        runs = Runs(run)
        alone = Findings.merged(alone, _failing(runs, waiting, traits, policy, progress))
        whole["runs"] = runs.result()
        remarks.append(runs.line())
    among = compare(waiting, traits, scan, lambda done: progress("comparing", done, len(waiting)))
    findings = Findings.merged(alone, among)
    if balance:
        whole["balance"] = made_of.result()
        remarks += [f"{reason.name}: {reason.message}" for reason in made_of.findings()]
    unasked = ["contamination"] * (not evals.prompts) + ["runs"] * (run is None)
    remarks += [f"limits.{check} was not tried: {UNTRIED[check]}" for check in unasked if check in policy.limits]
    report = Report(policy, waiting, len(waiting), findings, whole, remarks, unasked)
    if policy.semantic != "keep":
        progress("embedding", 0, None)
        report.findings = Findings.merged(findings, asked_before(report, waiting, policy.semantic))
    if held_out:
        whole["splits"], lines = compare_splits(
            report.kept_rows,
            made_of if balance else None,
            held_out,
            lambda done: progress("comparing splits", done, report.kept_count),
        )
        remarks += lines
    report.seconds = time.perf_counter() - started
    return report


def _failing(runs: Runs, rows: Rows, traits: Traits, policy: FilterPolicy, progress: Progress) -> Iterator[Found]:
    """Of the rows that passed so far those that fail their tests; if they are left out for it, they have not passed."""

    def passed() -> Iterator[tuple[int, Row]]:
        for i in np.flatnonzero(traits["passed"]).tolist():
            progress("running", i, len(rows))
            row = rows[i]
            assert isinstance(row, Row)
            yield i, row

    for i, row, reason in runs.failing(passed()):
        traits["passed"][i] = not policy.rejects([reason])
        yield Found(i, row.where, (reason,))


def _shaped(rows: Iterable[Row | BadRow], shapes: Shapes) -> Iterator[Row | BadRow]:
    for row in rows:
        if isinstance(row, Row):
            shapes.add(row)
        yield row
