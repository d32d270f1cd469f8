"""House rules that no linter knows."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import ase_crystalformer

ROOT = Path(__file__).parents[1]
PACKAGE = "ase_crystalformer"
LIBRARY = sorted((ROOT / PACKAGE).rglob("*.py"))
PROGRAMS = sorted((ROOT / "workflows").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))

LONGEST_FILE = 300
LONGEST_FUNCTION = 60


def name_of(path: Path) -> str:
    """What a failing test shows."""
    return path.relative_to(ROOT).as_posix()


def code_of(path: Path) -> str:
    """Python of a file, or of a notebook's cells without its magics."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in [*cell["source"], "\n"]]
    return "".join(line for line in lines if not line.startswith(("%", "!")))


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Every import as (module, name); the name is empty where the module itself is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def private_imports(tree: ast.AST) -> list[str]:
    """Imports from inside the package that it does not promise."""
    promised = {(PACKAGE, name) for name in ["", *ase_crystalformer.__all__]}
    ours = [pair for pair in imports(tree) if pair[0].partition(".")[0] == PACKAGE]
    return [".".join(filter(None, pair)) for pair in ours if pair not in promised]


def postponed_annotations(tree: ast.AST) -> bool:
    """Whether shapes are strings nobody checks."""
    return ("__future__", "annotations") in imports(tree)


def prints(tree: ast.AST) -> list[int]:
    """Lines that print."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]


def long_functions(tree: ast.AST, limit: int = LONGEST_FUNCTION) -> list[str]:
    """Functions of more lines than ``limit``, docstring not counted."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0] if ast.get_docstring(node) else None
            prose = said.end_lineno - said.lineno + 1 if said else 0
            if node.end_lineno - node.lineno + 1 - prose > limit:
                found.append(node.name)
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_library_file(path):
    code = code_of(path)
    tree = ast.parse(code)
    assert not postponed_annotations(tree)
    assert not prints(tree)
    assert not long_functions(tree)
    assert code.count("\n") <= LONGEST_FILE


@pytest.mark.parametrize("path", [*PROGRAMS, *NOTEBOOKS], ids=name_of)
def test_program_uses_only_public_names(path):
    assert not private_imports(ast.parse(code_of(path)))


def test_public_names_are_sorted_and_few():
    assert list(ase_crystalformer.__all__) == sorted(ase_crystalformer.__all__)
    assert len(ase_crystalformer.__all__) <= 20


@pytest.mark.parametrize(
    "line",
    [
        "from ase_crystalformer.graph import CrystalGraph",
        "from ase_crystalformer import collate",
        "import ase_crystalformer.graph",
    ],
)
def test_a_private_import_is_seen(line):
    assert private_imports(ast.parse(line))


def test_a_public_import_is_fine():
    assert not private_imports(
        ast.parse("import ase_crystalformer\nimport ase\nfrom os import path")
    )


def test_postponed_annotations_are_seen():
    assert postponed_annotations(ast.parse("from __future__ import annotations"))


def test_a_print_is_seen():
    assert prints(ast.parse("def f():\n    print('here')")) == [2]


def test_a_long_function_is_seen_and_its_docstring_forgiven():
    tree = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a')
    assert long_functions(tree, limit=2) == ["f"]
    assert not long_functions(tree, limit=3)
