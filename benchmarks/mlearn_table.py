"""The mlearn table: what was judged on the same held-out frames, beside each other.

    python -m benchmarks.mlearn_table judged/default judged/mtp judged/snap judged/qsnap judged/nnp

Takes folders that ``crystalformer evaluate ... mlearn`` has written, and writes mlearn.md beside
this file. All must have judged the same frames.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_crystalformer.writing import whole

#: Statistic, its heading, and the factor to the unit of the heading.
SHOWN = (
    ("energy MAE", "Energy, meV/atom", 1.0),
    ("force MAE", "Force components, meV/Å", 1000.0),
    ("stress MAE", "Stress, meV/Å³", 1.0),
)

#: What tables call a model.
NAMES = {
    "default": "ours, small",
    "accurate": "ours, accurate",
    "benchmarks.published_potentials:mtp": "MTP",
    "benchmarks.published_potentials:snap": "SNAP",
    "benchmarks.published_potentials:qsnap": "qSNAP",
    "benchmarks.published_potentials:nnp": "NNP",
    "benchmarks.peers:chgnet": "CHGNet",
    "benchmarks.peers:sevennet": "SevenNet-0",
}

HEAD = """\
# mlearn: one potential for everything beside potentials of one element

Frames that are held out of our training, from the training part of mlearn (Y. Zuo et al., Journal
of Physical Chemistry A 124, 731, 2020): mean absolute errors, energies about their mean. MTP, SNAP,
qSNAP and NNP are the paper's own potentials, one for each element, as published in the repository
maml (`benchmarks/published_potentials.py` says how they are run). They **have learned from these
frames**, so their errors are those of their training; ours has learned from other frames of the
same sets, and knows 89 elements besides. The paper's test part is kept for checks from outside, so
the errors it prints are not comparable with these. Of its Gaussian approximation potentials a file
was not to be had; they are not measured.

```
crystalformer evaluate default mlearn --data data -o judged/default
crystalformer evaluate benchmarks.published_potentials:mtp mlearn --data data -o judged/mtp
python -m benchmarks.mlearn_table judged/*
```
"""


def read(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Read what each potential was judged to be.

    Raises:
        SystemExit: A folder is of another benchmark, or judged other frames.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if told["benchmark"] != "mlearn" or told["failed"]:
            raise SystemExit(f"{folder} is of {told['benchmark']}, {len(told['failed'])} failed.")
        found[NAMES.get(told["model"], told["model"])] = told
    if len({(one["seed"], one["crystals"], str(one["options"])) for one in found.values()}) > 1:
        raise SystemExit("The folders judged other frames. Judge all with the same seed and count.")
    return found


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """Write one table for every quantity."""
    parts = [HEAD]
    for name, heading, factor in SHOWN:
        values = {model: _by_element(told, name, factor) for model, told in found.items()}
        rows = [["element", "n", *values], ["---", *["--:"] * (len(values) + 1)]]
        for element in sorted(next(iter(values.values()))):
            numbers = [of[element] for of in values.values()]
            told = [f"{value:.3g}" for value, _ in numbers]
            rows.append([element, f"{numbers[0][1]:,}", *told])
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        parts.append(f"## {heading}\n\n{table}\n")
    return "\n".join(parts)


def _by_element(told: dict[str, Any], name: str, factor: float) -> dict[str, tuple[float, int]]:
    """Find one statistic of every element that has it, and of how many numbers it is."""
    return {
        one["group"]: (factor * one["value"], one["n"])
        for one in told["statistics"]
        if one["name"] == name and one["value"] is not None
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("mlearn.md"))
    asked = parser.parse_args()
    with whole(asked.out) as path:
        path.write_text(markdown(read(asked.folders)), encoding="utf-8")


if __name__ == "__main__":
    main()
