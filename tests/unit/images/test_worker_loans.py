"""Loans of unpacking workers: who ends one, and what becomes of the worker."""

from __future__ import annotations

from typing import Any, cast

from cais.images.unpacker.pool import Loan


class Worker:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def kill(self) -> None:
        self.done.append("killed")

    def destroy(self) -> None:
        self.done.append("destroyed")


def lend() -> tuple[Loan, Worker, list[Any]]:
    worker, returned = Worker(), list[Any]()
    return Loan(cast("Any", worker), returned.append), worker, returned


def test_a_worker_that_was_killed_while_it_ended_is_not_lent_again() -> None:
    """Its job was done, and so nobody noticed; the next one would be told to a dead worker."""
    loan, worker, returned = lend()
    loan.kill()
    loan.give_back()
    assert (worker.done, returned) == (["killed", "destroyed"], [None])


def test_what_is_given_back_is_nobody_s_to_kill() -> None:
    loan, worker, returned = lend()
    loan.give_back()
    loan.kill()
    loan.discard()
    loan.give_back()
    assert (worker.done, returned) == ([], [worker])
