"""JSON that is whole but of another shape: one line names the file, the place and the rule."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.core import errors, files
from harness.core.errors import UserError
from harness.results import __main__ as results_main
from harness.storage import json_schemas
from harness.storage.trial_folder import TrialFolder
from harness.sweep.folder import SweepFolder

FINDING = {"name": "the loss stands still", "evidence": "1", "mend": "2"}
# Every value of a file in turn becomes some of these.
OTHERS: tuple[Any, ...] = (None, 3, -1.5, True, "x", [], [3], [[]], {}, {"a": 1})


def first_trial(folder: Path) -> Path:
    trial = next(path.parent for path in sorted(folder.glob("trials/*/checkpoints")))
    files.write_json([FINDING], trial / "health.json")
    return trial


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The root, every key, and the first of each list; of a trial's settings one is enough."""
    yield at
    entries = list(value.items()) if isinstance(value, dict) else []
    if at[-1:] == ("config",) or at[:1] in (("code",), ("provenance",)):
        entries = entries[:1]
    if isinstance(value, list):
        entries = list(enumerate(value[:1]))
    for key, each in entries:
        yield from places(each, (*at, key))


def changed(value: Any, at: tuple[Any, ...], other: Any) -> Any:
    if not at:
        return other
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = other
    return copy


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("plan.json", [], "a sweep's plan as this program writes it"),
        ("plan.json", {"trials": 3}, "trials must be a valid array, given '3'"),
        ("plan.json", {"trials": [{"config_hash": "a"}]}, "trials.0.train_seed Field required"),
        (
            "plan.json",
            {"questions": [{"question": "a", "arms": [{"arm": 3, "config_hash": "b"}]}]},
            "questions.0.arms.0.arm must be a valid string, given '3'",
        ),
        ("plan.json", {"train_seeds": ["0"]}, "train_seeds.0 must be a valid integer"),
        (
            "plan.json",
            {"search": {"axes": {"a": {"low": "x"}}}},
            "search.axes.a.low must be a valid number",
        ),
        ("health.json", {}, "a list of what was found wrong"),
        ("health.json", [{"evidence": "x"}], "0.name Field required"),
        ("status.json", ["finished"], "a trial's state as this program writes it"),
        ("status.json", {"train_seconds": "3"}, "train_seconds must be a valid number"),
        ("config.json", {"config": 3}, "config must be"),
        ("checkpoints/best/config.json", {"policy_hash": []}, "policy_hash must be a valid string"),
    ],
)
def test_the_file_the_place_and_the_rule_are_named(
    tiny_results: Path,
    name: str,
    content: object,
    rule: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tiny_results / "tiny"
    path = (folder if name == "plan.json" else first_trial(folder)) / name
    files.write_json(content, path)
    for command in ("show", "answers", "trials", "report", "rebuild"):
        arguments = [command, "tiny", "--results", str(tiny_results)]
        code = errors.run(lambda arguments=arguments: results_main.main(arguments))
        said = capsys.readouterr()
        # What rebuilds writes, and refuses such a file; what only reads goes on without it.
        code_of, begin = (2, "error") if command == "rebuild" else (1, "warning: left out")
        assert code == code_of, said
        assert bool(said.out) == (code == 1)
        assert said.err.startswith(f"{begin}: {path} must be ")
        assert rule in said.err
        assert said.err.count("\n") == 1


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_no_value_of_any_file_brings_a_reader_down(
    tiny_results: Path, capsys: pytest.CaptureFixture[str], every: int
) -> None:
    folder = tiny_results / "tiny"
    trial = first_trial(folder)
    names = ("config.json", "status.json", "health.json", "checkpoints/best/config.json")
    refused = read = 0
    for path in [folder / "plan.json", *(trial / name for name in names)]:
        text = path.read_text()
        for number, at in enumerate(places(json.loads(text))):
            if number % every:
                continue
            for other in OTHERS[number // every % 4 :: 4]:
                files.write_json(changed(json.loads(text), at, other), path)
                arguments = ["trials", "tiny", "--results", str(tiny_results)]
                code = errors.run(lambda arguments=arguments: results_main.main(arguments))
                said = capsys.readouterr()
                assert code in (0, 1), (path.name, at, other, said)
                refused, read = refused + code, read + (code == 0)
        path.write_text(text)
    assert min(refused, read) > 20 // every


def test_a_sweep_does_not_go_on_from_such_a_file(tiny_results: Path) -> None:
    folder = tiny_results / "tiny"
    trial = first_trial(folder)
    files.write_json({"status": ["finished"]}, trial / "status.json")
    refused = pytest.raises(UserError, match=r"status\.json must be a trial's state .* status must")
    with SweepFolder(folder).lock(), refused:
        TrialFolder(trial).read_status()
    files.write_json({"dataset": "here"}, folder / "plan.json")
    refused = pytest.raises(UserError, match=r"plan\.json must be a sweep's plan .* dataset must")
    with SweepFolder(folder).lock(), refused:
        SweepFolder(folder).plan()
    assert (folder / "plan.json").is_file()


def test_what_is_not_whole_is_torn_and_what_fits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text('{"status": "fini')
    with pytest.raises(files.TornFileError):
        json_schemas.read(path)
    path.write_text('{"status": "finished", "later": [1]}')
    assert json_schemas.read(path) == {"status": "finished", "later": [1]}
