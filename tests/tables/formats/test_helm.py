"""HELM's run folders: against the files, by hand, and what broken ones are told."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from harnesses import run_harness
from helm_runs import entry, request, spec, write_run, write_simple
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import table_report
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.helm import helm
from benchrouter.tables.formats.helm.group_metrics import MAIN_METRIC, main_metrics
from benchrouter.tables.formats.helm.paper import DATASETS, MODELS, paper_dataset, paper_model

NAN = float("nan")


def notes(path, **choices):
    """What the reader reports, without the folder."""
    *_, last = helm.read(path, Choices(**choices))
    return [note.removeprefix(f"{path}: ") for note in last.notes]


def check_against_files(table, folders, metric_of, *, prompt="instance"):
    """Compare every value of a table with the runs' files, read the plain way."""
    expected = {}
    for folder in folders:
        run = json.loads((folder / "run_spec.json").read_text())
        dataset = run["name"].replace(":model=", ",model=").split(",model=")[0]
        stats = json.loads((folder / "per_instance_stats.json").read_text())
        states = json.loads((folder / "scenario_state.json").read_text())["request_states"]
        states = [state for state in states if "perturbation" not in state["instance"]]
        answers = [state["result"]["completions"][0] for state in states]
        is_recorded = sum(answer["logprob"] == 0 for answer in answers) <= len(answers) / 2
        for state, answer in zip(states, answers, strict=True):
            instance = state["instance"]
            means = [
                s["mean"]
                for e in stats
                if e["instance_id"] == instance["id"] and "perturbation" not in e
                for s in e["stats"]
                if s["name"]["name"] == metric_of(dataset) and s["count"]
            ]
            key = dataset, instance["id"], run["adapter_spec"]["model"]
            texts = {"instance": instance["input"]["text"], "request": state["request"]["prompt"]}
            value = texts[prompt], sum(means) / len(means), []
            likelihoods = expected.setdefault(key, value)[2]  # one of every train trial
            likelihoods.append(answer["logprob"] / len(answer["tokens"]) if is_recorded else NAN)
    assert table.cost_usd is None
    found = {}
    for record, model in np.argwhere(~np.isnan(table.scores)).tolist():
        dataset = table.datasets[table.dataset[record]]
        assert table.metrics[table.dataset[record]] == metric_of(dataset)
        found[dataset, table.sample_ids[record], table.models[model]] = (
            table.prompts[record],
            table.scores[record, model],
            NAN if table.log_likelihood is None else table.log_likelihood[record, model],
        )
    assert found.keys() == expected.keys()
    for key, (text, score, likelihoods) in expected.items():
        assert found[key][:2] == (text, np.float32(score)), key
        assert_array_equal(found[key][2], np.float32(sum(likelihoods) / len(likelihoods)))


def check_means(folders, metric):
    """Compare the mean score of every run and split with the one that HELM reports."""
    n_checked = 0
    for folder in folders:
        for stat in json.loads((folder / "stats.json").read_text()):
            name = stat["name"]
            if name["name"] != metric or "perturbation" in name or not stat["count"]:
                continue
            table = read(folder, metric=metric, split=name["split"])
            assert table.scores.mean() == pytest.approx(stat["mean"])
            n_checked += 1
    return n_checked


@pytest.mark.parametrize("prompt", ["instance", "request"])
def test_genuine_runs_value_by_value(shared, prompt):
    suite = shared / "fixtures" / "helm"
    table = read(suite, prompt=prompt)
    assert (table.n_records, table.models) == (25, ("eleutherai/pythia-1b-v0", "openai/gpt2"))
    check_against_files(
        table,
        sorted(suite.iterdir()),
        lambda dataset: "f1_score" if dataset == "narrative_qa" else "exact_match",
        prompt=prompt,
    )
    assert notes(suite)[0] == "instances by split: test 13, valid 12"
    assert table.log_likelihood is None
    missing = "runs whose log-likelihoods are missing, since they state 0 for most answers: 3"
    assert missing in notes(suite)


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ([[0.0], [0.0, 0.0], [-0.7]], None),  # of a tie; else 0 at a temperature of 1e-7
        ([[0.0], [-0.25, -0.75], [0.0], [-1.0]], [0.0, -0.5, 0.0, -1.0]),
        ([[0.0]], None),
    ],
)
def test_log_likelihoods_of_0_for_most_answers_are_missing(tmp_path, logprobs, expected):
    run = write_run(
        tmp_path / "mmlu:model=org_m",
        spec("mmlu:model=org_m"),
        [request(f"id{i}", f"text {i}", logprobs=found) for i, found in enumerate(logprobs)],
        [entry(f"id{i}", {"exact_match": 1.0}) for i in range(len(logprobs))],
    )
    found = read(run).log_likelihood
    assert (found if found is None else found[:, 0].tolist()) == expected


