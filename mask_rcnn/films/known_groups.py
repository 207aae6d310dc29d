"""What a search for copies has found, kept in a file, so that a later one compares new films alone.

The file, an ``.npz``, has of every film of the last search a digest of its fingerprint, its bits, and its group's number.
Films of different groups are known to be no copies of each other. Those of one group are tied, but by which films is not
known: a group that has lost one is searched again.

Shapes
    keys    bytes [films] of KEY_BYTES, digests of fingerprints
    bits    uint64 [3, 2, films], as ``candidates`` has them
    groups  int32 [films]
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.system.console import note
from mask_rcnn.system.files import replacing
from mask_rcnn.version import __version__

KNOWN_COPIES = "copies.npz"  # beside a journal, or the cache of films
FORMAT = 1  # bump when other films would be candidates or copies too: what was found before does not count then
KEY_BYTES = 16


class KnownGroups(NamedTuple):
    """The films of a search and their groups."""

    keys: Sequence[bytes]
    bits: np.ndarray
    groups: np.ndarray


NOTHING = KnownGroups([], np.zeros((3, 2, 0), np.uint64), np.zeros(0, np.int32))


def key_of(fingerprint: str) -> bytes:
    """What a film is known by: its fingerprint's digest, since lungs that lie elsewhere give other bits."""
    return hashlib.blake2b(fingerprint.encode("ascii"), digest_size=KEY_BYTES).digest()


def read_known(path: Path) -> KnownGroups:
    """What the file holds; nothing where there is none. One that is torn or of another format is set aside, which is said.

    Raises:
        OSError: it is there and cannot be read, or set aside.
    """
    if not path.exists():
        return NOTHING
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if (found := int(file["format"])) != FORMAT:
                return _set_aside(path, f"of format {found}, this program's is {FORMAT}")
            keys, bits, groups = (file[name] for name in ("keys", "bits", "groups"))
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        return _set_aside(path, f"not readable ({error})")
    count = groups.size
    if keys.shape != (count, KEY_BYTES) or keys.dtype != np.uint8 or bits.shape != (3, 2, count) or bits.dtype != np.uint64:
        return _set_aside(path, "not whole")
    content = keys.tobytes()
    return KnownGroups([content[k : k + KEY_BYTES] for k in range(0, len(content), KEY_BYTES)], bits, groups)


def _set_aside(path: Path, why: str) -> KnownGroups:
    aside = path.with_name(f"{path.stem}-earlier{path.suffix}")
    os.replace(path, aside)
    note(f"{path}: {why}; set aside as {aside.name}, all films are compared with each other once more")
    return NOTHING


def write_known(path: Path, known: KnownGroups) -> None:
    """Writes the file, whole or not at all.

    Raises:
        OSError: it cannot be written; an older one stays.
    """
    keys = np.frombuffer(b"".join(known.keys), np.uint8).reshape(-1, KEY_BYTES)
    with replacing(path) as file:
        np.savez(file, format=FORMAT, program=__version__, keys=keys, bits=known.bits, groups=known.groups.astype(np.int32))
