"""Run the notebooks top to bottom in fresh kernels and keep their outputs.

    python notebooks/run.py [NAME ...]

Without names it runs all of them, in a few minutes. Times and versions are not stored in the files.
A cell with "picture": NAME in its metadata also writes docs/pictures/NAME.png for the documents.
"""

import base64
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
PICTURES = FOLDER.parent / "docs" / "pictures"
CELL_SECONDS = 600


def execute(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of a new kernel on one thread.

    Raises CellExecutionError if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in a temporary folder instead of open ports.
        manager = AsyncKernelManager(
            kernel_name="python3", transport="ipc", connection_file=f"{folder}/kernel.json"
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_SECONDS,
            record_timing=False,
            coalesce_streams=True,  # otherwise the number of outputs depends on timing
            resources={"metadata": {"path": str(FOLDER)}},
        )
        client.execute(cleanup_kc=True, env=environment)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """Return the PNG files of the cells with a picture's name in their metadata."""
    found = {}
    for cell in notebook.cells:
        if "picture" in cell.metadata:
            (png,) = [
                output.data["image/png"]
                for output in cell.outputs
                if "image/png" in output.get("data", {})
            ]
            found[cell.metadata["picture"]] = base64.b64decode(png)
    return found


def main() -> None:
    """Execute the notebooks named on the command line, or all, and write their outputs."""
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    PICTURES.mkdir(exist_ok=True)
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        notebook = execute(path)
        nbformat.write(notebook, path)
        for picture, png in pictures(notebook).items():
            (PICTURES / f"{picture}.png").write_bytes(png)
        print(f"{name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
