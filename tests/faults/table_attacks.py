"""What a command that reads makes of each attack on a table, in this checkout or an earlier one.

    python -m tests.faults.table_attacks [--checkout FOLDER]

Prints a row for each: the exit code, the peak of memory, and whether there was a traceback, a file
was renamed or changed, or nothing else was shown. At most a minute and 8 GiB each.
"""

import argparse
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "sweep_1" / "results"
SECONDS, BYTES = 60, 8 * 2**30
# Prints the peak of this process's memory (KiB) as the last line on stderr.
MEASURED = """
import runpy, sys
sys.argv = ["harness.results", *sys.argv[1:]]
try:
    runpy.run_module("harness.results", run_name="__main__", alter_sys=True)
finally:
    print(next(each for each in open("/proc/self/status") if each.startswith("VmHWM")).split()[1],
          file=sys.stderr)
"""


def replaced(path: Path, column: str, values: pa.Array, *, twice: bool = False) -> None:
    """Write the table with another column, or with one more of that name."""
    table = pq.read_table(path)
    if twice:
        table = table.append_column(column, values)
    else:
        table = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(table, path)


def bomb(path: Path) -> None:
    """A text of 300 kB that is stored once, in each of 20,000 rows: 6 GB from 2 kB."""
    schema = pq.read_schema(path)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 300_000])
    table = pa.table({"config_hash": texts, "env_seed": list(range(20_000))})
    table = table.replace_schema_metadata(schema.metadata)
    pq.write_table(table, path, compression="zstd", store_schema=False)


def pipe(path: Path) -> None:
    """A pipe, which waits for its writer."""
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    """/dev/zero, which never ends."""
    path.unlink()
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def link(path: Path) -> None:
    """A link to a file outside that is torn."""
    outside = path.parents[4] / "outside"
    outside.write_bytes(path.read_bytes()[:1000])
    path.unlink()
    path.symlink_to(outside)


ATTACKS: dict[str, Callable[[Path], None]] = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "a link to a torn file outside": link,
    "a pipe": pipe,
    "/dev/zero": device,
    "no permission": lambda path: path.chmod(0),
    "2 kB that become 6 GB": bomb,
    "text for numbers": lambda path: replaced(path, "score", pa.array(["x", "y"])),
    "a column twice": lambda path: replaced(path, "score", pa.array([1.0, 2.0]), twice=True),
    "invalid UTF-8": lambda path: replaced(
        path, "policy_hash", pa.array([b"\xff\xfe"] * 2, pa.binary()).view(pa.string())
    ),
    "a step of -2^63": lambda path: replaced(path, "checkpoint_step", pa.array([-(2**63)] * 2)),
    "plan.json that says 3": lambda path: (path.parents[3] / "plan.json").write_text("3"),
}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return kind and size of everything in a folder."""
    found = ((path, path.lstat()) for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): (status.st_mode, status.st_size) for path, status in found}


def limit() -> None:
    """Limit a child's memory."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


def result(attack: Callable[[Path], None], checkout: Path) -> str:
    """Return in words what `results show` makes of an attack."""
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        results = folder / "results"
        shutil.copytree(GOLDEN, results)
        path = sorted(results.glob("golden/trials/*/episodes/select-00000008.parquet"))[0]
        attack(path)
        for each in (results, *results.rglob("*")):
            if each.is_dir():
                each.chmod(0o777)
        before = state_of(folder)
        # Root may read everything, but for this.
        prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        prefix = [] if os.getuid() else prefix
        command = [
            *prefix,
            sys.executable,
            "-c",
            MEASURED,
            "show",
            "golden",
            "--results",
            str(results),
        ]
        try:
            done = subprocess.run(
                command, cwd=checkout, capture_output=True, text=True, timeout=SECONDS,
                check=False, preexec_fn=limit, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "hangs"
        lines = done.stderr.split()
        words = [f"exit code {done.returncode}"]
        if lines and lines[-1].isdigit():
            words.append(f"{int(lines[-1]) / 1024:.0f} MiB")
        if "Traceback" in done.stderr:
            words.append("traceback: " + done.stderr.splitlines()[-2][:60])
        changed = {each for each, _ in before.items() ^ state_of(folder).items()}
        if changed:
            words.append("renamed or changed " + ", ".join(sorted(Path(c).name for c in changed)))
        if "left out" in done.stderr:
            words.append("named and left out")
        words.append("the rest is shown" if "baseline" in done.stdout else "nothing is shown")
        return "; ".join(words)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the code to attack")
    checkout = parser.parse_args().checkout.resolve()
    print("| attack on a trial's table | result |\n|---|---|")
    for name, attack in ATTACKS.items():
        print(f"| {name} | {result(attack, checkout)} |", flush=True)


if __name__ == "__main__":
    main()
