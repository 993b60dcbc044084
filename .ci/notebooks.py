"""Runs every notebook from top to bottom in its own folder; a cell that fails ends with status 1."""

import pathlib
import time

import nbclient
import nbformat

for path in sorted(pathlib.Path("notebooks").glob("*.ipynb")):
    began = time.monotonic()
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    print(f"{path}: {len(notebook.cells)} cells in {time.monotonic() - began:.0f} s")
