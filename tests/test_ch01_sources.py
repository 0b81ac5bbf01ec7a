"""Chapter 1: every source is read, and what is wrong with it is told."""

import gzip
import io
import json
import lzma
import math
import re
import subprocess
import sys
import warnings
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_utils as lu

TEXTS = ["The ferry is late.", "Zoë waits – with two pears.", "It rained."]
FIELDS = {"text", "source", "title", "language"}


def read(path, **options):
    """What is read of a path, what the log tells, and what was warned of."""
    log = {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        files = lu.corpus_files(path)
        rows = list(lu.read_corpus(files, log=log, **options))
    said = [str(w.message) for w in told if w.category is UserWarning]
    return rows, log, said


def unreadable(log):
    return sum(bad["records"] for bad in log["unreadable"].values())


# -- web archives ------------------------------------------------------------


def archive_record(url, body, status="200 OK", kind="text/html", coding=""):
    """The bytes of a response (or, without a status, a conversion) record."""
    from fastwarc.warc import WarcRecord, WarcRecordType

    record = WarcRecord()
    record.init_headers(
        WarcRecordType.response if status else WarcRecordType.conversion
    )
    record.headers["WARC-Target-URI"] = url
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
    if coding:
        head += f"Content-Encoding: {coding}\r\n"
    head = (head + "\r\n").encode() if status else b""
    record.set_bytes_content(head + body)
    record.is_http = bool(status)
    out = io.BytesIO()
    record.write(out)
    return out.getvalue()


def page(i, words="The clock on the mill is mended, and nobody knows by whom."):
    return (
        f"<html><head><title>Notice {i}</title></head><body><nav><a href=/>"
        f"Home</a></nav><p>{words} That was notice {i}.</p></body></html>"
    ).encode()


def pages_of(n):
    return [archive_record(f"http://v.example/{i}", page(i)) for i in range(n)]


def pack(records, suffix):
    """An archive, each record compressed by itself as in a real crawl."""
    if suffix == ".gz":
        return b"".join(map(gzip.compress, records))
    if suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        packer = zstandard.ZstdCompressor(write_checksum=True)
        return b"".join(map(packer.compress, records))
    return b"".join(records)


SUFFIXES = pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])


@SUFFIXES
@pytest.mark.parametrize("streaming", [False, True])
def test_warc_pages_become_texts(tmp_path, suffix, streaming):
    (tmp_path / f"a.warc{suffix}").write_bytes(pack(pages_of(4), suffix))
    rows = list(lu.load_corpus(tmp_path, streaming=streaming))
    assert [row["source"] for row in rows] == [
        f"http://v.example/{i}" for i in range(4)
    ]
    assert [row["title"] for row in rows] == [f"Notice {i}" for i in range(4)]
    for i, row in enumerate(rows):
        assert row["text"] == lu.extract_text(page(i))
        assert "mended" in row["text"] and "Home" not in row["text"]
        assert set(row) == FIELDS and row["language"] == ""


@SUFFIXES
def test_wet_records_give_their_text(tmp_path, suffix):
    records = [
        archive_record(f"http://v.example/{i}", text.encode(), status="")
        for i, text in enumerate(TEXTS)
    ]
    path = tmp_path / f"CC-00000.warc.wet{suffix}"
    path.write_bytes(pack(records, suffix))
    rows, log, said = read(tmp_path)
    assert [row["text"] for row in rows] == TEXTS
    assert rows[1]["source"] == "http://v.example/1" and not said
    assert log["texts"] == 3 and log["files"] == 1


