"""Thousands of candidates in, the few worth computing out: stage by stage, nothing twice."""

from pathlib import Path
from typing import Any

from ase_crystalformer.screening.outputs import Screened
from ase_crystalformer.screening.run import Selection, run_screening
from ase_crystalformer.screening.settings import Settings

__all__ = ["Screened", "screen"]


def screen(  # noqa: PLR0913  everything a screening may be told
    candidates: str | Path | list[str | Path],
    out: str | Path,
    *,
    where: str | None = None,
    hull: str | Path | None = None,
    keep: str | int | None = None,
    model: str = "default",
    property_model: str = "default-properties",
    closest: float = 0.6,
    balanced: bool = False,
    duplicates: bool = False,
    fmax: float = 0.05,
    steps: int = 500,
    relax_cell: bool = True,
    top: int = 12,
    structures: str = "extxyz",
    device: str = "auto",
    scheduler: str | None = None,
    cluster: str | Path | None = None,
    progress: bool = True,
) -> Screened:
    """Screen candidates: check, rank, relax, predict, hold against a hull, select.

    Results are kept in ``out`` one by one. Called again after an interrupt of whatever kind, it
    goes on where it was. Between calls ``where``, ``hull``, ``top`` and ``structures`` may change:
    no candidate is relaxed anew for them.

    Stages, by the names they have in the table and the report:

    * ``read``: unreadable structures, elements unknown to a model and atoms too close fail.
    * ``unique``: structures the same as an earlier one are left out (pymatgen's StructureMatcher,
      asked where average distances to neighbours agree).
    * ``rank`` and ``keep``: all but those of lowest predicted formation energy are left out.
    * ``relax``: atoms and cells, in batches; the best ranked first.
    * ``distinct``: of structures that became the same the lowest in energy stays.
    * ``predict``: all properties of the property model.
    * ``hull``: energy above the hull of known phases, on Materials Project's corrected scale where
      the potential stands on its uncorrected one.
    * ``where``: the condition.

    Args:
        candidates: Files, folders or glob patterns, as of the command line.
        out: A folder. Gets ``candidates.parquet`` (one row per candidate, whatever became of it),
            ``selected.csv``, ``selected.extxyz`` (or ``.db``, not both), ``failures.csv``,
            ``report.html``, ``report.png``, and the store ``screening.db``.
        where: A condition on the columns of the table, e.g. ``"band_gap > 1 and converged"``, as of
            ``pandas.eval``. It is true of no row that lacks a value it turns on, not with ``!=`` or
            ``not`` either; ``band_gap.isna()`` asks for those.
        hull: Known phases: a JSON list of pymatgen entries, a CSV table with ``formula`` and
            ``energy_per_atom`` (eV/atom, taken as it is), structures, which are relaxed with the
            same potential, or ``"known"``: the stable ones of Materials Project that come with the
            package (a file of that name is ``"./known"``). Where it knows no stable compound of the
            elements of a candidate, and that is deep below, ``hull_note`` says so;
            ``"hull_note.isna()"`` selects the others.
        keep: How many candidates of lowest predicted formation energy (eV/atom, unrelaxed) to
            relax: a number, or a share such as ``"20%"``.
        model: The potential: a name or a path.
        property_model: Predicts formation energies and properties.
        closest: Smallest distance between atoms, in sums of their covalent radii.
        balanced: Leave out compounds with non-metals whose charges cannot balance; else this is a
            column, ``balanced``.
        duplicates: Keep duplicates.
        fmax: Force below which a structure is relaxed, eV/Å.
        steps: How often a structure may move.
        relax_cell: Relax the cell too.
        top: How many candidates the report shows.
        structures: Format of the selected structures: ``"extxyz"`` or ``"db"``, ASE's database.
        device: ``"auto"`` takes a CUDA device if there is one.
        scheduler: Address of a Dask scheduler; its workers rank, relax and predict.
        cluster: A TOML file that begins workers, e.g. as SLURM jobs.
        progress: Show bars.

    Raises:
        BadRecipe: A setting is wrong, or ``out`` holds results of other settings; it names them.
        UnknownName: There is no such model or column.
        BadStructure: The known phases cannot be read.
        MissingExtra: pyarrow is not installed, or Dask where it is asked for.
    """
    sources = [candidates] if isinstance(candidates, str | Path) else candidates
    settings = Settings(
        model=str(model),
        property_model=str(property_model),
        closest=closest,
        balanced=balanced,
        duplicates=duplicates,
        keep=None if keep is None else str(keep),
        fmax=fmax,
        steps=steps,
        relax_cell=relax_cell,
    )
    selection = Selection(
        where=where, hull=None if hull is None else str(hull), top=top, structures=structures
    )
    where_to: dict[str, Any] = {"device": device, "scheduler": scheduler}
    return run_screening(
        [str(source) for source in sources],
        Path(out),
        settings,
        selection,
        cluster=None if cluster is None else Path(cluster),
        progress=progress,
        **where_to,
    )
