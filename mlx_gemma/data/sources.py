"""Where a data set is: a file, a folder, or `hf://owner/name[@revision][/file]`, resolved to files to read.

A folder (or a hub data set) is searched for its split: `train.jsonl`, `train.json`, `train.parquet`, these compressed
(`train.jsonl.gz`, `.zst`), or shards `train-*.parquet` and `train-00000*.jsonl`, at the top or under `data/`; the split
`valid` may also be spelt `validation` or `dev`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlx_gemma.errors import DataError

JSON = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*JSON, *(suffix + packed for suffix in JSON for packed in (".gz", ".zst")), ".parquet")
SHARDS = ("-*.parquet", *("-[0-9]*" + suffix for suffix in SUFFIXES if suffix != ".parquet"))
SPELLINGS = {"valid": ("valid", "validation", "dev")}
HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?(?=/[^/]+\.\w+$|$)))?(?:/(?P<file>.+))?")


def data_files(path: str | Path, split: str = "train") -> list[tuple[Path, str]]:
    """The files of a data set in reading order, each with the name that messages show for it.

    Raises:
        DataError: nothing there, no data in the folder, an unknown suffix, a data set the hub does not hand out.
    """
    if str(path).startswith("hf://"):
        return _hub_files(str(path), split)
    path = Path(os.path.expanduser(path))
    if os.path.isdir(path):  # os.path, as Path.is_dir raises where a name is too long for a file
        return [(f, str(f)) for f in _split_files(path, split, str(path))]
    if not os.path.exists(path):
        raise DataError("no such file or folder", where=path, fix="check the path of the data")
    return [(_known(path), str(path))]


def _known(file: Path) -> Path:
    if not file.name.endswith(SUFFIXES):
        known = ", ".join([*JSON, ".parquet"])
        raise DataError(
            f"unknown kind of file {file.suffix!r}", where=file, fix=f"give one of {known}; .gz or .zst may follow"
        )
    return file


def _patterns(split: str) -> list[str]:
    names = SPELLINGS.get(split, (split,))
    return [n + suffix for suffixes in (SUFFIXES, SHARDS) for n in names for suffix in suffixes]


def _split_files(folder: Path, split: str, shown: str) -> list[Path]:
    for pattern in _patterns(split):
        for place in (folder, folder / "data"):
            if files := sorted(file for file in place.glob(pattern) if file.is_file()):
                return files
    raise DataError(f"no {split!r} data here", where=shown, fix=f"a folder needs {split}.jsonl or {split}.parquet")


def _hub_files(spec: str, split: str) -> list[tuple[Path, str]]:
    parts = HUB.fullmatch(spec)
    if parts is None:
        raise DataError(
            "not a data set of the hub", where=spec, fix="write hf://owner/name or hf://owner/name/file.jsonl"
        )
    repo, revision, file = parts["repo"], parts["revision"], parts["file"]

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    patterns = [file] if file else [p for name in _patterns(split) for p in (name, f"data/{name}")]
    try:
        # One call that also answers from the cache when there is no network.
        root = Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as e:
        raise DataError(
            "the hub has no such data set, or not for you", where=spec, fix="check the name, or log in"
        ) from e
    except Exception as e:  # a dozen kinds, from no network to a full disk; all mean that there is no data
        fix = "connect to the network, or give a local path"
        raise DataError(f"cannot be fetched from the hub ({type(e).__name__})", where=spec, fix=fix) from e
    files = [_known(root / file)] if file else _split_files(root, split, spec)
    if file and not files[0].exists():
        raise DataError("the data set has no such file", where=spec, fix="check the file's name on the hub")
    return [(f, f"hf://{repo}/{f.relative_to(root)}") for f in files]