def test_only_answers_that_hold_a_page_are_taken(tmp_path):
    from fastwarc.warc import WarcRecord, WarcRecordType

    info = WarcRecord()
    info.init_headers(WarcRecordType.warcinfo)
    info.set_bytes_content(b"software: ours")
    out = io.BytesIO()
    info.write(out)
    records = [
        out.getvalue(),
        archive_record("http://a/1", page(1)),
        archive_record("http://a/2", page(2), status="404 Not Found"),
        archive_record("http://a/3", b"\x89PNG", kind="image/png"),
        archive_record("http://a/4", page(4), kind="application/xhtml+xml"),
        archive_record("http://a/5", page(5), status="301 Moved"),
        archive_record("http://a/6", page(6), status="404 Not Found"),
        archive_record("http://a/7", gzip.compress(page(7)), coding="gzip"),
    ]
    (tmp_path / "a.warc.gz").write_bytes(pack(records, ".gz"))
    rows, log, said = read(tmp_path)
    assert [row["title"][-1] for row in rows] == ["1", "4", "7"] and not said
    assert log["passed_over"] == {
        "HTTP status 404": 2,
        "HTTP status 301": 1,
        "content type image/png": 1,
    }
    assert not log["unreadable"] and log["empty"] == 0


def test_the_servers_charset_is_believed_where_the_page_has_none(tmp_path):
    words = "Лёд на реке тронулся, и паром снова ходит через реку."
    body = f"<p>{words}</p>".encode("koi8-r")
    record = archive_record("http://a/", body, kind="text/html; charset=koi8-r")
    (tmp_path / "a.warc").write_bytes(record)
    assert read(tmp_path)[0][0]["text"] == words


@SUFFIXES
@pytest.mark.parametrize("broken", [(0,), (2,), (5,), (1, 2), (0, 3, 5)])
def test_a_broken_record_costs_itself_and_no_other(tmp_path, suffix, broken):
    records, whole, data = pages_of(6), [], b""
    for i, record in enumerate(records):
        member = bytearray(pack([record], suffix))
        if i in broken and suffix:
            middle = len(member) // 2
            member[middle : middle + 24] = b"\x55\xaa" * 12
        elif i in broken:
            member = record.replace(b"Content-Length: ", b"Content-Length: x")
        else:
            whole.append(f"http://v.example/{i}")
        data += bytes(member)
    path = tmp_path / f"a.warc{suffix}"
    path.write_bytes(data)
    rows, log, said = read(tmp_path)
    assert [row["source"] for row in rows] == whole
    assert log["unreadable"][str(path)]["records"] == len(broken)
    starts = np.cumsum([0, *(len(pack([r], suffix)) for r in records)])
    if suffix:
        assert f"byte {starts[broken[0]]}:" in said[0]
    assert f"a.warc{suffix}: {len(broken)} unreadable" in said[0]


@SUFFIXES
def test_an_archive_cut_short_gives_what_it_holds(tmp_path, suffix):
    data = pack(pages_of(5), suffix)
    cut = len(data) - len(pack(pages_of(1), suffix)) // 3
    (tmp_path / f"a.warc{suffix}").write_bytes(data[:cut])
    rows, log, said = read(tmp_path)
    assert len(rows) == 4 and unreadable(log) == 1 and len(said) == 1


def test_a_wrong_length_does_not_swallow_the_rest(tmp_path):
    records = pages_of(5)
    records[1] = records[1].replace(b"Length: ", b"Length: 99999999999")
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    rows, log, _ = read(tmp_path)
    assert [row["title"][-1] for row in rows] == list("0234")
    assert unreadable(log) == 1


def test_a_rotten_body_is_named(tmp_path):
    rotten = bytearray(gzip.compress(page(1)))
    rotten[20:40] = b"\x55\xaa" * 10
    records = pages_of(4)
    for i, body in ((1, b"not compressed"), (2, bytes(rotten))):
        records[i] = archive_record("http://a/", body, coding="gzip")
    (tmp_path / "a.warc.gz").write_bytes(pack(records, ".gz"))
    rows, log, _ = read(tmp_path)
    assert [r["title"][-1] for r in rows] == ["0", "3"] and unreadable(log) == 2


def test_a_wet_text_in_another_encoding_is_named(tmp_path):
    bodies = [b"It rained.", "Zoë".encode("latin-1"), b"Nobody minded."]
    records = [archive_record("http://a/", b, status="") for b in bodies]
    (tmp_path / "a.wet.gz").write_bytes(pack(records, ".gz"))
    rows, log, said = read(tmp_path)
    assert len(rows) == 2 and unreadable(log) == 1 and "utf-8" in said[0]


