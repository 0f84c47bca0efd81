"""Reader of lm-evaluation-harness: by hand, on genuine files, and on the harness's fresh output."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harnesses import run_harness
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import table_report, write_table
from benchrouter.tables.formats import format_of
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.doc_text import text_of
from benchrouter.tables.formats.lm_eval import lm_eval

NAN = float("nan")
OLD, NEW = "2026-01-02T03-04-05.000006", "2026-02-02T03-04-05.000006"


def question(doc_id, score=1.0, *, filter="none", context="", **more):
    """One line of a task that asks a question."""
    doc = {"question": f"q{doc_id}?", "answer": "a"}
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": "a",
        "arguments": {"gen_args_0": {"arg_0": f"{context}Q: q{doc_id}?\nA:", "arg_1": {}}},
        "resps": [["lol"]],
        "filtered_resps": ["lol"],
        "filter": filter,
        "metrics": ["exact_match"],
        "exact_match": score,
        **more,
    }


def choice(doc_id, acc, likelihoods, **more):
    """One line of a multiple-choice task."""
    contexts = more.pop("contexts", ["ctx"] * len(likelihoods))
    return {
        "doc_id": doc_id,
        "doc": {"question": f"q{doc_id}?"},
        "arguments": {
            f"gen_args_{i}": {"arg_0": text, "arg_1": f" {i}"} for i, text in enumerate(contexts)
        },
        "resps": [[[value, "False"]] for value in likelihoods],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": acc,
        "acc_norm": 1 - acc,
        **more,
    }


CONFIG = {
    "doc_to_text": "Q: {{question}}\nA:",
    "output_type": "generate_until",
    "metric_list": [{"metric": "exact_match", "higher_is_better": True}],
}
CHOICE = {
    "doc_to_text": "{{question}}",
    "output_type": "multiple_choice",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def put(folder, tasks, *, configs=None, date=NEW, shots=0, **content):
    """Write a run as the harness does: `tasks` to their rows; content=None leaves out results."""
    folder.mkdir(parents=True, exist_ok=True)
    configs = {task: (configs or {}).get(task, CONFIG) for task in tasks}
    results = {
        "results": {task: {"alias": task} for task in tasks},
        "configs": configs,
        "n-shot": dict.fromkeys(tasks, shots),
        "n-samples": {task: {"effective": len(rows)} for task, rows in tasks.items()},
        "chat_template_sha": None,
        **content,
    }
    (folder / f"results_{date}.json").write_text(json.dumps(results))
    for task, rows in tasks.items():
        (folder / f"samples_{task}_{date}.jsonl").write_bytes(lines(rows))
    return folder


def notes(path, **choices):
    *others, last = lm_eval.read(path, Choices(**choices))
    assert not any(reading.notes for reading in others)
    assert all(note.startswith(f"{path}: ") for note in last.notes) == bool(others)
    return [note.removeprefix(f"{path}: ") for note in last.notes]


# --- Genuine files, read once more by code of their own


def records_of(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def cells(path, model, metric, filter, request=lambda row: row["arguments"]["gen_args_0"]["arg_0"]):
    """(model, task, doc_id) to (score, prompt, log-likelihood) of one file of samples."""
    task = path.name.removeprefix("samples_")[: -len(f"_{NEW}.jsonl")]
    found = {}
    for row in records_of(path):
        if row["filter"] != filter:
            continue
        likelihood = NAN
        if len(row["resps"]) > 1:
            likelihood = max(float(answers[0][0]) for answers in row["resps"])
        found[model, task, str(row["doc_id"])] = (row[metric], request(row), likelihood)
    return found


def check_every_value(table, expected):
    """Compare all cells; the table has nothing else."""
    assert table.cost_usd is None
    n_found = 0
    for i, sample_id in enumerate(table.sample_ids):
        task = table.datasets[table.dataset[i]]
        for j, model in enumerate(table.models):
            if (model, task, sample_id) not in expected:
                assert np.isnan(table.scores[i, j])
                continue
            score, prompt, likelihood = expected[model, task, sample_id]
            assert table.scores[i, j] == np.float32(score)
            assert table.prompts[i] == prompt
            found = NAN if table.log_likelihood is None else table.log_likelihood[i, j]
            assert_array_equal(found, np.float32(likelihood))
            n_found += 1
    assert n_found == len(expected)


@pytest.mark.parametrize("filter", ["strict-match", "flexible-extract"])
@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_every_value_of_a_genuine_run(shared, metric, filter):
    folder = shared / "fixtures/lm_eval_dummy/run_a"
    expected = {}
    for path in sorted(folder.glob("*/samples_*")):
        gsm = "gsm" in path.name
        expected |= cells(
            path, "dummy-a", "exact_match" if gsm else metric, filter if gsm else "none"
        )
    table = read(folder, metric=metric, filter=filter, prompt="request")
    check_every_value(table, expected)
    assert table.n_records == 70 and len(expected) == 70
    assert table.metrics == (f"exact_match,{filter}", metric, metric)


def test_a_genuine_run_without_examples_is_what_the_other_has_as_instances(shared):
    """Run b had two examples before each question; its instances are run a's requests."""
    folder = shared / "fixtures/lm_eval_dummy"
    requests = {}
    for path in folder.glob("run_a/*/samples_*"):
        task = path.name[: -len(f"_{NEW}.jsonl")]
        for row in records_of(path):
            requests[task, row["doc_id"]] = row["arguments"]["gen_args_0"]["arg_0"]
    expected, expected_of_two = {}, {}
    for run, model in (("run_a", "dummy-a"), ("run_b", "local/dummy-b")):
        for path in folder.glob(f"{run}/*/samples_*"):
            task = path.name[: -len(f"_{NEW}.jsonl")]

            def request(row, task=task):
                return requests[task, row["doc_id"]]

            gsm = "gsm" in path.name
            metric, filter = ("exact_match", "strict-match") if gsm else ("acc", "none")
            expected |= cells(path, model, metric, filter, request)
            if run == "run_b":
                expected_of_two |= cells(path, model, metric, filter)
    table = read(folder)
    assert table.models == ("dummy-a", "local/dummy-b") and table.n_records == 70
    check_every_value(table, expected)
    with pytest.raises(ValueError, match=r"few-shot examples of task 'demo_gsm' is 2 .* but 0"):
        read(folder, prompt="request")
    two = read(folder, prompt="request", shots=2)
    check_every_value(two, expected_of_two)
    assert two.models == ("local/dummy-b",)
    assert all(text.count("\nAnswer:") == 3 for text in two.prompts)


