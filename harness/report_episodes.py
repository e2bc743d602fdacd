"""What is printed of episodes: a line each."""

import pyarrow as pa
from rich.console import RenderableType

from harness.cells import WIDE, plain, table


def episodes(content: pa.Table, width: int) -> RenderableType:
    """Return a line for each episode."""
    columns = ["trial", "seed", "score", "coverage", "final", "success", "steps", "idle", "jerk"]
    if width >= WIDE:
        columns += ["step", "inference ms", "world ms", "protocol"]
    columns += ["error"]
    right = [name for name in columns if name not in ("trial", "error")]
    made = table(*columns, right=right, fold=("error",))
    made.columns[0].max_width = 24 if width >= WIDE else 10
    for row in content.to_pylist():
        seed = "" if row["train_seed"] is None else f"-s{row['train_seed']}"
        cells = {
            "trial": plain(f"{(row['config_hash'] or '')[: 24 if width >= WIDE else 6]}{seed}"),
            "step": plain(_or_blank(row["checkpoint_step"], "d")),
            "seed": plain(row["env_seed"]),
            "score": plain(_or_blank(row["score"], ".3f")),
            "coverage": plain(_or_blank(row["max_coverage"], ".3f")),
            "final": plain(_or_blank(row["final_coverage"], ".3f")),
            "success": plain({True: "yes", False: "no", None: ""}[row["success"]]),
            "steps": plain(_or_blank(row["length"], "d")),
            "idle": plain(_or_blank(row["idle_share"], ".0%").replace("%", " %")),
            "jerk": plain(_or_blank(row["action_jerk"], ".1f")),
            "inference ms": plain(_or_blank(row["policy_ms"], ".0f")),
            "world ms": plain(_or_blank(row["env_ms"], ".0f")),
            "protocol": plain(row["protocol_hash"] or ""),
            "error": plain(row["error"] or "", "red"),
        }
        made.add_row(*(cells[name] for name in columns))
    return made


def _or_blank(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
