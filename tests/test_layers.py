"""Imports point down, and an import that does not is caught."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "ase_crystalformer"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the layers of the package in ``root``."""
    code = "from importlinter.cli import lint_imports_command as check; check()"
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package to break."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    bare = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=bare)
    return tmp_path


def test_layers_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("units", "import ase_crystalformer.graph", "Imports point down"),
        (
            "nn/sabotage",
            "import ase_crystalformer.graph",
            "know tensors and nothing about crystals",
        ),
        ("graph", "def later():\n    import pymatgen.core", "Networks need torch alone"),
        ("nowhere", "", "Imports point down"),
    ],
)
def test_a_breach_is_caught(copy, module, line, contract):
    with (copy / PACKAGE / f"{module}.py").open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode != 0
    assert contract in done.stdout
