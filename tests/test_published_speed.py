"""What originals are compared on is what they were measured on, and told rows are marked."""

import pytest
import torch

from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.neighbours import build
from benchmarks.published_speed import EVERYONE, POTENTIALS, PROPERTIES, _told, cluster
from benchmarks.timing import QUICK, Way, compare


@pytest.mark.parametrize("original", POTENTIALS, ids=lambda original: original.size[0])
def test_the_cluster_has_the_edges_of_the_measurement(original):
    config = original.size[1]
    encoder = ENCODERS[original.encoder][0](config)
    graph = build(cluster(4), encoder.rule)
    assert graph.atoms == 64
    assert graph.edges == (64 * 63 if config.cutoff == EVERYONE else 1206)
    assert graph.vector.norm(dim=1).min() > 1.0


def test_a_told_row_is_not_timed_and_says_so():
    (ours,) = compare(
        "a sum", [Way(name="ours", run=lambda: torch.ones(9).sum())], QUICK, tolerance=0
    )
    told = _told(ours, 2 * ours.cpu_ms)
    assert told.rounds == 0
    assert "another day" in told.way
    assert told.cpu_ratio.median == pytest.approx(2)


def test_every_original_is_of_an_encoder_there_is():
    assert {original.encoder for original in POTENTIALS} | set(PROPERTIES) <= set(ENCODERS)