def test_genuine_samples_of_another_version(shared):
    folder = shared / "fixtures/lm_eval"
    model = "RylanSchaeffer/mem_Qwen3-93M_minerva_math_rep_0_sbst_1.0000_epch_1_ot_1"
    (path,) = folder.glob("samples_*")
    table = read(folder)
    check_every_value(table, cells(path, model, "exact_match", "none"))
    assert table.n_records == 10
    assert table.params_b.tolist() == [0.09306928]
    assert read(path) == table == read(next(folder.glob("results_*")))
    assert f"math_rephrased_full: {model} has results but no samples" in notes(folder)


def test_genuine_files_are_recognised(shared):
    for path in ("lm_eval", "lm_eval_dummy", "lm_eval_dummy/run_b/local__dummy-b"):
        assert format_of(shared / "fixtures" / path) == "lm-eval"


# --- By hand


def test_golden_table(tmp_path):
    put(
        tmp_path / "out" / "org__small",
        {"ask": [question(0, 1.0), question(1, 0)], "pick": [choice(0, 1, ["-0.5", "-2"])]},
        configs={"pick": CHOICE},
        model_name="org/small",
        config={"model_num_parameters": 1_500_000_000},
    )
    put(
        tmp_path / "out" / "org__big",
        {"ask": [question(1, 1), question(0, None)]},
        shots=3,
    )
    table = read(tmp_path / "out")
    assert table.models == ("org/big", "org/small")
    assert table.datasets == ("ask", "pick")
    assert table.sample_ids == ["1", "0", "0"]
    assert table.prompts == ["Q: q1?\nA:", "Q: q0?\nA:", "q0?"]
    assert_array_equal(table.scores, [[1, 0], [NAN, 1], [NAN, 1]])
    assert_array_equal(table.log_likelihood, [[NAN, NAN], [NAN, NAN], [NAN, -0.5]])
    assert table.cost_usd is None
    assert_array_equal(table.params_b, [NAN, 1.5])
    assert (table.metrics, table.thresholds.tolist()) == (("exact_match", "acc"), [0.5, 0.5])
    assert notes(tmp_path / "out") == [
        "ask: metric exact_match, filter none",
        "pick: metric acc, filter none; other metrics: acc_norm",
        "pick: log-likelihoods are of the whole most likely choice",
    ]


def test_filter_of_the_main_metric_or_the_one_asked_for(tmp_path):
    rows = [
        question(i, score, filter=filter)
        for filter, score in (("loose", 1), ("strict", 0))
        for i in range(2)
    ]
    keys = {"alias": "ask", "exact_match,strict": 0, "exact_match,loose": 1}
    config = dict(CONFIG, filter_list=[{"name": "loose"}, {"name": "strict"}])
    run = put(tmp_path / "m", {"ask": rows}, configs={"ask": config}, results={"ask": keys})
    assert_array_equal(read(run).scores, [[0], [0]])
    assert read(run).metrics == ("exact_match,strict",)
    assert_array_equal(read(run, filter="loose").scores, [[1], [1]])
    assert notes(run) == ["ask: metric exact_match, filter strict; other filters: loose"]
    with pytest.raises(ValueError, match="no task has the filter 'none', found ask: loose, strict"):
        read(run, filter="none")
    (run / f"results_{NEW}.json").unlink()  # then the first row's
    assert read(run).metrics == ("exact_match,loose",)
    assert read(run, filter="strict").metrics == ("exact_match,strict",)
    with pytest.raises(ValueError, match=r"found the filters \['loose', 'strict'\], expected 'x'"):
        read(run, filter="x")