def test_what_is_no_archive_is_named(tmp_path):
    (tmp_path / "a.warc").write_bytes(b"this is a letter\r\n\r\n" * 40)
    (tmp_path / "b.warc.gz").write_bytes(b"this is a letter\r\n\r\n" * 40)
    (tmp_path / "c.warc").write_bytes(b"")
    rows, log, said = read(tmp_path)
    assert not rows and len(log["unreadable"]) == 2 and len(said) == 2


# -- other files -------------------------------------------------------------


def test_source_code_is_text_with_a_language(tmp_path):
    programs = {"a.py": "Python", "b.rs": "Rust", "c.H": "C", "d.cpp": "C++"}
    for name in programs:
        (tmp_path / name).write_text(f"# {name}\n", "utf-8")
    (tmp_path / "e.md").write_text("Notes\n\n## On *pears* ##\n\nSweet.\n")
    (tmp_path / "f.csv").write_text("a,b\n")
    (tmp_path / "g.py.gz").write_bytes(gzip.compress(b"print()\n"))
    rows, log, said = read(tmp_path)
    assert [row["language"] for row in rows] == [
        *programs.values(), "", "Python",
    ]  # fmt: skip
    assert rows[4]["title"] == "On *pears*" and not said
    assert log["texts"] == log["files"] == 6


def test_a_record_keeps_its_source_title_and_language(tmp_path):
    rows = [
        {"text": "one", "source": "docs:x", "title": "One", "language": "en"},
        {"text": "two", "url": "http://a/2", "title": None, "source": 7},
        {"text": "three"},
    ]
    lu.write_lines(tmp_path / "rows.jsonl", rows)
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {
        k: [r.get(k) if isinstance(r.get(k), str) else None for r in rows]
        for k in ("text", "source", "title", "language", "url")
    }
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    got, _, _ = read(tmp_path)
    for three in (got[:3], got[3:]):
        assert [row["title"] for row in three] == ["One", "", ""]
        assert [row["language"] for row in three] == ["en", "", ""]
        assert [row["source"] for row in three[:2]] == ["docs:x", "http://a/2"]
        assert three[2]["source"].startswith(str(tmp_path / "rows."))


def test_the_title_of_a_page():
    assert lu.page_title("<title> The\n ferry </title><h1>No</h1>") == (
        "The ferry"
    )
    assert lu.page_title(b"<body><h1>Pears <b>in</b> May</h1>") == (
        "Pears in May"
    )
    assert lu.page_title("<title></title><p>x") == "" == lu.page_title("")


def parquet_bytes(groups):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    out = io.BytesIO()
    schema = pa.schema([("text", pa.string()), ("id", pa.int64())])
    with parquet.ParquetWriter(out, schema, compression="none") as writer:
        for g in range(groups):
            texts = [f"row {g} {i} " + "pear " * 40 for i in range(50)]
            table = pa.table({"text": texts, "id": range(50)}, schema)
            writer.write_table(table)
    return out.getvalue()


def test_a_rotten_row_group_costs_its_own_rows(tmp_path):
    data = bytearray(parquet_bytes(4))
    import pyarrow.parquet as parquet

    about = parquet.ParquetFile(io.BytesIO(data)).metadata.row_group(1)
    column = about.column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 30] = b"\xff" * 30
    (tmp_path / "a.parquet").write_bytes(bytes(data))
    rows, log, said = read(tmp_path)
    kept = Counter(row["text"].split()[1] for row in rows)
    assert kept == {"0": 50, "2": 50, "3": 50}
    assert unreadable(log) == 50 and "row 51:" in said[0]


def test_a_parquet_value_that_is_not_utf8_is_one_row(tmp_path):
    data = parquet_bytes(1).replace(b"row 0 7 ", b"row \xff 7 ")
    (tmp_path / "a.parquet").write_bytes(data)
    rows, log, said = read(tmp_path)
    assert len(rows) == 49 and unreadable(log) == 1 and "row 8" in said[0]


