"""Folders on the Hugging Face hub, named `hf://owner/name`."""

from pathlib import Path

from utils.base.errors import UserError, in_brief

PREFIX = "hf://"


def is_on_hub(name: str | Path) -> bool:
    """Whether a name is that of a folder on the hub."""
    return str(name).startswith(PREFIX)


def fetch_folder(name: str) -> Path:
    """Download a folder, or use an earlier download if the hub can't be reached.

    Raises `UserError` if neither works.
    """
    from huggingface_hub import snapshot_download  # slow to import

    try:
        return Path(snapshot_download(name.removeprefix(PREFIX)))
    except Exception as error:  # the library has no one error for it
        raise UserError(f"{name}: can't be fetched ({in_brief(error)})") from None


def send_folder(folder: Path, name: str) -> str:
    """Upload a folder as the logged-in user; returns its address.

    Raises `UserError` if the upload fails.
    """
    from huggingface_hub import HfApi

    repository, api = name.removeprefix(PREFIX), HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder).commit_url)
    except Exception as error:
        raise UserError(
            f"{name}: can't be uploaded ({in_brief(error)}); log in with: hf auth login"
        ) from None