def test_metric_asked_for_where_a_task_has_it(tmp_path):
    run = put(
        tmp_path / "m",
        {"ask": [question(0)], "pick": [choice(0, 1, [-1.0, -2.0])]},
        configs={"pick": CHOICE},
    )
    assert read(run, metric="acc_norm").metrics == ("exact_match", "acc_norm")
    assert "ask: has no metric 'acc_norm', took 'exact_match'" in notes(run, metric="acc_norm")
    with pytest.raises(
        ValueError,
        match=r"and 1 more: found no metric 'f1', but exact_match, acc, acc_norm",
    ):
        read(run, metric="f1")


def test_a_further_metric_is_missing_where_a_task_lacks_it(tmp_path):
    run = put(
        tmp_path / "m",
        {"ask": [question(0)], "pick": [choice(0, 1, [-1.0, -2.0])]},
        configs={"pick": CHOICE},
    )
    for metric, column in (("acc_norm", [None, 0.0]), ("exact_match", [1.0, None])):
        other = read(run, metric=metric, only_metric=True)
        assert_array_equal(other.scores[:, 0], np.array(column, dtype=np.float32))
        write_table(read(run), tmp_path / "t.parquet", metrics={metric: other})
        written = pq.read_table(tmp_path / "t.parquet")
        assert written.column(f"{metric}::m").to_pylist() == column
        assert written.column("m").to_pylist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="found no metric 'f1'"):
        read(run, metric="f1", only_metric=True)


@pytest.mark.parametrize("key", ["doc_id", "target", "doc", "resps", "note"])
def test_only_metrics_can_be_asked_for(tmp_path, key):
    rows = [question(0, note=1)]
    run = put(tmp_path / "m", {"ask": rows})
    with pytest.raises(ValueError, match=rf"found no metric {key!r}, but exact_match$"):
        read(run, metric=key)
    del rows[0]["metrics"], rows[0]["note"]  # as older versions
    run = put(tmp_path / "m", {"ask": rows})
    with pytest.raises(ValueError, match=rf"found no metric {key!r}, but exact_match$"):
        read(run, metric=key)


def test_metrics_that_are_no_number_or_of_which_less_is_better_come_last(tmp_path):
    config = {
        "doc_to_text": "{{question}}",
        "metric_list": [
            {"metric": "f1", "higher_is_better": True},
            {"metric": "perplexity", "higher_is_better": False},
            {"metric": "acc", "higher_is_better": True},
        ],
    }
    row = question(0, metrics=["f1", "perplexity", "acc"], f1=[0, 1], perplexity=-2.5, acc=True)
    run = put(tmp_path / "m", {"t": [row]}, configs={"t": config})
    assert read(run).metrics == ("acc",)
    assert_array_equal(read(run).scores, [[1]])
    table = read(run, metric="perplexity")
    assert_array_equal(table.scores, [[-2.5]])
    assert_array_equal(table.thresholds, [NAN])
    assert "t: less of perplexity is better, so no score counts as correct" in notes(
        run, metric="perplexity"
    )
    with pytest.raises(
        ValueError, match=r"line 1: f1 is \[0, 1\], expected a finite number or nothing"
    ):
        read(run, metric="f1")


def test_less_is_better_by_the_results_alone(tmp_path):
    better = {"t": {"ppl": False}}
    run = put(
        tmp_path / "m",
        {"t": [question(0, metrics=["ppl"], ppl=0.3)]},
        configs={"t": {"doc_to_text": "question"}},
        higher_is_better=better,
    )
    assert read(run).metrics == ("ppl",) and np.isnan(read(run).thresholds[0])


@pytest.mark.parametrize(
    ("likelihoods", "contexts", "expected"),
    [
        (["-2", "-0.25"], ["c", "c"], -0.25),
        ([-2.0, -0.25], ["c", "c"], -0.25),
        # Mutual information asks for each choice without a question as well.
        (["-2", "-3", "-0.5", "-1"], ["c", "c", "", ""], -2),
        (["-inf", "-3"], ["c", "c"], -3),
        (["-inf", "nan"], ["c", "c"], NAN),
        (["-3"], ["c"], NAN),
        (["lol", "-3"], ["c", "c"], NAN),
    ],
)
def test_log_likelihood_of_the_chosen_answer(tmp_path, likelihoods, contexts, expected):
    rows = [choice(0, 1, likelihoods, contexts=contexts), choice(1, 0, [-7, -8])]
    table = read(put(tmp_path / "m", {"t": rows}, configs={"t": CHOICE}))
    assert_array_equal(table.log_likelihood, np.float32([[expected], [-7]]))


