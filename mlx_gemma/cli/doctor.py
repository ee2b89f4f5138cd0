"""`mlx-gemma doctor`: what this machine offers, and the command that mends what is missing."""

from __future__ import annotations

import click

from mlx_gemma.cli import options


@click.command()
def command() -> int:
    """Tell which backend, chip, memory, BLAS and versions there are, and what is missing. Exits 1 if something is."""
    import sys

    from rich.table import Table
    from rich.text import Text

    from mlx_gemma import platform

    console = options.console()
    gflops = platform.matmul_gflops()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in (
        *platform.describe().items(),
        ("memory", f"{platform.memory_bytes() / 1e9:.1f} GB"),
        ("blas", platform.load_blas() or ("Accelerate" if sys.platform == "darwin" else "the reference BLAS, slow")),
        ("float32 product", f"{gflops:,.0f} GFLOP/s (1024 x 1024, measured now)"),
    ):
        table.add_row(name, value)
    console.print(table)
    problems = [(n, f"pip install {n}") for n, v in platform.versions().items() if v == "-" and n != "torch"]
    if platform.backend() == "cpu" and sys.platform == "linux" and (platform.load_blas() or "") != "libopenblas.so.0":
        problems.append(("no OpenBLAS, so matrix products are slower", f"sudo apt-get install {platform.BLAS_PACKAGE}"))
    if platform.backend() == "cpu" and sys.platform == "linux" and gflops < 5:
        problems.append(
            ("the BLAS that was found is not in effect", "import mlx_gemma before mlx.core, and check LD_PRELOAD")
        )
    for what, mend in problems:
        console.print(Text.assemble(("missing:", "red"), f" {what}; mend it with: ", (mend, "bold")))
    if not problems:
        console.print("nothing is missing", style="green")
    return 1 if problems else 0
