"""The machine: which backend MLX runs on, which BLAS, how much memory. The only file that knows.

The target is Metal on Apple Silicon. On Linux the same code runs on MLX's CPU or CUDA backend.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform as _platform
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma.errors import UserError

if TYPE_CHECKING:
    import mlx.core as mx

BLAS_PACKAGE = "libopenblas0-pthread"
_blas: str | None = None


def load_blas() -> str | None:
    """Put an optimised BLAS in front of the reference BLAS that MLX's Linux CPU wheel links.

    Must run before `mlx.core` is imported: its symbols are then bound to the library loaded here with global
    visibility. (A script that imports mlx itself calls this first.) On two cores this took float32 matrix products from
    1.5 to over 60 GFLOP/s. Nothing happens on macOS (Accelerate).

    Returns:
        The library that was loaded, or None. torch's own CPU library (a dependency on Linux) is the fallback.
    """
    global _blas
    if sys.platform != "linux" or _blas is not None:
        return _blas
    if kernels := _openblas_kernels():
        os.environ.setdefault("OPENBLAS_CORETYPE", kernels)
    for name in ("libopenblas.so.0", "libmkl_rt.so.2", *_torch_library()):
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        _blas = name
        break
    return _blas


def _openblas_kernels() -> str | None:
    """The kernels for this processor's vector instructions. OpenBLAS goes by the model instead, and takes SSE3 kernels
    for a model younger than itself: 31 against 125 GFLOP/s on one thread of a Sapphire Rapids with Debian's 0.3.21."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    has = set(flags[1].split()) if flags else set()
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= has:
        return "SKYLAKEX"
    return "HASWELL" if {"avx2", "fma"} <= has else None


def _torch_library() -> list[str]:
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return []
    return [str(Path(spec.submodule_search_locations[0]) / "lib" / "libtorch_cpu.so")]


def backend() -> str:
    """`metal`, `cuda` or `cpu`: where mx.default_device() computes."""
    load_blas()
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if sys.platform == "darwin" else "cuda"


def compute_dtype() -> mx.Dtype | None:
    """float32 on a CPU, where bfloat16 products have no fast path (1.5 GFLOP/s); None: the checkpoint's own."""
    load_blas()
    import mlx.core as mx

    return mx.float32 if backend() == "cpu" else None


def compiles() -> bool:
    """Whether mx.compile gains: on a GPU, where it saves launches; on the CPU backend it took the same time."""
    return backend() != "cpu"


def machines() -> Any:
    """mx.distributed's group of the machines that were launched together; of this one alone otherwise.

    Raises:
        UserError: it was launched as one of several and cannot reach them. (MLX's own default is to go on alone.)
    """
    load_blas()
    import mlx.core as mx

    launched = "MLX_RANK" in os.environ
    try:
        return mx.distributed.init(strict=launched)
    except (RuntimeError, ValueError) as e:
        fix = "check the hostfile, and that all of them have started"
        raise UserError(f"the other machines cannot be reached: {e}", fix=fix) from e


def wire_memory() -> None:
    """Let Metal keep what it recommends at most wired, as mlx-lm's trainer does; nothing elsewhere."""
    if backend() == "metal":
        import mlx.core as mx

        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def chip() -> str:
    """The processor's name, as the machine tells it."""
    if sys.platform == "darwin":
        import subprocess

        found = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return found.stdout.strip() or _platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        name = ""
    return f"{name or _platform.machine()} ({os.cpu_count()} cores)"


def memory_bytes() -> int:
    """Memory that this process may count on: of the machine, or of its GPU under CUDA."""
    load_blas()
    import mlx.core as mx

    if backend() != "cpu":
        info = mx.device_info()
        for key in ("max_recommended_working_set_size", "memory_size", "total_memory"):
            if key in info:
                return int(info[key])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory_bytes() -> int:
    """The most memory MLX's arrays have taken since the start or the last reset; on the CPU backend too."""
    load_blas()
    import mlx.core as mx

    return int(mx.get_peak_memory())


def scalar(value: mx.array) -> float:
    """A device scalar on the host; waits for it to be computed."""
    return float(value.item())  # type: ignore[arg-type]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; `-` where one is not installed."""
    found = {"python": _platform.python_version()}
    for name in ("mlx-gemma", "mlx", "mlx-lm", "transformers", "torch", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def describe() -> dict[str, str]:
    """One row of facts that goes beside every figure: chip, OS, backend, versions."""
    return {"chip": chip(), "os": f"{_platform.system()} {_platform.release()}", "backend": backend(), **versions()}


def matmul_gflops(size: int = 1024) -> float:
    """Measured speed of a float32 matrix product on the default device, in GFLOP/s; 0.3 s, or 8 s with no good BLAS."""
    import time

    load_blas()
    import mlx.core as mx

    a = mx.random.normal((size, size))
    mx.eval(a @ a)
    best = 0.0
    for _ in range(5):  # the best of five: other processes only ever slow it
        started = time.perf_counter()
        mx.eval(a @ a)
        best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    return best
