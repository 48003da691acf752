"""Imports go one way: each room may import the rooms before it, and no two modules import each other in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
ROOMS = (
    ("errors", "types"),
    ("files", "progress", "signals"),
    ("method",),
    ("metrics",),
    ("config",),
    ("verifiers",),
    ("tasks",),
    ("models",),
    ("sampling", "anchors"),
    ("runs",),
    ("report",),
    ("engines",),
    ("stages",),
    ("demo", "testing"),
    ("cli",),
    ("__main__",),
)
"""From the ground up; rooms of one line do not import each other. docs/architecture.md says what each holds."""
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
NOT_YET: set[tuple[str, str]] = set()
"""Imports (importer, imported) that still go the other way."""
CIRCLE_NOT_YET: set[tuple[str, str]] = set()


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of dphrl."""
    names = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def imports_of(path: Path, known: set[str]) -> set[str]:
    """Modules of dphrl that a file imports, at its head or within a function."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= (inner & known) or {node.module}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return imported & known


def graph() -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    found = modules()
    return {name: imports_of(path, set(found)) for name, path in found.items()}


def room(module: str) -> str:
    """dphrl.method.eta -> method."""
    return module.split(".")[1]


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in modules() if "." in name} <= LEVEL.keys()


def test_imports_go_one_way() -> None:
    wrong = {
        (importer, imported)
        for importer, targets in graph().items()
        for imported in targets
        if "." in importer and "." in imported and room(importer) != room(imported)
        if LEVEL[room(importer)] <= LEVEL[room(imported)]
    }
    assert wrong == NOT_YET


def test_no_circle() -> None:
    """Within a room too, imports inside functions among them; `dphrl` itself only names what it loads late."""
    edges = {name: targets - {"dphrl"} for name, targets in graph().items() if name != "dphrl"}
    for importer, imported in CIRCLE_NOT_YET:
        edges[importer].discard(imported)
    try:
        list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
