"""How long a build bears with a remote store, by a clock that tests move."""

from __future__ import annotations

import pytest

from tritonforge.artifact.remote.patience import Patience


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def idle_until_spent(patience: Patience, clock: Clock, most: float = 1000.0) -> float:
    """How long a build stands idle before it leaves the store alone."""
    start = clock.now
    while clock.now - start < most:
        clock.now += 0.5
        if not patience.stood_idle(0.5):
            return clock.now - start
    return most


def test_a_store_that_gives_nothing_costs_its_timeout(clock: Clock) -> None:
    patience = Patience(10, clock)
    assert idle_until_spent(patience, clock) == 10.5
    assert patience.spent is not None


def test_what_it_saved_it_may_cost(clock: Clock) -> None:
    patience = Patience(10, clock)
    patience.fetched(patience.fetching(1, 20.0), good=True)
    patience.fetched(patience.fetching(1, 50.0), good=False)
    assert idle_until_spent(patience, clock) == 30.5


def test_a_fetch_that_will_end_sooner_than_its_step_is_waited_for(clock: Clock) -> None:
    patience = Patience(10, clock)
    transfer = patience.fetching(4000, worth=120.0)
    for _ in range(160):  # at 50 bytes a second it takes 80 seconds instead of 120
        clock.now += 0.5
        transfer.done += 25
        assert patience.stood_idle(0.5), "it pays"
    patience.fetched(transfer, good=True)
    assert patience.saved == 120.0


@pytest.mark.parametrize("rate", [0, 1, 30])
def test_a_fetch_that_takes_longer_than_its_step_is_given_up_after_the_timeout(clock: Clock, rate: int) -> None:
    patience = Patience(10, clock)
    transfer = patience.fetching(4000, worth=120.0)
    waited = 0.0
    while patience.stood_idle(0.5):
        clock.now += 0.5
        waited += 0.5
        transfer.done += rate // 2
    assert waited == 10.0


def test_a_record_that_claims_a_step_of_a_year_counts_as_one_of_an_hour(clock: Clock) -> None:
    patience = Patience(10, clock)
    patience.fetched(patience.fetching(1, 3e7), good=True)
    assert patience.saved == 3600
    patience.fetched(patience.fetching(1, -50.0), good=True)
    assert patience.saved == 3600


@pytest.mark.parametrize(
    ("bytes_a_second", "objects_a_second", "goes_on"),
    [(2e6, 0, True), (0, 0.2, True), (0.9e6, 0, False), (0, 0, False)],
)
def test_sending_goes_on_as_long_as_something_arrives(
    clock: Clock, bytes_a_second: float, objects_a_second: float, goes_on: bool
) -> None:
    patience = Patience(10, clock)
    for second in range(60):
        if not patience.sending(int(bytes_a_second * second), int(objects_a_second * second)):
            break
        clock.now += 1
    assert (patience.spent is None) == goes_on
    if not goes_on:
        assert clock.now - 100 == 11