def test_no_log_likelihood_of_a_text_that_the_model_did_not_choose(tmp_path):
    row = choice(0, 1, ["-2", "-3"])
    config = dict(CHOICE, output_type="loglikelihood")
    assert read(put(tmp_path / "m", {"t": [row]}, configs={"t": config})).log_likelihood is None


def test_groups(tmp_path):
    run = put(
        tmp_path / "m",
        {"algebra": [question(0)], "law": [question(0, 0)], "other": [question(0)]},
        group_subtasks={
            "mmlu_stem": ["algebra"],
            "mmlu": ["mmlu_stem", "law"],
            "other": [],
            "law": ["mmlu"],  # nonsense, but no reason to hang
        },
    )
    assert read(run).datasets == ("algebra", "law", "other")
    (run / f"results_{NEW}.json").write_bytes(
        (run / f"results_{NEW}.json").read_bytes().replace(b'"law": ["mmlu"]', b'"law": []')
    )
    table = read(run, groups=True)
    assert table.datasets == ("mmlu", "other")
    assert table.sample_ids == ["algebra/0", "law/0", "0"]
    put(tmp_path / "none", {"other": [question(0)]})
    assert "the results name no group of these tasks" in notes(tmp_path / "none", groups=True)


def test_groups_in_a_circle_do_not_hang(tmp_path):
    run = put(tmp_path / "m", {"a": [question(0)]}, group_subtasks={"g": ["a", "h"], "h": ["g"]})
    assert read(run, groups=True).datasets[0] in ("g", "h")


# --- Runs


def test_what_holds_for_many_tasks_is_said_once(tmp_path):
    tasks = {f"t{i}": [choice(0, 1, [-1.0, -2.0])] for i in range(4)}
    for model in ("m", "n"):
        run = put(tmp_path / model, tasks, configs=dict.fromkeys(tasks, CHOICE))
    put(tmp_path / "n", {"ask": [question(0)]}, date=OLD)
    (run / f"samples_t3_{NEW}.jsonl").unlink()
    assert table_report(read(tmp_path)).notes == (
        f"{tmp_path}: metric acc, filter none; other metrics: acc_norm (4 tasks)",
        f"{tmp_path}: log-likelihoods are of the whole most likely choice (4 tasks)",
        f"{tmp_path}: ask: metric exact_match, filter none",
        f"{tmp_path}: t3: n has results but no samples",
    )


def test_latest_of_runs_that_are_alike(tmp_path):
    for date, score in ((OLD, 0), (NEW, 1)):
        put(tmp_path / "m", {"ask": [question(0, score)]}, date=date)
    assert_array_equal(read(tmp_path).scores, [[1]])
    assert f"ask: 2 runs of m, took the latest, {NEW}" in notes(tmp_path)
    assert_array_equal(read(tmp_path / "m" / f"samples_ask_{OLD}.jsonl").scores, [[0]])
    assert_array_equal(read(tmp_path / "m" / f"results_{OLD}.json").scores, [[0]])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shots": 5}, "with few-shot examples 0 here and 5 in"),
        ({"n-samples": {"ask": {"effective": 10}}}, "with documents 1 here and 10 in"),
        ({"versions": {"ask": 2}}, "with task version 3 here and 2 in"),
        ({"chat_template_sha": "cafe"}, "with chat template none here and cafe in"),
    ],
)
def test_runs_that_differ_are_not_chosen_between(tmp_path, changed, words):
    put(tmp_path / "m", {"ask": [question(0, 0)]}, date=OLD, **changed)
    put(tmp_path / "m", {"ask": [question(0, 1)]}, date=NEW, versions={"ask": 3})
    with pytest.raises(
        ValueError, match=f"{NEW}.jsonl: model 'm' has the task 'ask' in several"
    ) as e:
        read(tmp_path)
    assert words in str(e.value) and f"samples_ask_{OLD}.jsonl" in str(e.value)
    assert "by examples (shots, --shots), or take the 'latest' (runs, --runs)" in str(e.value)
    assert_array_equal(read(tmp_path, runs="latest").scores, [[1]])
    if "shots" in changed:
        assert_array_equal(read(tmp_path, shots=5).scores, [[0]])
        with pytest.raises(ValueError, match=r"no run has 1 few-shot .* runs with \[0, 5\]"):
            read(tmp_path, shots=1)


def test_a_copied_run_is_not_chosen(tmp_path):
    for folder in ("a", "b"):
        put(tmp_path / folder / "m", {"ask": [question(0)]})
    with pytest.raises(ValueError, match="their names do not say which is the latest"):
        read(tmp_path, runs="latest")


