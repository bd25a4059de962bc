"""What all tests share: Hypothesis profiles.

`HYPOTHESIS_PROFILE` chooses one: ``ci`` (default) tries the same examples every time, so that a change lands or fails
for its own reasons; ``dev`` tries new ones; ``nightly`` tries many new ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

_COMMON = {
    # Two loaded cores and an fsync in an example say nothing about the example.
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "print_blob": True,
}
settings.register_profile("ci", max_examples=50, derandomize=True, database=None, **_COMMON)
settings.register_profile("dev", max_examples=50, **_COMMON)
settings.register_profile("nightly", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def logs_as_they_come() -> Iterator[None]:
    """A test that routes or silences the logs (as the command does) says nothing about the next one's."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
