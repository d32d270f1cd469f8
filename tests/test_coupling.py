"""Coupling coefficients: a table that is compared with its source, and used."""

from itertools import product

import pytest
import torch
from e3nn import o3

from ase_crystalformer.nn.coupling import HIGHEST, couples, coupling
from ase_crystalformer.nn.harmonics import COMPONENTS, harmonics

DEGREES = range(HIGHEST + 1)
TRIPLES = [triple for triple in product(DEGREES, repeat=3) if couples(*triple)]


@pytest.mark.parametrize("degrees", TRIPLES, ids=str)
def test_the_table_is_that_of_e3nn(degrees):
    theirs = o3.wigner_3j(*degrees, dtype=torch.float64)
    torch.testing.assert_close(coupling(*degrees), theirs, atol=1e-14, rtol=0)


def test_two_vectors_make_their_dot_and_cross_products():
    a, b = torch.randn(2, 3, dtype=torch.float64)
    dot = torch.einsum("i,j,ijk->k", a, b, coupling(1, 1, 0))
    cross = torch.einsum("i,j,ijk->k", a, b, coupling(1, 1, 1))
    torch.testing.assert_close(dot, (a @ b)[None] / 3**0.5)
    torch.testing.assert_close(cross, torch.linalg.cross(a, b) / 6**0.5)


def test_harmonics_of_one_direction_couple_to_harmonics():
    unit = torch.nn.functional.normalize(torch.randn(3, dtype=torch.float64), dim=0)
    of = {d: harmonics(unit, 3)[COMPONENTS[d - 1] : COMPONENTS[d]] for d in (1, 2, 3)}
    product = torch.einsum("i,j,ijk->k", of[1], of[2], coupling(1, 2, 3))
    cosine = torch.nn.functional.cosine_similarity(product, of[3], dim=0)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize("degrees", [(0, 0, 1), (1, 1, 3), (5, 5, 0)])
def test_what_does_not_couple_is_refused(degrees):
    with pytest.raises(ValueError, match="do not couple"):
        coupling(*degrees)


def test_what_is_asked_in_inference_serves_in_training():
    coupling.cache_clear()
    with torch.inference_mode():
        coupling(1, 1, 0)
    assert not coupling(1, 1, 0).is_inference()
