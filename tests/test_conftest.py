"""The ground the other tests stand on."""

import socket

import numpy as np
import pytest
import torch


def test_calling_out_fails():
    with pytest.raises(pytest.fail.Exception, match="keep it at home"):
        socket.create_connection(("192.0.2.1", 80))


def test_connecting_to_a_number_fails():
    with socket.socket() as line, pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        line.connect(("192.0.2.1", 80))


def test_processes_of_this_machine_may_talk():
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"hello")
        assert there.recv(5) == b"hello"


@pytest.mark.parametrize("attempt", [1, 2])
def test_seeds_are_the_same_every_time(attempt):
    expected = torch.rand(3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)


def test_one_crystal_is_left_handed(left_handed, perovskite):
    assert np.linalg.det(left_handed.cell) < 0


def test_the_slab_has_no_third_cell_vector(slab):
    assert slab.cell.rank == 2
    assert slab.pbc.tolist() == [True, True, False]
