"""Prices in files of their own, and in policies: read, checked, and put in place of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tables import make_table, unit_rows

from benchrouter import CostPolicy, Router
from benchrouter.tables.layouts.prices import read_prices

HEADER = "model,input_usd_per_million_tokens,output_usd_per_million_tokens"
FOUND = {"a": (0.15, 0.6), "b, large": (3.0, 15.0)}
NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '{"a": [0.15, 0.6], "b, large": [3, 15], "c": null, "d": [1, null]}'),
        (
            "p.JSON",
            '{"model_price_usd_per_million_tokens": {"a": [0.15, 0.6], "b, large": [3, 15]}, '
            '"metrics": {"d": "exact match"}}',
        ),
        ("p.csv", f'note,{HEADER}\nx,a,0.15,0.6\n,"b, large",3,1.5e1\n,c,,NaN\n,d,1, \n,e,NA,2\n'),
    ],
)
def test_prices_are_read_and_unknown_ones_left_out(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_prices(tmp_path / name) == FOUND


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.json", "{", "p.json, line 1, column 2: found the file's end, expected a JSON object"),
        ("p.json", "[]", r"p.json: found \[\], expected a JSON object"),
        ("p.json", '{"a": [1, 2], "a": [3, 4]}', "p.json: found the key 'a' twice in one object"),
        ("p.json", '{"a": 3}', r"of 'a' is 3, expected \[US\$ in, US\$ out\]"),
        ("p.json", '{"a": [1, -2]}', "expected prices >= 0 or null"),
        ("p.json", '{"a": null}', "p.json: found no price, expected one of a model at least"),
        ("p.txt", "a 1 2", "p.txt: the suffix is none of .json, .csv"),
        ("p.csv", "model,input,output\na,1,2\n", "no column 'input_usd_per_million_tokens'"),
        ("p.csv", f"{HEADER}\na,1,2\na,1,2\n", r"row 2 \(line 3\): found model 'a' a second time"),
        ("p.csv", f"{HEADER}\n,1,2\n", r"row 1 \(line 2\): found no model, expected one row"),
        ("p.csv", f"{HEADER}\na,1,$2\n", r"output_usd_per_million_tokens: found '\$2', expected"),
        ("p.csv", f"{HEADER}\na,1_0,2\n", "input_usd_per_million_tokens: found '1_0', expected US"),
        ("p.csv", f"{HEADER}\na,inf,2\n", "input_usd_per_million_tokens: found 'inf', expected US"),
        ("p.csv", f"{HEADER}\na,1\n", "row 1 .*: found 2 cells, expected 3"),
    ],
)
def test_bad_files_of_prices(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_prices(tmp_path / name)


def test_a_file_of_prices_that_is_not_there(tmp_path):
    for name in ("p.json", "p.csv"):
        with pytest.raises(FileNotFoundError, match=name):
            read_prices(tmp_path / name)


# --- in a policy ---------------------------------------------------------------------------------


def made(prices=None, cost=None):
    """A router of models of equal skill, so that only what they cost tells them apart."""
    names = ("gpt-a", "gpt-b", "other")
    table = make_table(np.ones((30, 3)), np.arange(30) % 3, models=names)
    if prices is not None:
        table = replace(table, prices=np.array(prices, float))
    if cost is not None:
        table = replace(table, cost_usd=np.broadcast_to(np.float32(cost), (30, 3)).copy())
    return Router.fit(table, embeddings=unit_rows(30, 4), label_shares=(0.0,))


QUERY = unit_rows(2, 4, seed=1)
TOKENS = np.array([1000, 2000])
THREE = {"gpt-a": (1, 2), "gpt-b": (2.0, 3.0), "other": (np.float64(4), 0)}


def test_a_router_without_prices_takes_those_of_the_policy():
    policy = CostPolicy(prices=THREE, output_tokens=500, cost_weight=float("inf"))
    found = made().route(embeddings=QUERY, policy=policy, tokens=TOKENS)
    assert found.names() == ["gpt-a", "gpt-a"]
    assert_allclose(found.cost_usd, [2e-3, 3e-3], rtol=1e-6)
    swapped = {**THREE, "gpt-a": (9, 9)}
    policy = replace(policy, prices=swapped)
    found = made().route(embeddings=QUERY, policy=policy, tokens=TOKENS)
    assert found.names() == ["gpt-b", "gpt-b"]
    assert_allclose(found.cost_usd, [3.5e-3, 5.5e-3], rtol=1e-6)


def test_prices_of_the_policy_take_the_place_of_others_and_of_recorded_costs():
    router = made(prices=[[1, 1], [2, 2], [3, 3]], cost=[0.3, 0.2, 0.1])
    policy = CostPolicy(output_tokens=0, prices={"gpt-b": (0.5, 0.5)}, cost_weight=1.0)
    found = router.route(embeddings=QUERY, policy=policy, tokens=TOKENS)
    assert found.names() == ["gpt-b", "gpt-b"]
    assert_allclose(found.cost_usd, [0.5e-3, 1e-3], rtol=1e-6)
    listed = replace(policy, prices=None, costs="prices")
    found = router.route(embeddings=QUERY, policy=listed, tokens=TOKENS)
    assert found.names() == ["gpt-a", "gpt-a"]  # those of the table are as they were
    assert router.route(embeddings=QUERY, policy=CostPolicy(cost_weight=1.0)).names() == [
        *("other", "other")
    ]


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (
            {**THREE, "gpt_a": (1, 1)},
            r"prices name 'gpt_a', no model .* like names it has \['gpt-a",
        ),
        ({"zzz": (1, 1)}, r"prices name 'zzz', no model of this router; it has \['gpt-a', 'gpt-b'"),
        ({"gpt-a": (1, 1)}, "no prices are known for gpt-b, other; give them"),
    ],
)
def test_names_that_are_none_and_models_without_prices(prices, words):
    policy = CostPolicy(prices=prices, output_tokens=1)
    with pytest.raises(ValueError, match=words):
        made().route(embeddings=QUERY, policy=policy, tokens=TOKENS)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"prices": [("a", 1)]}, TypeError, r"prices must map models to \(in, out\), got list"),
        ({"prices": {"a": 1.0}}, ValueError, "prices of 'a' must be two numbers .*, got 1.0"),
        ({"prices": {"a": (1, NAN)}}, ValueError, "prices of 'a' must be two numbers"),
        ({"prices": {"a": (1, -1)}}, ValueError, "prices of 'a' must be two numbers"),
        ({"prices": {"a": (True, 1)}}, ValueError, "prices of 'a' must be two numbers"),
        ({"prices": {"a": "12"}}, ValueError, "prices of 'a' must be two numbers"),
        (
            {"prices": {"a": (1, 1)}, "costs": "records"},
            ValueError,
            "prices go with costs 'prices', got costs 'records'",
        ),
    ],
)
def test_bad_prices_in_a_policy(fields, error, words):
    with pytest.raises(error, match=words):
        CostPolicy(**fields)


def test_tokens_come_with_the_batches_of_a_stream():
    router = made(prices=[[1, 1], [2, 2], [3, 3]])
    policy = CostPolicy(output_tokens=0)
    batches = [(None, QUERY[:1], TOKENS[:1]), (["x" * 40], QUERY[1:])]
    found = list(router.route_stream(batches, policy=policy))
    assert_allclose([d.cost_usd[0] for d in found], [1e-3, 1e-5], rtol=1e-6)
    weighed = replace(policy, budget_usd=1.01e-3)
    assert router.find_cost_weight(batches, weighed) == 0.0
    with pytest.raises(ValueError, match="budget_usd 0.001 is below .* cost, 0.00101"):
        router.find_cost_weight(batches, replace(policy, budget_usd=1e-3))
