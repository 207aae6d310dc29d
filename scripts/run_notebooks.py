"""Runs the notebooks and keeps their output in them, without what differs from run to run.

    python scripts/run_notebooks.py notebooks/*.ipynb

They run where they lie, on the Python that runs this, with this checkout. Needs nbclient, nbformat and ipykernel
(requirements-dev.txt, or the extra ``notebooks``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 300  # seconds, of a cell


def run_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook with the output that its cells give; the file stays as it is.

    Raises:
        CellExecutionError: a cell fails.
    """
    return run_cells(nbformat.read(path, as_version=4), path.parent)


def run_cells(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook, run in a folder, with the output that its cells give.

    Raises:
        CellExecutionError: a cell fails.
    """
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", record_timing=False,
        coalesce_streams=True,  # else what is printed is cut where the kernel happens to send it
        resources={"metadata": {"path": folder}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else it warns that others on this machine can listen
    )  # fmt: skip
    # The debugger, which nobody uses here, warns of a Python whose modules are frozen.
    settings = {"KERAS_BACKEND": "tensorflow", **os.environ}  # other runtimes compute in 16 bits where they can
    client.execute(env=settings | {"PYTHONPATH": str(ROOT), "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
    notebook.metadata.language_info = {"name": "python"}  # else also the version
    return notebook


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK", help="files to run and to write anew")
    for path in parser.parse_args(argv).notebooks:
        try:
            nbformat.write(run_notebook(path), path)
        except (OSError, nbformat.reader.NotJSONError, CellExecutionError) as error:
            print(f"run_notebooks: {path}: {error}", file=sys.stderr)
            return 1
        print(f"{path}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
