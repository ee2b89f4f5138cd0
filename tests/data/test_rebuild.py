"""The committed data is what its families give, to the byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from mlx_gemma.data.build import python3 as build
from mlx_gemma.data.build import vulnerability as build_vulnerability
from mlx_gemma.data.build.rebuild import ROOT, changed_files
from mlx_gemma.errors import DataError


@pytest.mark.parametrize("module", [build, build_vulnerability])
def test_rebuilding_gives_the_committed_files(tmp_path: Path, module: ModuleType) -> None:
    """Every Python 3 solution passes its checks on the way, or the build stops."""
    committed = ROOT / module.FOLDER
    digests = module.build(tmp_path)
    assert digests == json.loads((committed / "digests.json").read_text())["sha256"]
    for path, digest in digests.items():
        assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == digest, path
    assert (tmp_path / module.FOLDER / "README.md").read_text() == (committed / "README.md").read_text()


def test_check_names_a_changed_file(tmp_path: Path) -> None:
    folder, rebuild = build_vulnerability.FOLDER, build_vulnerability.build
    rebuild(tmp_path, seed=1)
    assert changed_files(tmp_path, folder, rebuild) == []
    (tmp_path / folder / "valid.jsonl").write_text("{}\n")
    assert changed_files(tmp_path, folder, rebuild) == [f"{folder}/valid.jsonl"]


def test_check_needs_digests(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable digests"):
        changed_files(tmp_path, build.FOLDER, build.build)
