"""Importing is silent, offline and light, and training needs few libraries."""

import importlib.metadata
import subprocess
import sys
import textwrap

HEAVY = {
    "jarvis",
    "lightning",
    "matminer",
    "matplotlib",
    "pandas",
    "pymatgen",
    "pytorch_lightning",
    "sklearn",
    "tensorboard",
    "typer",
    "vesin",
}

#: What a machine that trains from packed tensors may lack.
ABSENT = HEAVY - {"lightning", "pytorch_lightning"} | {"ase", "spglib"}


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that has imported nothing yet, every warning an error."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def loaded_by(module: str) -> set[str]:
    """Top-level packages that importing ``module`` brings in, beyond those of torch."""
    done = run(f"""
        import sys, torch
        before = set(sys.modules)
        import {module}
        print(*{{name.partition(".")[0] for name in set(sys.modules) - before}})
    """)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_loads_nothing_heavy():
    loaded = loaded_by("ase_crystalformer")
    assert "ase_crystalformer" in loaded
    assert not loaded & HEAVY


def test_a_heavy_import_would_be_noticed():
    assert loaded_by("pandas") & HEAVY == {"pandas"}


def test_import_is_silent_and_offline():
    done = run("""
        import socket
        def refuse(*args, **kwargs): raise AssertionError("called out")
        socket.socket.connect = socket.getaddrinfo = refuse
        import ase_crystalformer
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_training_machines_need_few_libraries():
    done = run(f"""
        import sys
        import lightning.pytorch  # takes what it finds installed, but needs none of it
        for name in {sorted(ABSENT)}:
            sys.modules[name] = None  # importing it now raises ModuleNotFoundError
        import ase_crystalformer.data.loader, ase_crystalformer.data.packed
        import ase_crystalformer.encoders, ase_crystalformer.training.run
    """)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    done = run("""
        import ase_crystalformer
        for name in ase_crystalformer.__all__:
            getattr(ase_crystalformer, name)
    """)
    assert done.returncode == 0, done.stderr


def test_version_is_found_by_the_import_name():
    # Workflow engines record it so.
    assert importlib.metadata.version("ase_crystalformer")