def compressed(data, suffix):
    if suffix == ".zst":
        return pytest.importorskip("zstandard").compress(data)
    return {".gz": gzip.compress, ".xz": lzma.compress}[suffix](data)


@pytest.mark.parametrize("cut", [0.4, 0.7, 1])
@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_compressed_file_cut_short_says_so(tmp_path, suffix, cut):
    """Even if it was cut behind a line's end, so that all lines are whole."""
    rng = np.random.default_rng(0)
    lines = [
        json.dumps({"text": str(x)}) for x in rng.integers(2**60, size=9999)
    ]
    data = compressed("\n".join(lines).encode(), suffix)
    end = len(data) - 3 if cut == 1 else int(len(data) * cut)
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(data[:end])
    rows, log, said = read(tmp_path)
    assert len(rows) < 10000 and unreadable(log) >= 1 and len(said) == 1
    assert [r["text"] for r in rows] == [
        json.loads(line)["text"] for line in lines[: len(rows)]
    ]
    path.unlink()
    text = tmp_path / f"a.txt{suffix}"
    text.write_bytes(data[:end])
    rows, log, _ = read(tmp_path)
    assert not rows and "a.txt" in log["unreadable"][str(text)]["first"]


def test_whole_compressed_files_of_several_frames_are_read(tmp_path):
    for suffix in (".gz", ".xz", ".zst"):
        parts = [b'{"text": "one"}\n', b'{"text": "two"}\n']
        data = b"".join(compressed(part, suffix) for part in parts)
        (tmp_path / f"rows.jsonl{suffix}").write_bytes(data)
    rows, log, said = read(tmp_path)
    assert [row["text"] for row in rows] == ["one", "two"] * 3 and not said


BAD_LINES = {
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "not JSON": b"not json",
    "cut": b'{"text": "half',
    "zero bytes": b"\0" * 40,
    "a zero byte inside": b'{"text": "a\0b"}',
    "no text": b'{"title": "no text"}',
    "an array": b"[1]",
    "a number": b"7",
    "null": b"null",
    "text is a number": b'{"text": 5}',
    "half a letter": rb'{"text": "\ud800"}',
    "half a letter in the title": rb'{"text": "a", "title": "\udc00"}',
    "too deep": b'{"text": ' + b"[" * 200_000,
    "a very long number": b'{"text": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"text": "a"}'.encode("utf-16"),
}


@pytest.mark.parametrize("what", BAD_LINES)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_bad_line_is_counted_and_skipped(tmp_path, what, streaming):
    lines = [b'{"text": "one"}', BAD_LINES[what], b'{"text": "two"}']
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    log = {}
    with pytest.warns(UserWarning, match="rows.jsonl: 1 unreadable"):
        data = lu.load_corpus(tmp_path, streaming=streaming, log=log)
        assert [row["text"] for row in data] == ["one", "two"]
    assert log["texts"] == 2
    assert log["unreadable"][str(path)]["records"] == 1
    assert f"{path}, line 2: " in log["unreadable"][str(path)]["first"]


@pytest.mark.parametrize("codec", ["latin-1", "utf-16", "utf-16-le", "utf-32"])
def test_a_text_in_another_encoding_is_named(tmp_path, codec):
    for name in ("a.txt", "b.md", "c.py"):
        (tmp_path / name).write_bytes("Zoë’s café"[:3].encode(codec))
    (tmp_path / "d.txt").write_bytes(b"\xef\xbb\xbfIt rained.")
    rows, log, said = read(tmp_path)
    assert [row["text"] for row in rows] == ["It rained."]
    assert len(log["unreadable"]) == 3 == len(said)


