"""Memory while a large data set is read and packed, and while batches are drawn from it.

python -m benchmarks.packing                     200,000 frames, half an hour on a quiet core
python -m benchmarks.packing --frames 400        does it work? (nothing is recorded)

Made-up frames are written into one JSON file as MPtrj is published. One process reads it under the
name ``mptrj`` and packs it; another opens what was packed and draws batches.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.data.readers import load
from ase_crystalformer.neighbours import Radius
from benchmarks.timing import machine

FRAMES = 200_000
PER_MATERIAL = 8
DIFFERENT = 2_000
BATCHES, BATCH = 300, 64

#: At which shares of the frames memory is looked at.
LOOKS = (0.0625, 0.125, 0.25, 0.5, 1.0)

PEROVSKITE = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
ELEMENTS = (("Ca", "Sr", "Ba", "La", "Pb"), ("Ti", "Zr", "Nb", "Mn", "Fe"), ("O", "F", "S"))

ABOUT = """\
Made by `python -m benchmarks.packing`: rattled perovskites of 5 atoms with energies, forces and
stresses, 8 frames of each material, in one JSON file in the form of MPtrj; 2,000 different frames,
over and over, each time under other names. "anonymous" is memory of the process itself (RssAnon of
Linux), "peak" the largest that was ever resident (VmHWM), which counts pages of mapped files. Both
hold the interpreter and its libraries.
"""

Row = Mapping[str, float]


def write_frames(path: Path, frames: int) -> None:
    """Write frames, a material at a time."""
    random = np.random.default_rng(0)
    texts = [json.dumps(_frame(random)) for _ in range(min(frames, DIFFERENT))]
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, frames, PER_MATERIAL):
            told = [
                f'"mp-{first}-0-{number}": {texts[number % len(texts)]}'
                for number in range(first, min(first + PER_MATERIAL, frames))
            ]
            file.write(f'{", " if first else "{"}"mp-{first}": {{{", ".join(told)}}}')
        file.write("}")


def _frame(random: np.random.Generator) -> dict[str, Any]:
    symbols = [str(random.choice(kinds)) for kinds in ELEMENTS]
    cell = np.diag(random.uniform(3.8, 4.4, 3))
    places = PEROVSKITE + random.normal(scale=0.01, size=PEROVSKITE.shape)
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "abc": place, "xyz": (place @ cell).tolist()}
        for symbol, place in zip([*symbols, symbols[2], symbols[2]], places.tolist(), strict=True)
    ]
    energy = float(random.normal(-35, 2))
    return {
        "structure": {"@class": "Structure", "lattice": {"matrix": cell.tolist()}, "sites": sites},
        "uncorrected_total_energy": energy,
        "corrected_total_energy": energy - 2.0,
        "force": random.normal(size=(5, 3)).tolist(),
        "stress": random.normal(scale=10, size=(3, 3)).tolist(),
        "magmom": None,
    }


def memory() -> tuple[float, float]:
    """Anonymous memory now, and the most that was ever resident, MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    told = dict(line.split(":", 1) for line in lines)
    anonymous, peak = (int(told[key].split()[0]) / 1024 for key in ("RssAnon", "VmHWM"))
    return anonymous, peak


def packing(folder: Path, frames: int) -> list[Row]:
    """Pack, and look at memory on the way."""
    looks = {round(share * frames) for share in LOOKS}
    rows: list[Row] = []
    start = time.perf_counter()

    def watched(crystals: Iterable[LabelledCrystal]) -> Iterator[LabelledCrystal]:
        for number, crystal in enumerate(crystals, 1):
            yield crystal
            if number in looks:
                anonymous, peak = memory()
                seconds = time.perf_counter() - start
                rows.append(
                    {"frames": number, "anonymous": anonymous, "peak": peak, "seconds": seconds}
                )

    pack(watched(load("mptrj", folder)), Radius(4.0), folder / "packed", labels=["energy"])
    return rows


def drawing(folder: Path) -> list[Row]:
    """Open what was packed, and draw batches."""
    before, _ = memory()
    packed = PackedCrystals(folder / "packed")
    opened, _ = memory()
    random = np.random.default_rng(0)
    for _ in range(BATCHES):
        packed.batch(random.integers(len(packed), size=BATCH))
    after, peak = memory()
    size = sum(path.stat().st_size for path in (folder / "packed").iterdir()) / 2**20
    told = {"before": before, "opened": opened, "drawn": after, "peak": peak}
    return [{"frames": len(packed), "disk": size, **told}]


def measure(frames: int) -> dict[str, Any]:
    """Write, pack and draw, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "MPtrj_2022.9_full.json"
        write_frames(source, frames)
        told = {step: _apart(step, folder, frames) for step in ("packing", "drawing")}
        facts = {"frames": frames, "json": source.stat().st_size / 2**20, "machine": machine()}
    return {"date": datetime.now(UTC).date().isoformat(), **facts, **told}


def _apart(step: str, folder: Path, frames: int) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.packing", "--step", step, "--frames", str(frames)]
    done = subprocess.run(
        [*command, "--folder", str(folder)], check=True, capture_output=True, text=True
    )
    return list(json.loads(done.stdout))


def markdown(told: Mapping[str, Any]) -> str:
    """Write the result as tables."""
    facts = ", ".join(f"{key} {value}" for key, value in told["machine"].items())
    rows, (drawn,) = told["packing"], told["drawing"]
    growth = (rows[-1]["anonymous"] - rows[0]["anonymous"]) * 2**20
    growth /= rows[-1]["frames"] - rows[0]["frames"]
    return "\n".join(
        [
            "# Packing",
            "",
            ABOUT,
            f"{told['date']}; {facts}",
            "",
            f"Reading and packing {told['json']:,.0f} MiB of JSON:",
            "",
            *_table(
                ("frames", "anonymous MiB", "peak MiB", "minutes"),
                (
                    (f"{r['frames']:,}", *_whole(r["anonymous"], r["peak"]), _minutes(r))
                    for r in rows
                ),
            ),
            "",
            f"From the first row to the last: {growth:.0f} bytes per frame.",
            "",
            f"Drawing {BATCHES} batches of {BATCH} from {drawn['frames']:,} frames, "
            f"{drawn['disk']:,.0f} MiB on disk:",
            "",
            *_table(
                ("anonymous MiB before", "set opened", "batches drawn", "peak MiB"),
                [_whole(*(drawn[key] for key in ("before", "opened", "drawn", "peak")))],
            ),
            "",
        ]
    )


def _whole(*values: float) -> tuple[str, ...]:
    return tuple(f"{value:,.0f}" for value in values)


def _minutes(row: Row) -> str:
    return f"{row['seconds'] / 60:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; record it where all frames were taken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--step", choices=("packing", "drawing"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step:
        done = packing(asked.folder, asked.frames) if asked.step == "packing" else None
        print(json.dumps(drawing(asked.folder) if done is None else done))
        return
    told = markdown(measure(asked.frames))
    print(told)
    if asked.frames == FRAMES:
        Path(__file__).with_suffix(".md").write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()