def test_a_run_without_log_likelihoods_leaves_those_of_others(tmp_path):
    for model, logprobs in (("org/m", [-1.0]), ("org/n", [0.0])):
        name = f"mmlu:model={model.replace('/', '_')}"
        answer = request("id0", "text", logprobs=logprobs)
        write_run(tmp_path / name, spec(name, model), [answer], [entry("id0", {"exact_match": 1})])
    assert_array_equal(read(tmp_path).log_likelihood, [[-1.0, NAN]])


def test_genuine_runs_by_split_and_metric(shared):
    suite = shared / "fixtures" / "helm"
    table = read(suite, split="test", metric="quasi_prefix_exact_match", on_error="skip")
    assert table.datasets == ("mmlu:subject=philosophy,method=multiple_choice_joint",)
    assert (table.n_records, table.metrics) == (9, ("quasi_prefix_exact_match",))
    assert len(table.skipped) == 1 and "narrative_qa" in table.skipped[0]


def test_genuine_runs_have_the_means_that_helm_reports(shared):
    runs = sorted((shared / "fixtures" / "helm").iterdir())
    assert check_means(runs, "exact_match") == 5
    assert check_means(runs[2:], "f1_score") == 2


TYPOS = {"name": "typos", "prob": 0.1, "robustness": True, "computed_on": "perturbed"}


def golden(tmp_path):
    """Two models, two datasets, two splits, two train trials, a perturbation, nothing counted."""
    suite = tmp_path / "runs" / "v1"
    write_run(
        suite / "mmlu:subject=law,model=org_m",
        spec("mmlu:subject=law,method=joint,model=org_m"),
        [
            request("id7", "Who?", logprobs=[-1.0, -2.0]),
            request("id7", "Who?", trial=1, prompt="Other shots. Who?", logprobs=[-0.5]),
            request("id7", "Whp?", perturbation=TYPOS, logprobs=[-4.0]),
            request("id8", "Why?", split="valid"),
        ],
        [
            entry("id7", {"exact_match": 1.0}),
            entry("id7", {"exact_match": 0.0}, trial=1),
            entry("id7", {"exact_match": 0.25}, perturbation=TYPOS),
            entry("id8", {"exact_match": None}, split="valid"),
        ],
    )
    write_run(
        suite / "mmlu_subject=law,model=org_n",
        spec("mmlu:subject=law,method=joint,model=org_n", "org/n"),
        [request("id7", "Who?", logprobs=[-3.0]), request("id8", "Why?", split="valid")],
        # One entry per class of metrics.
        [
            entry("id7", {"num_tokens": 3}),
            entry("id7", {"exact_match": 1.0}),
            entry("id8", {"exact_match": 0.5}, split="valid"),
        ],
    )
    write_simple(
        suite / "narrative_qa:model=org_m",
        spec("narrative_qa:model=org_m", groups=["narrative_qa"]),
        [0.75],
        "f1_score",
    )
    return suite


def test_golden_table(tmp_path):
    suite = golden(tmp_path)
    table = read(tmp_path)
    assert table == read(suite, format="helm")
    assert table.datasets == ("mmlu:subject=law,method=joint", "narrative_qa")
    assert (table.models, table.metrics) == (("org/m", "org/n"), ("exact_match", "f1_score"))
    assert_array_equal(table.dataset, [0, 0, 1])
    assert table.sample_ids == ["id7", "id8", "id0"]
    assert table.prompts == ["Who?", "Why?", "text 0"]
    assert_array_equal(table.scores, [[0.5, 1], [NAN, 0.5], [0.75, NAN]])
    assert_array_equal(table.log_likelihood, [[-1.0, -3], [NAN, NAN], [-1, NAN]])
    assert table_report(table).notes[0] == f"{tmp_path}: instances by split: test 3, valid 2"
    assert notes(suite) == [
        "instances by split: test 3, valid 2",
        "1 perturbed instance left out",
        "mean of the train trials taken of runs that have several: 1",
        "instances without a value of their metric: exact_match 1",
    ]


