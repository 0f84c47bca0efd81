"""Read one HELM run: join its requests to its statistics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean as mean
from typing import Any, NamedTuple

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import items
from benchrouter.files.words import shown
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.fields import field_of, name_of, number_at, object_of, text_of
from benchrouter.tables.formats.helm.group_metrics import main_metrics
from benchrouter.tables.formats.helm.spec import Spec, run_file
from benchrouter.tables.formats.long_rows import Rows

STATE = "scenario_state.json"
STATS = "per_instance_stats.json"


@dataclass
class Tally:
    """Counts of what was chosen and left out, over all runs."""

    splits: Counter[str] = field(default_factory=Counter)
    n_perturbed: int = 0
    n_without_value: Counter[str] = field(default_factory=Counter)
    n_of_several_trials: int = 0
    n_without_log_likelihood: int = 0
    n_without_generation: int = 0


class _Key(NamedTuple):
    """An instance of a run."""

    instance: str
    perturbation: str  # "" = the original

    @property
    def sample_id(self) -> str:
        return f"{self.instance} {self.perturbation}" if self.perturbation else self.instance


@dataclass
class _Record:
    """An instance's first prompt, and its scores and log-likelihoods by train trial."""

    trial: int
    prompt: str
    split: str
    scores: dict[int, float] = field(default_factory=dict)
    log_likelihoods: dict[int, list[float]] = field(default_factory=dict)


# Wanted metrics by (instance, train trial); None = no value.
_Values = dict[tuple[_Key, int], dict[str, float | None]]


class RunRead(NamedTuple):
    """The content of a run."""

    rows: Rows
    """Empty if no instance has the split, or the run lacks the metric; with `only_metric`, a run
    without it has rows without scores."""
    metric: str | None
    """Name of the score; None if the run lacks the one asked for."""
    found: tuple[str, ...]
    """All metrics of the run, sorted."""


def read_run(spec: Spec, choices: Choices, tally: Tally) -> RunRead:
    """Read a run, and add its counts to `tally`.

    Raises
    ------
    ValueError
        If a file is missing or broken, or the main metric is unknown or missing.
    """
    run = _Run(spec, choices, tally)
    metric = run.read_stats()
    if metric is not None or choices.only_metric:
        run.read_requests()
        run.add_rows(metric)
    return RunRead(run.rows, metric, run.found)


class _Run:
    """Collects the rows of a run."""

    def __init__(self, spec: Spec, choices: Choices, tally: Tally) -> None:
        self.spec = spec
        self.choices = choices
        self.tally = tally
        self.stats_path = run_file(spec.folder, STATS)
        self.requests_path = run_file(spec.folder, STATE)
        self.rows = Rows(str(spec.folder))
        self.values: _Values = {}
        self.records: dict[_Key, _Record] = {}
        self.left_out: set[_Key] = set()
        self.generates = False
        self.found: tuple[str, ...] = ()

    def read_stats(self) -> str | None:
        """Collect the values of the wanted metrics; return the name of the one to take."""
        groups = (*self.spec.groups, self.spec.scenario)
        given = self.choices.metric
        wanted = (given,) if given is not None else main_metrics(groups, self.spec.method)
        names: set[str] = set()
        self.rows.take_each(
            items(self.stats_path), lambda _, entry: self._add_stats(entry, wanted, names)
        )
        self.found = tuple(sorted(names))
        metric = next((name for name in wanted if name in names), None)
        if metric is None and given is None:
            expected = " or ".join(map(repr, wanted)) or (
                f"one to be named (metric, --metric): none is known for the groups {groups}"
            )
            raise BadInput(f"{self.stats_path}: {found_metrics(self.found)}; expected {expected}")
        return metric

    def _add_stats(self, entry: dict[str, Any], wanted: Sequence[str], names: set[str]) -> None:
        key, trial = _key(entry, "instance_id"), _trial(entry)
        try:
            # HELM has an entry for each of a run's metric classes.
            values = self.values.setdefault((key, trial), {})
            for stat in map(object_of, field_of(entry, "stats", list)):
                name = name_of(field_of(stat, "name", dict), "name")
                names.add(name)
                if name in wanted:
                    value = _mean(stat)
                    before = values.setdefault(name, value)
                    if value != before:
                        found = f"{name} of instance {key.sample_id!r}"
                        raise BadInput(f"{found} is {value}, but {before} before")
        except ValueError:
            self.left_out.add(key)
            raise

    def read_requests(self) -> None:
        """Collect the prompts and log-likelihoods of the wanted instances."""
        # An answer may end within a character; `text_of` checks the texts that are taken.
        states = items(self.requests_path, "request_states", half_pairs=True)
        self.rows.take_each(states, lambda _, state: self._add_request(state))

    def _add_request(self, state: dict[str, Any]) -> None:
        instance = field_of(state, "instance", dict)
        key = _key(instance, "id")
        if key in self.left_out:
            return
        split = name_of(instance, "split") if instance.get("split") is not None else "none"
        if self._passes_over(key) or self.choices.split not in (None, split):
            self.tally.n_perturbed += self._passes_over(key)
            self.left_out.add(key)
            return
        try:
            self._add_to_record(key, split, state, instance)
        except ValueError:
            self.left_out.add(key)
            self.records.pop(key, None)
            raise

    def _passes_over(self, key: _Key) -> bool:
        return bool(key.perturbation) and self.choices.perturbations == "original"

    def _add_to_record(
        self, key: _Key, split: str, state: dict[str, Any], instance: dict[str, Any]
    ) -> None:
        of_request = self.choices.prompt == "request"
        trial = _trial(state)
        prompt = _request_prompt(state, instance) if of_request else _instance_text(instance)
        record = self.records.get(key)
        if record is None:
            record = self.records[key] = _Record(trial, prompt, split)
        elif not of_request and prompt != record.prompt:
            found = f"the text of instance {key.sample_id!r} is {shown(prompt)}"
            raise BadInput(f"{found}, but {shown(record.prompt)} before")
        elif trial < record.trial:
            record.trial, record.prompt = trial, prompt
        request = field_of(state, "request", dict)
        # With echo_prompt, the tokens are those of the prompt.
        if not request.get("echo_prompt"):
            self.generates = True
            log_likelihood = _log_likelihood(state)
            if log_likelihood is not None:
                record.log_likelihoods.setdefault(trial, []).append(log_likelihood)

    def add_rows(self, metric: str | None) -> None:
        """Add the row of each record."""
        for (key, trial), values in self.values.items():
            if key in self.records:
                value = None if metric is None else values.get(metric)
                if value is not None:
                    self.records[key].scores[trial] = value
            elif key not in self.left_out and not self._passes_over(key):
                place = f"{self.stats_path}, instance {key.sample_id!r}"
                self.rows.refuse(place, f"no request of it in {self.requests_path.name}")
        self._drop_log_likelihoods()
        for key, record in self.records.items():
            self._add_row(key, record, metric)
        records = self.records.values()
        self.tally.n_of_several_trials += any(len(r.scores) > 1 for r in records)
        self.tally.n_without_generation += bool(records) and not self.generates

    def _drop_log_likelihoods(self) -> None:
        """Drop a run's log-likelihoods if most are 0.

        Clients of services without log-likelihoods write 0. The client of local Hugging Face models
        computes them at its temperature, 1e-7 for greedy decoding, which gives 0 except for ties.
        """
        records = self.records.values()
        found = [one for r in records for values in r.log_likelihoods.values() for one in values]
        if 2 * found.count(0.0) > len(found):
            self.tally.n_without_log_likelihood += 1
            for record in records:
                record.log_likelihoods.clear()

    def _add_row(self, key: _Key, record: _Record, metric: str | None) -> None:
        score = self._of_trials(record.scores, record.trial)
        means = {trial: mean(values) for trial, values in record.log_likelihoods.items()}
        self.rows.add(
            f"{self.requests_path}, instance {key.sample_id!r}",
            model=self.spec.model,
            dataset=self.spec.dataset,
            sample_id=key.sample_id,
            prompt=record.prompt,
            score=score,
            log_likelihood=self._of_trials(means, record.trial),
        )
        self.tally.splits[record.split] += 1
        if metric is not None:
            self.tally.n_without_value[metric] += score is None

    def _of_trials(self, values: dict[int, float], first: int) -> float | None:
        if self.choices.train_trials == "first":
            return values.get(first)
        return mean(values.values()) if values else None


