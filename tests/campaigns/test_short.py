"""The campaigns in short, with fixed seeds."""

import random

import pytest

from . import command_lines, run_files, runner, sequences, share_lines


@pytest.mark.parametrize(
    "case, count, expected",
    [
        (command_lines.case, 40, {"a run", "one line"}),
        (share_lines.case, 60, {"the same run", "one line"}),
        (sequences.case, 8, {"branched, the same bits"}),
        (run_files.killed, 3, set()),
        (run_files.flipped, 12, {"refused", "opened, all is right"}),
        (run_files.fuzzed, 25, {"cells: refused", "cells: done", "bytes: refused"}),
    ],
    ids=["lines", "shares", "sequences", "kills", "flips", "fuzz"],
)
def test_a_short_campaign(case, count, expected):
    outcomes, failures = runner.play(case, seed=0, first=0, count=count, seconds=1e9, longest=120.0)
    assert failures == []
    assert set(outcomes) >= expected and sum(outcomes.values()) == count


def test_every_prefix_of_a_run_file_is_refused_and_a_full_disk_leaves_what_goes_on():
    outcomes, failures = run_files.prefixes(12, seconds=1e9)
    assert failures == [] and set(outcomes) == {"refused"}
    assert run_files.out_of_room(4096, False) == "no file"
    assert run_files.out_of_room(90_000, False) == "some steps, goes on"


def test_a_case_that_fails_or_hangs_is_counted_with_its_number():
    def case(chance: random.Random) -> str:
        draw = chance.randrange(3)
        if draw == 0:
            while True:
                pass
        assert draw == 1, "two"
        return "good"

    outcomes, failures = runner.play(case, seed=5, first=3, count=12, seconds=1e9, longest=0.02)
    assert 0 < outcomes["good"] < 12 and outcomes["good"] + outcomes["FAILED"] == 12
    assert len(failures) == outcomes["FAILED"]
    assert {line.split(": ")[1] for line in failures} == {"TooLong", "AssertionError"}
    again, _ = runner.play(case, seed=5, first=3, count=1, seconds=1e9, longest=0.02)
    assert sum(again.values()) == 1
