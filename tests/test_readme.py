"""The README's commands are run, docs/cli.md and docs/recipe.md compared with the program, so that none can rot.

python tests/test_readme.py     write docs/cli.md and docs/recipe.md anew
"""

from __future__ import annotations

import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from mlx_gemma.cli import COMMANDS, cli, main
from mlx_gemma.cli.trace import BELOW
from mlx_gemma.recipe import known_keys, read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
PAGE = ROOT / "docs" / "cli.md"
RECIPE_PAGE = ROOT / "docs" / "recipe.md"
SHORT = ["--set", "train.steps=2", "--set", "train.epochs=null", "--set", "data.limit=16", "--set", "data.valid=null"]


def commands() -> list[str]:
    """Lines of the README's ```sh blocks, comments cut off."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def help_page() -> str:
    """docs/cli.md as it should be."""
    parts = ["# The command line\n\nWritten by `python tests/test_readme.py`; a test compares it with the program.\n"]
    with click.Context(cli, info_name="mlx-gemma", terminal_width=100, **cli.context_settings) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None
            parts += help_texts(command, name, context)
            if name == "trace":  # no group: MODEL may stand where a command's name may
                for below in BELOW:
                    parts += help_texts(
                        import_module(f"mlx_gemma.cli.trace_{below}").command, f"trace {below}", context
                    )
    return "\n".join(parts)


def help_texts(command: click.Command, name: str, parent: click.Context) -> list[str]:
    """The help of a command, and of those below it."""
    with click.Context(command, info_name=name, parent=parent, terminal_width=100) as context:
        parts = [f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"]
        below = getattr(command, "commands", {})
        return parts + [text for sub in below for text in help_texts(below[sub], sub, context)]


def recipe_page() -> str:
    """docs/recipe.md as it should be: a table a section."""
    text = "# The keys of a recipe\n\nWritten by `python tests/test_readme.py`; a test compares it with the program."
    text += " `mlx-gemma lora --keys` prints the same.\n"
    section = None
    for name, key in known_keys().items():
        of, _, last = name.rpartition(".")
        if of != section:
            text += f"\n## {of or 'Outside of sections'}\n\n| key | default | give | consequence |\n|---|---|---|---|\n"
            section = of
        default = "required" if key.default is None else f"`{key.default}`"
        cells = [f"`{last}`", default, key.allowed, key.consequence]
        text += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return text


def test_the_commands_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("recipes", "datasets", "evals"):
        (tmp_path / name).symlink_to(ROOT / name)
    ran = 0
    for line in commands():
        words = shlex.split(line)
        if words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), line
            continue
        assert words[0] == "mlx-gemma", f"the README has a command that this test does not know: {line}"
        if words[1] == "lora":
            if read_recipe(ROOT / words[2]).recipe.model.name != "nano":
                continue  # its weights are on the hub; tests/test_recipes.py trains it on a stand-in
            words += SHORT
        if words[1] in ("generate", "trace", "bench", "eval"):
            words += ["--max-tokens", "4"]
        if words[1] == "eval":
            suite = tmp_path / "two.jsonl"
            suite.write_text("\n".join((ROOT / words[2]).read_text().splitlines()[:2]))
            words[2] = str(suite)
        if words[1] == "bench":
            words += ["--limit", "1"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert not ended.value.code or words[1] == "doctor", f"{line}: {captured.err}"
        ran += 1
    assert ran >= 6


def test_files_and_folders_that_the_readme_names_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
    for folder in re.findall(r"^(\w[\w/]*)/ {2,}", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_help_texts_stand_in_the_docs() -> None:
    assert PAGE.read_text(encoding="utf8") == help_page(), "run: python tests/test_readme.py"


def test_the_keys_of_a_recipe_stand_in_the_docs() -> None:
    assert RECIPE_PAGE.read_text(encoding="utf8") == recipe_page(), "run: python tests/test_readme.py"


if __name__ == "__main__":
    PAGE.write_text(help_page(), encoding="utf8")
    RECIPE_PAGE.write_text(recipe_page(), encoding="utf8")
