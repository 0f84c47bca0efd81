"""Where and in which arithmetic the network runs: what this machine has, by name."""

from __future__ import annotations

from typing import Any

DTYPES = ("auto", "float32", "bfloat16", "float16")


def import_torch() -> Any:
    """Import torch, with transformers beside it, or say what to install.

    Raises
    ------
    ImportError
        If either is not installed.
    """
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"encoding prompts needs torch and transformers, found {error}; "
            "pip install 'benchrouter[cpu]', or pass precomputed embeddings (--embeddings FILE.npy)"
        ) from error
    return torch


def check_device(device: str) -> str:
    """Full name of a device that this machine has.

    Parameters
    ----------
    device : str
        "cpu", "cuda" (the same as "cuda:0") or "cuda:N".

    Raises
    ------
    TypeError
        If `device` is no str.
    ValueError
        If the name is another, or this machine has no such device: nothing is moved silently.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a str, got {type(device).__name__}")
    if device == "cpu":
        return device
    kind, colon, number = device.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"device: found {device!r}, expected 'cpu', 'cuda' or 'cuda:N'")
    torch = import_torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number or 0)
    if index >= count:
        raise ValueError(
            f"device {device!r}: found {count} CUDA devices (torch {torch.__version__}), "
            f"expected at least {index + 1}"
        )
    return f"cuda:{index}"


def check_dtype(dtype: str, device: str) -> str:
    """Name of the arithmetic that a device is asked for.

    Parameters
    ----------
    dtype : str
        One of `DTYPES`. "auto" is bfloat16 on a CPU that multiplies it (AVX-512 BF16, AMX) or a
        GPU that does (compute capability 8.0 on), float16 on an older GPU, else float32.
    device : str
        As `check_device` returns it.

    Raises
    ------
    ValueError
        If the name is another.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
    if dtype != "auto":
        return dtype
    torch = import_torch()
    if device != "cpu":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if _multiplies_bfloat16(torch) else "float32"


def _multiplies_bfloat16(torch: Any) -> bool:
    """Whether this CPU has instructions for bfloat16 products; torch emulates them elsewhere."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(hasattr(torch.cpu, name) and getattr(torch.cpu, name)() for name in asked)