def test_folders_of_runs_that_are_empty_are_noted(tmp_path):
    suite = golden(tmp_path)
    table = read(suite)
    for name in ("boolq:model=org_m", "mmlu_subject=law,model_deployment=org_n", "groups"):
        (suite / name).mkdir()
    (suite / "groups" / "model=x.json").write_text("{}")
    for on_error in ("raise", "skip"):
        found = read(suite, on_error=on_error)
        assert_array_equal(found.scores, table.scores)
        assert not found.skipped
        assert (
            f"{suite}: folders of runs without run_spec.json, passed over: 2 runs "
            "('boolq:model=org_m', 'mmlu_subject=law,model_deployment=org_n')"
        ) in table_report(found).notes


def test_options(tmp_path):
    suite = golden(tmp_path)
    first = read(suite, train_trials="first")
    assert_array_equal(first.scores, [[1, 1], [NAN, 0.5], [0.75, NAN]])
    assert_array_equal(first.log_likelihood[0], [-1.5, -3])
    whole = read(suite, perturbations="all")
    assert whole.sample_ids == ["id7", 'id7 typos {"prob": 0.1}', "id8", "id0"]
    assert whole.prompts[1] == "Whp?"
    assert_array_equal(whole.scores[1], [0.25, NAN])
    valid = read(suite, split="valid")
    assert (valid.sample_ids, valid.datasets) == (["id8"], ("mmlu:subject=law,method=joint",))
    assert notes(suite, split="valid")[-1] == (
        "no instance of split 'valid' in 1 run ('narrative_qa:model=org_m')"
    )
    sent = read(suite, prompt="request")
    assert sent.prompts == ["Shots. Who?", "Shots. Why?", "Shots. text 0"]


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"prompt": "text"}, "prompt is 'text', expected 'request' or 'instance'"),
        ({"train_trials": "last"}, "train_trials is 'last', expected 'mean' or 'first'"),
        ({"perturbations": "some"}, "perturbations is 'some', expected 'original' or 'all'"),
        ({"preset": "helm"}, "preset is 'helm', expected one of helm-paper, embedllm"),
        ({"split": "train"}, r"no instance of split 'train' in 3 runs \('mmlu:subject=law,"),
    ],
)
def test_options_that_there_are_not(tmp_path, option, error):
    with pytest.raises(ValueError, match=error):
        read(golden(tmp_path), **option)


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("narrative_qa:model=openai_gpt2", "narrative_qa"),
        ("legal_support,method=joint,model=a_b", "legal_support,method=joint"),
        ("raft:subset=x,model=a_b,data_augmentation=canonical", "raft:subset=x"),
        ("imdb:model_deployment=a_b", "imdb"),
        ("the_model=3:k=1", "the_model=3:k=1"),
    ],
)
def test_dataset_is_the_name_up_to_the_model(tmp_path, name, dataset):
    write_simple(tmp_path / "run", spec(name), [1, 0])
    assert read(tmp_path).datasets == (dataset,)


def test_one_request_per_reference_is_one_record(tmp_path):
    references = [{"output": {"text": "yes"}, "tags": ["correct"]}, {"output": "no", "tags": []}]

    def scored(number, answer, mode):
        found = request("id1", "Is it?", prompt=f"Q: Is it? A: {answer}", logprobs=[-9.0])
        found["instance"]["references"] = references
        found["request"]["echo_prompt"] = True
        return {**found, "reference_index": number, "request_mode": mode}

    requests = [
        scored(0, "yes", "original"),
        {**scored(0, "yes", "calibration"), "request": {"prompt": "A: yes", "echo_prompt": True}},
        scored(1, "no", "original"),
    ]
    # Such runs have the exact match only, whatever their group reports.
    method = "multiple_choice_separate_calibrated"
    run_spec = spec("boolq:model=m", groups=["boolq"], method=method)
    write_run(tmp_path / "run", run_spec, requests, [entry("id1", {"exact_match": 0.5})])
    table = read(tmp_path, prompt="request")
    assert (table.sample_ids, table.prompts) == (["id1"], ["Q: Is it? A:"])
    assert (table.metrics, table.log_likelihood) == (("exact_match",), None)
    assert_array_equal(table.scores, [[0.5]])
    assert read(tmp_path).prompts == ["Is it?"]
    assert "no log-likelihood of runs that score references: 1" in notes(tmp_path)


