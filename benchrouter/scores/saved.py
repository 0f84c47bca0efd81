"""The router on disk: a directory of plain files, hashed, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.atomic import replacing, write_array
from benchrouter.files.errors import BadRouter
from benchrouter.files.os_errors import naming
from benchrouter.files.plain import finite, plain
from benchrouter.neighbours.by_faiss import Approximate
from benchrouter.scores.expected.prompt_scores import Expectation
from benchrouter.scores.fitted import Approximation, Fit, Settings
from benchrouter.scores.held_out import ALL_RECORDS, SAMPLE
from benchrouter.scores.pairs import Pairs
from benchrouter.votes.outcomes import Outcomes, PackedOutcomes

FORMAT_VERSION = 4
DESCRIPTION = "router.json"
RECORDS = "records.arrow"  # Arrow IPC: memory-mapped, unlike Parquet; read by pyarrow, polars, R
ARRAYS = (
    "embeddings", "dataset", "means", "raw_means", "local", "within", "pair_u", "pair_p",
    "pair_dataset", "pair_share", "raw", "correct_bits", "correct_present", "record_cost_usd",
    "auto_weights", "auto_offset", "auto_of_dataset", "auto_own_distance",
)  # fmt: skip
APPROXIMATE = "approximate.faiss"  # where an approximate index was asked for
FILES = {DESCRIPTION, RECORDS, APPROXIMATE, *(f"{name}.npy" for name in ARRAYS)}


def save(fit: Fit, directory: str | Path) -> None:
    """Write a fit to a directory: beside it first, then renamed into place.

    Parameters
    ----------
    fit : Fit
    directory : path
        Created, or replaced if it is empty or holds a router.

    Raises
    ------
    ValueError
        If the path exists and is not a router, or holds other files as well.
    OSError
        If the disk is full or not writeable; an earlier router is then untouched.
    """
    target = check_target(directory)
    with naming(directory), replacing(target) as beside:
        _write(fit, beside)


def _write(fit: Fit, beside: Path) -> None:
    for name, array in _arrays(fit).items():
        write_array(beside / f"{name}.npy", array)
    _write_records(fit, beside / RECORDS)
    if fit.approximation is not None:
        fit.approximation.index.write(beside / APPROXIMATE)
    content = _description(fit)
    content["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(beside.iterdir())
    }
    content["sha256"] = _own_hash(content)
    (beside / DESCRIPTION).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def check_target(directory: str | Path) -> Path:
    """Check, before any long work, that a router may be written to a directory.

    Parameters
    ----------
    directory : path
        Its parents are made where they are missing; a symbolic link is followed.

    Returns
    -------
    Path
        The directory, absolute.

    Raises
    ------
    ValueError
        If it exists and is not a router, or holds files that no router has.
    OSError
        If the parent cannot be made or written.
    """
    target = Path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{directory} exists and is a file, expected a directory")
    if target.is_dir() and any(target.iterdir()):
        if not (target / DESCRIPTION).is_file():
            raise ValueError(f"{directory} exists and is not a router: it has no {DESCRIPTION}")
        foreign = sorted({path.name for path in target.iterdir()} - FILES)
        if foreign:
            raise ValueError(
                f"{directory} holds {foreign[0]!r} beside a router, and would be replaced whole: "
                "move it away first"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target.parent))
    return target


def load(directory: str | Path, *, verify: bool = True) -> Fit:
    """Read a fit; its large arrays are memory-mapped and stay valid if the directory is replaced.

    Parameters
    ----------
    directory : path
    verify : bool
        Compare every file's SHA-256 with the recorded one (its size is always compared).

    Raises
    ------
    BadRouter
        Naming the file that is missing, damaged, or of another format.
    ImportError
        If it has an approximate index, and faiss is not installed.
    """
    root = Path(directory)
    content = read_description(root)
    try:
        return _read(root, content, verify)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadRouter(
            f"{root / DESCRIPTION} does not describe a router: {type(error).__name__} {error}"
        ) from error


def _read(root: Path, content: dict[str, Any], verify: bool) -> Fit:
    from benchrouter.embeddings import Fingerprint

    for name, expected in content["files"].items():
        if name not in FILES:
            raise BadRouter(f"{root / DESCRIPTION} lists {name!r}, which is no file of a router")
        _check_file(root / name, expected, verify)
    arrays = {
        name.removesuffix(".npy"): _read_array(root / name)
        for name in content["files"]
        if name.endswith(".npy")
    }
    sample_ids, prompts = _read_records(root / RECORDS)
    _check_shapes(root, arrays, content, len(prompts))
    recorded, models, datasets = content["encoder"], content["models"], content["datasets"]
    return Fit(
        settings=_read_settings(content),
        fingerprint=None if recorded is None else Fingerprint.from_dict(recorded),
        models=tuple(_column(models, "name")),
        datasets=tuple(_column(datasets, "name")),
        metrics=tuple(_column(datasets, "metric")),
        thresholds=_floats(_column(datasets, "threshold")),
        embeddings=arrays["embeddings"],
        dataset=arrays["dataset"],
        sample_ids=sample_ids,
        prompts=prompts,
        raw=_outcomes(arrays, content),
        correct=_packed(arrays, len(models)),
        means=arrays["means"],
        raw_means=arrays["raw_means"],
        params_b=_floats(_column(models, "params_b")),
        cost_usd=_floats(_column(models, "cost_usd")),
        prices=_floats(chain(*_column(models, "usd_per_million_tokens"))).reshape(-1, 2),
        record_cost_usd=arrays.get("record_cost_usd"),
        pairs=Pairs(
            arrays["pair_u"], arrays["pair_p"], arrays["pair_dataset"], arrays["pair_share"]
        ),
        benchmark_u=_floats(_column(datasets, "distance"))
        if content["has_distances"]
        else np.empty(0),
        local=arrays["local"],
        within=arrays["within"],
        expectation=_read_expectation(arrays, content["auto"]),
        distance_limit=np.inf if content["distance_limit"] is None else content["distance_limit"],
        tau=content["tau"],
        best_on_average=content["best_on_average"],
        compact=content["compact"],
        approximation=_read_approximation(root, content),
        sha256=content["sha256"],
    )


def describe(fit: Fit) -> dict[str, Any]:
    """List what a fit holds, as plain values."""
    content = _description(fit)
    content["best_on_average"] = fit.models[fit.best_on_average]
    content["fallback"] = fit.models[fit.fallback]
    return content


def read_description(root: Path) -> dict[str, Any]:
    """Read and check router.json.

    Parameters
    ----------
    root : Path
        Directory of the router.

    Raises
    ------
    BadRouter
        If it is missing, not JSON, damaged, or of a newer format.
    """
    path = root / DESCRIPTION
    if not path.is_file():
        raise BadRouter(f"{root} is not a router: it has no {DESCRIPTION}")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadRouter(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise BadRouter(f"{path} is not a router's description: it has no format_version")
    if content["format_version"] != FORMAT_VERSION:
        raise BadRouter(
            f"{path} has format version {content['format_version']}, this release reads "
            f"{FORMAT_VERSION}"
        )
    if content.get("sha256") != _own_hash(content):
        raise BadRouter(f"{path} is damaged: its SHA-256 is not the recorded one")
    return content


class Strings(Sequence[str]):
    """A column of strings in a memory-mapped Arrow file, decoded one value at a time."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __getitem__(self, i: Any) -> Any:
        """Value at a position; a list of values for a slice."""
        return self._column[i].to_pylist() if isinstance(i, slice) else self._column[i].as_py()

    def __len__(self) -> int:
        """Count the values."""
        return len(self._column)


