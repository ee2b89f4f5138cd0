"""`mlx-gemma export RUN --to hf | peft | gguf | gguf-lora | mlx`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_gemma.cli import options

if TYPE_CHECKING:
    from mlx_gemma.interop.export import Exported

FORMS = ("hf", "peft", "gguf", "gguf-lora", "mlx")
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(FORMS), default="hf", show_default=True, help="The form; see above.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write; default: in RUN, by the form's name.")
@click.option("--base", metavar="MODEL", help="Merge into this checkpoint instead of the one RUN was trained on.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="Of the weights; default: the base's own. q8_0: gguf.")
@click.option("--quantize", metavar="MODE", help="For mlx: affine4, affine6, affine8, mxfp4, nvfp4 or mxfp8.")
@click.option("--text-only", is_flag=True, help="For hf: the text decoder alone, as Gemma4ForCausalLM.")
@click.option("--force", is_flag=True, help="Keep an export in which rounding left under half of the adapter's effect.")
@click.option(
    "--push-to-hub", metavar="OWNER/NAME", help="Then upload it to this repository, made private if it is new."
)
def command(
    run: Path,
    to: str,
    out: Path | None,
    base: str | None,
    dtype: str | None,
    quantize: str | None,
    text_only: bool,
    force: bool,
    push_to_hub: str | None,
) -> None:
    """Write RUN for other programs, and verify it: it is read again and compared with base and adapter.

    \b
    hf          a Hugging Face folder: the base's own files with the adapter merged in; transformers, mlx-lm, vLLM
    peft        the adapter alone, for transformers + PEFT
    gguf        one file with model and tokenizer, for llama.cpp, Ollama, LM Studio
    gguf-lora   the adapter alone, for llama.cpp's --lora
    mlx         a folder for mlx-lm and LM Studio, quantised with --quantize

    What is merged is merged in float32 into the base's full-precision weights. Nothing is kept that is not base +
    adapter up to rounding.
    """
    from mlx_gemma.interop import hub
    from mlx_gemma.interop.export import export

    console = options.console()
    if push_to_hub:
        hub.check(push_to_hub)
    with console.status("writing and comparing"):
        done = export(
            run,
            to,
            out,
            base=base,
            dtype=DTYPES[dtype] if dtype else None,
            quantize=quantize,
            text_only=text_only,
            force=force,
        )
    for line in told(done):
        console.print(line)
    if push_to_hub:
        for line in hub.warnings(done.path, done.card):
            console.print(line, style="yellow")
        with console.status("uploading"):
            console.print(f"uploaded: {hub.push(done.path, push_to_hub, done.card)}")


def told(done: Exported) -> list[str]:
    """What an export says of itself, the result first."""
    gap = done.gap
    what = f"{len(done.changes)} tensors merged, " if done.changes else ""
    over = f"the run's first {done.rows} validation rows" if done.rows else "three built-in conversations"
    lines = [f"{done.path}: {what}{done.bytes / 1e6:.1f} MB"]
    rounding = gap.mean / max(done.effect, 1e-12)
    lines.append(
        f"verified by reading it again: {done.survived:.1%} of the adapter's effect, {rounding:.1%} of noise beside it"
    )
    lines.append(
        f"mean {gap.mean:.1e} of {done.effect:.1e}, max {gap.largest:.1e}, KL {gap.kl:.1e} nats\n"
        f"the same most probable token in {gap.agreement:.1%}; over {over}"
    )
    if done.moved is not None:
        share = done.moved / max(done.effect, 1e-12)
        lines.append(
            "trained on a quantised base, exported on the full-precision one: that moves the logits by "
            f"{share:.1%} of the adapter's effect (mean {done.moved:.1e})"
        )
    return lines
