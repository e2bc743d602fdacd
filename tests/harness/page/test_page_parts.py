"""Parts of the page: text is escaped, values are placed correctly, untrusted files refused."""

import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from envs.pusht import PushTEnv
from harness.page import elements, failure_figures, gallery_section, labels, svg_plots
from harness.page.elements import Own, el, render, short, visible
from harness.page.svg_plots import Axis, fitted
from harness.stats.intervals import Crossed, Estimate

EVIL = "<script>alert(1)</script>\"'&\x1b[31m\x00\u202e\n"


def parsed(node: elements.Element) -> ElementTree.Element:
    return ElementTree.fromstring(render(node))


def test_text_and_attributes_are_escaped() -> None:
    made = render(el("p", EVIL, title=EVIL))
    assert "<script" not in made
    assert "\x1b" not in made
    assert "\x00" not in made
    assert "\u202e" not in made
    read = ElementTree.fromstring(made)
    assert read.tag == "p"
    assert not list(read)
    assert "alert(1)" in (read.text or "")
    assert "\\x1b[31m" in (read.text or "")


def test_only_what_this_package_ships_is_not_escaped() -> None:
    assert render(el("style", Own("a > b {}"))) == "<style>a > b {}</style>"
    assert render(el("style", "a > b {}")) == "<style>a &gt; b {}</style>"


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        ("iframe", {}),
        ("object", {}),
        ("p", {"onclick": "alert(1)"}),
        ("p", {"ONLOAD": "alert(1)"}),
        ("p", {"style": "color: red"}),
        ("a", {"href": "javascript:alert(1)"}),
        ("a", {"href": "https://example.com"}),
        ("img", {"src": "https://example.com/x.png"}),
        ("img", {"src": "data:image/svg+xml;base64,AAAA"}),
        ("img", {"src": "data:text/html;base64,AAAA"}),
        ("img", {"srcset": "x.png 2x"}),
        ("p", {'a" onclick="x': "y"}),
    ],
)
def test_what_could_run_or_fetch_is_refused(tag: str, attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="given"):
        el(tag, **attributes)


def test_names_become_short_and_visible() -> None:
    assert len(short("x" * 300, 60)) == 60
    assert short("abc") == "abc"
    assert visible("a\u200fb\u202ec") == "a\\u200fb\\u202ec"
    assert visible("Größe τ ≥ 1") == "Größe τ ≥ 1"


def test_attributes_are_named_as_html_does() -> None:
    made = render(el("td", class_="x", data_v=1.5, hidden=None, aria_label="y", required=True))
    assert made == '<td class="x" data-v="1.5" aria-label="y" required=""></td>'


def test_axes() -> None:
    axis = Axis("x", 0.0, 10.0)
    assert axis.share(2.5) == 0.25
    assert axis.share(-1) == 0.0
    assert axis.ticks == [0, 2, 4, 6, 8, 10]
    log = Axis("x", 0.01, 100.0, log=True)
    assert log.share(1.0) == pytest.approx(0.5)
    assert log.ticks == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert Axis("x", 0.12, 0.55, log=True).ticks == [0.2, 0.3, 0.4, 0.5]
    assert Axis("x", 0, 1, given=(0.0, 1.0), names=("a", "b")).label(1.0) == "b"
    for values in ([3.0, 3.0], [0.0], [np.nan, 1.0, 2.0], [np.nan], [1e-7, 1e-3], [-4.0, 9.0]):
        made = fitted("x", np.array(values), log=True)
        finite = [v for v in values if math.isfinite(v)]
        assert all(made.low <= v <= made.high for v in finite)
        assert made.low < made.high
        assert all(made.low <= t <= made.high for t in made.ticks)
    assert svg_plots.compact(12000) == "12k"
    assert svg_plots.compact(0.00003) == "3e-05"


def test_many_points_are_subsampled_with_both_ends() -> None:
    kept = svg_plots.subsample(100_000)
    assert len(kept) <= svg_plots.MAX_POINTS
    assert kept[0] == 0
    assert kept[-1] == 99_999
    assert svg_plots.subsample(3).tolist() == [0, 1, 2]


