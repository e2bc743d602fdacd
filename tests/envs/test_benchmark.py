"""The benchmark's workers run, on this world's side."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "workload.npz"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'benchmarks'); import world;"
        f"world.write_workload(Path('data/expert.zarr'), Path({str(path)!r}), episodes=3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return path


@pytest.mark.parametrize(
    ("world", "mode", "count"),
    [("ours", "state", "0"), ("ours", "image", "0"), ("ours", "image", "2"), ("chipmunk", "", "0")],
)
def test_a_worker_counts_its_steps(workload: Path, world: str, mode: str, count: str) -> None:
    command = [sys.executable, "benchmarks/world_worker.py", world, mode, count, workload, "0.05"]
    result = subprocess.run(
        command, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    figures = json.loads(result.stdout)
    assert figures["seconds"] > 0.05
    assert figures["steps"] > 50
    if count == "0" and world == "ours":
        assert figures["coverage"] > 0.9  # the demonstrations were replayed, not something else
