"""Pieces run at the same time, each with its share of the threads, and come back in order whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from quant_core.processors.side_by_side import side_by_side


@pytest.fixture(params=[2, 4, 9])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_pieces_meet_each_other_and_come_in_order(threads: int) -> None:
    together = min(4, threads)
    meeting = threading.Barrier(together, timeout=900)

    def piece(number: int) -> tuple[int, int]:
        meeting.wait()  # nobody comes by before so many are there
        return number, torch.get_num_threads()

    found = list(side_by_side(piece, range(3 * together)))
    assert found == [(number, threads // together) for number in range(3 * together)]
    assert torch.get_num_threads() == threads


def test_products_are_those_of_one_thread(threads: int) -> None:
    matrices = torch.randn(6, 300, 300, generator=torch.Generator().manual_seed(0))
    found = torch.stack(list(side_by_side(lambda k: matrices[k] @ matrices[k], range(6))))
    torch.set_num_threads(threads // min(4, threads))
    assert torch.equal(found, torch.stack([matrix @ matrix for matrix in matrices]))


def test_an_error_ends_it_in_its_turn_and_the_rest_is_left(threads: int) -> None:
    done: list[int] = []

    def piece(number: int) -> int:
        if number == 2:
            raise MemoryError
        done.append(number)
        return number

    pieces = side_by_side(piece, range(100))
    assert [next(pieces), next(pieces)] == [0, 1]
    with pytest.raises(MemoryError):
        next(pieces)
    assert len(done) < 50
    assert torch.get_num_threads() == threads


def test_what_is_closed_early_gives_the_threads_back(threads: int) -> None:
    pieces = side_by_side(lambda number: number, range(50))
    assert next(pieces) == 0
    pieces.close()
    assert torch.get_num_threads() == threads


def test_one_thread_and_gpus_work_in_this_thread() -> None:
    here = threading.get_ident()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert list(side_by_side(lambda _: threading.get_ident(), range(3))) == [here] * 3
        torch.set_num_threads(2)
        assert list(side_by_side(lambda _: threading.get_ident(), range(3), "cuda:0")) == [here] * 3
    finally:
        torch.set_num_threads(before)
