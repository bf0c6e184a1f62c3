"""What fits into a board's memory and disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tritonforge.errors import CheckFailed
from tritonforge.rollout.jetson.board import Board
from tritonforge.rollout.jetson.fit import GIB, MIB, fits

BOARD = Board("a board", "36.4.3", "6.2", "aarch64", "5.15", memory_available=6 * GIB, disk_free=20 * GIB)


def test_two_servers_need_twice_what_one_needs() -> None:
    verdict = fits(BOARD, slots=2, model_bytes=400 * MIB)
    assert verdict.ok and verdict.reasons == () and verdict.estimated
    assert verdict.memory_needed == 2 * (GIB + 320 * MIB + 600 * MIB) + 512 * MIB


def test_what_serves_already_is_not_counted_again() -> None:
    first = fits(BOARD, slots=2, model_bytes=400 * MIB)
    second = fits(BOARD, slots=2, model_bytes=400 * MIB, serving=True)
    assert first.memory_needed - second.memory_needed == GIB + 920 * MIB


def test_what_does_not_fit_twice_may_fit_once_and_the_verdict_says_so() -> None:
    verdict = fits(BOARD, slots=2, model_bytes=1200 * MIB)
    assert not verdict.ok
    assert verdict.reasons == ("memory: 6.6 GiB needed for two servers and a reserve, 6.0 GiB available",)
    assert "strategy: one-slot" in verdict.instead[0]
    assert fits(BOARD, slots=1, model_bytes=1200 * MIB).ok
    with pytest.raises(CheckFailed, match="no room for two servers") as caught:
        verdict.require()
    assert "strategy: one-slot" in str(caught.value.hint)


def test_what_fits_neither_way_is_not_offered_the_other() -> None:
    verdict = fits(replace(BOARD, memory_available=GIB), slots=2, model_bytes=1200 * MIB)
    assert not verdict.ok and not any("one-slot" in way for way in verdict.instead) and verdict.instead


def test_one_slot_needs_only_the_changed_models_twice() -> None:
    all_of_it = fits(BOARD, slots=1, model_bytes=1200 * MIB, serving=True)
    a_little = fits(BOARD, slots=1, model_bytes=1200 * MIB, changed_bytes=10 * MIB, serving=True)
    assert a_little.memory_needed == 15 * MIB + 512 * MIB < all_of_it.memory_needed


def test_a_measured_server_replaces_the_estimate() -> None:
    verdict = fits(BOARD, slots=2, model_bytes=3 * GIB, server_bytes=2 * GIB)
    assert verdict.ok and not verdict.estimated and verdict.memory_needed == 4 * GIB + 512 * MIB


def test_the_disk_must_hold_what_is_sent_and_the_image_and_one_slot_s_own_files() -> None:
    board = replace(BOARD, memory_available=60 * GIB, disk_free=9 * GIB)
    assert fits(board, slots=2, model_bytes=8 * GIB).ok
    single = fits(board, slots=1, model_bytes=8 * GIB)
    assert not single.ok and single.reasons[0].startswith("disk: 17.6 GiB needed") and "free space" in single.instead[0]
    assert fits(board, slots=1, model_bytes=8 * GIB, send_bytes=0).reasons == ()
    assert not fits(board, slots=2, model_bytes=GIB, image_bytes=8 * GIB).ok


def test_what_could_not_be_read_refuses_nothing() -> None:
    verdict = fits(replace(BOARD, memory_available=None, disk_free=None), slots=2, model_bytes=100 * GIB)
    assert verdict.ok and verdict.memory_available is None
    verdict.require()
