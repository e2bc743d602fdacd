"""One config as a search space of its own, with a single trial for each training seed."""

from collections.abc import Sequence
from typing import Any

import yaml

from harness.config.trial_config import DEFAULTS, TrialConfig, leaves, to_dict

TRAIN_SEEDS = (0, 1, 2)


def recipe(name: str, config: TrialConfig, data: Sequence[str], remark: str) -> str:
    """Return the text of a search space whose baseline is this config.

    data: the data sets it names. remark: a comment, of one line, at its top.
    """
    base: dict[str, Any] = {}
    flat = leaves(to_dict(config))
    for key, value in flat.items():
        if value != DEFAULTS[key]:
            *sections, last = key.split(".")
            section = base
            for part in sections:
                section = section.setdefault(part, {})
            section[last] = value
    content = {"version": 1, "name": name, "data": list(data), "train_seeds": list(TRAIN_SEEDS)}
    content = {key: value for key, value in {**content, "base": base}.items() if value != []}
    return f"# {remark}\n\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"
