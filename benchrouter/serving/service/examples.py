"""Examples of requests and answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_PROMPT = "What is 17 times 24?"
_POLICY = {"cost_weight": 20.0, "costs": "prices", "output_tokens": 200, "max_cost_usd": 0.01}
_DECISION = {
    "model": "maths-13b",
    "ranking": ["maths-13b", "general-70b", "small-3b"],
    "scores": [0.928, 0.625, 0.441],
    "fallback": False,
    "cause": None,
    "reason": "maths-13b has the largest expected score, 0.928",
    "score": 0.928,
    "margin": 0.303,
    "distance": 0.436,
    "chance": 0.934,
    "chance_low": 0.861,
    "chance_high": 1.0,
    "cost_usd": None,
    "over_limit": None,
    "truncated": False,
    "cached": False,
    "router": "default",
    "version": "8e4a1f09c2d7",
}
_FAR = {
    **_DECISION,
    "model": "general-70b",
    "ranking": ["general-70b", "maths-13b", "small-3b"],
    "scores": [0.52, 0.41, 0.33],
    "fallback": True,
    "cause": "far",
    "reason": "the prompt is farther from the benchmark than 99 % of its own held-out prompts",
    "score": 0.52,
    "margin": 0.11,
    "distance": 0.913,
    "chance": 0.534,
    "chance_low": 0.371,
    "chance_high": 0.697,
}

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/route": {
        "prompt": {"prompt": _PROMPT},
        "messages": {
            "messages": [
                {"role": "system", "content": "Answer with a number."},
                {"role": "user", "content": [{"type": "text", "text": _PROMPT}]},
            ]
        },
        "prompts": {"prompts": [_PROMPT, "Who wrote Peer Gynt?"], "deadline_ms": 200},
        "policy": {
            "prompt": _PROMPT,
            "policy": {"models": ["maths-13b", "small-3b"], **_POLICY},
        },
    },
    "/v1/choose": {
        "prompts": {"prompts": [_PROMPT, "What is 6 times 7?"]},
        "labels": {
            "prompts": [_PROMPT, "What is 6 times 7?"],
            "labels": [{"maths-13b": 1, "general-70b": 0, "small-3b": None}],
        },
        "policy": {
            "prompts": [_PROMPT, "What is 6 times 7?"],
            "policy": {"models": ["maths-13b", "small-3b"]},
        },
    },
    "/v1/explain": {
        "prompt": {"prompt": _PROMPT},
        "policy": {"prompt": _PROMPT, "policy": _POLICY},
    },
}

ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/route": {
        "one": {"decision": _DECISION},
        "many": {"decisions": [_DECISION, _FAR]},
    },
    "/v1/choose": {
        "task": {
            "model": "maths-13b",
            "reason": "expected accuracy is largest for maths-13b (0.887; general-70b, the best on "
            "average, has 0.752); it is the better of the two with probability 0.94",
            "fallback": False,
            "score": "auto",
            "expected_accuracy": 0.887,
            "interval": [0.801, 0.984],
            "best_by_score": "maths-13b",
            "best_on_average": "general-70b",
            "probability": 0.942,
            "distance": 0.36,
            "benchmark_distances": [0.671, 0.462],
            "warning": None,
            "n_prompts": 2,
            "n_labels": 0,
            "n_effective": 2.0,
            "expected_cost_usd": None,
            "over_limit": None,
            "models": [
                {
                    "model": "maths-13b",
                    "auto": 0.887,
                    "auto_sd": 0.068,
                    "s1": 0.93,
                    "s2": 1.0,
                    "s3": 0.71,
                    "p_hat": 0.71,
                    "support": 2,
                    "standing": 0.62,
                    "params_b": 13.0,
                    "cost_usd": None,
                    "allowed": True,
                    "task_cost_usd": None,
                    "usd_per_million_tokens": [0.2, 0.2],
                }
            ],
            "router": "default",
            "version": "8e4a1f09c2d7",
        }
    },
    "/v1/explain": {
        "prompt": {
            "prompt": _PROMPT,
            "rule": "auto",
            "model": "maths-13b",
            "reason": "maths-13b has the largest expected score, 0.928",
            "score": 0.928,
            "margin": 0.303,
            "distance": 0.436,
            "fallback": False,
            "over_limit": None,
            "no_cost": None,
            "strange": 0.031,
            "n_voting": 32,
            "models": [
                {
                    "model": "maths-13b",
                    "score": 0.928,
                    "support": 32,
                    "cost_usd": 0.0002,
                    "utility": None,
                    "chance": 0.934,
                    "chance_low": 0.861,
                    "chance_high": 1.0,
                    "standing": 0.62,
                    "votes_pull": 0.142,
                    "datasets_pull": 0.071,
                    "embedding_pull": 0.095,
                }
            ],
            "neighbours": [
                {
                    "dataset": "arithmetic",
                    "sample_id": "arithmetic-82",
                    "prompt": "What is 21 times 24 plus 9? Answer with a number.",
                    "similarity": 0.758,
                    "weight": 0.03125,
                    "scores": {"maths-13b": 1.0, "general-70b": 1.0, "small-3b": None},
                }
            ],
            "router": "default",
            "version": "8e4a1f09c2d7",
            "truncated": False,
            "distance_limit": 0.822,
            "benchmark_distances": [0.671, 0.462],
            "decision": _DECISION,
        }
    },
    "/v1/models": {
        "all": {
            "object": "list",
            "data": [
                {
                    "id": "maths-13b",
                    "object": "model",
                    "router": "default",
                    "standing": 0.62,
                    "params_b": 13.0,
                    "cost_usd": None,
                    "usd_per_million_tokens": [0.2, 0.2],
                }
            ],
            "routers": [
                {
                    "name": "default",
                    "version": "8e4a1f09c2d7",
                    "n_records": 1040,
                    "datasets": [{"name": "arithmetic", "n_records": 130, "distance": 0.671}],
                    "best_on_average": "general-70b",
                    "fallback": "general-70b",
                    "distance_limit": 0.822,
                    "k": 5,
                    "loaded_at": 1767225600.0,
                    "error": None,
                }
            ],
        }
    },
    "/healthz": {"alive": {"status": "alive"}},
    "/readyz": {"ready": {"status": "ready"}},
}


def _error(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code}}


_INVALID = "invalid_request_error"
ERRORS: dict[int, dict[str, Any]] = {
    400: _error(_INVALID, "invalid_json", "Invalid JSON: expected value at line 1 column 1"),
    401: _error("authentication_error", "invalid_api_key", "expected Authorization: Bearer KEY"),
    403: _error(
        _INVALID,
        "host_not_local",
        "without a key, Host must be an address or a name of this network: give "
        "--api-key-file, or --no-api-key where something before this service asks",
    ),
    404: _error(
        "not_found_error", "router_not_found", "found router 'code', expected one of ['default']"
    ),
    413: _error(
        _INVALID, "body_too_large", "the body has more bytes than the 16,777,216 that are read"
    ),
    415: _error(
        _INVALID,
        "unsupported_media_type",
        "found Content-Type 'text/plain', expected application/json",
    ),
    422: _error(_INVALID, "too_many_prompts", "found 1,200 prompts, expected at most 1,000"),
    429: _error(
        "rate_limit_error",
        "overloaded",
        "4,096 prompts wait, at most 4,096 may: come back later",
    ),
    503: _error("server_error", "not_ready", "the engine takes no work"),
}