def test_known_values_land_on_known_places() -> None:
    x, y = Axis("x", 0.0, 100.0), Axis("y", 0.0, 1.0)
    left, top = svg_plots.LEFT, svg_plots.TOP
    right, bottom = svg_plots.WIDTH - svg_plots.RIGHT, svg_plots.HEIGHT - svg_plots.BOTTOM
    assert svg_plots.place(x, y, 0, 0) == (left, bottom)
    assert svg_plots.place(x, y, 100, 1) == (right, top)
    assert svg_plots.place(x, y, 50, 0.5) == ((left + right) / 2, (top + bottom) / 2)
    line = svg_plots.Line("a", 2, np.array([0.0, 50.0, 100.0]), np.array([0.0, np.nan, 1.0]))
    made = parsed(svg_plots.lines("t", "d", x, y, [line]))
    (path,) = [e for e in made.iter("path") if e.get("class") == "line c2"]
    assert path.get("d") == f"M{left},{bottom} L{right},{top}"
    assert made.get("aria-label") == "t"
    assert made.find("title").text == "t"  # type: ignore[union-attr]
    assert made.find("desc").text == "d"  # type: ignore[union-attr]


def test_a_band_goes_up_one_way_and_back_the_other() -> None:
    axis = Axis("x", 0.0, 1.0)
    ends = np.array([0.0, 1.0])
    line = svg_plots.Line("a", 0, ends, ends * 0.5, ends * 0.0, ends * 1.0)
    made = parsed(svg_plots.lines("t", "d", axis, axis, [line]))
    (band,) = [e for e in made.iter("path") if e.get("class") == "band c0"]
    points = [tuple(map(float, p.split(","))) for p in re.findall(r"[\d.]+,[\d.]+", band.get("d"))]
    corners = [svg_plots.place(axis, axis, *at) for at in ((0, 0), (1, 1), (1, 0), (0, 0))]
    assert points == corners


def test_an_interval_strip_places_by_percentage() -> None:
    axis = Axis("d", -0.2, 0.2, given=(-0.2, 0.0, 0.2))
    made = parsed(svg_plots.interval(axis, [(Estimate(0.1, 0.0, 0.2, 9), "helps")], zero=True))
    _, mark = made.iter("svg")
    assert mark.get("x") == "75.00%"
    (bar,) = [e for e in made.iter("line") if e.get("class") == "whisker helps"]
    assert (bar.get("x1"), bar.get("x2")) == ("50.00%", "100.00%")
    unknown = parsed(svg_plots.interval(axis, [(Estimate(math.nan, math.nan, math.nan, 0), "x")]))
    assert not list(unknown.iter("circle"))
    (dot,) = parsed(svg_plots.interval(axis, [(Estimate(0.1, 0.0, 0.2, 9), "x")])).iter("circle")
    assert dot.get("cx") == "75.00%"
    beyond = [
        next(parsed(svg_plots.interval(axis, [(Estimate(v, v, v, 9), kind)])).iter("polygon"))
        for v, kind in ((-0.5, "helps"), (0.5, "x"), (0.1, "helps"), (-0.1, "hurts"), (0.0, "same"))
    ]
    assert len({mark.get("points") for mark in beyond}) == 5  # the shape alone tells them apart
    alone = parsed(svg_plots.interval(axis, [(Estimate(0.1, math.nan, math.nan, 1), "x")]))
    assert not [e for e in alone.iter("line") if "whisker" in str(e.get("class"))]


def test_numbers_stand_with_their_interval() -> None:
    made = [render(n) for n in labels.estimate(Estimate(0.61234, 0.5, 0.7, 50))]
    assert made == ["<span>0.612</span>", "<small>[0.50, 0.70]</small>"]
    assert "no interval" in render(el("p", *labels.estimate(Estimate(0.5, math.nan, math.nan, 1))))
    assert "not known" in render(el("p", *labels.estimate(None)))
    nan = math.nan
    assert labels.inline(Estimate(nan, nan, nan, 0)) == "not known yet"
    assert labels.inline(Estimate(0.5, 0.25, 0.75, 1200)) == "0.500 [0.25, 0.75], n = 1,200"


def test_start_poses_are_those_of_the_environment() -> None:
    found = failure_figures.poses([200_000, 200_001])
    env = PushTEnv()
    for k, seed in enumerate((200_000, 200_001)):
        _, info = env.reset(seed=seed)
        _, _, x, y, angle = info["state"]
        assert found.angle[k] == angle
        assert math.hypot(found.x[k] - x, found.y[k] - y) == pytest.approx(45.0)
    assert ((found.rotation >= 0) & (found.rotation <= 180)).all()


