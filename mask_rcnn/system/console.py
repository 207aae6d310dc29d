"""Standard output and standard error that end no run: whatever a film is called, and whoever has stopped reading them."""

from __future__ import annotations

import io
import sys
from typing import Any

from mask_rcnn.system.silence import ignore_reader_warnings


class _Pipe(io.FileIO):
    """A file whose reader may go, as in ``| head -1``: what is written then goes nowhere."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


def forgiving_streams() -> None:
    """Lets a command print any name to any terminal, and go on when nobody reads it any more.

    Characters that the stream's encoding lacks, and bytes of file names that are no text, are written as ``\\xfc`` and
    ``\\udcff``. Streams that somebody has put in the place of the process's own are left in place. What Pillow and pydicom
    warn of is ignored.
    """
    ignore_reader_warnings()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # None of a process that has none
            continue
        stream.reconfigure(errors="backslashreplace")
        raw = getattr(stream.buffer, "raw", stream.buffer)
        if stream is not getattr(sys, f"__{name}__") or not isinstance(raw, io.FileIO):  # as the console of Windows is none
            continue
        try:
            pipe = _Pipe(stream.fileno(), "w", closefd=False)
        except (OSError, ValueError):  # a closed one
            continue
        buffer: Any = pipe if raw is stream.buffer else io.BufferedWriter(pipe)  # python -u has no buffer
        setattr(sys, name, io.TextIOWrapper(
            buffer, stream.encoding, "backslashreplace", line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        ))
