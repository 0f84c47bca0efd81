"""Names of array types that several rooms share; shapes stand in the docstrings that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.float32]  # embeddings: unit rows, one per prompt or record
Floats: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]  # record numbers
Counts: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.uint64]  # 64 outcomes a word

Progress: TypeAlias = Callable[[str, int, int], None]  # (what is done, steps done, all steps)