def test_success_by_bin() -> None:
    values = np.array([[1.0, 1.0, 0.0, 0.0]])
    grid = Crossed((0,), np.arange(4), values)
    found = failure_figures.by_bins(
        grid, np.array([0.0, 10.0, 50.0, 60.0]), (0.0, 30.0, 60.0, 90.0)
    )
    assert [e.value for e in found[:2]] == [1.0, 0.0]
    assert found[0].n == 2
    assert found[2].n == 1  # the edge belongs to the bin above
    assert math.isnan(failure_figures.by_bins(grid, np.zeros(4), (0.0, 1.0, 2.0))[1].value)


def test_failures_lie_on_top_of_the_board() -> None:
    grid = Crossed((0,), np.array([200_000, 200_001]), np.array([[0.1, 0.9]]))
    pins = list(parsed(failure_figures.board("a", grid)).iter("g"))
    assert [pin.get("class") for pin in pins] == ["pin q4", "pin q0"]


def picture(kind: str = "WEBP", frames: int = 1, size: tuple[int, int] = (8, 8)) -> bytes:
    kept = io.BytesIO()
    images = [Image.new("RGB", size, (20 * k, 0, 0)) for k in range(frames)]
    more = {"save_all": True, "append_images": images[1:], "loop": 0} if frames > 1 else {}
    images[0].save(kept, kind, **more)
    return kept.getvalue()


def listed(folder: Path, *entries: object) -> tuple[list[gallery_section.Picture], str]:
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures" / "index.json").write_text(json.dumps(entries))
    found, refused = gallery_section.read(folder)
    return found, "; ".join(refused)


def test_moving_pictures_have_a_still(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.webp").write_bytes(picture(frames=3))
    (tmp_path / "pictures" / "b.png").write_bytes(picture("PNG"))
    found, refused = listed(tmp_path, {"file": "a.webp", "kind": "episode"}, {"file": "b.png"})
    assert not refused
    assert [p.still is not None for p in found] == [True, False]
    assert found[0].source.startswith("data:image/webp;base64,")
    made = render(gallery_section.section(tmp_path) or "")
    assert made.count("<img") == 3


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("../../../../etc/passwd", None, "outside"),
        ("/etc/passwd", None, "outside"),
        ("nothing.webp", None, "not a file"),
        (".", None, "outside"),
        ("a\x00b", None, "null|embedded|cannot"),
        ("x.webp", b"<svg onload=alert(1)>", "not a whole PNG"),
        ("x.webp", b"", "not a whole PNG"),
        ("x.png", picture("PNG")[:40], "not a whole PNG"),
        ("x.gif", b"GIF89a", "not a whole PNG"),
        ("x.png", picture("PNG", size=(3000, 8)), "3000 x 8 px"),
        ("x.webp", picture() + b"\0" * gallery_section.MAX_BYTES, "bytes"),
    ],
)
def test_strange_pictures_stay_outside(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    (tmp_path / "pictures").mkdir()
    if content is not None:
        (tmp_path / "pictures" / name).write_bytes(content)
    found, refused = listed(tmp_path, {"file": name})
    assert not found
    assert re.search(why, refused)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    (tmp_path / "pictures" / "x.png").symlink_to(tmp_path / "secret.png")
    assert "outside" in listed(tmp_path, {"file": "x.png"})[1]


def test_the_index_of_pictures_may_be_anything(tmp_path: Path) -> None:
    assert listed(tmp_path, 1, None, {"file": 3})[1].count("without a file") == 3
    index = tmp_path / "pictures" / "index.json"
    for text in ("{}", "[", "null", '"x"'):
        index.write_text(text)
        assert gallery_section.read(tmp_path)[0] == []
        assert gallery_section.section(tmp_path) is not None
    index.unlink()
    assert gallery_section.section(tmp_path) is None


def test_pictures_stop_where_the_page_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = picture("PNG")
    monkeypatch.setattr(gallery_section, "MAX_TOTAL_BYTES", 2 * len(content) + 1)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "x.png").write_bytes(content)
    found, refused = listed(tmp_path, *[{"file": "x.png", "caption": EVIL}] * 5)
    assert len(found) == 2
    assert "3 pictures beyond" in refused
    assert "<script" not in render(gallery_section.section(tmp_path) or "")