def test_chats_and_the_inputs_of_2022(tmp_path):
    chat = request("id1", "", prompt="")
    turns = [{"role": "user", "content": "Hi."}, {"role": "user", "content": "Sum up."}]
    chat["instance"]["input"]["messages"] = chat["request"]["messages"] = turns
    old = request("id2", "")
    old["instance"]["input"] = "Just text"
    stats = [entry("id1", {"exact_match": 1}), entry("id2", {"exact_match": 0})]
    write_run(tmp_path / "run", spec("mmlu:model=m"), [chat, old], stats)
    assert read(tmp_path).prompts == ["Hi.\n\nSum up.", "Just text"]
    assert read(tmp_path, prompt="request").prompts[0] == "Hi.\n\nSum up."


def test_main_metrics():
    assert main_metrics(["mmlu", "mmlu_law"], "multiple_choice_joint") == ("exact_match",)
    assert main_metrics(["robustness", "imdb"], "generation") == ("quasi_exact_match",)
    assert main_metrics(["gsm"], "") == ("final_number_exact_match", "exact_match_indicator")
    assert main_metrics([], "generation") == ()
    # arXiv 2309.15789's datasets are all among them.
    assert {name.partition(":")[0] for name in DATASETS} <= MAIN_METRIC.keys()
    words = " ".join(f"{group} {metric}" for group, metric in MAIN_METRIC.items())
    assert words == " ".join(words.split())


def test_metric_by_option_or_by_what_the_run_has(tmp_path):
    run_spec = spec("gsm:model=m", groups=["gsm"])
    write_simple(tmp_path / "old", run_spec, [1, 0], "exact_match_indicator")
    assert read(tmp_path).metrics == ("exact_match_indicator",)
    with pytest.raises(ValueError, match="found the metrics exact_match_indicator; expected 'f1'"):
        read(tmp_path, metric="f1")
    write_simple(tmp_path / "mine", spec("mine:model=m", groups=["mine"]), [1], "f1")
    with pytest.raises(ValueError, match=r"metrics f1; expected one to be named \(metric, --metri"):
        read(tmp_path / "mine")
    assert read(tmp_path / "mine", metric="f1").metrics == ("f1",)


GOOD = [request("id0", "text 0")], [entry("id0", {"exact_match": 1})]


def changed(holder, *path, to):
    """Copy of a JSON value with another value at a path."""
    found = json.loads(json.dumps(holder))
    at = found
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return found


BROKEN_RUNS = [
    (spec("mmlu:model=m"), None, GOOD[1], r"scenario_state\.json: no such file"),
    (spec("mmlu:model=m"), GOOD[0], None, r"per_instance_stats\.json: no such file"),
    (
        {"name": "mmlu:model=m"},
        *GOOD,
        r"run_spec\.json: adapter_spec is missing, expected a JSON o",
    ),
    (spec(" "), *GOOD, r"run_spec\.json: name is ' ', expected a name"),
    (spec("mmlu:model=m", 3), *GOOD, r"run_spec\.json: model is 3, expected text"),
    (b"[]", *GOOD, r"run_spec\.json: found \[\], expected a JSON object"),
    (
        spec("mmlu:model=m"),
        b'{"request_states": [',
        GOOD[1],
        "line 1, column 21: found the file's end, expected",
    ),
    (spec("mmlu:model=m"), b'{"a": 1}', GOOD[1], r"found the keys \['a'\], expected 'request_st"),
    (
        spec("mmlu:model=m"),
        b"\xff",
        GOOD[1],
        r"scenario_state\.json, line 1, column 1: found text that is not UTF-8",
    ),
    (
        spec("mmlu:model=m"),
        GOOD[0],
        b"{}",
        r"stats\.json, line 1, column 1: found '\{\}', expected '\['",
    ),
    (spec("mmlu:model=m"), GOOD[0], b"[] 1", "line 1, column 4: found '1', expected the end"),
    (
        spec("mmlu:model=m"),
        GOOD[0],
        b"[" * 200_000,
        r"stats\.json, line 1, column 2: found .*nested too deeply",
    ),
    (
        spec("mmlu:model=m"),
        b'{"request_states": [], "request_states": []}',
        GOOD[1],
        "found the key 'request_states' twice",
    ),
]