def test_a_record_without_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lu, "LONGEST_RECORD", 1000)
    long = json.dumps({"text": "x" * 5000})
    (tmp_path / "a.jsonl").write_text(
        f'{{"text": "1"}}\n{long}\n{{"text": "2"}}'
    )
    (tmp_path / "b.html").write_text("<p>" + "word " * 300)
    big = archive_record("http://a/", page(1, "word " * 300))
    small = archive_record("http://a/", page(2, "word"))
    body = gzip.compress(page(3, "word " * 4000))
    packed = archive_record("http://a/", body, coding="gzip")
    assert len(packed) < 1000
    (tmp_path / "c.warc").write_bytes(big + small + packed)
    rows, log, _ = read(tmp_path)
    assert [row["text"][:1] for row in rows] == ["1", "2", "w"]
    assert len(log["unreadable"]) == 3 and unreadable(log) == 4


def test_a_long_text_comes_in_pieces_that_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(lu, "LONGEST_RECORD", 100)
    text = "# Pears\r\n" + "".join(f"Line {i} of Zoë’s.\n" for i in range(99))
    (tmp_path / "a.md").write_bytes(text.encode())
    rows, _, said = read(tmp_path)
    assert len(rows) > 10 and not said
    assert "".join(row["text"] for row in rows) == text
    assert all(len(row["text"]) < 120 for row in rows)
    assert all(row["text"].endswith("\n") for row in rows)
    assert [row["title"] for row in rows] == ["Pears"] + [""] * (len(rows) - 1)


def test_the_log_is_right_wherever_one_stops(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\nrot\n{"text": "two"}\n{"text": "three"}')
    log = {}
    rows = lu.read_corpus([path], log=log)
    assert [next(rows)["text"], next(rows)["text"]] == ["one", "two"]
    rows.close()
    assert log["texts"] == 2 and unreadable(log) == 1


def test_an_empty_text_is_counted(tmp_path):
    lu.write_lines(tmp_path / "a.jsonl", [{"text": " \n"}, {"text": "one"}])
    (tmp_path / "b.txt").write_text("")
    rows, log, said = read(tmp_path)
    assert len(rows) == 1 == log["empty"] and not said


def test_streaming_and_not_give_the_same(tmp_path):
    lu.write_lines(
        tmp_path / "a.jsonl", [{"text": f"t{i}"} for i in range(2500)]
    )
    (tmp_path / "b.warc.gz").write_bytes(pack(pages_of(5), ".gz"))
    (tmp_path / "c.py").write_text("print()\n")
    (tmp_path / "d.txt").write_bytes(b"\xff\xff")
    logs = [{}, {}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        still = lu.load_corpus(tmp_path, log=logs[0])
        flow = lu.load_corpus(tmp_path, streaming=True, log=logs[1])
        first, second = list(flow), list(flow)
    assert list(still) == first == second and len(first) == 2506
    assert logs[0] == logs[1] and logs[1]["texts"] == 2506
    assert still.shuffle(seed=1).select(range(9))[0]["text"] in still["text"]


def test_what_is_not_streamed_lies_on_disk_until_python_ends(tmp_path):
    lu.write_lines(tmp_path / "a.jsonl", [{"text": f"t{i}"} for i in range(50)])
    program = (
        "import sys, llm_utils as lu\n"
        "data = lu.load_corpus(sys.argv[1]).map(lambda r: {'n': 1})\n"
        "print(data.cache_files[0]['filename'], len(data), sum(data['n']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    file, n, total = done.stdout.split()
    folder = lu.Path(file).parent
    assert n == total == "50" and not folder.exists()
    assert folder.parent == lu.artifact()


# -- mixtures ----------------------------------------------------------------


def parts_of_lengths(lengths):
    return {
        name: [name * size for size in sizes]
        for name, sizes in zip("abcdefgh", lengths)
    }


def worst_errors(rows, weights, unit):
    """The most that each part was over and under its share, exactly."""
    size = (lambda row: len(row["text"])) if unit == "bytes" else (lambda _: 1)
    total, used = 0, dict.fromkeys(weights, 0)
    over, under = dict.fromkeys(weights, 0), dict.fromkeys(weights, 0)
    whole = sum(map(Fraction, weights.values()))
    for row in rows:
        used[row["part"]] += size(row)
        total += size(row)
        for name, weight in weights.items():
            off = used[name] - Fraction(weight) / whole * total
            over[name] = max(over[name], off)
            under[name] = max(under[name], -off)
    return over, under


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 1, allow_subnormal=False),
            st.lists(st.integers(1, 400), min_size=1, max_size=12),
        ),
        min_size=2,
        max_size=8,
    ),
    st.sampled_from(["bytes", "documents"]),
)
@settings(max_examples=60)
def test_no_part_is_off_by_more_than_a_document(parts, unit):
    weights = dict(zip("abcdefgh", (weight for weight, _ in parts)))
    sources = parts_of_lengths([lengths for _, lengths in parts])
    whole = lu._whole_weights(weights)
    limit = 3000 if unit == "bytes" else 150
    log = {}
    rows = list(lu._drawn(sources, whole, unit, True, limit, log))
    over, under = worst_errors(rows, weights, unit)
    longest = {n: max(map(len, sources[n])) for n in sources}
    if unit == "documents":
        longest = dict.fromkeys(sources, 1)
    for name in sources:
        assert over[name] <= longest[name]
        assert under[name] <= max(longest.values())


