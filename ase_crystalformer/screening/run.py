"""A screening from files of candidates to a table of the best; what is done is not done again."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tqdm.auto import tqdm

from ase_crystalformer.errors import BadRecipe, unknown_name
from ase_crystalformer.model_file import read_card
from ase_crystalformer.pretrained import WEIGHTS, describe, find_model
from ase_crystalformer.screening.cluster import workers
from ase_crystalformer.screening.conditions import Condition
from ase_crystalformer.screening.duplicates import find_duplicates
from ase_crystalformer.screening.intake import Intake, read_candidates
from ase_crystalformer.screening.outputs import FORMATS, Screened, write_outputs
from ase_crystalformer.screening.references import (
    entry_of,
    hold_against,
    holds_energies,
    read_references,
)
from ase_crystalformer.screening.settings import Settings, digest, hold_to
from ase_crystalformer.screening.store import Result, Store
from ase_crystalformer.screening.table import Table, check_parquet
from ase_crystalformer.screening.work import Numbered, Order, carry_out
from ase_crystalformer.stability.known_phases import KNOWN
from ase_crystalformer.structure_files import expand, read_structures

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry

STORE = "screening.db"

RESULTS = (STORE, *(f"selected.{suffix}" for suffix in FORMATS))
"""What could be taken for candidates where these lie in the folder of results itself."""

FORMATION = "formation_energy_per_atom"

CarryOut: TypeAlias = Callable[[Order, Iterable[Numbered]], Iterator[tuple[int, Result]]]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is shown of the results; it may change from one call to the next.

    Attributes:
        where: Condition on the columns of the table; ``None`` selects all that went through.
        hull: File or folder of known phases, or ``"known"`` for those of the package, whatever
            files there are.
        top: How many candidates the report shows.
        structures: Suffix of the file of selected structures: ``"extxyz"`` or ``"db"``.
    """

    where: str | None = None
    hull: str | None = None
    top: int = 12
    structures: str = "extxyz"

    def __post_init__(self) -> None:
        if self.structures not in FORMATS:
            raise unknown_name("format of structures", self.structures, FORMATS)


def run_screening(
    candidates: Sequence[str],
    out: Path,
    settings: Settings,
    selection: Selection,
    *,
    device: str = "auto",
    scheduler: str | None = None,
    cluster: Path | None = None,
    progress: bool = True,
) -> Screened:
    """Screen candidates; see ``screen``."""
    check_parquet()
    if scheduler and cluster:
        raise BadRecipe("Give the address of a scheduler or a cluster to begin, not both.")
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(out / STORE))
        made = [out, *(out / name for name in RESULTS)]
        files = [path for path, problem in expand(candidates, made=made) if not problem]
        hold_to(store, settings, files)
        screening = Screening(store, settings, device, progress, made)
        Condition(selection.where, screening.table(hull=selection.hull is not None))
        if scheduler or cluster:
            reached = stack.enter_context(workers(scheduler=scheduler, cluster=cluster))
            screening.carry_out = reached.carry_out
        screening.run(candidates)
        if selection.hull is not None:
            screening.hold_against(selection.hull)
        table = screening.table(hull=selection.hull is not None)
        condition = Condition(selection.where, table)
        return write_outputs(out, table, condition, selection.top, selection.structures)