def test_unknown_words(tmp_path):
    run = put(tmp_path / "m", {"ask": [question(0)]})
    with pytest.raises(ValueError, match="runs is 'first', expected 'alike' or 'latest'"):
        read(run, runs="first")
    with pytest.raises(ValueError, match="prompt is 'doc', expected 'request' or 'instance'"):
        read(run, prompt="doc")


def test_results_without_samples(tmp_path):
    run = put(tmp_path / "m", {"ask": [question(0)]})
    (run / f"samples_ask_{NEW}.jsonl").unlink()
    for path in (run, tmp_path, run / f"results_{NEW}.json"):
        with pytest.raises(ValueError, match=r"results of 'm' but no samples .* --log_samples"):
            read(path)
    put(tmp_path / "other", {"ask": [question(0)]})
    with pytest.raises(ValueError, match=r"m/results_.*: found results of 'm' but no samples") as e:
        read(tmp_path)
    table = read(tmp_path, on_error="skip")
    assert (table.models, table.skipped) == (("other",), (str(e.value),))
    assert not any("no samples" in note for note in table_report(table).notes)
    # Another run of the model has them.
    put(tmp_path / "m", {"ask": [question(0)]}, date=OLD)
    assert read(tmp_path).models == ("m", "other")


# --- Names and prompts


@pytest.mark.parametrize(
    ("content", "model"),
    [
        ({"model_name": "org/named"}, "org/named"),
        ({"model_name": "", "config": {"model_args": "pretrained=org/args,dtype=x"}}, "org/args"),
        ({"config": {"model_args": {"pretrained": "org/base", "peft": "org/lora"}}}, "org/lora"),
        ({"model_name": None, "config": {"model_args": None}}, "the/folder"),
    ],
)
def test_name_of_the_model(tmp_path, content, model):
    assert read(put(tmp_path / "the__folder", {"ask": [question(0)]}, **content)).models == (model,)


def test_samples_without_results(tmp_path):
    run = put(tmp_path / "org__m", {"my_task_2": [question(7)]})
    (run / f"results_{NEW}.json").unlink()
    table = read(run)
    assert (table.models, table.datasets, table.sample_ids) == (("org/m",), ("my_task_2",), ["7"])
    assert table.prompts == ["Q: q7?\nA:"]
    assert read(run, prompt="instance").prompts == ["q7?"]


def test_prompts(tmp_path):
    rows = [question(0, context="Q: x?\nA: y\n\n")]
    run = put(tmp_path / "m", {"ask": rows}, shots=1)
    assert read(run).prompts == read(run, prompt="instance").prompts == ["Q: q0?\nA:"]
    assert read(run, prompt="request").prompts == ["Q: x?\nA: y\n\nQ: q0?\nA:"]
    code = dict(CONFIG, doc_to_text="def doc_to_text(doc):\n    return f'{{}}'\n")
    run = put(tmp_path / "m", {"ask": rows}, shots=1, configs={"ask": code})
    assert read(run).prompts == ["Q: x?\nA: y\n\nQ: q0?\nA:"]
    assert read(run, prompt="instance").prompts == ["q0?"]
    assert any("prompts are the requests" in note for note in notes(run))
    assert any("a field of the documents" in note for note in notes(run, prompt="instance"))
    rows[0]["doc"] = {"id": 3}
    run = put(tmp_path / "m", {"ask": rows}, configs={"ask": code})
    with pytest.raises(
        ValueError,
        match=r"doc has the fields \['id'\], expected one of .*\(prompt, --prompt-from\)",
    ):
        read(run, prompt="instance")
    put(tmp_path / "n", {"ask": rows}, configs={"ask": code}, shots=2)
    with pytest.raises(
        ValueError,
        match=r"few-shot examples of task 'ask' is .*\(prompt, --prompt-from\).*\(shots, --shots\)",
    ):
        read([tmp_path], prompt="request")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([["older", " a"], ["older", " b"]], "older"),
        ({"gen_args_0": {"arg_0": ['[{"role": "user", "content": "hi"}]'], "arg_1": {}}}, "hi"),
        ({"gen_args_0": {"arg_0": '[{"content": "be"}, {"content": "hi"}]'}}, "be\n\nhi"),
        ({"gen_args_0": {"arg_0": "[{ is no chat"}}, "[{ is no chat"),
    ],
)
def test_requests(tmp_path, arguments, text):
    run = put(tmp_path / "m", {"ask": [question(0, arguments=arguments)]})
    assert read(run, prompt="request").prompts == [text]