@pytest.mark.parametrize(("run_spec", "requests", "stats", "error"), BROKEN_RUNS)
def test_a_broken_run_is_named_or_left_out(tmp_path, run_spec, requests, stats, error):
    write_simple(tmp_path / "mmlu:model=good", spec("mmlu:model=good", "good"), [1, 0])
    write_run(tmp_path / "broken", run_spec, requests, stats)
    with pytest.raises(ValueError, match=error) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'broken'}: ")
    table = read(tmp_path, on_error="skip")
    assert (table.models, table.n_records) == (("good",), 2)
    assert table.skipped == (str(caught.value),)
    with pytest.raises(ValueError, match="no record is left of the input; the first skipped: "):
        read(tmp_path / "broken", on_error="skip")


REQUEST, ENTRY = request("id1", "text 1", logprobs=[-1.0]), entry("id1", {"exact_match": 0})
BAD_ROWS = [
    (
        changed(REQUEST, "instance", "id", to=None),
        None,
        r"item 2 \(line \d+\): id is None, expected text",
    ),
    (
        changed(REQUEST, "instance", "input", "text", to=" "),
        ENTRY,
        "prompt is ' ', expected text t",
    ),
    (
        changed(REQUEST, "instance", "input", "text", to=5),
        ENTRY,
        r"item 2 \(line \d+\): text is 5, expected text",
    ),
    (
        changed(REQUEST, "instance", "input", to=[]),
        ENTRY,
        r"input is \[\], expected a JSON object or",
    ),
    (changed(REQUEST, "instance", "id", to="\ud800"), None, "text that UTF-8 can hold"),
    (changed(REQUEST, "instance", "input", "text", to="\udc00"), ENTRY, "text that UTF-8 can hold"),
    (
        changed(REQUEST, "train_trial_index", to=True),
        ENTRY,
        "train_trial_index is True, expected a ",
    ),
    (
        changed(REQUEST, "result", "completions", 0, "logprob", to="x"),
        ENTRY,
        "logprob is 'x', expec",
    ),
    (
        changed(REQUEST, "result", "completions", 0, "logprob", to=-np.inf),
        ENTRY,
        "logprob is -inf, expected a finite number or nothing",
    ),
    (
        7,
        None,
        r"scenario_state\.json, request_states, item 2 \(line \d+\): found 7, expected a JSON",
    ),
    (REQUEST, 7, r"per_instance_stats\.json, item 2 \(line \d+\): found 7, expected a JSON object"),
    (REQUEST, changed(ENTRY, "stats", to={}), r"item 2 \(line \d+\): stats is {}, expected a list"),
    (
        REQUEST,
        changed(ENTRY, "stats", 0, "mean", to="high"),
        r"item 2 \(line \d+\): mean is 'high', expected a finite number or nothing",
    ),
    (
        REQUEST,
        changed(ENTRY, "stats", 0, "mean", to=np.inf),
        r"stats\.json, item 2 \(line \d+\): mean is inf, expected a finite number or nothing",
    ),
    (
        REQUEST,
        changed(ENTRY, "stats", 0, "mean", to=10**400),
        "mean is 1000.*expected a finite number or nothing",
    ),
    (None, ENTRY, r"stats\.json, instance 'id1': no request of it in scenario_state\.json"),
]


@pytest.mark.parametrize(("state", "stats", "error"), BAD_ROWS)
def test_a_bad_row_is_named_or_left_out(tmp_path, state, stats, error):
    requests = [GOOD[0][0], *([] if state is None else [state])]
    entries = [GOOD[1][0], *([] if stats is None else [stats])]
    write_run(tmp_path / "run", spec("mmlu:model=m"), requests, entries)
    with pytest.raises(ValueError, match=error) as caught:
        read(tmp_path)
    table = read(tmp_path, on_error="skip")
    assert table.sample_ids == (["id0", "id1"] if stats == 7 else ["id0"])
    assert table.skipped == (str(caught.value),)


