"""Audits of files, kept: the same data, evals, policy and checks again are answered from the user's cache folder.

What they are is told by digests of contents, never by dates; of the checks by a digest of this package's source and the
versions of the libraries that judge. An entry holds what was found, not the rows: these are read again where somebody
wants them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from mlx_gemma import digest
from mlx_gemma.data.audit import Progress, audit
from mlx_gemma.data.audit.checks import TOKENIZER
from mlx_gemma.data.audit.findings import Findings
from mlx_gemma.data.audit.held_out import Again, named, splits_beside
from mlx_gemma.data.audit.rendering import Rendering, lines
from mlx_gemma.data.audit.report import Report
from mlx_gemma.data.audit.tally import Tally
from mlx_gemma.data.checks.runs import Runner
from mlx_gemma.data.formats import scan_rows
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.sources import data_files
from mlx_gemma.errors import DataError, ModelError

ENTRIES = 16  # kept; the one longest unused goes first
PAGE = Path(__file__).parent / "page"
META, FINDINGS = "meta.json", "findings.arrow"
JUDGES = ("fissix", "datasketch", "bandit", "phonenumbers", "scikit-learn", "scipy")


def audit_files(
    data: str,
    policy: FilterPolicy,
    against: Sequence[Path] = (),
    *,
    valid: str | None = None,
    rendering: Rendering | None = None,
    run: Runner | None = None,
    workers: int | None = None,
    progress: Progress = lambda stage, done, total: None,
    use_cache: bool = True,
) -> Report:
    """`audit` of a data set, or what it found the last time. To be sure that nothing has changed takes a second a GB.

    Args:
        data: what data/sources.py takes: a file, a folder, or hf://owner/name. Validation and test beside the train
            rows of a local folder are compared with these.
        valid: a recipe's `data.valid`, in the place of the folder's own.
        rendering: for which model and length the kept rows are counted as tokens; a model that cannot be had is a
            remark of the report.
        run: see `audit`.
        use_cache: take it from the cache, if it is there; it is kept there in any case.

    Raises:
        UserError: see `audit`; or there is no such data.
    """
    held_out = splits_beside(data, valid)
    inputs: dict[str, Any] = {
        "data": [_described(path, shown, progress) for path, shown in data_files(data)],
        "evals": [_described(path, str(path), progress) for path in (*policy.contamination, *against)],
    }
    if held_out:
        inputs["splits"] = [_described(path, shown, progress) for path, shown in named(held_out)]
    if run is not None:
        inputs["run"] = run.how
    checks = {"source": _source(), "python": platform.python_version(), **{name: _version(name) for name in JUDGES}}
    model = _model(rendering)
    tokenizer = TOKENIZER
    if rendering and isinstance(model, Path):
        inputs["rendering"] = rendering.made_from(model)
        tokenizer = its if (its := model / "tokenizer.json").exists() else TOKENIZER
    entry = _folder() / digest.digest_json({"policy": policy.model_dump(mode="json")} | inputs | checks)
    if use_cache and (report := _read(entry, data, policy, inputs)):
        return report
    rows = scan_rows(data)
    report = audit(
        rows,
        policy,
        against,
        held_out=held_out,
        run=run,
        tokenizer=tokenizer,
        workers=workers,
        progress=progress,
    )
    report.inputs = inputs
    if rendering and isinstance(model, Path):
        counted = rendering.count(report.kept_rows(), model, lambda n: progress("rendering", n, report.kept_count))
        report.whole |= counted
        report.remarks += lines(counted["lengths"])
    elif model is not None:
        report.remarks.append(f"lengths were not counted: {model}")
        return report  # not kept: the next time the model may be there
    with suppress(OSError):  # without a cache folder, or room in it, there is no cache
        _write(entry, report)
    return report


def _model(rendering: Rendering | None) -> Path | ModelError | None:
    try:
        return rendering.folder() if rendering else None
    except ModelError as e:
        return e


def _described(path: Path, shown: str, progress: Progress) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        progress("comparing digests", 0, None)
        with path.open("rb") as file:
            return {"file": shown, "bytes": size, "blake2b": hashlib.file_digest(file, "blake2b").hexdigest()}
    except OSError as e:
        raise DataError(f"cannot be read: {e.strerror or e}", where=shown, fix="check the path") from e


def _source() -> str:
    """Of every line that decides what is found; the page only shows it."""
    sources = Path(__file__).parents[1].rglob("*.py")
    return digest.digest_files(sorted(s for s in sources if PAGE not in s.parents))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "mlx-gemma" / "audits"


def _read(entry: Path, data: str, policy: FilterPolicy, inputs: dict[str, Any]) -> Report | None:
    try:
        meta = json.loads((entry / META).read_text(encoding="utf8"))
        findings = Findings(entry / FINDINGS)
        known = {key: meta[key] for key in ("whole", "remarks", "unasked", "seconds")}
        report = Report(policy, Again(data), meta["read"], findings, inputs=inputs, from_cache=True, **known)
        report.tally = Tally.from_json(meta["tally"])
        os.utime(entry)
        return report
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are of these kinds
        return None


def _write(entry: Path, report: Report) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    part = Path(mkdtemp(prefix=".part.", dir=entry.parent))
    try:
        report.findings.write(part / FINDINGS)
        meta = {key: getattr(report, key) for key in ("read", "whole", "remarks", "unasked", "seconds")}
        meta["tally"] = report.tally.as_json()
        (part / META).write_text(json.dumps(meta), encoding="utf8")
        shutil.rmtree(entry, ignore_errors=True)
        part.rename(entry)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    entries = sorted((p for p in entry.parent.iterdir() if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime)
    for old in entries[:-ENTRIES]:
        shutil.rmtree(old, ignore_errors=True)