@pytest.mark.parametrize("arguments", [None, 3, {}, [], [3], {"gen_args_0": {"arg_1": "x"}}])
def test_no_request(tmp_path, arguments):
    run = put(tmp_path / "m", {"ask": [question(0, arguments=arguments)]})
    with pytest.raises(ValueError, match=r"line 1: arguments is .* expected a request's text"):
        read(run, prompt="request")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("q", " what? "),
        ("{{q}}", " what? "),
        ("{{ q.strip() }}\nA. {{choices[1]}}\n", "what?\nA. y\n"),
        ("{{q|trim}} {{n}} {{deep.er['x']}}", "what? 3 z"),
        ("{{n.strip()}}", "doc has 'n' 3, expected text"),
        ("{{q.format()}}", "calls format()"),
        ("{{choices[2]}}", "but doc_to_text names choices[2]"),
        ("{{none}}", "no field 'none'"),
        ("{% if q %}{{q}}{% endif %}", "no simple template"),
        ("{{q + q}}", "no simple template"),
        ("def f(doc):\n    return '{{q}}'", "no simple template"),
        ("plain", "no simple template"),
        (None, "no simple template"),
    ],
)
def test_text_of_a_document(template, expected):
    doc = {"q": " what? ", "choices": ["x", "y"], "n": 3, "deep": {"er": {"x": "z"}}}
    try:
        found = text_of(template, doc)
    except ValueError as error:
        assert expected in str(error)
    else:
        assert found == expected


# --- Files


def test_json_arrays_of_older_versions(tmp_path):
    """0.4.0: results.json, and <arguments>_<task>.jsonl with one indented array, no filter."""
    (tmp_path / "out").mkdir()
    rows = [question(i % 2, i // 2) for i in range(4)]
    for row in rows:
        row["arguments"] = [["Q: q?", {}]]
        del row["filter"], row["metrics"]
    configs = {
        task: dict(CONFIG, filter_list=[{"name": "strict"}, {"name": "loose"}])
        for task in ("ask", "my_ask")
    }
    content = {
        "results": {"my_ask": {"exact_match,loose": 1}},
        "configs": configs,
        "config": {"model": "hf", "model_args": "pretrained=org/m"},
    }
    (tmp_path / "out" / "results.json").write_text(json.dumps(content, indent=2))
    path = tmp_path / "out" / "pretrained__org__m_my_ask.jsonl"
    path.write_text(json.dumps(rows, indent=2))
    assert format_of(tmp_path) == format_of(path) == "lm-eval"
    table = read(tmp_path)
    assert (table.models, table.datasets) == (("org/m",), ("my_ask",))
    assert table.metrics == ("exact_match,loose",)
    assert_array_equal(table.scores, [[1], [1]])
    assert_array_equal(read(path, filter="strict").scores, [[0], [0]])
    path.rename(path.with_name(f"samples_my_ask_{OLD}.json"))
    del content["config"]
    (tmp_path / "out" / f"results_{OLD}.json").write_text(json.dumps(content))
    (tmp_path / "out" / "results.json").unlink()
    assert read(tmp_path).models == ("out",)


def test_a_document_twice_is_an_error_also_without_filters(tmp_path):
    rows = [question(0, 0), question(0, 1)]
    for row in rows:
        del row["filter"]
    run = put(tmp_path / "m", {"ask": rows})
    with pytest.raises(ValueError, match="line 2: duplicate"):
        read(run)
    assert len(read(run, on_error="skip").skipped) == 1


def test_broken_array(tmp_path):
    path = tmp_path / f"samples_t_{NEW}.json"
    path.write_text(json.dumps([question(0)])[:-5])
    with pytest.raises(ValueError, match=rf"{path.name}, line 1, column \d+: found the file's end"):
        read(path)


def test_array_items_are_named(tmp_path):
    path = tmp_path / f"samples_t_{NEW}.json"
    path.write_text(json.dumps([question(0), 5, question(1, "x")]))
    table = read(path, on_error="skip")
    assert table.sample_ids == ["0"]
    assert [message.partition(": ")[2] for message in table.skipped] == [
        "found 5, expected a JSON object",
        "exact_match is 'x', expected a finite number or nothing",
    ]
    assert "item 2" in table.skipped[0] and "item 3" in table.skipped[1]


def compress(data, how):
    if how == "gz":
        return gzip.compress(data)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("how", ["gz", "zst"])
def test_compressed(tmp_path, how):
    run = put(tmp_path / "m", {"ask": [question(0), question(1, 0)]})
    expected = read(run)
    for path in list(run.iterdir()):
        path.with_name(f"{path.name}.{how}").write_bytes(compress(path.read_bytes(), how))
        path.unlink()
    assert format_of(run) == "lm-eval"
    assert read(run) == expected
    path = run / f"samples_ask_{NEW}.jsonl.{how}"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{path.name}: not a whole"):
        read(run)


def test_bytes_that_trip_other_readers(tmp_path):
    rows = [question(2**63 + i, doc={"question": f"a\u2028b\u0085c{i}"}) for i in range(2)]
    run = put(tmp_path / "m", {"ask": rows})
    path = run / f"samples_ask_{NEW}.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    table = read(run)
    assert table.sample_ids == ["9223372036854775808", "9223372036854775809"]
    assert table.prompts == ["Q: a\u2028b\u0085c0\nA:", "Q: a\u2028b\u0085c1\nA:"]


def test_nan_six_ways(tmp_path):
    spelled = ["NaN", '"NaN"', '"nan"', "null", '""', '" NA "']
    run = put(tmp_path / "m", {"ask": [question(i, "@") for i in range(7)]})
    path = run / f"samples_ask_{NEW}.jsonl"
    data = path.read_bytes()
    for text in [*spelled, '"1e0"']:
        data = data.replace(b'"@"', text.encode(), 1)
    path.write_bytes(data)
    assert_array_equal(read(run).scores[:, 0], [NAN] * 6 + [1])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"doc_id": 1, "doc_id": 2}', "found the key 'doc_id' twice in one object"),
        ("{", "expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ('{"doc_id": 1.5, "filter": "none", "exact_match": 1}', "doc_id is 1.5, expected text or"),
        (
            '{"doc_id": null, "filter": "none", "exact_match": 1, "doc": {"question": "q"}}',
            "sample_id is None, expected text that is not blank",
        ),
        ('{"doc_id": 1, "filter": 3}', "filter is 3, expected text"),
        ('{"doc_id": 1, "filter": "none"}', "found no 'exact_match'"),
        (
            '{"doc_id": 1, "filter": "none", "exact_match": Infinity, "doc": {"question": "q"}}',
            "exact_match is inf, expected a finite number",
        ),
        (
            '{"doc_id": 1, "filter": "none", "exact_match": 1'
            + "0" * 400
            + ', "doc": {"question": "q"}}',
            "0…, expected a finite number",
        ),
        (
            '{"doc_id": 1, "filter": "none", "exact_match": 1, "doc": 3}',
            "doc is 3, expected a JSON",
        ),
        (
            '{"doc_id": 1, "filter": "none", "exact_match": 1, "doc": {"question": "\\ud800"}}',
            "found '\\ud800', half of a surrogate pair, expected text",
        ),
    ],
)
def test_bad_lines(tmp_path, line, words):
    run = put(tmp_path / "m", {"ask": [question(0)]})
    path = run / f"samples_ask_{NEW}.jsonl"
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(ValueError) as e:
        read(run)
    assert f"{path}, line 2: " in str(e.value) and words in str(e.value)
    table = read(run, on_error="skip")
    assert table.sample_ids == ["0"] and len(table.skipped) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"results": ', "line 1, column 13: found the file's end, expected a JSON object"),
        ('{"results": {}, "configs": 3}', "configs is 3, expected a JSON object"),
        ('{"results": {}, "configs": {"ask": 3}}', "ask is 3, expected a JSON object"),
        ('{"results": {"ask": 3}}', "ask is 3, expected a JSON object"),
        ('{"results": {}, "n-shot": 3}', "n-shot is 3, expected a JSON object"),
    ],
)
def test_bad_results(tmp_path, content, words):
    run = put(tmp_path / "m", {"ask": [question(0)]})
    path = run / f"results_{NEW}.json"
    path.write_text(content)
    with pytest.raises(ValueError) as e:
        read(run, shots=0 if "n-shot" in content else None)
    assert str(e.value).startswith(f"{path}{',' if 'column' in words else ':'} ")
    assert words in str(e.value)


