"""JPEG and PNG whose pixels are whole and whose files are not: mended in memory.

Pillow has a switch to decode broken files, but it is one for all threads of a process, and gives films whose lower half is
grey. Here a file is written anew without what no pixel needs. Pillow decodes some half films without an error:
``has_all_pixels`` recognises them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"

# PNG, section 11: the image itself, its end, and of the rest what changes how it is shown.
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT"})
_NEEDED_CHUNKS = _PIXEL_CHUNKS | {b"IEND", b"tRNS", b"eXIf"}


def mend(content: bytes, decode: Callable[[bytes], bytes]) -> bytes:
    """A file that decodes, of one that does not, whose pixels are all there.

    Args:
        content: of a JPEG or PNG file.
        decode: gives the pixels of such a file; raises any exception where it cannot.

    Raises:
        ValueError: it is neither, or pixels are missing. What ``decode`` raises, too.
    """
    if content.startswith(PNG_SIGNATURE):
        return _mend_png(content)
    if content.startswith(JPEG_START):
        return _mend_jpeg(content, decode)
    raise ValueError("nothing that can be mended")


def has_all_pixels(content: bytes) -> bool:
    """Whether a JPEG, PNG or JPEG 2000 that Pillow decodes is no half film, filled up with black or grey.

    A JPEG has to have an end behind its last scan, a JPEG 2000 behind its last tile. A PNG's pixels have to have their
    sums, or to be inflated all the same.
    """
    if content.startswith(JPEG_START):
        return JPEG_END in content[max(0, content.rfind(b"\xff\xda")) :]
    if not content.startswith(PNG_SIGNATURE):
        return _has_all_tiles(content)
    chunks = list(_chunks_of(content))
    pixels = [chunk for chunk in chunks if chunk.kind == b"IDAT"]
    return all(chunk.is_whole for chunk in pixels) or _inflates(chunks[0].body, [chunk.body for chunk in pixels])


def _has_all_tiles(content: bytes) -> bool:
    """Whether the tiles of a JPEG 2000 codestream lead on to its end (SOT and EOC; ISO/IEC 15444-1, A.4)."""
    at = content.find(b"\xff\x4f\xff\x51") + 2
    while at + 2 <= len(content) and content[at : at + 2] != JPEG_END:
        if content[at : at + 2] != b"\xff\x90":
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        elif length := int.from_bytes(content[at + 6 : at + 10], "big"):
            at += length
        else:  # the last tile, up to the end
            return JPEG_END in content[at:]
    return at + 2 <= len(content)


def _inflates(header: bytes, bodies: list[bytes]) -> bool:
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    # Columns and rows: first and step (PNG, section 8.2, Adam7).
    passes = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
    missing = 0
    for x, across, y, down in passes if interlaced else ((0, 1, 0, 1),):
        columns, rows = len(range(x, width, across)), len(range(y, height, down))
        missing += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    inflater = zlib.decompressobj()
    try:
        for body in bodies:
            while body:
                missing -= len(inflater.decompress(body, 2**20))
                body = inflater.unconsumed_tail
        missing -= len(inflater.flush())
    except zlib.error:  # a wrong sum, too, where the stream has come to its own
        return False
    return missing == 0  # zeros behind a torn stream give more


class _Chunk(NamedTuple):
    kind: bytes
    body: bytes
    is_whole: bool  # all of it is there, and its sum is right


def _chunks_of(content: bytes) -> Iterator[_Chunk]:
    """The chunks of a PNG up to its end (PNG, section 5.3); behind one whose length is wrong, the next that is needed."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(content):
        chunk = _chunk_at(content, at)
        yield chunk
        if chunk.kind == b"IEND":
            break
        if chunk.is_whole or chunk.kind in _PIXEL_CHUNKS:
            at += 12 + len(chunk.body)
            continue
        names = re.compile(b"|".join(sorted(_NEEDED_CHUNKS))).finditer(content, at + 8)
        places = (name.start() - 4 for name in names)
        at = next((place for place in places if _chunk_at(content, place).is_whole), len(content))


def _chunk_at(content: bytes, at: int) -> _Chunk:
    length, kind = struct.unpack_from(">I4s", content, at)
    body, checksum = content[at + 8 : at + 8 + length], content[at + 8 + length : at + 12 + length]
    is_whole = len(checksum) == 4 and zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(checksum, "big")
    return _Chunk(kind, body, is_whole)


def _mend_png(content: bytes) -> bytes:
    """The chunks that an image needs; the others, whole or torn, are left out, and the end is added."""
    if not has_all_pixels(content):
        raise ValueError("pixels are missing")
    kept = [
        chunk
        for chunk in _chunks_of(content)
        if chunk.kind == b"IDAT" or (chunk.is_whole and chunk.kind in _NEEDED_CHUNKS - {b"IEND"})
    ]
    written = [*((chunk.kind, chunk.body) for chunk in kept), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in written
    )


def _mend_jpeg(content: bytes, decode: Callable[[bytes], bytes]) -> bytes:
    """With the marker of its end (EOI; ISO/IEC 10918-1, B.1.1.3).

    A decoder fills up what is missing before that marker without a word. So the film is decoded several times, with other
    bits and with restart markers before the end: where all pixels are there, none of this is read.
    """
    scans = content.rstrip(b"\0")  # the rest of a file that was to be written is zeros
    zeros = len(content) - len(scans)
    if not scans.endswith(b"\xff"):
        scans += bytes(zeros if zeros < 4 else 0)  # a few may be of the scan
    elif zeros:
        scans += b"\0"  # a byte 255 of the scan
    else:
        scans = scans.rstrip(b"\xff")  # half a marker
    if not _has_all_scans(scans):
        raise ValueError("a scan is missing")
    mended = scans + JPEG_END
    pixels = decode(mended)
    restarts = re.findall(rb"\xff([\xd0-\xd7])", scans)
    following = restarts[-1][0] + 1 if restarts else 0
    for filling in (b"\x55" * 4096, b"\xaa" * 4096):  # more than any block takes: of a block cut short nothing is seen
        tail = b"".join(filling + bytes([0xFF, 0xD0 + (following + number) % 8]) for number in range(8))
        if decode(scans + tail + JPEG_END) != pixels:
            raise ValueError("pixels are missing")
    return mended


def _has_all_scans(content: bytes) -> bool:
    """Whether the scans of a JPEG give every coefficient of every component to its last bit (ISO/IEC 10918-1, B.2.3)."""
    missing: set[tuple[int, int]] = set()
    at = 2
    while found := re.compile(rb"\xff[\x01-\xcf\xda-\xfe]").search(content, at):
        marker, at = content[found.start() + 1], found.end()
        if at + 2 > len(content):
            return False
        length = int.from_bytes(content[at : at + 2], "big")
        header, at = content[at + 2 : at + length], at + length
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            missing |= {(component, k) for component in header[6::3] for k in range(64)}
        elif marker == 0xDA:
            components, (first, last, approximation) = header[1:-3:2], header[-3:]
            if approximation & 15 == 0:
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
    return not missing
