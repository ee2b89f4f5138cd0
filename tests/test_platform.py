"""The machine: the BLAS comes before mlx, and only where mlx is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_gemma
from mlx_gemma import platform

PACKAGE = Path(mlx_gemma.__file__).parent


def test_every_package_that_imports_mlx_loads_the_blas_first() -> None:
    needing = {
        path.parent
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^(import mlx\.|from mlx\.|import mlx_lm|from mlx_lm)", path.read_text(), re.MULTILINE)
    }
    assert {p.name for p in needing} >= {"gemma4", "training", "decode"}
    for folder in needing:
        assert "platform.load_blas()" in (folder / "__init__.py").read_text(), folder


def test_reading_data_needs_no_mlx() -> None:
    # A BLAS loaded globally takes over torch's own products: it slowed torch tenfold (LOG.md).
    code = "import sys, mlx_gemma.data.audit, mlx_gemma.recipe; from mlx_gemma import platform\n"
    code += "print([m for m in sys.modules if m.split('.')[0] in ('mlx', 'torch')], platform._blas)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] None"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
def test_a_blas_was_found_and_is_in_effect() -> None:
    assert platform.load_blas() is not None
    assert platform.matmul_gflops(512) > 5  # the reference BLAS gives 1.5


def test_what_goes_beside_a_figure() -> None:
    facts = platform.describe()
    assert facts["backend"] in ("cpu", "cuda", "metal")
    assert {"chip", "os", "python", "mlx", "mlx-lm"} <= set(facts)
    assert platform.memory_bytes() > 1e9