def _arrays(fit: Fit) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "embeddings": fit.embeddings,
        "dataset": fit.dataset,
        "means": fit.means,
        "raw_means": fit.raw_means,
        "local": fit.local,
        "within": fit.within,
        "pair_u": fit.pairs.u,
        "pair_p": fit.pairs.p,
        "pair_dataset": fit.pairs.dataset,
        "pair_share": fit.pairs.share,
        "auto_weights": fit.expectation.weights,
        "auto_offset": fit.expectation.offset,
        "auto_of_dataset": fit.expectation.of_dataset,
        "auto_own_distance": fit.expectation.own_distance,
    }
    if not isinstance(fit.raw, PackedOutcomes):
        arrays["raw"] = fit.raw
    if fit.correct is not None:
        arrays["correct_bits"] = fit.correct.bits
        if fit.correct.present is not None:
            arrays["correct_present"] = fit.correct.present
    if fit.record_cost_usd is not None:
        arrays["record_cost_usd"] = fit.record_cost_usd
    return arrays


def _description(fit: Fit) -> dict[str, Any]:
    counts = np.bincount(fit.dataset, minlength=len(fit.datasets)).tolist()
    distances = fit.benchmark_u.tolist() or [float("nan")] * len(fit.datasets)
    standing = (fit.raw_prior if fit.correct is None else fit.prior).astype(np.float64).tolist()
    return {
        "format_version": FORMAT_VERSION,
        "encoder": None if fit.fingerprint is None else fit.fingerprint.to_dict(),
        "dim": int(fit.embeddings.shape[1]),
        "n_records": int(fit.embeddings.shape[0]),
        "settings": {**fit.settings.numbers, "label_shares": list(fit.settings.label_shares)},
        "models": [
            {
                "name": name,
                "standing": plain(standing[i]),
                "params_b": plain(float(fit.params_b[i])),
                "cost_usd": plain(float(fit.cost_usd[i])),
                "usd_per_million_tokens": finite(fit.prices[i].tolist()),
            }
            for i, name in enumerate(fit.models)
        ],
        "datasets": [
            {
                "name": name,
                "n_records": counts[i],
                "distance": plain(distances[i]),
                "metric": fit.metrics[i],
                "threshold": plain(float(fit.thresholds[i])),
            }
            for i, name in enumerate(fit.datasets)
        ],
        "has_distances": len(fit.benchmark_u) > 0,
        "scores_are_binary": isinstance(fit.raw, PackedOutcomes),
        "auto": fit.expectation.to_dict(),
        "distance_limit": plain(fit.distance_limit),
        "tau": fit.tau,
        "estimated_from": f"at most {SAMPLE} records a dataset"
        if len(fit.dataset) > ALL_RECORDS
        else "every record",
        "best_on_average": fit.best_on_average,
        "fallback": fit.fallback,
        "fallback_is_named": fit.settings.fallback is not None,
        "compact": fit.compact,
        "approximation": None
        if fit.approximation is None
        else {
            "factory": fit.approximation.factory,
            "recall": fit.approximation.recall,
            "agreement": fit.approximation.agreement,
            "n_queries": fit.approximation.n_queries,
        },
    }