def test_equal_documents_are_drawn_by_weight_to_the_document():
    sources = {n: [f"{n}{i}" for i in range(700)] for n in "abc"}
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    log = {}
    data = lu.mix_corpora(
        sources, weights, unit="documents", limit=1000, log=log
    )
    rows = list(data)
    assert Counter(row["part"] for row in rows) == {
        "a": 500, "b": 300, "c": 200,
    }  # fmt: skip
    assert [row["text"] for row in rows if row["part"] == "b"] == (
        sources["b"][:300]
    )
    assert {n: told["share"] for n, told in log.items()} == weights
    assert list(data) == rows


@pytest.mark.parametrize("at_end", ["stop", "repeat"])
def test_what_happens_when_a_part_ends(at_end):
    sources = {"big": ["x" * 10] * 100, "small": ["y" * 10] * 7}
    log = {}
    rows = list(
        lu.mix_corpora(sources, {"big": 3, "small": 1}, at_end=at_end, log=log)
    )
    count = Counter(row["part"] for row in rows)
    if at_end == "stop":
        assert count["small"] == 7 and 19 <= count["big"] <= 22
        assert log["small"]["passes"] == log["big"]["passes"] == 1
    else:
        assert count["big"] == 100 and 32 <= count["small"] <= 34
        assert log["small"]["passes"] == 5 and log["big"]["passes"] == 1
    assert log["big"]["weight"] == 0.75
    assert log["big"]["documents"] == count["big"]
    assert log["small"]["bytes"] == 10 * count["small"]
    share = log["small"]["bytes"] / sum(told["bytes"] for told in log.values())
    assert math.isclose(log["small"]["share"], share)


