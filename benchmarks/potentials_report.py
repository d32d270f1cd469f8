"""The comparison of potentials as JSON and as a page that says first who is worse."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ase_crystalformer.assessment import BENCHMARKS
from benchmarks.potentials_table import FEW, FEWEST, LINES, begun, compare

ABOUT = """\
The same crystals, perturbations and settings for everyone, through `crystalformer evaluate`. After
± stands the standard error: half of the range of 68 % of the averages over crystals drawn with
replacement. "Better" and "worse" are said of
crystalformer where 97.5 % of the draws agree, else the two are level; of fewer than five crystals
nothing is said. A crystal that one of them failed on counts for none. DFT is the reference of every
error; where it helps, its mean is told. `crystalformer` is the bundled potential `small`, the
default; `accurate` is the other one.

Not all of this is foreign to everyone. crystalformer has learned from other runs of the sets
mlearn, monbtaw, polymlp and eos_vasp_pbe, its peers from none of them; they have learned from
relaxations in Materials Project, of whose crystals the moduli are. WBM, the phonon displacements,
the heat capacities and the all-electron equations of state are nobody's training data.

Energies of relaxed crystals stand on the uncorrected scale of Materials Project. CHGNet's are on
the corrected one, so its energy error says nothing. Moduli, heat capacities and equations of state
of crystalformer are computed in double precision, those of its peers in single, as they come.
Dynamics is short, since the peers are slow: half a picosecond tells explosions, and little of
drift.

    python -m benchmarks.potentials measure crystalformer accurate --data data --results results
    python -m benchmarks.potentials measure CHGNet SevenNet-0 --data data --results results
    python -m benchmarks.potentials table --results results

New weights need a new folder `results/crystalformer`; those of the peers stay. How to install the
peers: `benchmarks/peers.py`. The potentials of the mlearn paper, fitted to one element each, stand
beside ours in `mlearn.md`.
"""


def markdown(told: Mapping[str, Any]) -> str:
    """Write all benchmarks as tables, and first of all where the first contender is worse."""
    names = told["contenders"]
    parts = ["# Potentials beside each other and beside DFT", "", told["date"], "", ABOUT]
    parts += [_summary(told["benchmarks"], names[0], other) for other in names[1:]]
    parts += [_section(title, one, names) for title, one in told["benchmarks"].items()]
    return "\n".join(parts)


def _summary(found: Mapping[str, Any], ours: str, other: str) -> str:
    lines = [f"**{ours} beside {other}**", ""]
    for word in ("worse", "better", "level", FEW):
        named = [
            f"{title}: {_label(line)}"
            for title, one in found.items()
            for line in one["lines"]
            if line["verdict"][other] == word
        ]
        if named:
            which = "" if word == FEW else f": {'; '.join(named)}"
            lines.append(f"- {word} in {len(named)}{which}")
    return "\n".join([*lines, ""])


def _label(line: Mapping[str, Any]) -> str:
    return line["name"] if line["group"] == "all" else f"{line['name']} of {line['group']}"


def _number(value: float, error: float | None) -> str:
    return f"{value:.3g}" if error is None else f"{value:.3g} ± {error:.1g}"


def _section(title: str, one: Mapping[str, Any], names: Sequence[str]) -> str:
    head = ["", "unit", "n", *names, "DFT, mean", "goal", *(f"beside {n}" for n in names[1:])]
    lines = [head, ["---", "---", *["--:"] * (len(names) + 2), *["---"] * len(names)]]
    for line in one["lines"]:
        few = line["crystals"] < FEWEST
        values = [_number(line["value"][n], None if few else line["error"][n]) for n in names]
        dft = "" if line["dft"] is None else f"{line['dft']:.3g}"
        verdicts = [line["verdict"][other] for other in names[1:]]
        first = [_label(line), line["unit"], str(line["crystals"])]
        lines.append([*first, *values, dft, line["goal"], *verdicts])
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    failed = ", ".join(f"{name} {len(who)}" for name, who in one["failed"].items() if who)
    about = f"{one['crystals']} crystals that all have done; failed: {failed or 'none'}."
    return f"## {title}\n\n{BENCHMARKS[title].about}\n\n{about}\n\n{table}\n"


def write(results: Path, names: Sequence[str], out: Path) -> str:
    """Compare all benchmarks that were measured; write potentials.json and potentials.md."""
    there = [one for one in LINES if all(begun(one, results / name / one) for name in names)]
    found = {title: compare(title, results, names) for title in there}
    told = {
        "date": datetime.now(UTC).date().isoformat(),
        "contenders": list(names),
        "benchmarks": found,
    }
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(told)
    for name, content in (
        ("potentials.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n"),
        ("potentials.md", text),
    ):
        partial = out / f"{name}.partial"
        partial.write_text(content, encoding="utf-8")
        partial.replace(out / name)
    return text
