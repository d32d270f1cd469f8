"""Batches fit the memory, and lose nothing."""

import pytest
import torch
from ase.build import bulk
from factories import CONFIG

from ase_crystalformer import batching
from ase_crystalformer.batching import in_batches
from ase_crystalformer.errors import BadStructure, OutOfMemory
from ase_crystalformer.neighbours import Radius, build

CPU = torch.device("cpu")


def draw(atoms):
    return build(atoms, Radius(CONFIG["cutoff"]))


def counted(graph):
    return graph.crystal.bincount().tolist()


@pytest.fixture
def structures():
    return [bulk("Cu").repeat((n, 1, 1)) for n in (3, 1, 2, 1, 4, 1)]


def test_every_structure_is_there_once(structures):
    found = dict(in_batches(structures, draw, counted, CPU))
    assert found == {0: 3, 1: 1, 2: 2, 3: 1, 4: 4, 5: 1}


def test_batches_hold_no_more_than_the_budget(structures, monkeypatch):
    one = batching.work(draw(structures[1]))
    monkeypatch.setitem(batching.BUDGET, "cpu", 3 * one)
    sizes = []

    def compute(graph):
        sizes.append(graph.atoms)
        return counted(graph)

    found = dict(in_batches(structures, draw, compute, CPU))
    assert sizes == [3, 3, 1, 4, 1]  # four atoms are too many, and yet must be computed
    assert len(found) == 6


def out_of_memory_above(atoms):
    def compute(graph):
        if graph.atoms > atoms:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return counted(graph)

    return compute


def test_a_batch_that_does_not_fit_is_halved(structures):
    found = dict(in_batches(structures, draw, out_of_memory_above(4), CPU))
    assert found == {0: 3, 1: 1, 2: 2, 3: 1, 4: 4, 5: 1}


def test_a_structure_that_never_fits_fails_alone(structures):
    found = dict(in_batches(structures, draw, out_of_memory_above(2), CPU))
    assert isinstance(found[0], OutOfMemory)
    assert isinstance(found[4], OutOfMemory)
    assert "4 atoms with" in str(found[4])
    assert {number: found[number] for number in (1, 2, 3, 5)} == {1: 1, 2: 2, 3: 1, 5: 1}


def test_a_structure_that_cannot_be_drawn_fails_alone(structures):
    structures[2] = "NaCl.cif"
    found = dict(in_batches(structures, draw, counted, CPU))
    assert isinstance(found.pop(2), BadStructure)
    assert found == {0: 3, 1: 1, 3: 1, 4: 4, 5: 1}


def test_other_failures_are_not_hidden(structures):
    def compute(graph):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        dict(in_batches(structures, draw, compute, CPU))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError()],
)
def test_a_processor_without_memory_is_known(structures, error):
    def compute(graph):
        if graph.atoms > 2:
            raise error
        return counted(graph)

    found = dict(in_batches(structures, draw, compute, CPU))
    assert [number for number, one in found.items() if isinstance(one, OutOfMemory)] == [0, 4]


def test_edges_that_do_not_fit_fail_alone(structures):
    def drawn(atoms):
        if len(atoms) == 4:
            raise MemoryError
        return draw(atoms)

    found = dict(in_batches(structures, drawn, counted, CPU))
    assert isinstance(found.pop(4), OutOfMemory)
    assert len(found) == 5
