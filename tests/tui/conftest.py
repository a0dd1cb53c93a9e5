"""What several files of tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def terminals() -> Iterator[list[Any]]:
    """A list for the terminals of a test, which are closed at its end."""
    opened: list[Any] = []
    yield opened
    for terminal in opened:
        terminal.close()