def test_a_key_twice_costs_only_its_item(tmp_path):
    requests = json.dumps({"request_states": [REQUEST, *GOOD[0]]})
    requests = requests.replace(
        '"train_trial_index": 0', '"train_trial_index": 0, "x": {"a": 1, "a": 1}', 1
    )
    write_run(tmp_path / "run", spec("mmlu:model=m"), requests.encode(), [*GOOD[1], ENTRY])
    error = r"request_states, item 1 \(line 1\): found the key 'a' twice in one object, expected it"
    with pytest.raises(ValueError, match=error):
        read(tmp_path)
    assert read(tmp_path, on_error="skip").sample_ids == ["id0"]


def test_half_a_surrogate_pair_in_an_answer_is_passed_over(tmp_path):
    state = changed(REQUEST, "result", "completions", 0, "text", to="\ud83d")
    write_run(tmp_path / "run", spec("mmlu:model=m"), [state], [ENTRY])
    assert read(tmp_path).sample_ids == ["id1"]


def test_values_that_contradict_each_other(tmp_path):
    twice = [*GOOD[1], entry("id0", {"exact_match": 0})]
    write_run(tmp_path / "run", spec("mmlu:model=m"), GOOD[0], twice)
    with pytest.raises(
        ValueError, match=r"item 2 \(line \d+\): exact_match of instance 'id0' is 0.0, but 1.0 b"
    ):
        read(tmp_path / "run")
    write_run(tmp_path / "same", spec("mmlu:model=m"), GOOD[0], GOOD[1] * 2)
    assert_array_equal(read(tmp_path / "same").scores, [[1]])
    texts = [*GOOD[0], request("id0", "other", trial=1)]
    write_run(tmp_path / "texts", spec("mmlu:model=m"), texts, GOOD[1])
    with pytest.raises(ValueError, match="text of instance 'id0' is 'other', but 'text 0' before"):
        read(tmp_path / "texts")


def test_statistics_of_perturbed_instances_alone_are_passed_over(tmp_path):
    stats = [*GOOD[1], entry("id0", {"exact_match": 0}, perturbation=TYPOS)]
    write_run(tmp_path / "run", spec("mmlu:model=m"), GOOD[0], stats)
    assert_array_equal(read(tmp_path).scores, [[1]])
    with pytest.raises(ValueError, match="instance 'id0 typos .*: no request of it in scenario_st"):
        read(tmp_path, perturbations="all")


def test_two_runs_of_one_model_and_dataset_clash(tmp_path):
    write_simple(tmp_path / "a", spec("mmlu:model=m"), [1])
    write_simple(tmp_path / "b", spec("mmlu:model=m,groups=x"), [0])
    with pytest.raises(
        ValueError, match=r"(?s)b/scenario_state\.json, instance 'id0'.*a/scenario_"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("means", "missing"),
    [
        (["NaN", '"NaN"', '"nan"', "null", '""', '"NA"'], True),
        (["1", "1.0", "1e0", "0.1E1"], False),
    ],
)
def test_numbers_spelled_in_several_ways(tmp_path, means, missing):
    requests = [request(f"id{i}", f"text {i}") for i in range(len(means) + 1)]
    stats = json.dumps([entry(f"id{i}", {"exact_match": 123}) for i in range(len(requests))])
    for mean in means:
        stats = stats.replace('"mean": 123', f'"mean": {mean}', 1)
    write_run(tmp_path / "run", spec("mmlu:model=m"), requests, stats.encode())
    expected = [[NAN if missing else 1.0]] * len(means) + [[123]]
    assert_array_equal(read(tmp_path).scores, expected)


def test_text_and_ids_that_trip_readers(tmp_path):
    text = "one\u2028two\u0085three\r\nfour\x1e \U0001f600 \ufeff"
    number = 2**63 + 1
    requests = [request(number, text), request("007", "zeros")]
    stats = [entry(number, {"exact_match": 1}), entry("007", {"exact_match": 0})]
    write_run(tmp_path / "run", spec("mmlu:model=m\u2028x", "org/\u0085m"), requests, stats)
    for path in (tmp_path / "run").iterdir():
        text_of_file = json.dumps(json.loads(path.read_text()), ensure_ascii=False, indent=2)
        path.write_bytes(b"\xef\xbb\xbf" + text_of_file.replace("\n", "\r\n").encode())
    table = read(tmp_path)
    assert table.sample_ids == [str(number), "007"]
    assert (table.prompts, table.models) == ([text, "zeros"], ("org/\u0085m",))


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
def test_packed_files(tmp_path, suffix, pack):
    plain = read(golden(tmp_path))
    for path in tmp_path.rglob("*.json"):
        path.with_name(path.name + suffix).write_bytes(pack(path.read_bytes()))
        path.unlink()
    assert read(tmp_path) == plain
    packed = sorted(tmp_path.rglob(f"scenario_state.json{suffix}"))[0]
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ValueError, match="scenario_state.json"):
        read(tmp_path)
    assert len(read(tmp_path, on_error="skip").skipped) == 1


