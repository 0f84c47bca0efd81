"""The rooms of the package and what they import, read from the source.

`python docs/rooms.py` prints the picture of docs/architecture.md; `--write` updates the page.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "benchrouter"
PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->\n"

# A room imports only those before it.
ORDER = (
    *("files", "prompts", "tables", "embeddings", "neighbours", "votes", "scores", "decisions"),
    *("router", "demo", "evaluation", "serving", "client", "integrations", "cli", "__main__"),
)
LINE = ORDER[1:9]  # prompts → … → router: drawn as the middle of the picture


def imports() -> dict[str, set[str]]:
    """Read which module imports which, within the package; lazy imports and TYPE_CHECKING count.

    Returns
    -------
    dict of str to set of str
        Dotted names, without "benchrouter."; the extension is "_core", the package's own file "".
    """
    modules = {_name(path): path for path in PACKAGE.rglob("*.py")} | {"_core": None}
    return {name: _imported(name, path, modules) for name, path in modules.items()}


def rooms(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """Gather imports of modules to imports of rooms, without the extension and the root's file."""
    found: dict[str, set[str]] = {}
    for name, imported in modules.items():
        of_room = found.setdefault(_room(name), set())
        of_room |= {_room(other) for other in imported} - {_room(name)}
    known = set(ORDER) & set(found)
    return {room: found[room] & known for room in ORDER if room in known}


def cycles(modules: dict[str, set[str]]) -> list[list[str]]:
    """Find groups of modules that import each other, directly or through others."""
    reached = {name: _reached(name, modules) for name in modules}
    groups = {
        tuple(sorted(m for m in reached[name] if name in reached[m]))
        for name in modules
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def picture() -> str:
    """Draw the rooms as a Mermaid graph; an arrow that follows from others is left out."""
    of_rooms = rooms(imports())
    lines = ["```mermaid", "graph LR"]
    for room, imported in of_rooms.items():
        indirect = {far for near in imported for far in _reached(near, of_rooms)}
        lines += [f"    {other} --> {room}" for other in ORDER if other in imported - indirect]
    lines += [f"    class {','.join(LINE)} line", "    classDef line stroke-width:3px", "```"]
    return "\n".join(lines) + "\n"


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    return module.partition(".")[0]


def _imported(name: str, path: Path | None, modules: dict[str, Path | None]) -> set[str]:
    found: set[str] = set()
    if path is None:
        return found
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: found a relative import")
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in named:
            root, _, inside = full.partition(".")
            if root == PACKAGE.name:
                found.add(inside if inside in modules else inside.rpartition(".")[0])
    return found - {name}


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += graph.get(name, ())
    return found


if __name__ == "__main__":
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + picture() + END + rest.partition(END)[2], encoding="utf-8")
    else:
        print(picture(), end="")
