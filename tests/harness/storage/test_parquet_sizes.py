"""The memory that a Parquet file asks for is known before it is decoded, whatever it declares."""

import io
import re
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.storage import parquet_sizes, table_schemas, tables
from tests.memory import peak

pytestmark = pytest.mark.bad_input
METADATA = table_schemas.SCHEMAS["episodes"].metadata


def parquet(content, **options):
    buffer = io.BytesIO()
    pq.write_table(content.replace_schema_metadata(METADATA), buffer, **options)
    return buffer.getvalue()


def number(value, length=0):
    """Thrift's compact integer, in this many bytes: zeros may follow in it."""
    value = value << 1 ^ value >> 63
    found = []
    while value > 127 or len(found) + 1 < length:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def lying(content, truth, lie):
    """The same file with other numbers in its footer, each in as many bytes."""
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    inside = content[footer:]
    assert number(truth) in inside
    return content[:footer] + inside.replace(number(truth), number(lie, len(number(truth))))


def refused(path):
    """Read a file; return the error, which takes next to no memory."""
    with peak() as taken:
        with pytest.raises(ValueError, match=re.escape(str(path))) as error:
            table_schemas.read_file(path, "episodes")
        with suppress(ValueError):
            table_schemas.read_metadata(path)  # the footer alone may be right
    assert taken[0] < 30
    return str(error.value)


@pytest.mark.parametrize("options", [{}, {"data_page_version": "2.0"}, {"use_dictionary": False}])
def test_the_sizes_of_a_table_of_ours(options):
    rows = [{"env_seed": seed, "score": seed / 9, "error": f"e{seed % 3}"} for seed in range(3000)]
    content = parquet(
        table_schemas.table("episodes", rows), compression="none", row_group_size=1000, **options
    )
    found = parquet_sizes.sizes(content)
    with pq.ParquetFile(io.BytesIO(content)) as file:
        metadata = file.metadata
        total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    assert (found.rows, found.columns) == (metadata.num_rows, metadata.num_columns)
    assert metadata.num_row_groups == 3
    # Its sum has the headers too, of some ten bytes and statistics each.
    assert total - 3 * 2 * 100 * found.columns < found.stored < total


def test_a_text_that_is_stored_once_and_declared_small(tmp_path):
    """Three hundred kilobytes in each of 20,000 rows; the footer says that the group has a byte."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 300_000])
    table = pa.table({"config_hash": text})
    content = parquet(table, compression="zstd", store_schema=False, write_statistics=False)
    with pq.ParquetFile(io.BytesIO(content)) as file:
        size = file.metadata.row_group(0).total_byte_size
    path = tmp_path / "episodes.parquet"
    path.write_bytes(lying(content, size, 1))
    with pq.ParquetFile(path) as file:
        assert file.metadata.row_group(0).total_byte_size == 1
    error = refused(path)
    assert "must have at most 1,073,741,824 bytes when it is decoded" in error


def test_a_page_that_declares_two_gigabytes(tmp_path):
    """Of zeros, which compress well; the footer declares five rows."""
    rows = 17_000_000
    options = {"data_page_size": 2**30, "max_rows_per_page": 2**30, "write_batch_size": rows}
    content = parquet(
        pa.table({"score": pa.nulls(rows, pa.float64()).fill_null(0.0)}),
        compression="zstd", use_dictionary=False, write_statistics=False, row_group_size=rows,
        **options,
    )  # fmt: skip
    path = tmp_path / "episodes.parquet"
    at = content.index(b"PAR1") + 4
    header = content[at : at + 30]
    begin = header.index(b"\x15", 1) + 1  # the second field: the size when decompressed
    assert header[begin + 4] < 128
    huge = content[: at + begin] + number(2**31 - 1) + content[at + begin + 5 :]
    for broken in (content, huge):
        path.write_bytes(lying(broken, rows, 5))
        error = refused(path)
        assert "a page has at most 67,108,864 bytes, this one has" in error


def test_what_a_few_bytes_can_make_many_values_of(tmp_path):
    """Texts by differences, lists, columns in columns, types that are not ours."""
    path = tmp_path / "episodes.parquet"
    rows = 1000
    tables = {
        "a page has encoding 7": (
            pa.table({"error": ["x" * 1000] * rows}),
            {"use_dictionary": False, "column_encoding": {"error": "DELTA_BYTE_ARRAY"}},
        ),
        "one value in each row": (pa.table({"a": [[1] * 1000]}), {}),
        "one value in each row of a column": (pa.table({"a": [{"b": {"c": 1}}]}), {}),
        "a truth value, it has binary": (pa.table({"a": [b"x"] * rows}), {}),
    }
    for said, (table, options) in tables.items():
        path.write_bytes(parquet(table, compression="zstd", **options))
        error = refused(path)
        assert said in error


# A footer that nests lists, one whose list has more values than it has bytes, one of types that
# there are not, one that ends within a number, and one without a schema.
FOOTERS = (b"\x19" + b"\x19" * 100_000, b"\x19\xf5" + b"\xff" * 5 + b"\x01", b"\x1d", b"\x15\xff")


@pytest.mark.parametrize("footer", [*FOOTERS, b"\x15\x02\x00", b"\x1c" * 200_000, b""])
def test_a_footer_that_is_none(tmp_path, footer):
    path = tmp_path / "episodes.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    error = refused(path)
    assert "is not a whole Parquet file" in error
    path.write_bytes(path.read_bytes()[:-8] + (2**22).to_bytes(4, "little") + b"PAR1")
    assert "no footer of at most 2,097,152 bytes" in refused(path)


def test_many_files_share_the_room_of_one_table(tmp_path, monkeypatch, caplog):
    """Three files that fit, each alone: the third is left out, and said."""
    monkeypatch.setattr(tables, "MAX_DECODED_BYTES", 3_000_000)
    text = "x" * 1_000
    for number in range(3):
        seeds = range(700 * number, 700 * number + 700)
        rows = [{"env_seed": seed, "error": f"{seed}{text}"} for seed in seeds]
        path = tmp_path / "episodes" / f"eval-{number}.parquet"
        table_schemas.write(table_schemas.table("episodes", rows), path)
    assert tables.read(tmp_path, "episodes").num_rows == 1400
    assert "left out: " in caplog.text
    assert "eval-2.parquet must have at most" in caplog.text