def test_the_papers_names():
    assert (len(DATASETS), len(set(DATASETS)), len(MODELS)) == (29, 29, 18)
    names = {
        "mmlu:subject=econometrics,method=multiple_choice_joint": "mmlu:subject=econometrics",
        "truthful_qa:task=mc_single,method=multiple_choice_joint": "truthful_qa",
        "civil_comments:demographic=all": "civil_comments",
        "legal_support,method=multiple_choice_joint": "legal_support",
        "entity_matching:dataset=Abt_Buy": "entity_matching:dataset=Abt_Buy",
        "civil_comments:demographic=male": None,
        "imdb:only_contrast=True": None,
        "mmlu:subject=philosophy": None,
        "raft:subset=": None,
        "gsm": None,
    }
    assert {name: paper_dataset(name) for name in names} == names
    models = {
        "together/llama-2-7b": "llama-2-7b",
        "meta-llama/Llama-2-13b-chat-hf": "llama-2-13b-chat",
        "mosaicml/mpt-instruct-7b": "mpt-7b-instruct",
        "google/flan-t5-xxl": "flan-t5-xxl",
        "openai/gpt2": None,
        "llama-2-7b/x": None,
    }
    assert {name: paper_model(name) for name in models} == models


def test_the_papers_preset(tmp_path):
    for dataset, model in (
        ("imdb", "meta/llama-2-7b"),
        ("imdb", "bigcode/starcoder"),
        ("boolq", "bigcode/starcoder"),
        ("boolq", "openai/gpt2"),
        ("quac", "bigcode/starcoder"),
    ):
        name = f"{dataset}:model={model.replace('/', '_')}"
        run_spec = spec(name, model, groups=[dataset])
        write_simple(tmp_path / name, run_spec, [1, 0], "quasi_exact_match")
    table = read(tmp_path, preset="helm-paper")
    assert table.datasets == ("boolq", "imdb")
    assert table.models == ("bigcode/starcoder", "meta/llama-2-7b")
    assert_array_equal(table.params_b, [15, 7])
    found = notes(tmp_path, preset="helm-paper")[1:]
    assert found[0] == "preset helm-paper: 3 of 522 runs found"
    assert found[1].startswith("no run of 27 of the 29 datasets: raft:subset=ade_corpus_v2, ")
    assert found[2].startswith("no run of 16 of the 18 models: codegen-16b-mono, dial-flant5-xl, ")
    assert found[3] == "no run of boolq with llama-2-7b"
    assert found[4].startswith("not of the preset, left out: 2 runs ('boolq:model=openai_gpt2', ")
    assert len(found) == 5
    with pytest.raises(
        ValueError, match=r"among 1 run \('quac.*expected one of the 29 .* starcoder"
    ):
        read(tmp_path / "quac:model=bigcode_starcoder", preset="helm-paper")


def test_a_suite_that_is_linked_to_counts_once(tmp_path):
    runs = tmp_path / "runs"
    write_simple(runs / "v0.2.4" / "imdb:model=m", spec("imdb:model=m", groups=["imdb"]), [1, 0])
    (runs / "latest").symlink_to(runs / "v0.2.4", target_is_directory=True)
    report = table_report(read(runs, metric="exact_match"))
    assert [source.name for source in report.sources] == [f"{runs}/v0.2.4/imdb:model=m"]
    assert report.datasets[0].duplicates == 0
    assert read(runs / "latest", metric="exact_match").n_records == 2


def test_folders_without_runs(tmp_path):
    (tmp_path / "runs" / "v1").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="without results of a known format"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"found no folder with run_spec\.json"):
        read(tmp_path, format="helm")