class Screening:
    """The stages, one after the other, each going on where it was."""

    def __init__(
        self, store: Store, settings: Settings, device: str, progress: bool, made: list[Path]
    ) -> None:
        self.store, self.settings, self.progress, self.made = store, settings, progress, made
        absolute = replace(
            settings,
            model=_findable(settings.model),
            property_model=_findable(settings.property_model),
        )
        self.order = Order("", absolute, device)
        self.carry_out: CarryOut = carry_out
        self.stages = ["read"]
        self.card = read_card(find_model(settings.model))
        self.properties = dict(describe(settings.property_model).units)
        if settings.keep is not None and FORMATION not in self.properties:
            raise BadRecipe(
                f"Model {settings.property_model!r} predicts no {FORMATION}, by which the best are "
                "kept. Use another property model, or keep all."
            )

    def table(self, *, hull: bool) -> Table:
        """Make the table of what there is so far."""
        calibrated = self.card.get("uncertainty") is not None
        return Table(self.store, self.stages, self.properties, calibrated=calibrated, hull=hull)

    def run(self, candidates: Sequence[str]) -> None:
        """Go from files to relaxed structures and their properties."""
        self._read(candidates)
        if not self.settings.duplicates:
            self._remove_duplicates("unique", of="read", key=None)
        rank = None
        if FORMATION in self.properties:
            self._work("rank", source="read")
            rank = f"unrelaxed_{FORMATION}"
        if self.settings.keep is not None:
            self._keep(str(rank))
        self._work("relax", source="read", key=rank)
        if not self.settings.duplicates:
            self._remove_duplicates("distinct", of="relax", key="energy_per_atom")
        self._work("predict", source="relax")

    def hold_against(self, phases: str) -> None:
        """Tell energies above the hull of known phases."""
        corrected = bool(self.card["energy_scale"] == "mp")
        mark, known = self._known_phases(phases, corrected=corrected)
        last, stage = self.stages[-1], f"hull {mark}"
        self.stages.append(stage)
        systems = dict(self.store.told("read", "system"))
        energies = dict(self.store.told("relax", "energy"))
        waiting = [(number, systems[number]) for number in self.store.waiting(stage, last)]

        def entry(number: int) -> Any:
            return entry_of(
                self.store.atoms("relax", number), energies[number], corrected=corrected
            )

        self._note(stage, hold_against(known, waiting, entry), len(waiting))

    def _known_phases(
        self, phases: str, *, corrected: bool
    ) -> "tuple[str, list[ComputedEntry] | None]":
        """Read or compute known phases; what marks them, and ``None`` for those of the package."""
        if phases == KNOWN and corrected:
            return KNOWN, None
        if phases == KNOWN:
            raise BadRecipe(
                f"The phases of the package stand on Materials Project's scale, the energies of "
                f"{self.settings.model!r} do not. Name a file or folder of known phases."
            )
        files = [file for file, problem in expand([phases], made=self.made) if not problem]
        if not files:
            raise BadRecipe(
                f"{phases}: there is no such file or folder of known phases. {KNOWN!r} takes those "
                "of the package."
            )
        mark = digest(files)
        if len(files) == 1 and holds_energies(files[0]):
            return mark, read_references(files[0], corrected=corrected)
        return mark, list(self._computed(phases, mark, corrected=corrected))

    def _read(self, candidates: Sequence[str]) -> None:
        if self.store.fact("read"):
            return
        done = len(self.store.numbers("read", None))
        with self._bar("read", None, done) as bar:
            for number, name, result in read_candidates(
                candidates, self.settings, done, made=self.made
            ):
                self.store.enter("read", number, name, result)
                bar.update()
        self.store.remember("read", True)

    def _remove_duplicates(self, stage: str, *, of: str, key: str | None) -> None:
        """Leave out what resembles another; where there is a key, the lowest stays."""
        last = self.stages[-1]
        through = set(self.store.numbers(last))
        marks = dict(self.store.told(of, "fingerprint"))
        formulas = dict(self.store.told(of, "formula"))
        order = dict(self.store.told(of, key)) if key else {}
        numbers = sorted(through, key=lambda number: (order.get(number, 0.0), number))
        found = find_duplicates(
            ((number, formulas[number], marks[number]) for number in numbers),
            lambda number: self.store.atoms(of, number),
            lambda number: self.store.name("read", number),
            lambda number: self.store.result(stage, number),
        )
        self._note(stage, found, len(self.store.waiting(stage, last)))
        self.stages.append(stage)

    def _keep(self, key: str) -> None:
        """Leave out all but the best."""
        if not sum(self.store.counts("keep").values()):
            ranked = sorted((energy, number) for number, energy in self.store.told("rank", key))
            kept = self.settings.kept_of(len(ranked))
            reason = {"reason": f"Not among the {kept} of lowest predicted formation energy."}
            results = [
                (number, Result(told={key: energy}))
                if place < kept
                else (number, Result(outcome="left out", told={key: energy} | reason))
                for place, (energy, number) in enumerate(ranked)
            ]
            self.store.add("keep", results)
        self.stages.append("keep")

    def _work(self, stage: str, *, source: str, key: str | None = None) -> None:
        waiting = self.store.waiting(stage, self.stages[-1], key)
        items = ((number, self.store.atoms(source, number)) for number in waiting)
        self._note(stage, self._done(stage, items, len(waiting)), len(waiting))
        self.stages.append(stage)

    def _done(
        self, work: str, items: Iterable[Numbered], count: int
    ) -> Iterator[tuple[int, Result]]:
        """Work through structures; no model is loaded for none."""
        return self.carry_out(self.order._replace(work=work), items) if count else iter(())

    def _note(self, stage: str, found: Iterator[tuple[int, Result]], count: int) -> None:
        done = sum(self.store.counts(stage).values())
        with self._bar(stage, done + count, done) as bar:
            for number, result in found:
                self.store.add(stage, [(number, result)])
                bar.update()

    def _computed(self, path: str, mark: str, *, corrected: bool) -> "Iterator[ComputedEntry]":
        """Relax known phases with the potential, so that its errors cancel in differences."""
        read, relaxed = f"phases {mark}", f"relaxed {mark}"
        intake = Intake(replace(self.settings, balanced=False))  # alloys hold a hull up too
        done = len(self.store.numbers(read, None))
        for number, found in enumerate(read_structures([path], made=self.made)):
            if number >= done:
                self.store.enter(read, number, found.name, intake.check(found))
        waiting = self.store.waiting(relaxed, read)
        items = ((number, self.store.atoms(read, number)) for number in waiting)
        self._note(relaxed, self._done("relax", items, len(waiting)), len(waiting))
        for number, energy in self.store.told(relaxed, "energy"):
            name = self.store.name(read, number)
            text = self.store.atoms(relaxed, number)
            yield entry_of(text, energy, corrected=corrected, name=name)

    def _bar(self, stage: str, total: int | None, done: int) -> Any:
        name = stage.partition(" ")[0]
        shown = self.progress and (total is None or total > done)
        return tqdm(
            total=total,
            initial=done,
            desc=f"{name:8}",
            unit=" candidates",
            disable=not shown,
            file=sys.stderr,
        )


def _findable(name: str) -> str:
    """Write a model so that a process in another folder finds it."""
    path = find_model(name)
    return name if path.parent == WEIGHTS else str(path.absolute())
