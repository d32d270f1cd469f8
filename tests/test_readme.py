"""README tells the truth: its first screen runs, its tables are those of the code and the cards.

``python tests/test_readme.py`` writes the tables anew.
"""

import doctest
import re
import sys
from pathlib import Path

import pytest

from ase_crystalformer import list_models
from ase_crystalformer.encoders import ENCODERS, modes
from ase_crystalformer.encoders.base import Approximate
from ase_crystalformer.training.config import read_recipe

README = Path(__file__).parents[1] / "README.md"
LAWS = ("rotation", "reflection", "permutation", "supercell", "choice_of_cell", "orbits", "smooth")


def claims_table() -> str:
    """One row per encoder and mode: a tick is a law that holds, a cross one that is broken.

    Where settings were published, ``paper`` mode is told of the first of them.
    """
    head = ["encoder", "mode", *(law.replace("_", " ") for law in LAWS)]
    rows = [head, ["---", "---", *[":-:"] * len(LAWS)]]
    for name, (encoder, config) in ENCODERS.items():
        published = getattr(sys.modules[encoder.__module__], "PUBLISHED", {})
        for mode in modes(config):
            plain = config(mode=mode)
            chosen = next(iter(published.values()), plain) if mode == "paper" else plain
            claims = encoder(chosen).claims
            rows.append([f"`{name}`", mode, *(_mark(getattr(claims, law)) for law in LAWS)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _mark(claim: object) -> str:
    if claim is True:
        return "✓"
    return f"≈ {claim.below:g}" if isinstance(claim, Approximate) else "✗"


def errors_table() -> str:
    """One row per model and quantity, from the cards, which tell errors of subsets too.

    The larger potential stands beside the small one.
    """
    small, large, properties = (
        next(model for model in list_models() if model.name == f"crystalformer-{name}")
        for name in ("potential", "potential-accurate", "properties")
    )
    head = ["model", "quantity", "mean absolute error", '`"accurate"`', "on"]
    rows = [head, ["---", "---", "--:", "--:", "---"]]
    for model, beside in ((small, large.errors), (properties, {})):
        for quantity, told in model.errors.items():
            if "," in quantity and not quantity.endswith("perturbed"):
                continue
            errors = [f"{told['mae']:.3g} {told['unit']}"]
            errors += [f"{beside[quantity]['mae']:.3g}" if beside else ""]
            rows.append([f"`{model.name}`", quantity, *errors, f"{told['on']}, n = {told['n']:,}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


TABLES = {"claims": claims_table, "errors": errors_table}


def section(text: str, name: str) -> re.Match[str]:
    """Find the part of README between two comments."""
    found = re.search(f"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    assert found is not None, f"README has no section {name}"
    return found


@pytest.mark.parametrize("name", TABLES)
def test_table_is_up_to_date(name: str) -> None:
    assert section(README.read_text(encoding="utf-8"), name)[1] == TABLES[name]()


def test_examples_run() -> None:
    outcome = doctest.testfile(str(README), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_recipes_are_valid(tmp_path: Path) -> None:
    blocks = re.findall("```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    recipes = [block for block in blocks if "[data]" in block]
    assert len(recipes) == 2
    for number, block in enumerate(recipes):
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        assert read_recipe(path).name == str(number)


def write() -> None:
    """Put the tables of the code into README."""
    text = README.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        start, end = section(text, name).span(1)
        text = text[:start] + table() + text[end:]
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
