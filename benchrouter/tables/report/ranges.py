"""Ranges of known metrics."""

from __future__ import annotations

import math

UNIT = (0.0, 1.0)
PERCENT = (0.0, 100.0)
SIGNED = (-1.0, 1.0)
AT_LEAST_0 = (0.0, math.inf)
AT_LEAST_1 = (1.0, math.inf)
AT_MOST_0 = (-math.inf, 0.0)

# By the name in lower case, without signs between its words.
_NAMES = {
    UNIT: (
        "acc accuracy accnorm correct correctness iscorrect em exactmatch quasiexactmatch "
        "prefixexactmatch quasiprefixexactmatch finalnumberexactmatch exactsetmatch "
        "f1 f1score macrof1 microf1 f1setmatch iousetmatch rougel rouge1 rouge2 rougelsum bleu1 "
        "bleu4 mathequiv mathequivchainofthought chainofthoughtcorrectness codeevalacc testavg "
        "strictacc pass passat1 mc1 mc2 rr@10 ndcg@10 ifevalstrictaccuracy promptlevelstrictacc "
        "promptlevellooseacc instlevelstrictacc instlevellooseacc"
    ),
    PERCENT: "bleu sacrebleu chrf chrf++",
    SIGNED: "bertscore mcc matthewscorrcoef matthewscorrelation",
    AT_LEAST_0: "ter bitsperbyte brier brierscore",
    AT_LEAST_1: "perplexity wordperplexity byteperplexity",
    AT_MOST_0: "bartscore loglikelihood logprob",
}
_RANGES = {name: range_ for range_, names in _NAMES.items() for name in names.split()}


def range_of(metric: str) -> tuple[float, float] | None:
    """Least and greatest score of a metric, both included; None if it is not known.

    Parameters
    ----------
    metric : str
        Its name; what follows a comma, as in lm-evaluation-harness's ``acc,none``, is a filter's.
    """
    name = metric.partition(",")[0].lower()
    for sign in "-_ .":
        name = name.replace(sign, "")
    return _RANGES.get(name)