def test_changed_bytes_give_a_table_or_an_error_with_the_file(tmp_path):
    suite = golden(tmp_path)
    files = sorted(suite.rglob("*.json"))
    contents = [path.read_bytes() for path in files]
    rng = random.Random(6)
    n_errors = 0
    for _ in range(300):
        at = rng.randrange(len(files))
        data = bytearray(contents[at])
        for _ in range(rng.choice((1, 1, 3))):
            place = rng.randrange(len(data))
            new = bytes([rng.choice((rng.randrange(256), *b'"{}[],:0\\'))])
            data[place : place + rng.randrange(3)] = new * rng.randrange(3)
        files[at].write_bytes(data)
        try:
            read(suite, perturbations=rng.choice(("original", "all")))
        except ValueError as error:
            assert str(suite) in str(error), error
            n_errors += 1
        files[at].write_bytes(contents[at])
    assert 100 < n_errors < 300


# A model beside HELM's own "simple/model1", which says one word at a log-probability of 0.
DICE = """
from zlib import crc32

from helm.clients.client import Client
from helm.common.request import GeneratedOutput, RequestResult, Token


class DiceClient(Client):
    def make_request(self, request):
        dice = crc32(request.prompt.encode())
        text = ("A", "B", "Even", "Odd")[dice % 4]
        tokens = [Token(letter, -(dice % 7 + i) / 8) for i, letter in enumerate(text)]
        completion = GeneratedOutput(text, sum(token.logprob for token in tokens), tokens)
        return RequestResult(True, [], [completion], False, request_time=0.0)
"""
DEPLOYMENT = """
model_deployments:
  - name: org/dice
    tokenizer_name: simple/tokenizer1
    max_sequence_length: 2048
    client_spec: {class_name: dice.DiceClient}
"""


@pytest.mark.slow
def test_fresh_output_of_crfm_helm(tmp_path):
    (tmp_path / "dice.py").write_text(DICE)
    (tmp_path / "prod_env").mkdir()
    (tmp_path / "prod_env" / "model_deployments.yaml").write_text(DEPLOYMENT)
    runs = [
        "simple_mcqa:model=simple/model1",
        "simple_mcqa:model=org/dice,data_augmentation=lower",
        "simple_classification:model=simple/model1",
        "simple_classification:model=org/dice",
    ]
    run_harness(
        "helm", "helm.benchmark.run", "--run-entries", *runs, "--suite", "fresh",
        "--max-eval-instances", "12", "--num-train-trials", "2", folder=tmp_path,
    )  # fmt: skip
    suite = tmp_path / "benchmark_output" / "runs" / "fresh"
    for metric in ("exact_match", "num_prompt_tokens"):
        table = read(tmp_path, metric=metric)
        assert (table.datasets, table.n_records) == (("simple_classification", "simple_mcqa"), 24)
        assert sorted(table.models) == ["org/dice", "simple/model1"]
        assert np.isfinite(table.scores).all()
        folders = sorted(suite.glob("simple*"))
        check_against_files(table, folders, lambda dataset, metric=metric: metric)
        assert check_means(folders, metric) == 4
    assert {0, 0.5} <= set(read(tmp_path, metric="exact_match").scores.flat)
    found = notes(tmp_path, metric="exact_match")
    assert "12 perturbed instances left out" in found
    assert "mean of the train trials taken of runs that have several: 4" in found


AFR = "mmlu_clinical_afr"


@pytest.mark.slow
def test_main_metrics_are_those_of_crfm_helm(tmp_path):
    """As the schemas that it installs name them for the tables of its site."""
    code = """
import json, pathlib, helm.benchmark, yaml
for path in pathlib.Path(helm.benchmark.__file__).parent.glob("static/schema_*.yaml"):
    for group in yaml.safe_load(path.read_text())["run_groups"]:
        environment = group.get("environment") or {}
        if "main_name" in environment:
            print(json.dumps([group["name"], environment["main_name"]]))
"""
    (tmp_path / "schemas.py").write_text(code)
    found = run_harness("helm", "schemas", folder=tmp_path)
    named = {tuple(json.loads(line)) for line in found.splitlines()}
    assert len(named) > len(MAIN_METRIC)
    # The one scenario whose groups all have a name of their own.
    subjects = {(group, metric) for group, metric in named if group.startswith(AFR + "_")}
    assert {metric for _, metric in subjects} == {MAIN_METRIC[AFR]}
    assert {pair for pair in MAIN_METRIC.items() if pair not in named} == {(AFR, MAIN_METRIC[AFR])}