def test_empty_samples(tmp_path):
    run = put(tmp_path / "m", {"ask": [question(0)]})
    (run / f"samples_ask_{NEW}.jsonl").write_bytes(b"\n")
    with pytest.raises(ValueError, match="is empty: found no JSON object"):
        read(run)


def test_a_table_of_ours_is_not_taken_for_it(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"model": "m", "sample_id": 1, "prompt": "p", "score": 1}\n')
    assert format_of(path) == "table"
    path.write_text('{"doc_id": 1, "model": "m", "prompt": "p", "score": 1}\n')
    assert format_of(path) == "table"
    with pytest.raises(IsADirectoryError):
        format_of(tmp_path)


def test_mutated_files_give_a_table_or_an_error_with_their_name(tmp_path):
    run = put(
        tmp_path / "m",
        {"ask": [question(0), question(1)], "pick": [choice(0, 1, ["-1", "-2"])]},
        configs={"pick": CHOICE},
        group_subtasks={"g": ["pick"]},
        model_name="org/m",
    )
    files = sorted(run.iterdir())
    whole = [path.read_bytes() for path in files]
    dice = random.Random(20260214)
    n_tables = 0
    for _ in range(400):
        at = dice.randrange(len(files))
        data = bytearray(whole[at])
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(len(data))
            new = bytes(dice.choices(b'{}[]",:0e-\n\xff\x00ntx', k=dice.randrange(3)))
            data[place : place + dice.randrange(1, 4)] = new
        files[at].write_bytes(data)
        try:
            read(run, groups=True, on_error=dice.choice(["raise", "skip"]))
            n_tables += 1
        except ValueError as error:
            assert str(run) in str(error)
        files[at].write_bytes(whole[at])
    assert 0 < n_tables < 400


