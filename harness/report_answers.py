"""What `answers` shows on a terminal: a question, its sentence, its arms, each verdict."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.cells import WIDE, number, percent, plain, signed, table
from harness.errors import one_line
from harness.verdicts import RULE, Answer


def answers(name: str, found: Sequence[Answer], width: int) -> RenderableType:
    """Return every question's answer and the rule behind them."""
    parts: list[RenderableType] = [Text.assemble("sweep ", (one_line(name), "bold"))]
    for answer in found:
        title = Text.assemble((one_line(answer.question), "bold"), f"  {one_line(answer.text)}")
        parts += [Text(""), title]
        parts.append(plain(answer.summary, "green"))
        parts.append(Padding(_arms(answer, width), (0, 0, 0, 2)))
        parts += [
            Padding(Text.assemble((one_line(verdict.arm), "bold"), " ", verdict.text), (0, 0, 0, 2))
            for verdict in answer.verdicts
        ]
    return Group(*parts, Text(""), plain(RULE.replace("*", ""), "dim"))


def _arms(answer: Answer, width: int) -> Table:
    wide = width >= WIDE
    columns = ["arm", "score", "against the first", "seeds", "starts"]
    if wide:
        columns[2:2] = ["success"]
        columns[-2:-2] = ["better"]
    made = table(*columns, fold=("arm",), right=("seeds", "starts"))
    made.columns[0].min_width = 10
    by_arm = {verdict.arm: verdict for verdict in answer.verdicts}
    for arm in answer.arms:
        verdict = by_arm.get(arm.arm)
        score = arm.report if answer.reported else arm.select
        cells: dict[str, RenderableType] = {
            "arm": plain(arm.arm),
            "score": number(score),
            "against the first": signed(verdict.score) if verdict else "",
            "success": percent(arm.report_success if answer.reported else arm.success),
            "better": percent(verdict.pair.better) if verdict else "",
            "seeds": str(arm.group.finished),
            "starts": str(verdict.n if verdict else score.n),
        }
        made.add_row(*(cells[name] for name in columns))
    return made
