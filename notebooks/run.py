"""Executes the notebooks: `python notebooks/run.py` in place, `--out DIR` into another folder, names to run only these.

Where they look is in SHARDWISE_HISTORY, SHARDWISE_WORK, SHARDWISE and the like; each says so at its top.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).resolve().parent


def execute(path: Path, out: Path) -> int:
    """Runs one notebook from top to bottom, and returns how many pictures it drew. An error in any cell ends it."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    for cell in notebook.cells:
        # When a cell ran says nothing that the next run does not say otherwise.
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, out / path.name)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", help="notebooks; all of them when left out")
    arguments.add_argument("--out", type=Path, default=HERE, help="where the executed notebooks go")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # Nothing is left in the home of whoever runs them.
        for variable in ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"]:
            os.environ[variable] = scratch
        for path in [HERE / name for name in options.names] or sorted(HERE.glob("*.ipynb")):
            print(path.name, execute(path, options.out), flush=True)


if __name__ == "__main__":
    try:
        main()
    except nbclient.exceptions.CellExecutionError as error:
        sys.exit(str(error))
