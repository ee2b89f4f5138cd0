"""`mlx-gemma audit DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_gemma.cli import options

if TYPE_CHECKING:
    from mlx_gemma.data.checks.runs import Runner


@click.command()
@click.argument("data", required=False)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="Judge by the filter section of this recipe, count lengths in its model's tokens; its training data, if "
    "DATA is not given.",
)
@click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file of eval items or rows whose prompts and answers must not be in DATA. May be repeated.",
)
@click.option(
    "--run", "run", is_flag=True, help="Run answers that come with tests in the sandbox, and find those that fail."
)
@click.option("--unsafe-exec", is_flag=True, help="With --run: without a sandbox, as you, on this machine.")
@click.option(
    "--write",
    "clean",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CLEAN",
    help="Write the kept rows to this file.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write audit.json and audit.html to this folder: --json and --html in one.",
)
@click.option(
    "--json", "report_file", type=options.OutputFile(), metavar="FILE", help="Write everything that was found."
)
@click.option(
    "--html", type=options.OutputFile(), help="Write a page to look at: counts, plots, and rows with what was found."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Processes for large data; as many as there are processors, at most eight, if not given.",
)
@click.option("--fresh", is_flag=True, help="Audit again what the cache has an answer to.")
def command(
    data: str | None,
    recipe: Path | None,
    against: tuple[Path, ...],
    run: bool,
    unsafe_exec: bool,
    clean: Path | None,
    out: Path | None,
    report_file: Path | None,
    html: Path | None,
    workers: int | None,
    fresh: bool,
) -> int:
    """Tell what is in DATA: a JSONL or Parquet file, a folder, or hf://owner/name.

    Validation and test beside the train rows of a folder, or the recipe's own, are compared with these. With --write,
    the kept rows go to CLEAN, and each rejected row with its reasons to a file beside it. The exit status is 1 where
    the recipe's filter.limits are broken.

    \b
    mlx-gemma audit datasets/python3/raw.jsonl --against evals/tasks.jsonl --write clean.jsonl
    mlx-gemma audit --recipe recipes/nano.yaml
    mlx-gemma audit datasets/python3/raw.jsonl --run --out audited
    """
    from mlx_gemma.cli.audit_shown import print_report, progress_bar
    from mlx_gemma.data.audit.cache import audit_files
    from mlx_gemma.data.audit.held_out import named, splits_beside
    from mlx_gemma.data.audit.rendering import Rendering
    from mlx_gemma.data.policy import FilterPolicy
    from mlx_gemma.recipe import read_recipe

    policy, rendering, valid = FilterPolicy(), None, None
    if recipe is not None:
        read = read_recipe(recipe).recipe
        policy, valid = read.filter, read.data.valid if data is None else None
        data = data or read.data.train
        rendering = Rendering(read.model.name, read.model.revision, read.train.length, read.data.turns)
    if data is None:
        raise click.UsageError("give DATA, or --recipe with a recipe whose data are meant")
    policy = policy.model_copy(update={"malformed": "reject"})  # all of the file is wanted, whatever a training does
    rejected = clean.with_name(f"{clean.stem}.rejected.jsonl") if clean else None
    outputs = [("--write", clean), ("--write", rejected), ("--json", report_file), ("--html", html)]
    if out is not None:
        outputs += [("--out", out / "audit.json")] * (report_file is None) + [("--out", out / "audit.html")] * (
            html is None
        )
        report_file, html = report_file or out / "audit.json", html or out / "audit.html"
    splits = [file for file, _ in named(splits_beside(data, valid))]
    _check_outputs(data, [*policy.contamination, *against, *splits], [(name, path) for name, path in outputs if path])
    console = options.console()
    runner = _runner(run, unsafe_exec)
    with progress_bar() as progress:
        report = audit_files(
            data,
            policy,
            against,
            valid=valid,
            rendering=rendering,
            run=runner,
            workers=workers,
            progress=progress,
            use_cache=not fresh,
        )
    print_report(console, report)
    if report_file is not None:
        report.write_json(report_file)
        console.print(f"everything that was found in {report_file}")
    if html is not None:
        from mlx_gemma.data.audit.page import page
        from mlx_gemma.data.write import whole_file

        with whole_file(html) as file:
            file.write(page(report))
        console.print(f"a page to look at in {html}")
    if clean is not None and rejected is not None:
        report.write(clean, rejected)
        console.print(f"kept rows in {clean}, rejected ones with their reasons in {rejected}")
    for line in report.breaches():
        console.print(f"beyond a limit: {line}", style="bold red")
    return 1 if report.breaches() else 0


def _runner(run: bool, unsafe: bool) -> Runner | None:
    if not run:
        if unsafe:
            raise click.UsageError("--unsafe-exec says how answers are run; give --run too")
        return None
    from mlx_gemma.evaluate.answers_run import Sandboxed

    with options.console(stderr=True).status("trying the sandbox"):
        return Sandboxed.unsafe() if unsafe else Sandboxed.proved()


def _check_outputs(data: str, others: list[Path], outputs: list[tuple[str, Path]]) -> None:
    """Raises UserError, which names the option, where an output is an input, another output, or a folder."""
    from mlx_gemma.data.sources import data_files
    from mlx_gemma.errors import UserError

    taken = {
        file.resolve(): "would be overwritten, and is read"
        for file in (*(file for file, _ in data_files(data)), *others)
    }
    for option, path in outputs:
        fix = f"give {option} another name"
        if (why := taken.get(path.resolve())) is not None:
            raise UserError(why, where=path, fix=fix)
        if path.is_dir() or any(path.resolve() in other.resolve().parents for _, other in outputs):
            raise UserError("is a folder, and would be a file", where=path, fix=fix)
        taken[path.resolve()] = "two outputs have this name"
