"""Run the notebooks top to bottom in fresh kernels and keep their outputs.

    python notebooks/run.py [NAME ...]

Without names all of them, which takes a few minutes. What changes from run to run or from machine
to machine, such as times and versions, is left out of the files. A cell whose metadata hold
"picture": NAME gives docs/pictures/NAME.png, so that the documents show what the notebooks draw.
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
    """The notebook with the outputs of a fresh kernel on one thread; CellExecutionError if any."""
    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    with tempfile.TemporaryDirectory() as folder:
        # A socket in a folder of its own instead of open ports of the machine.
        manager = AsyncKernelManager(
            kernel_name="python3", transport="ipc", connection_file=f"{folder}/kernel.json"
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_SECONDS,
            record_timing=False,
            coalesce_streams=True,  # else what is one output depends on timing
            resources={"metadata": {"path": str(FOLDER)}},
        )
        client.execute(cleanup_kc=True, env=environment)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The PNG files of the cells that name their picture."""
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
    """Execute the notebooks named on the command line, or all, and write what they give."""
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
