"""The rule `auto` for prompts: every model's expected score, and its chance of success.

Expected score = standing + what three views of the prompt add (`scores.expected.views`), as far as
held-out records say that it pays: records left out alone stand for prompts of known kinds, records
left out with their whole dataset for strange ones. A logistic regression tells how strange a prompt
is. docs/method.md works an example by hand; docs/quality.md says how well it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.files.arrays import Array, Floats
from benchrouter.files.plain import plain
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.expected.regression import sigmoid
from benchrouter.scores.expected.views import VIEWS
from benchrouter.votes.outcomes import Chosen, Outcomes
from benchrouter.votes.votes import Simd, outcome_arrays

SCALE = 0.05  # added before a distance's logarithm (csrc/scores/expect.hpp): duplicates have none
Z80 = 1.2815515655446004  # 80 % of a Gaussian lie within so many standard deviations
LEAST_CHANCE = 0.02  # expected scores count as this far from 0 and 1 before their logit is taken
KINDS = ("known", "strange")


class Expected(NamedTuple):
    """Decisions by expected score."""

    chosen: Chosen
    """Arrays of shape (n_prompts,)."""
    strange: Floats
    """float32, same shape: chance that a prompt comes from a dataset that the benchmark lacks."""
    scores: Floats | None
    """float32, shape (n_prompts, n_models): expected scores, where they were asked for."""


class Success(NamedTuple):
    """How likely the chosen models answer correctly."""

    chance: Floats
    """float32, shape (n_prompts,), in (0, 1)."""
    low: Floats
    """float32, same shape: lower end of the 80 % interval."""
    high: Floats
    """float32, same shape: its upper end."""


@dataclass(frozen=True)
class Expectation:
    """What held-out records teach the rule `auto`; N records, M models, D datasets.

    Arrays of shape (2, …) hold one value for known prompts and one for strange ones.

    Attributes
    ----------
    neighbours : int
        Nearest records that vote and whose datasets count.
    standing : float64 array, shape (M,)
    share : float64 array, shape (M,)
        Weights of the models that may be best, adding up to 1; their weighted mean is the level.
    apart, level : float64 arrays, shape (2, n_views)
        Slopes of the views: of differences between models, and of what is common to them.
    weights : float32 array, shape (dim, 2, M)
        Of the embedding, the slopes of the linear views included.
    offset : float64 array, shape (2, M)
        Added to them.
    of_dataset : float32 array, shape (D, 2, M)
        What a neighbour of each dataset adds, slopes included.
    own_distance : float32 array, shape (N,)
        Mean distance of each record to its nearest others (above 100,000 records, of its dataset).
    gate : float64 array, shape (4,)
        Coefficients of strangeness: 1, log(u + 0.05), log(mean own distance + 0.05), purity.
    margin : float64 array, shape (2,)
        The best on average is kept unless another is ahead by as much; inf = always.
    tolerance : float64 array, shape (2,)
        Differences that held-out records cannot tell from none.
    calibration : float64 array, shape (2, 2), or None
        Slope and intercept of the chance of success; None where correctness is not known.
    spread : float64 array, shape (2,)
        Standard deviation over datasets of the success rate about its chance.
    unit : bool
        Whether all scores lie in [0, 1], so that the chance rises with the score's logit.
    """

    neighbours: int
    standing: Array
    share: Array
    apart: Array
    level: Array
    weights: NDArray[np.float32]
    offset: Array
    of_dataset: NDArray[np.float32]
    own_distance: NDArray[np.float32]
    gate: Array
    margin: Array
    tolerance: Array
    calibration: Array | None
    spread: Array
    unit: bool

    def chance(self, score: NDArray[np.floating], strange: NDArray[np.floating]) -> Array:
        """Chance of a correct answer.

        Parameters
        ----------
        score : float array
            Expected scores.
        strange : float array
            Of the prompts; broadcast against the scores.

        Returns
        -------
        float64 array, shape of score
            In (0, 1); rises with the score.

        Raises
        ------
        ValueError
            If correctness is not known.
        """
        if self.calibration is None:
            raise ValueError("this benchmark has datasets without a threshold of correctness")
        features = chance_features(score, self.unit)
        slope, intercept = (blend(self.calibration[:, i], strange) for i in range(2))
        return sigmoid(slope * features + intercept)

    def interval(self, chance: Array, strange: NDArray[np.floating]) -> tuple[Array, Array]:
        """Interval of 80 % of the success rate on prompts like this one.

        Parameters
        ----------
        chance : float64 array
            As :meth:`chance` gives it.
        strange : float array
            Of the prompts.

        Returns
        -------
        low, high : float64 arrays
            In [0, 1].
        """
        reach = Z80 * np.sqrt(blend(self.spread**2, strange))
        return np.maximum(chance - reach, 0.0), np.minimum(chance + reach, 1.0)

    def success(self, score: Floats, strange: Floats) -> Success | None:
        """Chance of a correct answer of the models chosen, with its interval.

        Parameters
        ----------
        score : float32 array, shape (n_prompts,)
            Expected scores of these models.
        strange : float32 array, shape (n_prompts,)
            Of the prompts.

        Returns
        -------
        Success or None
            None where correctness is not known.
        """
        if self.calibration is None:
            return None
        chance = self.chance(score, strange)
        low, high = self.interval(chance, strange)
        return Success(*(values.astype(np.float32) for values in (chance, low, high)))

    def arrays(self, dataset: NDArray[np.int32], *, costs_known: bool) -> dict[str, Any]:
        """Arguments of `_core.Expectation`: rows padded to whole registers.

        Parameters
        ----------
        dataset : int32 array, shape (N,)
            Dataset of every record.
        costs_known : bool
            Without costs no model is taken for being cheaper.
        """
        n_models, columns = len(self.standing), _core.expect_columns
        width = -(-n_models // columns) * columns

        def padded(values: NDArray[Any], dtype: type) -> NDArray[Any]:
            out = np.zeros((*values.shape[:-1], width), dtype)
            out[..., :n_models] = values
            return out.reshape(*values.shape[:-2], 2 * width)

        return {
            "dataset": dataset,
            "own_distance": self.own_distance,
            "standing": self.standing,
            "share": self.share,
            "apart": self.apart[:, 0].tolist(),
            "level": self.level[:, 0].tolist(),
            "of_dataset": padded(self.of_dataset, np.float32),
            "linear": padded(self.weights, np.float32),
            "offset": padded(self.offset, np.float64),
            "gate": self.gate.tolist(),
            "margin": self.margin.tolist(),
            "tolerance": (self.tolerance if costs_known else np.zeros(2)).tolist(),
        }

    def pulls(
        self,
        row: Floats,
        voters: NDArray[np.int64],
        dataset: NDArray[np.int32],
        outcomes: Floats,
        strange: float,
    ) -> dict[str, Array]:
        """What each view of one prompt adds to the standings.

        Parameters
        ----------
        row : float32 array, shape (dim,)
            Unit row of the prompt.
        voters : int64 array, shape (n_voters,)
            Its neighbours that vote.
        dataset : int32 array, shape (N,)
            Dataset of every record.
        outcomes : float32 array, shape (n_voters, M)
            Scores of the voters, NaN = not run.
        strange : float
            Of the prompt.

        Returns
        -------
        dict of str to float64 array of shape (M,)
            "votes", "datasets" and "embedding"; with the standings they add up to the expected
            scores, but for rounding.
        """
        known = ~np.isnan(outcomes)
        count = known.sum(axis=0)
        total = np.where(known, outcomes, 0.0).sum(axis=0, dtype=np.float64)
        vote = np.where(count > 0, total / np.maximum(count, 1) - self.standing, 0.0)
        level = float(self.share @ vote)
        apart, levels = (float(blend(slopes[:, 0], strange)) for slopes in (self.apart, self.level))
        of_dataset = self.of_dataset[dataset[voters]].astype(np.float64)
        of_datasets = of_dataset.sum(axis=0) / max(len(voters), 1)
        embedding = self.offset + np.einsum("d,dsm->sm", row.astype(np.float64), self.weights)
        return {
            "votes": apart * (vote - level) + levels * level,
            "datasets": blend(of_datasets, strange),
            "embedding": blend(embedding, strange),
        }

    def to_dict(self) -> dict[str, Any]:
        """All but the large arrays, as plain values, ready for JSON (infinite = None)."""
        return {
            "neighbours": self.neighbours,
            "views": list(VIEWS),
            "unit": self.unit,
            "standing": self.standing.tolist(),
            "share": self.share.tolist(),
            "gate": self.gate.tolist(),
            **{
                kind: {
                    "weights": self.apart[i].tolist(),
                    "level_weights": self.level[i].tolist(),
                    "margin": plain(float(self.margin[i])),
                    "tolerance": float(self.tolerance[i]),
                    "spread": float(self.spread[i]),
                    "calibration": None
                    if self.calibration is None
                    else self.calibration[i].tolist(),
                }
                for i, kind in enumerate(KINDS)
            },
        }

    @classmethod
    def from_dict(
        cls,
        recorded: dict[str, Any],
        *,
        weights: NDArray[np.float32],
        offset: Array,
        of_dataset: NDArray[np.float32],
        own_distance: NDArray[np.float32],
    ) -> Expectation:
        """Put together what :meth:`to_dict` and the arrays hold.

        Parameters
        ----------
        recorded : dict
        weights, offset, of_dataset, own_distance : arrays
            As the attributes.
        """
        sides = [recorded[kind] for kind in KINDS]
        calibrated = sides[0]["calibration"] is not None
        return cls(
            neighbours=int(recorded["neighbours"]),
            standing=np.array(recorded["standing"], np.float64),
            share=np.array(recorded["share"], np.float64),
            apart=np.array([side["weights"] for side in sides], np.float64),
            level=np.array([side["level_weights"] for side in sides], np.float64),
            weights=weights,
            offset=offset,
            of_dataset=of_dataset,
            own_distance=own_distance,
            gate=np.array(recorded["gate"], np.float64),
            margin=np.array(
                [np.inf if side["margin"] is None else side["margin"] for side in sides]
            ),
            tolerance=np.array([side["tolerance"] for side in sides], np.float64),
            calibration=np.array([side["calibration"] for side in sides]) if calibrated else None,
            spread=np.array([side["spread"] for side in sides], np.float64),
            unit=bool(recorded["unit"]),
        )

    def kind(self, values: Array, strange: NDArray[np.floating]) -> Array:
        """Margin or tolerance of prompts: each is taken for what it more likely is.

        Parameters
        ----------
        values : float64 array, shape (2,)
        strange : float array

        Returns
        -------
        float64 array, shape of strange
        """
        return np.where(np.asarray(strange) > 0.5, values[1], values[0])


def blend(values: Array, strange: NDArray[np.floating] | float) -> Array:
    """One value for known prompts and one for strange ones, mixed by strangeness."""
    chance = np.asarray(strange, np.float64)
    return np.asarray((1.0 - chance) * values[0] + chance * values[1])


def reason_of(
    learnt: Expectation,
    models: tuple[str, ...],
    model: int,
    home: int,
    scores: Array,
    strange: float,
) -> str:
    """Say why the rule `auto` chose a model.

    Parameters
    ----------
    learnt : Expectation
    models : tuple of str
    model, home : int
        Positions of the choice, and of the best model on average among those allowed.
    scores : float64 array, shape (M,)
        Expected, −inf = not allowed.
    strange : float
        Of the prompt.
    """
    best = int(np.argmax(scores))
    margin = float(learnt.kind(learnt.margin, np.array(strange)))
    name, lead = models[model], float(scores[best] - scores[home])
    if model == best:
        found = f"{name} has the largest expected score, {scores[model]:.3f}"
        return found + (", and is also the best model on average" if model == home else "")
    if model == home and lead < margin:
        why = (
            "leaving it did not pay on held-out records of this kind"
            if np.isinf(margin)
            else f"leads of up to {margin:.3f} did not pay on held-out records of this kind"
        )
        return (
            f"{name}, the best model on average, is kept: {models[best]} is ahead by {lead:.3f}, "
            f"but {why}"
        )
    tolerance = float(learnt.kind(learnt.tolerance, np.array(strange)))
    return (
        f"{name} is preferred among the models whose expected score lies within {tolerance:.3f} of "
        f"the largest, that of {models[best]}: held-out records cannot tell them apart"
    )


def chance_features(score: NDArray[np.floating], unit: bool) -> Array:
    """What the chance of success is a logistic function of: the score, or its logit."""
    values = np.asarray(score, np.float64)
    if not unit:
        return values
    inside = np.clip(values, LEAST_CHANCE, 1.0 - LEAST_CHANCE)
    return np.asarray(np.log(inside / (1.0 - inside)))


def expect(
    learnt: Any,
    queries: Floats,
    neighbours: Neighbours,
    outcomes: Outcomes,
    *,
    prior: Floats,
    preference: NDArray[np.int32],
    k: int,
    kappa: int,
    distance_limit: float,
    fallback_model: int,
    home: int,
    allowed: NDArray[np.bool_] | None = None,
    threads: int = 0,
    simd: Simd = "auto",
    out: Chosen | None = None,
    with_scores: bool = False,
) -> Expected:
    """Choose a model for every prompt by its expected score, without (n_prompts, n_models) arrays.

    The largest expected score wins, where none counts above that of `home` that is not ahead by the
    margin; among models within the tolerance of it, the smallest preference number. Without support
    of any model, without neighbours, or beyond the distance limit, the fallback model is taken.

    Parameters
    ----------
    learnt : _core.Expectation
    queries : float32 array, shape (n_prompts, dim)
        Unit rows.
    neighbours : Neighbours
        Arrays of shape (n_prompts, at least max(k, kappa)).
    outcomes : PackedOutcomes or float32 array, shape (n_records, n_models)
    prior : float32 array, shape (n_models,)
        Standings.
    preference : int32 array, shape (n_models,)
        A permutation of 0 … n_models − 1; the smallest wins a tie.
    k, kappa : int
        Neighbours that vote, and that measure distance.
    distance_limit : float
    fallback_model, home : int
        Positions of the fallback model, and of the best on average.
    allowed : bool array, shape (n_models,), optional
        Models that may be chosen; the other two are among them.
    threads : int
        0 = all.
    simd : {"auto", "scalar", "avx2", "avx512"}
        Instruction set; the answer is the same.
    out : Chosen, optional
        Arrays to write to.
    with_scores : bool
        Whether all expected scores are wanted too.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    """
    bits, present, raw, n_models = outcome_arrays(outcomes)
    scores = np.empty((len(queries), len(prior)), np.float32) if with_scores else None
    chosen, strange = _core.expect(
        learnt=learnt, queries=queries, neighbours=neighbours.ids,
        similarities=neighbours.similarities, bits=bits, present=present, scores=raw,
        n_models=n_models, prior=prior, preference=preference, k=k, kappa=kappa,
        distance_limit=distance_limit, fallback_model=fallback_model, home=home, allowed=allowed,
        threads=threads, simd=simd, out=out, out_strange=None, out_scores=scores,
    )  # fmt: skip
    return Expected(Chosen(*chosen), strange, scores)
