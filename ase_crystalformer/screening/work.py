"""What takes long: predictions and relaxations of a stream of structures, here or on a worker."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ase_crystalformer.errors import CrystalformerError
from ase_crystalformer.pretrained import load_model
from ase_crystalformer.relaxation import relax_each
from ase_crystalformer.relaxation.relaxed import Relaxed
from ase_crystalformer.screening.duplicates import fingerprint
from ase_crystalformer.screening.settings import Settings
from ase_crystalformer.screening.store import Result
from ase_crystalformer.structures import as_crystal, reduced_formula

if TYPE_CHECKING:
    from ase import Atoms

    from ase_crystalformer.model import CrystalModel

MOST_BREAKDOWNS = 10
"""So many unexpected errors in a row are no fault of the structures."""


class Order(NamedTuple):
    """What to do, in words that travel: for workers on other machines as well.

    Attributes:
        work: A name in ``WORK``.
        settings: How.
        device: ``"auto"`` takes a CUDA device if there is one.
    """

    work: str
    settings: Settings
    device: str = "auto"


Numbered: TypeAlias = tuple[int, str]
"""Number of a structure, and the structure as ``encode`` of ``ase.io.jsonio`` writes it."""


def carry_out(order: Order, structures: Iterable[Numbered]) -> Iterator[tuple[int, Result]]:
    """Work through a stream of structures; yield number and result as they are ready.

    Where something breaks that should not, every structure in hand is tried again on its own, and
    the one that breaks it fails by name.

    Raises:
        CrystalformerError: The order itself cannot be carried out.
        Exception: Ten structures in a row broke in unexpected ways.
    """
    stream, broken = iter(structures), Breakdowns()
    while True:
        at_work: dict[int, Numbered] = {}
        try:
            for done in _work(order, stream, at_work):
                yield from broken.forgiven()
                yield done
        except CrystalformerError:
            raise
        except Exception:
            if not at_work:  # the order or the stream itself broke
                raise
            yield from _one_by_one(order, list(at_work.values()), broken)
        else:
            yield from broken.forgiven()
            return


def attempt(order: Order, structures: Iterable[Numbered]) -> list[tuple[int, Result]]:
    """Work on a few structures.

    Raises:
        Exception: Something broke that should not.
    """
    return list(_work(order, structures, {}))


class Breakdowns:
    """Structures that failed in unexpected ways, until it is clear that the fault is theirs."""

    def __init__(self) -> None:
        self._failed: list[tuple[int, Result]] = []

    def note(self, number: int, error: BaseException) -> None:
        """Take down who failed.

        Raises:
            BaseException: The error, if too many failed in a row: the fault is elsewhere.
        """
        self._failed.append((number, Result.failed(f"{type(error).__name__}: {error}")))
        if len(self._failed) >= MOST_BREAKDOWNS:
            raise error

    def forgiven(self) -> list[tuple[int, Result]]:
        """Return those that failed since the last success, and begin anew."""
        failed, self._failed = self._failed, []
        return failed


def _work(
    order: Order, stream: Iterable[Numbered], at_work: dict[int, Numbered]
) -> Iterator[tuple[int, Result]]:
    from ase.io.jsonio import decode

    def draw() -> Iterator["Atoms"]:
        for index, item in enumerate(stream):
            at_work[index] = item
            yield decode(item[1])

    for index, result in WORK[order.work](order, draw()):
        yield at_work.pop(index)[0], result


def _one_by_one(
    order: Order, structures: list[Numbered], broken: Breakdowns
) -> Iterator[tuple[int, Result]]:
    for item in structures:
        try:
            done = attempt(order, [item])
        except CrystalformerError:
            raise
        except Exception as error:
            broken.note(item[0], error)
        else:
            yield from (*broken.forgiven(), *done)


# --------------------------------------------------------------------------------- the work


def _formation_energies(order: Order, stream: Iterator["Atoms"]) -> Iterator[tuple[int, Result]]:
    """Predict the formation energy of unrelaxed structures."""
    for index, found in _model(order.settings.property_model, order.device).each(stream):
        if isinstance(found, CrystalformerError):
            yield index, _refused(found)
        else:
            energy = found["formation_energy_per_atom"]
            yield index, Result(told={"unrelaxed_formation_energy_per_atom": energy})


def _relaxations(order: Order, stream: Iterator["Atoms"]) -> Iterator[tuple[int, Result]]:
    """Relax structures with the potential."""
    settings = order.settings
    found = relax_each(
        stream,
        model=_model(settings.model, order.device),
        fmax=settings.fmax,
        steps=settings.steps,
        relax_cell=settings.relax_cell,
        device=order.device,
    )
    for index, relaxed in found:
        if relaxed.error is not None:
            yield index, Result.failed(relaxed.error)
        else:
            yield index, _relaxed(relaxed)


def _relaxed(relaxed: Relaxed) -> Result:
    """Write down where a structure came to rest."""
    from ase.io.jsonio import encode

    assert relaxed.atoms is not None
    atoms = relaxed.atoms.copy()
    formula = reduced_formula(atoms)
    told = {
        "formula": formula,
        "converged": relaxed.converged,
        "steps": relaxed.steps,
        "energy": relaxed.energy,
        "energy_per_atom": relaxed.energy / len(atoms),
        "fmax": relaxed.fmax,
        "volume_per_atom": atoms.cell.volume / len(atoms) or None,
        "fingerprint": [round(number, 6) for number in fingerprint(as_crystal(atoms))],
    }
    if relaxed.energy_uncertainty is not None:
        told["energy_uncertainty_per_atom"] = relaxed.energy_uncertainty / len(atoms)
    if relaxed.novelty is not None:
        told["novelty"] = float(relaxed.novelty.max())
    return Result(told=told, atoms=encode(atoms))


def _properties(order: Order, stream: Iterator["Atoms"]) -> Iterator[tuple[int, Result]]:
    """Predict all properties of relaxed structures."""
    for index, found in _model(order.settings.property_model, order.device).each(stream):
        if isinstance(found, CrystalformerError):
            yield index, _refused(found)
        else:
            numbers = {key: value for key, value in found.items() if isinstance(value, float)}
            yield index, Result(told=numbers)


def _refused(error: CrystalformerError) -> Result:
    return Result.failed(f"{type(error).__name__}: {error}")


@lru_cache(maxsize=4)
def _model(name: str, device: str) -> "CrystalModel":
    return load_model(name, device=device)


Work: TypeAlias = Callable[[Order, Iterator["Atoms"]], Iterator[tuple[int, Result]]]

WORK: dict[str, Work] = {
    "rank": _formation_energies,
    "relax": _relaxations,
    "predict": _properties,
}
