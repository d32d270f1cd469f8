"""Geometric algebra by sorting basis vectors: slow, and independent of the library.

A multivector is a dictionary from blades to numbers. A blade is a set of basis vectors as bits:
e0 is 1, e1 is 2, e2 is 4, e3 is 8. e0 squares to zero, the others to one.
"""

from itertools import product

import torch

#: Blades in the order of the library's components, with the sign of e31, which is -e13.
COMPONENTS = [(0, 1), (2, 1), (4, 1), (8, 1), (12, 1), (10, -1), (6, 1), (14, 1)]
ALL = 15


def grade(blade):
    return blade.bit_count()


def sign(left, right):
    """Sign of sorting the vectors of two blades side by side."""
    swaps = sum(grade(left >> shift & right) for shift in range(1, 4))
    return -1 if swaps % 2 else 1


def times(x, y):
    result = {}
    for (a, p), (b, q) in product(x.items(), y.items()):
        if not a & b & 1:
            result[a ^ b] = result.get(a ^ b, 0) + sign(a, b) * p * q
    return result


def wedge(x, y):
    result = {}
    for (a, p), (b, q) in product(x.items(), y.items()):
        if not a & b:
            result[a | b] = result.get(a | b, 0) + sign(a, b) * p * q
    return result


def dual(x):
    """Right complements: a blade and its dual wedge to e0123."""
    return {ALL ^ a: sign(a, ALL ^ a) * p for a, p in x.items()}


def undual(x):
    return {ALL ^ a: sign(ALL ^ a, a) * p for a, p in x.items()}


def join(x, y):
    return undual(wedge(dual(x), dual(y)))


def add(*terms):
    result = {}
    for term in terms:
        for a, p in term.items():
            result[a] = result.get(a, 0) + p
    return result


def scaled(x, by):
    return {a: p * by for a, p in x.items()}


def part(x, k):
    return {a: p for a, p in x.items() if grade(a) == k}


def plane(normal, offset=0.0):
    """A vector of unit length: the mirror with this normal, ``offset`` from the origin."""
    return {2: normal[0], 4: normal[1], 8: normal[2], 1: offset}


def reflected(x, mirror):
    """Sandwich with a unit vector; odd grades get a sign, so that vectors are mirrored."""
    hat = {a: -p if grade(a) % 2 else p for a, p in x.items()}
    return times(times(mirror, hat), mirror)


def moved(x, mirrors):
    """Reflect in one mirror after the other: in two, this is a rotation or a translation."""
    for mirror in mirrors:
        x = reflected(x, mirror)
    return x


def read(column):
    """Read the components of one multivector, ``(8, parts)``."""
    return {
        blade << 0 | which: s * column[row, which].item()
        for row, (blade, s) in enumerate(COMPONENTS)
        for which in range(column.shape[1])
    }


def written(x, parts):
    rows = [
        [s * float(x.get(blade | which, 0.0)) for which in range(parts)] for blade, s in COMPONENTS
    ]
    return torch.tensor(rows, dtype=torch.float64)


def each(function, *tensors):
    """Apply a function of multivectors channel by channel to ``(8, rows, parts, channels)``."""
    first = tensors[0]
    out = torch.empty_like(first)
    for row, channel in product(range(first.shape[1]), range(first.shape[3])):
        found = function(*(read(t[:, row, :, channel]) for t in tensors))
        out[:, row, :, channel] = written(found, first.shape[2])
    return out
