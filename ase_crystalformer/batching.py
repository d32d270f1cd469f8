"""Many structures through a model: batches of equal work, in which a bad structure fails alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import torch

from ase_crystalformer.errors import CrystalformerError, OutOfMemory
from ase_crystalformer.graph import CrystalGraph, collate

T = TypeVar("T")

Numbered: TypeAlias = tuple[int, T | CrystalformerError]

#: Work in a batch, in edges: enough to keep the device busy, little enough to fit it.
BUDGET = {"cpu": 20_000, "cuda": 400_000}

#: What an atom costs, in edges.
PER_ATOM = 20


def work(graph: CrystalGraph) -> int:
    """Estimate what a crystal costs, in edges."""
    return graph.edges + PER_ATOM * graph.atoms


def budget_of(device: torch.device) -> int:
    """How much work a batch on this device may hold."""
    return BUDGET.get(device.type, BUDGET["cpu"])


def in_batches(
    structures: Iterable[Any],
    draw: Callable[[Any], CrystalGraph],
    compute: Callable[[CrystalGraph], Sequence[T | CrystalformerError]],
    device: torch.device,
) -> Iterator[Numbered[T]]:
    """Draw structures, compute them in batches, and yield number and result as they are ready.

    Results come in any order. A structure that cannot be drawn or computed yields its error. A
    batch that does not fit the memory is halved until it does.
    """
    waiting: list[tuple[int, CrystalGraph]] = []
    spent = 0
    for number, structure in enumerate(structures):
        try:
            graph = draw(structure)
        except CrystalformerError as error:
            yield number, error
            continue
        except MemoryError:
            yield number, OutOfMemory("Its edges do not fit the memory. Use a smaller cell.")
            continue
        if waiting and spent + work(graph) > budget_of(device):
            yield from _halving(waiting, compute)
            waiting, spent = [], 0
        waiting.append((number, graph))
        spent += work(graph)
    if waiting:
        yield from _halving(waiting, compute)


def _halving(
    batch: list[tuple[int, CrystalGraph]],
    compute: Callable[[CrystalGraph], Sequence[T | CrystalformerError]],
) -> Iterator[Numbered[T]]:
    numbers = [number for number, _ in batch]
    try:
        results = compute(collate([graph for _, graph in batch]))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        results = None
    if results is not None:
        yield from zip(numbers, results, strict=True)
    elif len(batch) == 1:
        graph = batch[0][1]
        yield (
            numbers[0],
            OutOfMemory(
                f"{graph.atoms} atoms with {graph.edges} edges do not fit the memory. Use a "
                "smaller cell, or a device with more memory."
            ),
        )
    else:
        middle = len(batch) // 2
        yield from _halving(batch[:middle], compute)
        yield from _halving(batch[middle:], compute)


def out_of_memory(error: Exception) -> bool:
    """Whether NumPy or PyTorch failed for want of memory, on any device and system."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in ("not enough memory", "can't allocate memory"))
