"""One tree of errors: each public one derives from BenchrouterError and stands in its docstring."""

import importlib
import pkgutil
import re

import pytest

import benchrouter
from benchrouter.files import errors, json_objects

OPTIONAL = {"fastapi", "httpx", "litellm", "matplotlib", "ray", "starlette", "uvicorn"}
BUILTINS = {
    "BadInput": ValueError,
    "BadPrompt": ValueError,
    "BadRouter": ValueError,
    "CsvError": ValueError,
    "EncoderNotFound": FileNotFoundError,
    "NoCudaKernels": RuntimeError,
    "UnknownRouter": KeyError,
}


def public_errors():
    """Exception classes, warnings apart, of every module that can be imported here."""
    found = set()
    for module in pkgutil.walk_packages(benchrouter.__path__, "benchrouter."):
        if module.name.endswith("__main__"):
            continue
        try:
            members = vars(importlib.import_module(module.name))
        except ImportError as e:
            assert (e.name or "").partition(".")[0] in OPTIONAL, e
            continue
        found |= {
            value
            for name, value in members.items()
            if isinstance(value, type)
            and issubclass(value, Exception)
            and not issubclass(value, Warning)
            and value.__module__ == module.name
            and not name.startswith("_")
        }
    return found


def test_every_public_error_is_in_the_tree_and_its_docstring():
    found = public_errors()
    assert len(found) >= len(BUILTINS)
    outside = [kind for kind in found if not issubclass(kind, benchrouter.BenchrouterError)]
    assert not outside
    named = set(re.findall(r"^ *[├└│─ ]*(\w+)", errors.__doc__.partition("Each is")[0], re.M))
    assert {kind.__name__ for kind in found} <= named


@pytest.mark.parametrize("name", BUILTINS)
def test_an_error_is_also_the_builtin_that_says_the_same(name):
    (kind,) = [kind for kind in public_errors() if kind.__name__ == name]
    assert issubclass(kind, BUILTINS[name])


def test_a_damaged_router_is_told_apart(tmp_path):
    with pytest.raises(benchrouter.BadRouter, match=r"is not a router: it has no router\.json"):
        benchrouter.Router.load(tmp_path)


def test_a_bad_file_is_told_apart_from_a_wrong_argument(tmp_path):
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(benchrouter.BadInput, match="is empty: found no JSON object"):
        list(json_objects.objects(tmp_path / "results.jsonl"))
