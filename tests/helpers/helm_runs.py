"""HELM run folders made by hand, as small as readers accept them."""

from __future__ import annotations

import json


def stat(name, mean, *, split="test", count=1):
    """One statistic; nothing counted has no mean."""
    found = {"name": {"name": name, "split": split}, "count": count, "sum": 0, "sum_squared": 0}
    return {**found, "sum": mean, "mean": mean} if count else found


def entry(instance_id, metrics, *, trial=0, split="test", perturbation=None):
    """Statistics of one instance: numbers, or None where nothing was counted."""
    stats = [stat(n, m, split=split, count=int(m is not None)) for n, m in metrics.items()]
    found = {"instance_id": instance_id, "train_trial_index": trial, "stats": stats}
    return found if perturbation is None else {**found, "perturbation": perturbation}


def request(
    instance_id,
    text,
    *,
    prompt=None,
    trial=0,
    split="test",
    logprobs=None,
    perturbation=None,
    **more,
):
    """One request, answered with a token for each of `logprobs`."""
    instance = {"input": {"text": text}, "references": [], "split": split, "id": instance_id}
    if perturbation is not None:
        instance["perturbation"] = perturbation
    tokens = [{"text": "x", "logprob": value} for value in logprobs or ()]
    completion = {"text": "x", "logprob": sum(logprobs or ()), "tokens": tokens}
    return {
        "instance": instance,
        "train_trial_index": trial,
        "request": {"model": "m", "prompt": f"Shots. {text}" if prompt is None else prompt},
        "result": {"success": True, "completions": [completion] if logprobs else []},
        **more,
    }


def spec(name, model="org/m", *, groups=("mmlu",), method="generation"):
    """What ``run_spec.json`` holds."""
    adapter = {"method": method, "model": model}
    return {"name": name, "adapter_spec": adapter, "groups": list(groups)}


def write_run(folder, run_spec, requests, stats):
    """Write a run's files; None leaves one out, bytes are written as they are."""
    folder.mkdir(parents=True)
    states = requests
    if isinstance(requests, list):
        states = {"adapter_spec": {"method": "generation"}, "request_states": requests}
    for name, content in (
        ("run_spec.json", run_spec),
        ("scenario_state.json", states),
        ("per_instance_stats.json", stats),
    ):
        if content is not None:
            data = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
            (folder / name).write_bytes(data)
    return folder


def write_simple(folder, run_spec, scores, metric="exact_match"):
    """Write a run of one instance "id0", "id1", … per score."""
    requests = [request(f"id{i}", f"text {i}", logprobs=[-1.0]) for i in range(len(scores))]
    stats = [entry(f"id{i}", {metric: score}) for i, score in enumerate(scores)]
    return write_run(folder, run_spec, requests, stats)
