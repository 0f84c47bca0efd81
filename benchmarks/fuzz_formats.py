"""Small valid examples of other people's formats, for fuzz_inputs.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv

DATE = "2026-01-02T03-04-05.000006"
UUID = "0f9c1b7e-3d52-4f6a-9a41-5a1f6f0f5e11"


def write(path: Path, content: Any) -> Path:
    """Write JSON, a list as JSONL if the suffix says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = content if path.suffix == ".jsonl" else [content]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def helm(folder: Path) -> Path:
    """A suite of two runs."""
    for model in ("m", "n"):
        run = folder / f"mmlu:subject=law,model=org_{model}"
        adapter = {"method": "generation", "model": f"org/{model}"}
        name = f"mmlu:subject=law,model=org_{model}"
        spec = {"name": name, "adapter_spec": adapter, "groups": ["mmlu"]}
        write(run / "run_spec.json", spec)
        states, stats = [], []
        for i in range(3):
            tokens = [{"text": "x", "logprob": -1.5}, {"text": "y", "logprob": -0.5}]
            completion = {"text": "xy", "logprob": -2.0, "tokens": tokens}
            instance = {"input": {"text": f"Why {i}?"}, "references": [], "split": "test"}
            states.append(
                {
                    "instance": instance | {"id": f"id{i}"},
                    "train_trial_index": 0,
                    "request": {"model": f"org/{model}", "prompt": f"Shots. Why {i}?"},
                    "result": {"success": True, "completions": [completion]},
                }
            )
            stat = {"name": {"name": "exact_match", "split": "test"}, "count": 1, "sum": 0.5}
            stats.append(
                {
                    "instance_id": f"id{i}",
                    "train_trial_index": 0,
                    "stats": [stat | {"sum_squared": 0.25, "mean": 0.5}],
                }
            )
        write(run / "scenario_state.json", {"adapter_spec": adapter, "request_states": states})
        write(run / "per_instance_stats.json", stats)
    return folder


def lm_eval(folder: Path) -> Path:
    """A run of one task that asks questions, and one of multiple choice."""
    asked, chosen = [], []
    for i in range(3):
        request = {"gen_args_0": {"arg_0": f"Q: q{i}?\nA:", "arg_1": {}}}
        row = {"doc_id": i, "doc": {"question": f"q{i}?"}, "target": "a", "filter": "none"}
        answer = {"arguments": request, "resps": [["a"]], "filtered_resps": ["a"]}
        asked.append(row | answer | {"metrics": ["exact_match"], "exact_match": i / 2})
        requests = {f"gen_args_{j}": {"arg_0": f"q{i}?", "arg_1": f" {j}"} for j in (0, 1)}
        answer = {"arguments": requests, "resps": [[[-1.5, "False"]], [[-0.5, "True"]]]}
        chosen.append(row | answer | {"metrics": ["acc"], "acc": 1.0})
    configs = {
        "ask": {
            "doc_to_text": "Q: {{question}}\nA:",
            "output_type": "generate_until",
            "metric_list": [{"metric": "exact_match", "higher_is_better": True}],
        },
        "choose": {
            "doc_to_text": "{{question}}",
            "output_type": "multiple_choice",
            "metric_list": [{"metric": "acc"}],
        },
    }
    run = folder / "org__m"
    results = {
        "results": {task: {"alias": task} for task in configs},
        "configs": configs,
        "n-shot": dict.fromkeys(configs, 0),
        "n-samples": {task: {"effective": 3} for task in configs},
        "model_name": "org/m",
    }
    write(run / f"results_{DATE}.json", results)
    write(run / f"samples_ask_{DATE}.jsonl", asked)
    write(run / f"samples_choose_{DATE}.jsonl", chosen)
    return folder


def every_eval_ever(folder: Path) -> Path:
    """One file of samples with its aggregate."""
    rows = [
        {
            "schema_version": "0.2.2",
            "evaluation_id": "gsm8k/org/m/1770000000",
            "model_id": "org/m",
            "evaluation_name": "gsm8k",
            "sample_id": f"s{i}",
            "interaction_type": "single_turn",
            "input": {"raw": f"what is {i}?", "formatted": None, "reference": ["4"]},
            "output": {"raw": ["4"]},
            "messages": None,
            "evaluation": {"score": i / 2, "is_correct": i > 1, "num_turns": None},
        }
        for i in range(3)
    ]
    config = {"lower_is_better": False, "metric_id": "accuracy"}
    results = [{"evaluation_name": "gsm8k", "metric_config": config}]
    write(folder / f"{UUID}.json", {"schema_version": "0.2.2", "evaluation_results": results})
    return write(folder / f"{UUID}_samples.jsonl", rows)


def mixinstruct_rows() -> list[dict[str, Any]]:
    return [
        {
            "id": f"dolly/{i}",
            "instruction": f"Do {i}.",
            "input": "this" * i,
            "output": "done",
            "candidates": [
                {"model": m, "decoding_method": "top_p", "text": "x", "scores": {"bertscore": 0.5}}
                for m in ("alpaca", "mpt")
            ],
        }
        for i in range(3)
    ]


def mixinstruct_array(folder: Path) -> Path:
    return write(folder / "t.json", mixinstruct_rows())


def mixinstruct_lines(folder: Path) -> Path:
    return write(folder / "t.jsonl", mixinstruct_rows())


def routerbench(folder: Path) -> Path:
    columns = {
        "sample_id": ["mmlu-law.val.1", "arc.2", "arc.3"],
        "prompt": ["['Is it so?']", "['One', \"two\"]", "plain"],
        "eval_name": ["mmlu-law", "arc", "arc"],
        "gpt-4": [1.0, 0.5, None],
        "gpt-4|model_response": ["yes", "no", "['']"],
        "gpt-4|total_cost": [1e-5, 0.25, None],
        "oracle_model_to_route_to": ["gpt-4", "gpt-4", "no_model_correct"],
    }
    path = folder / "t.csv"
    arrow_csv.write_csv(pa.table(columns), path)
    return path


EXAMPLES: dict[str, Callable[[Path], Path]] = {
    "helm": helm,
    "lm-eval": lm_eval,
    "every-eval-ever": every_eval_ever,
    "mixinstruct, array": mixinstruct_array,
    "mixinstruct, lines": mixinstruct_lines,
    "routerbench": routerbench,
}
