"""Uploading an export to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.checkpoint import read_json

LOGIN = "log in first: hf auth login"
REPLACED = ["*.safetensors", "*.safetensors.index.json"]  # shards of an earlier upload, or an index of them
MESSAGE = "Export of mlx-gemma"
CARD = "README.md"
RECIPE = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
PATH = re.compile(r"""[\s\['"](/|~/)[^\s/]""")


def check(repository: str) -> None:
    """Before the work of an export: whether the name is one, and somebody is logged in.

    Raises:
        UserError: no such name can be, nobody is logged in, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, by a lazy __all__

    try:
        if repository.count("/") != 1:
            raise HFValidationError(repository)
        validate_repo_id(repository)
    except HFValidationError as e:
        raise UserError("no name of a repository", where=repository, fix="give OWNER/NAME") from e
    try:
        HfApi().whoami()
    except Exception as e:  # LocalTokenNotFoundError, a refused token, no network: all with texts of their own
        raise UserError(f"the hub does not let us in: {e}"[:300], where=repository, fix=LOGIN) from e


def warnings(path: Path, card: str | None = None) -> list[str]:
    """What of an export names this machine's folders, a line each; `card` as in `push`."""
    lines, config, readme = [], path / "adapter_config.json", path / CARD
    base = read_json(config).get("base_model_name_or_path") if config.is_file() else None
    if isinstance(base, str) and Path(base).is_absolute():
        lines.append(f"{config}: its base is named by a path of this machine: edit base_model_name_or_path")
    if card is None and readme.is_file():
        card = readme.read_text(encoding="utf8")
    recipe = RECIPE.search(card or "")
    if recipe and PATH.search(recipe[1]):
        lines.append(f"{readme if path.is_dir() else CARD}: the recipe in it names paths of this machine")
    return lines


def push(path: Path, repository: str, card: str | None = None) -> str:
    """Upload a file or a folder in one commit; a new repository is private. Returns the address of the commit.

    A folder replaces every safetensors file that the repository has. Anything else is kept unless it has the same name.

    Args:
        card: README.md beside a single file; a folder has its own.

    Raises:
        UserError: the hub refuses, or cannot be reached; what was exported stays on this machine.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        if path.is_dir():
            done = api.upload_folder(
                repo_id=repository, folder_path=path, commit_message=MESSAGE, delete_patterns=REPLACED
            )
        else:
            files = {path.name: path} | ({CARD: card.encode()} if card is not None else {})
            added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=held) for name, held in files.items()]
            done = api.create_commit(repo_id=repository, operations=added, commit_message=MESSAGE)
    except Exception as e:  # the hub's, and its client's own, which are no OSErrors
        fix = f"the export is kept; {LOGIN}, or upload it by hand: hf upload {repository} {path}"
        raise UserError(f"not uploaded: {e}"[:300], where=repository, fix=fix) from e
    return str(done.commit_url)
