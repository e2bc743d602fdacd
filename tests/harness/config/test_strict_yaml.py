"""Every surprise that YAML has in store is refused with its file, line and rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import strict_yaml
from harness.core.errors import UserError


def content(text: str) -> dict:
    return strict_yaml.parse(text.encode(), "x.yaml").content


def test_values_are_those_of_yaml_1_2():
    text = (
        "a: 1e-4\nb: -3\nc: .5\nd: 'yes'\ne: on\nf: null\ng: true\nh: [1, 2.0, x]\ni: 1_000\n8: {}"
    )
    expected = {
        "a": 1e-4,
        "b": -3,
        "c": 0.5,
        "d": "yes",
        "e": "on",
        "f": None,
        "g": True,
        "h": [1, 2.0, "x"],
        "i": "1_000",
        "8": {},
    }
    got = content(text)
    assert got == expected
    assert [type(value) for value in got.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("raw", "line", "rule"),
    [
        (b"", 1, "it is empty"),
        (b"# nothing\n", 1, "it is empty"),
        (b"- a\n- b\n", 1, "mapping (key: value) at its root"),
        (b"just words", 1, "mapping (key: value) at its root"),
        (b"a: 1\nb: 2\na: 3\n", 3, "key 'a' must be given once, it is on line 1 too"),
        (b"a: {b: 1, b: 2}\n", 1, "key 'b' must be given once"),
        (b"a: 017\n", 1, "no leading zero, given 017"),
        (b"a: 1\nb: .nan\n", 2, "must be finite, given .nan"),
        (b"a: 1e999\n", 1, "must be finite, given 1e999"),
        (b"a: 99999999999999999999\n", 1, "at most 18 digits"),
        (b"a:\n\t- 1\n", 2, "indent with spaces, given a tab"),
        (b"\xef\xbb\xbfa: 1\n", 1, "without a byte order mark"),
        (b"a: 1\nb: \xff\n", 2, "must be UTF-8, given byte 0xff"),
        (b"a: 1\nb: \x01\n", 2, "control character 0x1"),
        (b"a: 1\n---\nb: 2\n", 2, "a single document"),
        (b"a: !!python/object/apply:os.system [x]\n", 1, "tags are not read"),
        (b"a: !!int '3'\n", 1, "tags are not read"),
        (b"? [1]\n: 2\n", 1, "a key must be a plain word"),
        (b"a: 1\nb: *x\n", 2, "*x must name an anchor"),
        (b"a: &x [*x]\n", 1, "*x must name an anchor"),
        (b"a: b: c\n", 1, "mapping values are not allowed"),
        (b"a: [1, 2\n", 2, "expected ',' or ']'"),
        (b"a: " + b"[" * 2000, 1, "nested 32 deep"),
        (b"a: 1\n" * 60_000, 1, "at most 256 KiB"),
    ],
)
def test_one_line_names_the_file_the_line_and_the_rule(raw, line, rule):
    with pytest.raises(UserError) as caught:
        strict_yaml.parse(raw, "x.yaml")
    message = str(caught.value)
    assert message.startswith(f"x.yaml:{line}: ")
    assert rule in message
    assert "\n" not in message


def test_a_bomb_of_aliases_is_refused_before_it_is_walked():
    text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for this, before in zip("bcdefghij", "abcdefghi", strict=True):
        text += f"{this}: &{this} [{', '.join([f'*{before}'] * 9)}]\n"
    with pytest.raises(UserError, match="100,000 values, aliases written out"):
        content(text)
    assert content("a: &a [1, 2]\nb: *a\n") == {"a": [1, 2], "b": [1, 2]}


def test_an_absent_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        strict_yaml.read(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        strict_yaml.read(tmp_path)


def test_errors_of_the_content_name_the_nearest_line(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\nb:\n  c: [1, 2]\n")
    document = strict_yaml.read(path)
    assert str(document.error(("b", "c"), "rule")) == f"{path}:3: rule"
    assert str(document.error(("b", "x", "y"), "rule")) == f"{path}:2: rule"
    assert str(document.error((), "rule")) == f"{path}:1: rule"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    try:
        strict_yaml.parse(raw, "x.yaml")
    except UserError as error:
        assert str(error).startswith("x.yaml:")  # noqa: PT017


@given(st.text(alphabet="ab:{}[]&*!'\"|>-#\n 01,.", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        strict_yaml.parse(text.encode(), "x.yaml")
    except UserError as error:
        assert str(error).startswith("x.yaml:")  # noqa: PT017
