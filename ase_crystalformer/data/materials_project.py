"""Materials Project as it is today, asked of its own interface with the user's key."""

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ase_crystalformer.errors import DownloadFailed, MissingExtra
from ase_crystalformer.writing import whole

#: Crystals asked for at a time.
BLOCK = 1000

#: What is asked for of each.
FIELDS = (
    "material_id",
    "structure",
    "formation_energy_per_atom",
    "energy_above_hull",
    "energy_per_atom",
    "band_gap",
    "bulk_modulus",
    "shear_modulus",
    "total_magnetization_normalized_vol",
)

#: What they call a scalar, and what we call it.
SCALARS = {
    "formation_energy_per_atom": "formation_energy_per_atom",
    "energy_above_hull": "energy_above_hull",
    "energy_per_atom": "energy_per_atom",
    "band_gap": "band_gap",
    "total_magnetization_normalized_vol": "magnetization_per_volume",
}


def fetch_materials_project(
    path: Path, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Ask for every crystal, and write extended XYZ.

    The names of all crystals are asked for once and kept beside the file, as are blocks of
    crystals, until all have come: a second call goes on with the same names.

    Args:
        path: Where to; ``.extxyz.gz``. A file that is there is left as it is.
        progress: Called with the crystals that have come, and of how many.

    Raises:
        MissingExtra: The package mp-api is not installed.
        DownloadFailed: There is no key, or the interface does not answer, or answers with other
            crystals than those asked for; it names them.
    """
    if path.exists():
        return path
    try:
        from mp_api.client import MPRester
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"Asking Materials Project needs {error.name}: pip install 'ase-crystalformer[mp]'."
        ) from error
    blocks = path.with_name(f"{path.name}.blocks")
    blocks.mkdir(parents=True, exist_ok=True)
    try:
        with MPRester() as interface:
            come = _ask(interface.materials.summary, blocks, progress)
    except DownloadFailed:
        raise
    except Exception as error:  # the interface raises whatever it likes
        raise DownloadFailed(
            f"Materials Project does not answer ({type(error).__name__}: {error}). Is MP_API_KEY "
            "your key of https://next-gen.materialsproject.org/api? Call again to go on."
        ) from error
    _join(come, path)
    for block in blocks.iterdir():
        block.unlink()
    blocks.rmdir()
    return path


def _ask(summary: Any, blocks: Path, progress: Callable[[int, int], None] | None) -> list[Path]:
    """Ask for the crystals of each block not there yet, and name the blocks in their order."""
    names = _names(summary, blocks / "names.json")
    paths, done = [], 0
    for number, block in enumerate(_blocks(names)):
        path = blocks / f"{number:06d}-{len(block)}.extxyz.gz"
        if not path.exists():
            found = summary.search(material_ids=list(block), fields=list(FIELDS), all_fields=False)
            _write(path, _as_asked(found, block))
        paths.append(path)
        done += len(block)
        if progress:
            progress(done, len(names))
    return paths


def _names(summary: Any, path: Path) -> list[str]:
    """The names of all crystals, as they were when first asked for."""
    if not path.exists():
        for block in path.parent.glob("*.extxyz.gz"):
            block.unlink()  # of names nobody wrote down
        told = summary.search(fields=["material_id"], all_fields=False)
        names = sorted({str(document.material_id) for document in told})
        with whole(path) as partial:
            partial.write_text(json.dumps(names), encoding="utf-8")
    stored: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def _as_asked(documents: Iterable[Any], names: Sequence[str]) -> list[Any]:
    """Put the crystals in the order of the names asked for.

    Raises:
        DownloadFailed: There are others, or some are missing.
    """
    found = {str(document.material_id): document for document in documents}
    missing, others = sorted(set(names) - found.keys()), sorted(found.keys() - set(names))
    if missing or others:
        parts = [("without", missing), ("with", others)]
        told = " and ".join(
            f"{word} {', '.join(some[:5])}{f' and {len(some) - 5:,} more' if some[5:] else ''}"
            for word, some in parts
            if some
        )
        raise DownloadFailed(
            f"Materials Project answers {told}, and was asked for {len(names):,} crystals. Call "
            "again to go on; if it comes to the same, its data have changed meanwhile: remove the "
            "folder of blocks, and begin anew."
        )
    return [found[name] for name in names]


def _blocks(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + BLOCK] for start in range(0, len(names), BLOCK)]


def _write(path: Path, documents: Iterable[Any]) -> None:
    with whole(path) as partial, gzip.open(partial, "wt", encoding="utf-8") as file:
        for document in documents:
            file.write(frame_text(document))


def _join(blocks: Iterable[Path], path: Path) -> None:
    """Put gzip'd files one after the other, which is a gzip'd file again."""
    with whole(path) as partial, partial.open("wb") as file:
        for block in blocks:
            file.write(block.read_bytes())


def frame_text(document: Any) -> str:
    """Write a crystal of the interface as a frame of extended XYZ.

    Moduli are the averages of Voigt, Reuss and Hill.
    """
    structure = document.structure
    pairs: dict[str, Any] = {"material_id": str(document.material_id)}
    pairs |= {ours: getattr(document, theirs, None) for theirs, ours in SCALARS.items()}
    for name in ("bulk_modulus", "shear_modulus"):
        pairs[name] = (getattr(document, name, None) or {}).get("vrh")
    told = " ".join(f"{key}={value}" for key, value in pairs.items() if value is not None)
    cell = " ".join(f"{number:.8g}" for number in structure.lattice.matrix.ravel())
    head = f'Lattice="{cell}" Properties=species:S:1:pos:R:3 {told} pbc="T T T"'
    atoms = [
        f"{site.specie.symbol} " + " ".join(f"{number:.8f}" for number in site.coords)
        for site in structure
    ]
    return "\n".join([str(len(atoms)), head, *atoms]) + "\n"
