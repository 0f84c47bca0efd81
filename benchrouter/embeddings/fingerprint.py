"""The identity of an encoder: embeddings of another encoder cannot be compared with its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchrouter.embeddings.weights.find import resolve
from benchrouter.embeddings.weights.layout import EncoderFiles


@dataclass(frozen=True)
class Fingerprint:
    """What an embedding depends on.

    Attributes
    ----------
    name : str
        The name that `resolve` finds the encoder by.
    revision : str or None
        The hub's commit, or the package's version.
    weights_sha256 : str
        SHA-256 of the weights file; of the shards' own digests where there are several.
    pooling : str
        "mean", "cls" or "max".
    max_tokens : int
        Tokens kept of a prompt, special tokens included.
    dim : int
        Length of an embedding.
    normalize : bool
        Whether the encoder's own folder asks for unit rows; rows are unit either way.
    dtype : str
        "float32", "bfloat16", "float16", "int8" or "unknown": the arithmetic, never compared.
    """

    name: str
    revision: str | None
    weights_sha256: str
    pooling: str
    max_tokens: int
    dim: int
    normalize: bool
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Build a fingerprint from `to_dict`'s dict.

        Raises
        ------
        TypeError
            If a field has a wrong type.
        ValueError
            If a field is missing or unknown.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in values]
        unknown = [name for name in values if name not in names]
        if missing or unknown:
            raise ValueError(
                f"fingerprint: found the fields {sorted(values)}, expected {sorted(names)}"
            )
        for name in names:
            kinds = _FIELD_TYPES[name]
            value = values[name]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                expected = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(
                    f"fingerprint: {name} must be {expected}, got {type(value).__name__}"
                )
        return cls(**{name: values[name] for name in names})

    def difference(self, other: Fingerprint) -> list[str]:
        """List the differences that make two encoders' embeddings incomparable.

        `name`, `revision` and `normalize` do not change the rows, and `dtype` only their rounding:
        none of them is compared.
        """
        found = []
        if self.weights_sha256 != other.weights_sha256:
            found.append(
                f"weights {self.weights_sha256[:12]} ({self.name}) "
                f"against {other.weights_sha256[:12]} ({other.name})"
            )
        for name in ("pooling", "max_tokens", "dim"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                found.append(f"{name} {ours} against {theirs}")
        return found


_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "revision": (str, type(None)),
    "weights_sha256": (str,),
    "pooling": (str,),
    "max_tokens": (int,),
    "dim": (int,),
    "normalize": (bool,),
    "dtype": (str,),
}


def fingerprint_of(
    name: str | os.PathLike[str], max_tokens: int | None = None, *, dtype: str = "unknown"
) -> Fingerprint:
    """Fingerprint of an encoder, from its files alone: nothing is loaded, torch is not needed.

    Parameters
    ----------
    name : str or path
        As `resolve` takes it.
    max_tokens : int, optional
        Tokens kept of a prompt; by default what the encoder's folder says.
    dtype : str
        Recorded as it is: "unknown" of embeddings that came without it.

    Raises
    ------
    EncoderNotFound, FileNotFoundError, TypeError, ValueError
        As `resolve` and `EncoderFiles.token_limit`.
    """
    return fingerprint_of_files(resolve(name), max_tokens, dtype=dtype)


def fingerprint_of_files(
    files: EncoderFiles, max_tokens: int | None = None, *, dtype: str
) -> Fingerprint:
    """Fingerprint of an encoder whose files are known already."""
    digests = [_sha256(path) for path in files.weights]
    shards = "".join(f"{d}  {p.name}\n" for d, p in zip(digests, files.weights, strict=True))
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(shards.encode()).hexdigest()
    return Fingerprint(
        name=files.name,
        revision=files.revision,
        weights_sha256=whole,
        pooling=files.pooling,
        max_tokens=files.token_limit(max_tokens),
        dim=files.dim,
        normalize=files.normalize,
        dtype=dtype,
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