def test_data_sets_are_mixed_with_their_fields(tmp_path):
    lu.write_lines(tmp_path / "a.jsonl", [{"text": "a", "title": "A"}] * 5)
    (tmp_path / "b.py").write_text("print()\n")
    data = lu.mix_corpora(
        [
            lu.load_corpus(tmp_path / "a.jsonl"),
            lu.load_corpus(tmp_path / "b.py", streaming=True),
        ],
        [1, 2],
        at_end="repeat",
    )
    rows = list(data)
    assert set(rows[0]) == FIELDS | {"part"}
    assert {(r["part"], r["title"], r["language"]) for r in rows} == {
        ("0", "A", ""), ("1", "", "Python"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sources", "weights", "options", "said"),
    [
        ({"a": ["x"]}, {"b": 1}, {}, "same names"),
        ({}, {}, {}, "same names"),
        ({"a": ["x"]}, {"a": 0}, {}, "above zero"),
        ({"a": ["x"]}, {"a": -1}, {}, "above zero"),
        ({"a": ["x"]}, {"a": float("nan")}, {}, "above zero"),
        (
            {"a": ["x"], "b": []},
            {"a": 1, "b": 1},
            {},
            "nothing in the part 'b'",
        ),
        ({"a": iter(["x"])}, {"a": 1}, {}, "only once"),
        ({"a": ["x"]}, {"a": 1}, {"unit": "tokens"}, "'tokens'"),
        ({"a": ["x"]}, {"a": 1}, {"at_end": "cry"}, "'cry'"),
    ],
)
def test_a_mixture_that_cannot_be_says_why(sources, weights, options, said):
    with pytest.raises(ValueError, match=said):
        lu.mix_corpora(sources, weights, **options)


# -- contamination -----------------------------------------------------------


def runs(text, n):
    words = re.findall(r"\w+", text.lower())
    if len(words) < n:
        return [tuple(words)] if words else []
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def brute_force(train, evaluation, n):
    seen = {run for text in train for run in runs(text, n)}
    shares = []
    for text in evaluation:
        own = runs(text, n)
        shares.append(sum(r in seen for r in own) / len(own) if own else 0.0)
    return shares


def brute_force_kept(train, evaluation, n, threshold):
    kept = []
    for i, text in enumerate(train):
        have = set(runs(text, n))
        if not any(
            sum(r in have for r in runs(e, n)) > threshold * len(runs(e, n))
            for e in evaluation
        ):
            kept.append(i)
    return kept


words = st.lists(st.sampled_from("abc"), max_size=25).map(" ".join)


@given(
    st.lists(words, max_size=8),
    st.lists(words, max_size=6),
    st.integers(1, 6),
    st.sampled_from([0, 0.1, 0.25, 0.5, 0.9]),
)
@settings(max_examples=150)
def test_contamination_is_what_brute_force_finds(train, held, n, threshold):
    got = lu.contamination(iter(train), held, n)
    assert got.tolist() == brute_force(train, held, n)
    kept = lu.decontaminate(iter(train), held, n, threshold)
    assert kept == brute_force_kept(train, held, n, threshold)
    left = lu.contamination(
        [train[i] for i in lu.decontaminate(train, held, n)], held, n
    )
    assert not left.any()


def test_the_threshold_is_a_share_that_may_stay():
    for threshold, kept in ((0.49, [1]), (0.5, [0, 1]), (0, [1])):
        got = lu.decontaminate(["a b", "c"], ["a x y b", "z"], 1, threshold)
        assert got == kept


def test_many_batches_are_searched():
    rng = np.random.default_rng(0)
    train = [" ".join(rng.choice(list("abcdefgh"), 900)) for _ in range(1500)]
    held = [train[3][100:400], train[1400][10:900], "z " * 40]
    planted = [f"{text} {held[0]}" if i == 1100 else text
               for i, text in enumerate(train)]  # fmt: skip
    assert lu.contamination(train, held).tolist() == [1, 1, 0]
    gone = set(range(1500)) - set(
        lu.decontaminate(planted, held, threshold=0.9)
    )
    assert gone == {3, 1100, 1400}


def test_case_and_punctuation_do_not_hide_a_copy():
    text = "The keeper of the weir, who is never late, was late on Monday twice"
    train = ["Note: THE KEEPER of the weir -- who is never late! -- was late "
             "on Monday twice, and said so."]  # fmt: skip
    assert lu.contamination(train, [text]).tolist() == [1.0]
    assert lu.contamination(train, [text.replace("late", "early")]) == [0.0]


def test_contamination_of_nothing():
    assert lu.contamination([], ["a b c"]).tolist() == [0.0]
    assert lu.contamination(["a b c"], []).tolist() == []
    assert lu.contamination(["", "!"], ["", "!"]).tolist() == [0.0, 0.0]
    assert lu.decontaminate(["a", ""], []) == [0, 1]
    for bad in (-0.1, 1):
        with pytest.raises(ValueError, match="threshold"):
            lu.decontaminate(["a"], ["a"], threshold=bad)


@pytest.mark.full
def test_contamination_agrees_with_the_given_overlap(real_data):
    """On one shard of twelve the share must be lower, and go with the given."""
    path = real_data / "dedup" / "val_near_duplicates.jsonl.xz"
    rows = list(lu.load_corpus(path))
    with lzma.open(path, "rt", encoding="utf-8") as file:
        told = np.array([json.loads(line)["overlap"] for line in file])
    shard = lu.load_corpus(
        real_data / "pretrain" / "train-00.jsonl.xz", streaming=True
    )
    ours = lu.contamination(
        (row["text"] for row in shard), [row["text"] for row in rows]
    )
    assert len(ours) == len(told) == 162
    assert (ours <= told + 0.15).all() and 0.01 < ours.mean() < told.mean()


def test_real_shards_keep_their_fields(real_data):
    log = {}
    path = real_data / "pretrain" / "val.jsonl.xz"
    rows = list(lu.load_corpus(path, streaming=True, log=log))
    assert log["texts"] == len(rows) == 1099 and not log["unreadable"]
    sources = lu.count_sources(rows)
    assert "books:mlschmitt/classic-books-markdown" in sources
    assert sum(told["documents"] for told in sources.values()) == 1099
    assert all(row["source"] and row["title"] for row in rows)


# -- the card ----------------------------------------------------------------


def test_sources_are_counted_and_the_small_ones_added_up():
    rows = [
        {"text": "one two", "source": "http://A.example/x?y"},
        {"text": "three", "source": "https://a.example/z"},
        {"text": "ë", "source": "docs:x/y"},
        {"text": "print()", "source": "/mine/code/a.py"},
    ]
    told = lu.count_sources(rows, {"a.example": "CC0"})
    assert list(told) == ["a.example", "/mine/code", "docs:x/y"]
    assert told["a.example"] == {
        "licence": "CC0", "documents": 2, "bytes": 12, "words": 3,
        "share": round(12 / 21, 4),
    }  # fmt: skip
    assert told["docs:x/y"]["bytes"] == 2
    assert told["docs:x/y"]["licence"] == "unknown"
    few = lu.count_sources(rows, most=1)
    assert few["(others)"]["documents"] == 2 and len(few) == 2


def test_a_card_holds_all_that_was_counted(tmp_path):
    (tmp_path / "in").mkdir()
    lu.write_lines(tmp_path / "in" / "a.jsonl", [{"text": "a | b"}, {"x": 1}])
    rows, reading, _ = read(tmp_path / "in")
    mixture = {}
    list(lu.mix_corpora({"a": rows}, {"a": 2}, log=mixture))
    card = lu.data_card(
        {"about": "A test."},
        {"train": lu.count_texts(rows)},
        lu.count_sources(rows),
        steps=[("read", 10, 900, ""), ("judged", 7, 500, "spam | junk")],
        reading=reading,
        mixture=mixture,
        contamination={"test": lu.contamination_summary([0.0, 0.5, 1.0])},
        seeds={"draw": 3},
    )
    lu.write_data_card(tmp_path, card)
    first = (tmp_path / "card.json").read_bytes()
    lu.write_data_card(tmp_path, card)
    assert (tmp_path / "card.json").read_bytes() == first
    assert lu.read_json(tmp_path / "card.json") == card
    assert card["splits"]["train"] == {"documents": 1, "bytes": 5, "words": 3}
    assert card["steps"][0]["removed_documents"] == 0
    assert card["steps"][1]["removed_documents"] == 3
    assert card["steps"][1]["removed_bytes"] == 400
    assert card["reading"] == {"files": 1, "texts": 1, "empty": 0}
    assert [bad["records"] for bad in card["unreadable"].values()] == [1]
    assert card["mixture"]["a"]["share"] == 1 == card["mixture"]["a"]["weight"]
    assert card["contamination"]["test"]["with_half"] == 2
    assert card["contamination"]["test"]["mean_share"] == 0.5
    text = (tmp_path / "card.md").read_text("utf-8")
    assert r"spam \| junk" in text and "| train | 1 | 5 | 3 |" in text
    for line in (
        "## Mixture",
        "## Unreadable",
        "## Seeds",
        "**About.** A test.",
    ):
        assert line in text
    tables = [ln for ln in text.splitlines() if ln.startswith("|")]
    assert all(ln.replace(r"\|", "").count("|") > 2 for ln in tables)
    empty = lu.card_markdown(lu.data_card({}, {}, {}))
    assert "None." in empty