def found_metrics(names: Sequence[str]) -> str:
    """Say which metrics a run has."""
    return f"found the metrics {', '.join(names) or 'none'}"


def _key(holder: dict[str, Any], id_field: str) -> _Key:
    number = isinstance(holder.get(id_field), int)
    instance = str(field_of(holder, id_field, int)) if number else name_of(holder, id_field)
    if holder.get("perturbation") is None:
        return _Key(instance, "")
    perturbation = field_of(holder, "perturbation", dict)
    # These keys distinguish metrics, not instances.
    not_its_own = ("name", "computed_on", "robustness", "fairness")
    own = {key: value for key, value in sorted(perturbation.items()) if key not in not_its_own}
    name = name_of(perturbation, "name")
    return _Key(instance, f"{name} {json.dumps(own)}" if own else name)


def _trial(holder: dict[str, Any]) -> int:
    trial: int = field_of(holder, "train_trial_index", int)
    return trial


def _mean(stat: dict[str, Any]) -> float | None:
    """Return the mean of a statistic; None if nothing was counted."""
    if field_of(stat, "count", int) == 0:
        return None
    if "mean" not in stat:
        raise BadInput("mean is missing, expected a finite number or nothing")
    return number_at(stat, "mean")


def _instance_text(instance: dict[str, Any]) -> str:
    # In runs of 2022 the input is the text itself.
    given = field_of(instance, "input", dict, str)
    return _text({"text": given} if isinstance(given, str) else given, "text")


def _request_prompt(state: dict[str, Any], instance: dict[str, Any]) -> str:
    prompt = _text(field_of(state, "request", dict), "prompt")
    if state.get("reference_index") is None:
        return prompt
    # One request per reference, which ends the prompt; without it they are all alike.
    references = field_of(instance, "references", list)
    number = field_of(state, "reference_index", int)
    if not 0 <= number < len(references):
        raise BadInput(f"reference_index is {number}; there are {len(references)} references")
    output = object_of(references[number]).get("output")
    reference = output.get("text") if isinstance(output, dict) else output
    return prompt.removesuffix(reference).rstrip() if isinstance(reference, str) else prompt


def _text(holder: dict[str, Any], key: str) -> str:
    """Return a text, or the joined messages of a chat."""
    if holder.get(key) or not holder.get("messages"):
        return text_of(holder, key)
    messages = map(object_of, field_of(holder, "messages", list))
    return "\n\n".join(text_of(message, "content") for message in messages)


def _log_likelihood(state: dict[str, Any]) -> float | None:
    """Mean log-likelihood of the tokens that the model wrote; None if it wrote none."""
    if state.get("result") is None:
        return None
    result = field_of(state, "result", dict)
    completions = field_of(result, "completions", list) if result.get("completions") else []
    if not completions:
        return None
    first = object_of(completions[0])
    tokens = field_of(first, "tokens", list) if first.get("tokens") else []
    total = number_at(first, "logprob")
    return total / len(tokens) if tokens and total is not None else None
