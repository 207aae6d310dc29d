"""``run.json``: by which command, networks and versions a run's results came about."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from mask_rcnn.bag.members import Member
from mask_rcnn.bag.vote import majority
from mask_rcnn.config import config_to_dict
from mask_rcnn.system.backend import library_versions
from mask_rcnn.system.files import writable
from mask_rcnn.system.formats import RUN_FORMAT, stamp


def provenance(command: Sequence[str], members: Sequence[Member]) -> dict[str, Any]:
    """What ``run.json`` holds of the command, the bag, its networks and the libraries."""
    config = members[0].network.config
    return {
        **stamp(RUN_FORMAT),
        "command": writable(shlex.join(command)),
        "laterality": config.laterality,
        "bag": {"members": len(members), "pixels": config.bag.pixels,
                "min_votes": majority(len(members), config.bag.min_votes), "opening": config.bag.opening,
                "min_agreement": config.bag.min_agreement, "max_risk": config.bag.max_risk},
        "weights": [{"file": writable(str(member.path)), "sha256": member.sha256,
                     "config": config_to_dict(member.network.config)} for member in members],
        "runtime": members[0].runtime._asdict(),
        "versions": library_versions() | members[0].runtime.versions(),
    }  # fmt: skip
