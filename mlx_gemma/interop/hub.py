"""Uploading an export to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from mlx_gemma.errors import UserError

LOGIN = "log in first: hf auth login"


def check(repository: str) -> None:
    """Before the work of an export: whether the name is one, and somebody is logged in.

    Raises:
        UserError: no such name can be, nobody is logged in, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

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


def push(path: Path, repository: str) -> str:
    """Upload a file or a folder; a new repository is private. Returns the address of the commit.

    Raises:
        UserError: the hub refuses, or cannot be reached; what was exported stays on this machine.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        if path.is_dir():
            done = api.upload_folder(repo_id=repository, folder_path=path, commit_message="Export of mlx-gemma")
        else:
            done = api.upload_file(
                repo_id=repository,
                path_or_fileobj=path,
                path_in_repo=path.name,
                commit_message="Export of mlx-gemma",
            )
    except (HfHubHTTPError, OSError, ValueError) as e:
        fix = f"the export is kept; {LOGIN}, or upload it by hand: hf upload {repository} {path}"
        raise UserError(f"not uploaded: {e}"[:300], where=repository, fix=fix) from e
    return str(done.commit_url)
