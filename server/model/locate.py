"""From what the operator calls the model to a folder on this machine. Imports no torch."""

from __future__ import annotations

import logging
from pathlib import Path

from server.errors import StartupError

DEMO = Path(__file__).parents[1] / "demo" / "checkpoint"
"""The checkpoint inside this package."""

FILES = ["*.json", "tokenizer.model"]
"""Data only: what else a repository holds is code that is never run."""

log = logging.getLogger(__name__)


def locate(model: str | None, revision: str | None, *, weights: bool = True) -> Path:
    """Folder of the checkpoint.

    Args:
        model: a folder, a Hub id, or None for the demo model.
        weights: whether they are needed as well.

    Raises:
        StartupError: there is no such folder and the Hub cannot provide it.
    """
    if model is None:
        log.info("no --model given: serving the demo model, which knows only drawn shapes and text")
        return DEMO
    return _existing_folder(model) or _download(
        model, revision, [*FILES, "*.safetensors"] if weights else FILES
    )


def locate_config(model: str, revision: str | None) -> Path:
    """Folder with the model's config.json, and perhaps nothing else of it.

    Raises:
        StartupError: as `locate`.
    """
    return _existing_folder(model) or _download(model, revision, ["config.json"])


def _existing_folder(model: str) -> Path | None:
    """The folder that the model is, or None where it can only be a Hub id."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise StartupError(f"--model {model}: there is no such folder")
    return None


def _download(repo_id: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a second, for a Hub id only

    log.info("looking for %s on the Hub", repo_id)
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=files))
    except Exception as error:
        raise StartupError(
            f"--model {repo_id}: no such folder here, and the Hub did not provide it "
            f"({type(error).__name__}). Check the name and the network, or give a folder."
        ) from error
