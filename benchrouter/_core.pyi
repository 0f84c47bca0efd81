from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

_Ids = NDArray[np.int64]
_Floats = NDArray[np.float32]
_Bits = NDArray[np.uint64]

sanitized: bool
has_cuda: bool
task_block: int
distance_unit: float

def simd_levels() -> list[str]: ...
def votes(
    *,
    neighbours: _Ids,
    bits: _Bits | None,
    present: _Bits | None,
    scores: _Floats | None,
    n_models: int,
    prior: _Floats,
    k: int | None,
    prior_weight: float,
    weights: _Floats | None,
    threads: int,
    simd: str,
    out_votes: _Floats | None,
    out_support: NDArray[np.uint16] | None,
) -> tuple[_Floats, NDArray[np.uint16]]: ...
def decide(
    *,
    neighbours: _Ids,
    similarities: _Floats,
    bits: _Bits | None,
    present: _Bits | None,
    scores: _Floats | None,
    n_models: int,
    prior: _Floats,
    preference: NDArray[np.int32],
    k: int,
    kappa: int,
    rule: str,
    prior_weight: float,
    threshold: float,
    p_table: _Floats | None,
    p_start: float,
    p_step: float,
    distance_limit: float,
    fallback_model: int,
    allowed: NDArray[np.bool_] | None,
    weights: _Floats | None,
    threads: int,
    simd: str,
    out: tuple[Any, ...],
) -> tuple[NDArray[np.int32], _Floats, _Floats, _Floats, NDArray[np.bool_]]: ...

expect_columns: int

class Expectation:
    def __init__(
        self,
        *,
        dataset: NDArray[np.int32],
        own_distance: _Floats,
        standing: NDArray[np.float64],
        share: NDArray[np.float64],
        apart: list[float],
        level: list[float],
        of_dataset: _Floats,
        linear: _Floats,
        offset: NDArray[np.float64],
        gate: list[float],
        margin: list[float],
        tolerance: list[float],
    ) -> None: ...

def expect(
    *,
    learnt: Expectation,
    queries: _Floats,
    neighbours: _Ids,
    similarities: _Floats,
    bits: _Bits | None,
    present: _Bits | None,
    scores: _Floats | None,
    n_models: int,
    prior: _Floats,
    preference: NDArray[np.int32],
    k: int,
    kappa: int,
    distance_limit: float,
    fallback_model: int,
    home: int,
    allowed: NDArray[np.bool_] | None,
    threads: int,
    simd: str,
    out: tuple[Any, ...] | None,
    out_strange: _Floats | None,
    out_scores: _Floats | None,
) -> tuple[tuple[Any, ...], _Floats]: ...
def task_scores(
    *,
    neighbours: _Ids,
    bits: _Bits | None,
    present: _Bits | None,
    scores: _Floats | None,
    n_models: int,
    offsets: _Ids,
    prior: _Floats,
    k: int | None,
    threshold: float,
    weights: _Floats | None,
    threads: int,
    simd: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64], _Ids]: ...
def rank(
    queries: _Floats,
    records: _Floats,
    candidates: _Ids,
    k: int,
    threads: int,
    simd: str = "auto",
) -> tuple[_Ids, _Floats]: ...
def stream_copy(source: NDArray[np.uint8], target: NDArray[np.uint8], threads: int) -> None: ...

# The checks of the CPU, for values that a device refused.
device_faults: list[str]

def refuse_fault(kind: str, found: float, row: int, column: int, records: int) -> NoReturn: ...
def check_finite(name: str, values: _Floats) -> None: ...
def check_preference(preference: NDArray[np.int32]) -> None: ...
def check_allowed(allowed: NDArray[np.bool_], fallback_model: int, home: int) -> None: ...

# Where has_cuda: capsules of DLPack, and a CUDA stream as an integer.

def votes_on_device(
    *,
    neighbours: Any,
    bits: Any,
    present: Any,
    scores: Any,
    n_models: int,
    prior: Any,
    k: int,
    prior_weight: float,
    weights: Any,
    out_votes: Any,
    out_support: Any,
    fault: Any,
    stream: int,
) -> None: ...
def decide_on_device(
    *,
    neighbours: Any,
    similarities: Any,
    bits: Any,
    present: Any,
    scores: Any,
    n_models: int,
    prior: Any,
    preference: Any,
    k: int,
    kappa: int,
    rule: str,
    prior_weight: float,
    threshold: float,
    p_table: Any,
    p_start: float,
    p_step: float,
    distance_limit: float,
    fallback_model: int,
    allowed: Any,
    weights: Any,
    out: tuple[Any, ...],
    fault: Any,
    stream: int,
) -> None: ...
def expect_on_device(
    *,
    learnt: dict[str, Any],
    queries: Any,
    neighbours: Any,
    similarities: Any,
    bits: Any,
    present: Any,
    scores: Any,
    n_models: int,
    prior: Any,
    preference: Any,
    k: int,
    kappa: int,
    distance_limit: float,
    fallback_model: int,
    home: int,
    allowed: Any,
    out: tuple[Any, ...],
    out_strange: Any,
    out_scores: Any,
    fault: Any,
    stream: int,
) -> None: ...
def cells(
    *,
    ids: _Ids,
    similarities: _Floats,
    own_places: _Ids,
    own_similarities: _Floats,
    first: int,
    records: _Ids,
    offsets: _Ids,
    cells: NDArray[np.int32],
    n_cells: int,
    correctness: _Floats,
    dataset: NDArray[np.int32],
    n_datasets: int,
    k: int,
    kappa: int,
    threshold: float,
    each: bool,
    threads: int,
    out: tuple[Any, ...],
) -> None: ...
def attention(
    query_key_value: _Floats | NDArray[np.uint16],
    runs: _Ids,
    heads: int,
    bias: _Floats | None,
    attended: _Floats | NDArray[np.uint16],
    simd: str = "auto",
) -> None: ...
def quantize(
    values: _Floats | NDArray[np.uint16],
    quantized: NDArray[np.uint8],
    scales: _Floats,
    simd: str = "auto",
) -> None: ...
def dequantize(
    values: _Floats | NDArray[np.uint16],
    scales: _Floats,
    bias: _Floats,
    residual: _Floats | NDArray[np.uint16] | None,
    gelu: bool,
    simd: str = "auto",
) -> None: ...

has_vnni: bool
most_coded_dimensions: int
code_layout: tuple[int, int]

def encode_records(
    records: _Floats,
    values: NDArray[np.uint8],
    scales: _Floats,
    errors: _Floats,
    threads: int,
    simd: str = "auto",
) -> tuple[float, float]: ...
def search(
    queries: _Floats,
    records: _Floats,
    values: NDArray[np.uint8],
    scales: _Floats,
    errors: _Floats,
    largest_norm: float,
    largest_error: float,
    k: int,
    threads: int,
    simd: str = "auto",
) -> tuple[_Ids, _Floats]: ...
