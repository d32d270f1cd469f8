"""Every encoder keeps every law it claims, and claims every law it keeps."""

from ase_crystalformer.testing import check


def test_law(build_small, case, law):
    check(build_small(case), law)