def _read_settings(content: dict[str, Any]) -> Settings:
    numbers, approximation = content["settings"], content["approximation"]
    fallback = content["models"][content["fallback"]]["name"]
    return Settings(
        **{**numbers, "label_shares": tuple(numbers["label_shares"])},
        fallback=fallback if content["fallback_is_named"] else None,
        index=None if approximation is None else approximation["factory"],
    )


def _read_expectation(arrays: dict[str, NDArray[Any]], recorded: dict[str, Any]) -> Expectation:
    return Expectation.from_dict(
        recorded,
        weights=arrays["auto_weights"],
        offset=arrays["auto_offset"],
        of_dataset=arrays["auto_of_dataset"],
        own_distance=arrays["auto_own_distance"],
    )


def _read_approximation(root: Path, content: dict[str, Any]) -> Approximation | None:
    recorded = content["approximation"]
    if recorded is None:
        return None
    index = Approximate.read(root / APPROXIMATE, recorded["factory"])
    if index.dim != content["dim"] or index.n_records > content["n_records"]:
        raise BadRouter(
            f"{root / APPROXIMATE} has {index.n_records} records × {index.dim}, the router has "
            f"{content['n_records']} × {content['dim']}"
        )
    return Approximation(index=index, **recorded)


def _outcomes(arrays: dict[str, NDArray[Any]], content: dict[str, Any]) -> Outcomes:
    if not content["scores_are_binary"]:
        return arrays["raw"]
    correct = _packed(arrays, len(content["models"]))
    assert correct is not None
    return correct


