"""What a network is told of each atom's element."""

import csv
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

TABLE = Path(__file__).with_name("elements.csv")
HEAVIEST = 118

#: Bins of every property in the table.
BINS = {
    "group": 19,
    "period": 7,
    "electronegativity": 10,
    "covalent_radius": 10,
    "valence_electrons": 12,
    "ionization_energy": 10,
    "electron_affinity": 10,
    "block": 4,
    "volume": 10,
}


@cache
def element_table() -> Float[Tensor, "elements properties"]:
    """Return CGCNN's description of every element from hydrogen on: bins of nine properties.

    Elements beyond fermium have no data and are rows of zeros. Some elements share all their bins:
    La and Ce, Sm and Gd, Ho and Er, Th and Np, Am and Cm, Bk to Fm.
    """
    table = torch.zeros(HEAVIEST, sum(BINS.values()))
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        for number, row in enumerate(rows):
            start = 0
            for name, size in BINS.items():
                if row[name]:
                    table[number, start + int(row[name])] = 1
                start += size
    return table


class ElementProperties(nn.Module):
    """Describe atoms by a linear map of their element's tabulated properties."""

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        table = element_table()
        self.linear = nn.Linear(table.shape[1], width)
        self.register_buffer("table", table.clone(), persistent=False)

    def forward(self, species: Int[Tensor, " atoms"]) -> Float[Tensor, "atoms width"]:
        return self.linear(self.table[species - 1])


class ElementEmbedding(nn.Module):
    """Describe atoms by features learned for each element up to a largest atomic number."""

    def __init__(self, elements: int, width: int) -> None:
        super().__init__()
        self.features = nn.Embedding(elements, width)

    def forward(self, species: Int[Tensor, " atoms"]) -> Float[Tensor, "atoms width"]:
        return self.features(species - 1)