# --- The harness itself

TASKS = {
    "tiny_pick_a": """output_type: multiple_choice
doc_to_text: "{{question.strip()}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    # The dummy model says "lol".
    "tiny_sum": """output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{reply}}"
generation_kwargs: {until: ["Q:"]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
filter_list:
  - name: strict
    filter: [{function: regex, regex_pattern: "#### (.+)"}, {function: take_first}]
  - name: loose
    filter: [{function: take_first}]
""",
    "tiny_likely": """output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{choices[0]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
}
TASKS["tiny_pick_b"] = TASKS["tiny_pick_a"]
GROUP = "group: tiny_group\ntask: [tiny_pick_a, tiny_pick_b]\n"


@pytest.mark.slow
def test_fresh_output_of_the_harness(tmp_path):
    docs = [
        {
            "question": f"What is {i} plus {i}?\u2028Say\u0085it.",
            "choices": [str(2 * i), str(2 * i + 1), "none of these"],
            "answer": i % 3,
            "reply": "lol" if i % 2 else "#### lol",
        }
        for i in range(6)
    ]
    (tmp_path / "docs.jsonl").write_bytes(lines(docs))
    for task, body in TASKS.items():
        (tmp_path / f"{task}.yaml").write_text(
            f"task: {task}\ndataset_path: json\ntest_split: test\nfewshot_split: test\n"
            f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'docs.jsonl'}}}}}\n{body}"
        )
    (tmp_path / "tiny_group.yaml").write_text(GROUP)
    for model, shots in (("org/none", "0"), ("org/two", "2")):
        run_harness(
            "lm-eval", "lm_eval", "--model", "dummy", "--model_args", f"pretrained={model}",
            "--tasks", "tiny_group,tiny_sum,tiny_likely", "--include_path", ".",
            "--num_fewshot", shots, "--log_samples", "--output_path", "out", folder=tmp_path,
        )  # fmt: skip
    out = tmp_path / "out"
    assert format_of(out) == "lm-eval"

    # Sample by sample, by code of its own.
    texts = {
        "tiny_pick_a": lambda doc: doc["question"] + "\nAnswer:",
        "tiny_pick_b": lambda doc: doc["question"] + "\nAnswer:",
        "tiny_sum": lambda doc: f"Q: {doc['question']}\nA:",
        "tiny_likely": lambda doc: doc["question"],
    }
    for filter_of_sum in ("strict", "loose"):
        expected = {}
        for path in out.glob("*/samples_*"):
            task = next(task for task in TASKS if path.name.startswith(f"samples_{task}_"))
            is_sum = task == "tiny_sum"
            metric, filter = ("exact_match", filter_of_sum) if is_sum else ("acc", "none")
            for row in records_of(path):
                if row["filter"] != filter:
                    continue
                likelihood = NAN
                if "pick" in task:
                    likelihood = max(float(response[0][0]) for response in row["resps"])
                key = path.parent.name.replace("__", "/"), task, str(row["doc_id"])
                expected[key] = row[metric], texts[task](docs[row["doc_id"]]), likelihood
        table = read(out, filter=filter_of_sum)
        assert table.models == ("org/none", "org/two") and len(expected) == 2 * 4 * 6
        check_every_value(table, expected)

        # The means are those that the harness reports.
        for j, model in enumerate(table.models):
            (path,) = out.glob(f"{model.replace('/', '__')}/results_*")
            reported = json.loads(path.read_bytes())["results"]
            for i, task in enumerate(table.datasets):
                key = f"exact_match,{filter_of_sum}" if task == "tiny_sum" else "acc,none"
                mean = table.scores[table.dataset == i, j].mean()
                assert mean == pytest.approx(reported[task][key])
    of_sum = table.scores[table.dataset == table.datasets.index("tiny_sum")]
    assert of_sum.mean() == 0.5  # "lol" to every second question
    assert read(out) == read(out, filter="strict") != table

    grouped = read(out, groups=True)
    assert grouped.datasets == ("tiny_group", "tiny_likely", "tiny_sum")
    assert sorted(grouped.sample_ids)[-1] == "tiny_pick_b/5"
    assert np.isnan(read(out, metric="perplexity").thresholds[table.datasets.index("tiny_likely")])
    with pytest.raises(ValueError, match="few-shot examples of task 'tiny_likely' is 2 for model"):
        read(out, prompt="request")
