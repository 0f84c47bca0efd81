"""The devices and dtypes of this machine, by name."""

from __future__ import annotations

from typing import Any

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def import_torch() -> Any:
    """Import torch and transformers, or say what to install.

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
    """Name of the dtype for a device.

    Parameters
    ----------
    dtype : str
        One of `DTYPES`. "auto" is bfloat16 on a CPU that multiplies it (AVX-512 BF16, AMX) or a
        GPU that does (compute capability 8.0 on), float16 on an older GPU, else float32. "int8"
        is never chosen by itself: it is faster than bfloat16, and farther from float32.
    device : str
        As `check_device` returns it.

    Raises
    ------
    ValueError
        If the name is another, or it is "int8" and this is no CPU with VNNI.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
    if dtype == "int8":
        if device != "cpu":
            raise ValueError(f"dtype 'int8': found device {device!r}, expected 'cpu'")
        if not multiplies_int8():
            raise ValueError(
                "dtype 'int8': found a CPU without VNNI, or a torch without oneDNN; "
                "'auto' is what suits this machine"
            )
    if dtype != "auto":
        return dtype
    torch = import_torch()
    if device != "cpu":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if multiplies_bfloat16() else "float32"


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products; torch emulates them elsewhere."""
    torch = import_torch()
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def multiplies_int8() -> bool:
    """Whether this CPU has dot products of 8-bit integers (VNNI), and torch has oneDNN's products.

    Without the instructions sums of two products are kept in 16 bits, which may overflow.
    """
    torch = import_torch()
    return (
        getattr(torch.cpu, "_is_vnni_supported", bool)()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.onednn, "qlinear_pointwise")
        and hasattr(torch.ops.onednn, "qlinear_prepack")
    )
