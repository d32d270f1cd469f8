"""The programs of ``workflows/`` as modules, and as commands."""

import importlib
import sys
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).parents[1] / "workflows"


def program(name):
    """Import a program, and what lies beside it."""
    sys.path.insert(0, str(WORKFLOWS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(WORKFLOWS))


def run(name, monkeypatch, *arguments):
    """Run a program as its command does; return what it exits with, 0 or what is wrong."""
    module = program(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        program("programs").run(module.main, module.__doc__)
    return ended.value.code
