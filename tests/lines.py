"""What a command printed, for tests of its messages."""

from __future__ import annotations

import re

_STEPS = re.compile(r"(loading|reading|building|compiling|finding)\b")


def problems(errors: str) -> list[str]:
    """The lines on standard error but for those that name the step at hand."""
    return [line for line in errors.splitlines() if not _STEPS.match(line)]
