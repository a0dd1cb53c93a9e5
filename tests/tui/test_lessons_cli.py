"""`tinyvae lessons`: the list, one lesson, and the table of claims with its exit code."""

import re
from dataclasses import replace

import pytest

from tinyvae.lessons import LESSONS
from tinyvae.tui import lessons_cli
from tinyvae.tui.cli import main

ONE = next(lesson for lesson in LESSONS if lesson.name == "direction")


def test_the_list_names_every_lesson(capsys):
    assert main(["lessons"]) == 0
    out = capsys.readouterr().out
    assert all(lesson.name in out and lesson.title in out for lesson in LESSONS)


def test_check_prints_a_line_for_each_claim_and_returns_0_when_all_hold(capsys):
    assert main(["lessons", "check", "direction"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("holds  direction: ") for line in lines) == len(ONE.claims)
    assert f"{len(ONE.claims)} of {len(ONE.claims)} claims hold" in lines
    assert "\x1b" not in "".join(lines)


def test_check_returns_1_when_a_claim_fails(monkeypatch, capsys):
    broken = replace(ONE, claims=(*ONE.claims, replace(ONE.claims[0], low=1.0, high=2.0)))
    monkeypatch.setattr(lessons_cli, "LESSONS", (broken,))
    assert main(["lessons", "check", "direction"]) == 1
    out = capsys.readouterr().out
    assert "FAILS  direction: " in out and "(expected 1 to 2)" in out
    assert f"{len(ONE.claims)} of {len(ONE.claims) + 1} claims hold" in out


def test_the_seed_reaches_the_measurement(monkeypatch):
    seen = []
    monkeypatch.setattr(
        lessons_cli, "LESSONS", (replace(ONE, measure=lambda seed: seen.append(seed) or ONE.measure(seed)),)
    )
    assert main(["lessons", "check", "--seed", "3"]) == 0
    assert seen == [3]


def test_run_asks_tells_and_checks(monkeypatch, capsys):
    short = replace(ONE, phases=(replace(ONE.phases[0], steps=5),))
    monkeypatch.setattr(lessons_cli, "LESSONS", (short,))
    assert main(["lessons", "run", "direction"]) == 0
    out = capsys.readouterr().out
    assert ONE.source in out.replace("\n", " ")
    assert ONE.phases[0].question in out.replace("\n", " ")
    assert "-> equal and opposite at every step" in out
    assert "claims hold" in out


def test_two_lessons_are_measured_in_two_processes_and_reported_in_order(capsys):
    assert main(["lessons", "check", "prior-term", "direction"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("holds")]
    names = [line.split()[1] for line in lines]
    assert names == sorted(names, key=["prior-term:", "direction:"].index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nonsense"], "lessons: expected one of identity, original, .*got 'nonsense'"),
        (["run"], "lessons run: expected the name of one lesson, got 0"),
        (["run", "identity", "gap"], "lessons run: expected the name of one lesson, got 2"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(["lessons", *arguments]) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err) and captured.err.count("\n") == 1
