"""How many decisions flip when a prompt is edited in a way that should not matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.evaluation.values import Reported
from benchrouter.tables.table import BLANK

if TYPE_CHECKING:
    from benchrouter.decisions.policy import Rule
    from benchrouter.router import Router

Edit = Callable[[str], str]


def _strip_the_end(prompt: str) -> str:
    stripped = prompt.rstrip(BLANK).rstrip(".?!:;,")
    return stripped if stripped.strip(BLANK) else prompt  # an empty prompt is not allowed


EDITS: Mapping[str, Edit] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "doubled spaces": lambda prompt: prompt.replace(" ", "  "),
    "line breaks as spaces": lambda prompt: " ".join(prompt.split()) or prompt,
    "no final punctuation": _strip_the_end,
    "a trailing sentence": lambda prompt: prompt.rstrip(BLANK) + " Please answer.",
    "a leading sentence": lambda prompt: "Here is a question. " + prompt,
}


@dataclass(frozen=True)
class Flips(Reported):
    """What one edit does to decisions.

    Attributes
    ----------
    edit : str
    n_prompts, n_changed : int
        Prompts, and those whose text the edit changes.
    share : float
        Share of the changed prompts whose chosen model differs; NaN if none is changed.
    cosine : float
        Mean cosine similarity of a changed prompt's embedding to the original's.
    """

    edit: str
    n_prompts: int
    n_changed: int
    share: float
    cosine: float


def flips(
    router: Router,
    prompts: Sequence[str],
    *,
    embeddings: NDArray[np.float32] | None = None,
    rule: Rule = "auto",
    k: int | None = None,
    edits: Mapping[str, Edit] = EDITS,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Flips]:
    """Edit prompts, route them again, and count the decisions that flip.

    Parameters
    ----------
    router : Router
        With an encoder. Prompts that it was fitted on keep themselves as a neighbour until they
        are edited: take others.
    prompts : sequence of str
    embeddings : float16 or float32 array, shape (n_prompts, dim), optional
        Of the original prompts, by the router's encoder.
    rule : "auto", "mean", "raw" or "s3"
    k : int, optional
        Neighbours that vote, instead of the router's.
    edits : dict of str to callable
        Name to the edit of one prompt.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    dict of str to Flips
        By edit.

    Raises
    ------
    TypeError, ValueError
        If there is no prompt, or router, prompts and embeddings do not fit.
    """
    if not len(prompts):
        raise ValueError("robustness needs at least one prompt, found none")
    encoder = router.encoder
    rows = encoder.encode(prompts) if embeddings is None else as_unit_rows(embeddings, "embeddings")
    before = router.route(prompts, embeddings=rows, rule=rule, k=k).model
    found = {}
    for done, (name, edit) in enumerate(edits.items(), start=1):
        edited = [edit(prompt) for prompt in prompts]
        changed = [i for i, text in enumerate(edited) if text != prompts[i]]
        share = cosine = float("nan")
        if changed:
            after = encoder.encode([edited[i] for i in changed])
            share = float(
                (router.route(embeddings=after, rule=rule, k=k).model != before[changed]).mean()
            )
            cosines = np.einsum("ij,ij->i", rows[changed], after, dtype=np.float64)
            cosine = min(1.0, float(cosines.mean()))  # rounded rows may be a hair longer than 1
        found[name] = Flips(name, len(prompts), len(changed), share, cosine)
        if progress is not None:
            progress("routing edited prompts", done, len(edits))
    return found