def _packed(arrays: dict[str, NDArray[Any]], n_models: int) -> PackedOutcomes | None:
    if "correct_bits" not in arrays:
        return None
    return PackedOutcomes(arrays["correct_bits"], arrays.get("correct_present"), n_models)


def _column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def _floats(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _write_records(fit: Fit, path: Path) -> None:
    import pyarrow as pa

    columns = {
        "dataset": pa.DictionaryArray.from_arrays(
            pa.array(fit.dataset), pa.array(fit.datasets, pa.string())
        ),
        "sample_id": pa.array(fit.sample_ids, pa.large_string()),
        "prompt": pa.array(fit.prompts, pa.large_string()),
    }
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read_records(path: Path) -> tuple[Strings, Strings]:
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return Strings(table.column("sample_id")), Strings(table.column("prompt"))
    except (pa.ArrowInvalid, KeyError) as error:
        raise BadRouter(f"{path} is damaged: {error}") from error


def _read_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # nothing to map in an array without elements
        array = np.load(path, allow_pickle=False)
    return array


def _check_file(path: Path, expected: dict[str, Any], verify: bool) -> None:
    if not path.is_file():
        raise BadRouter(f"{path} is missing: the router is not whole")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise BadRouter(f"{path} is damaged: it has {size} bytes, recorded {expected['bytes']}")
    if verify and _sha256(path) != expected["sha256"]:
        raise BadRouter(f"{path} is damaged: its SHA-256 is not the recorded one")


def _check_shapes(
    root: Path, arrays: dict[str, NDArray[Any]], content: dict[str, Any], n_prompts: int
) -> None:
    """Hold the arrays against the description: each was whole by itself."""
    n, models, datasets = content["n_records"], len(content["models"]), len(content["datasets"])
    pairs, words = len(arrays["pair_u"]), -(-models // 64)
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "embeddings": (np.float32, (n, content["dim"])),
        "dataset": (np.int32, (n,)),
        "means": (np.float64, (datasets, models)),
        "raw_means": (np.float64, (datasets, models)),
        "local": (np.float64, (datasets, models)),
        "within": (np.float64, (models, models)),
        "pair_u": (np.float64, (pairs,)),
        "pair_p": (np.float64, (pairs, models)),
        "pair_dataset": (np.int32, (pairs,)),
        "pair_share": (np.float64, (pairs,)),
        "raw": (np.float32, (n, models)),
        "correct_bits": (np.uint64, (n, words)),
        "correct_present": (np.uint64, (n, words)),
        "record_cost_usd": (np.float32, (n, models)),
        "auto_weights": (np.float32, (content["dim"], 2, models)),
        "auto_offset": (np.float64, (2, models)),
        "auto_of_dataset": (np.float32, (datasets, 2, models)),
        "auto_own_distance": (np.float32, (n,)),
    }
    for name, array in arrays.items():
        dtype, shape = expected[name]
        if array.dtype != dtype or array.shape != shape:
            raise BadRouter(
                f"{root / name}.npy has {array.dtype} {array.shape}, the router needs "
                f"{np.dtype(dtype)} {shape}"
            )
    if n_prompts != n:
        raise BadRouter(f"{root / RECORDS} has {n_prompts} records, the router has {n}")
    if not (0 <= content["best_on_average"] < models and 0 <= content["fallback"] < models):
        raise BadRouter(f"{root / DESCRIPTION} names a fallback that is not one of its models")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _own_hash(content: dict[str, Any]) -> str:
    """SHA-256 of the description itself, but for the field that holds it."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
