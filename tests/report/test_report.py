"""``dcmdask report``: what it adds up, and that its page is whole, bounded and inert."""

import base64
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from dcmdask.batch.records import Record
from dcmdask.cli.report import report
from dcmdask.errors import Note
from dcmdask.report.distribution import distribution
from dcmdask.report.page import page, write_page
from dcmdask.report.summary import summarise, without_folders
from dcmdask.sources.folder import Folder

UID = "1.2.826.0.1.3680043.8.498."
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</title></style></script><b>",
    "javascript:alert(1)",
    "\x1b]0;title\x07\x1b[2J",
    "\u202egnp.exe\u202c\ud800\x00",
)


class Page(HTMLParser):
    """What is on a page; raises where elements are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def inside(self, tag: str) -> str:
        return "".join(data for within, data in self.texts if within == tag)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for t, name, value in self.attributes if (t, name) == (tag, attribute)]

    def series(self) -> dict[str, list[str]]:
        """Cells of the rows of the table of series, by name."""
        start = next(n for n, row in enumerate(self.rows) if row[:2] == ["series", "state"])
        return {row[0]: row for row in self.rows[start + 1 :]}


def done(number: int, **more: Any) -> Record:
    given = {"job": "j", "source": "s", "seconds": number + 0.5, "frames": 3, "bytes": 1000}
    return Record(name=f"{UID}{number}", done=True, **{**given, **more})


def failure(number: int, stage: str, error: str, message: str, **more: Any) -> Record:
    more = {"seconds": 0.25, "stage": stage, "error": error, "message": message, **more}
    return replace(done(number, **more), done=False)


def png(width: int = 40, height: int = 20, mode: str = "L") -> bytes:
    held = io.BytesIO()
    Image.new(mode, (width, height), 200 if mode == "L" else (10, 200, 10)).save(held, "PNG")
    return held.getvalue()


def target(path: Path, records: Sequence[Record]) -> Folder:
    folder = Folder.of(path)
    for one in records:
        one.write(folder)
    return folder


def cut_short(number: int) -> Record:
    file = f"/data/Doe John {number}/IM {number}.dcm"
    message = f"{file}, frame {number}: the codestream ends early: {number} of {number + 9} bytes"
    said = f'File "/home/jdoe/my jobs/job.py", line 3, in process\nDecodeError: {message}'
    more = {"file": file, "frame": number, "traceback": said, "files": [file]}
    more["code"] = "DecodeError/truncated"
    return failure(number, "decode", "DecodeError", message, **more)


FEW = [done(0), done(1, attempts=2), cut_short(2), cut_short(3), done(4)]


# What the records say together


def test_summary() -> None:
    found = summarise([*FEW, failure(5, "timeout", "ClusterError", "it took longer than 3 s")])
    assert (len(found.records), found.done, found.failed) == (6, 3, 3)
    assert (found.frames, found.bytes, found.retried, found.jobs) == (18, 6000, 1, 1)
    assert math.isclose(found.seconds, 0.5 + 1.5 + 4.5 + 3 * 0.25)
    assert found.median == 0.375 and found.longest.name == f"{UID}4"
    assert [(one.stage, len(one.records)) for one in found.causes] == [
        ("decode", 2),
        ("timeout", 1),
    ]


def test_files_that_were_left_out_are_no_series(tmp_path: Path) -> None:
    file = Record("file-1", False, "j", "s", "scan", "left out", "it is empty", file="a/b.dcm")
    found = summarise([*FEW, file])
    assert (found.series, found.done, found.failed, found.left_out) == (5, 3, 2, 1)
    assert found.median == summarise(FEW).median
    folder = target(tmp_path, [*FEW, file])
    shown = Page(page(found, folder))
    assert shown.series()["file-1"][1] == "failed: scan"
    text = command(tmp_path, code=1)
    assert "left out     1 file that may be part of a series" in text and "a/b.dcm" in text
    assert json.loads(command(tmp_path, "--json", code=1))["files_left_out"] == 1


def test_failures_of_one_cause_are_one() -> None:
    """By stage, error and code, whatever the messages say."""
    texts = ["/data/Doe John/IM 3.dcm: 10 bytes, not 2.5e3", "cut", "", "cut (0028,0010)\n"]
    more = {"code": "DecodeError/truncated"}
    same = [failure(n, "decode", "DecodeError", text, **more) for n, text in enumerate(texts)]
    (cause,) = summarise(same).causes
    assert (cause.code, cause.text) == ("DecodeError/truncated", texts[0])
    assert cause.records == tuple(same)


def test_different_causes_stay_apart() -> None:
    codes = ["TypeError at job.py:12", "TypeError at job.py:13", "TypeError"]
    found = summarise(
        failure(n, "process", "TypeError", "x", code=code) for n, code in enumerate(codes)
    )
    assert [one.code for one in found.causes] == codes
    kinds = [("decode", "OSError"), ("write", "OSError"), ("write", "KeyError")]
    assert len(summarise(failure(n, *one, "x") for n, one in enumerate(kinds)).causes) == 3


def test_notes_of_one_code_are_one(tmp_path: Path) -> None:
    notes = [[Note("gap", "/a/Doe John/3.dcm is missing")], [Note("gap", "4 is missing")] * 2]
    records = [done(n, notes=some) for n, some in enumerate([*notes, [Note("tilt", "by 3")]])]
    found = summarise([*records, failure(7, "process", "KeyError", "x", notes=notes[0])])
    told = [(one.code, one.text, len(one.records)) for one in found.notes]
    assert told == [("gap", "/a/Doe John/3.dcm is missing", 2), ("tilt", "by 3", 1)]
    target(tmp_path, records)
    lines = [line.split() for line in command(tmp_path).splitlines()]
    assert ["1", "by", "3", f"{UID}2"] in lines
    (first, _) = json.loads(command(tmp_path, "--json"))["notes"]
    assert (first["code"], first["series"]) == ("gap", [f"{UID}0", f"{UID}1"])


def test_paths_are_cut_down_to_names() -> None:
    one = failure(1, "process", "ValueError", "", files=["1", "a/1", "2/IM1", "/a/Doe John/3.dcm"])
    told = {
        "1 of a/1, 12/IM1 2/IM1": "1 of 1, 12/IM1 IM1",
        "/a/Doe John/3.dcm and /a/Doe John/4.dcm": "3.dcm and 4.dcm",
        "no such file: '/mnt/Doe John 3/a 3.dcm'": "no such file: 'a 3.dcm'",
        "see s3://bucket/doe/key.dcm, and \\\\server\\doe\\y3.dcm": "see key.dcm, and y3.dcm",
        "/t/series/1.2/a.zarr": "series/1.2/a.zarr",
        "10 MB/s of (0028,0002)": "10 MB/s of (0028,0002)",
    }
    for text, expected in told.items():
        assert without_folders(text, one, Folder.of("/t")) == expected


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=3))
@example("\\1 \\g<0> C:\\a\\b", ["C:\\a\\b", "(", "\\"])
@example("a" * 199 + "/", ["/"])
def test_any_text_can_be_cut(message: str, files: list[str]) -> None:
    one = failure(0, "decode", "DecodeError", message, files=files)
    without_folders(message, one, Folder.of("/t"))


# Distributions

VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=3),
    st.just(10**400),
)


@given(st.lists(VALUE, max_size=60))
@example([0.0, 5e-324])
@example([1e9, 1e9 + 1e-7])
@example([-1e300, 1e300, 1e301, -1e308])
@example([0.1 * n for n in range(30)])
@example([-1_200_000_001_201, -2.2250738585e-313])
@example([3, True, "3", None, math.nan, math.inf])
def test_every_value_is_counted_once(values: list[Any]) -> None:
    found = distribution(values)
    absent = [v for v in values if v is None or (isinstance(v, float) and not math.isfinite(v))]
    assert found.drawn + found.absent + found.left_out == len(values)
    assert found.absent == len(absent)
    assert len(found.bars) <= 30
    numbers = [v for v in values if type(v) in (int, float) and v not in absent and abs(v) <= 1e300]
    assert found.numeric == bool(numbers)
    if numbers:
        assert len(numbers) / 2 <= found.drawn <= len(numbers)
        assert found.low == float(min(numbers)) and found.high == float(max(numbers))
        assert found.bars[0].number and found.bars[-1].number


def test_one_outlier_squeezes_nothing() -> None:
    found = distribution([*range(100), 10**6, None])
    assert (found.drawn, found.left_out, found.absent) == (100, 1, 1)
    assert len(found.bars) > 10 and found.high == 10**6 and found.last == 99
    # A middle half of one value has no width: all others stay.
    assert distribution([0] * 50 + [1, 2, 3]).drawn == 53


@given(st.lists(st.integers(-40, 40), min_size=2), st.sampled_from([1, 7, 1000]))
def test_bins_of_whole_numbers(values: list[int], factor: int) -> None:
    values = [value * factor for value in values]
    for bar in distribution(values).bars:
        low, _, high = bar.label.partition(" to ")
        within = sum(int(low) <= value <= int(high or low) for value in values)
        # Fewer where the bin ends behind the last one that is no outlier.
        assert 0 <= bar.number <= within


@given(st.lists(st.integers(0, 1000), min_size=2, unique=True))
def test_bins_of_fractions(values: list[int]) -> None:
    # Eighths and their bins' multiples of 1, 2 and 5 are compared without rounding of labels.
    eighths = [value / 8 for value in values] + [values[0] / 8]
    bars = distribution(eighths).bars
    edges = [tuple(map(float, bar.label.split(" to "))) for bar in bars]
    assert all(math.isclose(a[1], b[0]) for a, b in pairwise(edges))
    inside = [sum(low - 1e-9 <= v < high - 1e-9 for v in eighths) for low, high in edges]
    outside = distribution(eighths).left_out
    assert sum(inside) - sum(bar.number for bar in bars) <= outside
    assert all(bar.number <= many for bar, many in zip(bars, inside, strict=True))


def test_texts_and_truths() -> None:
    found = distribution(["b", "a", "a", True, None, *map(str, range(20))])
    assert [tuple(bar) for bar in found.bars[:3]] == [("a", 2), ("b", 1), ("true", 1)]
    assert not found.numeric and found.absent == 1 and found.drawn + found.left_out == 24


# The page


def checked(text: str) -> Page:
    """Parse a page, and look that it loads nothing and runs nothing but our own script."""
    shown = Page(text)
    for tag, name, value in shown.attributes:
        assert not name.startswith("on") and name != "style", (tag, name)
        if name == "src":
            assert tag == "img" and value.startswith("data:image/jpeg;base64,")
        if name == "href":
            assert tag == "a" and not re.match(r"\w+:|//", value), value
    tags = {tag for tag, _, _ in shown.attributes}
    assert not tags & {"link", "iframe", "object", "embed", "base", "form"}
    assert text.count("<script") == text.count("</script") == 1
    assert "@import" not in text and "url(" not in shown.inside("style")
    policy = next(v for v in shown.values("meta", "content") if "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("style", "script"):
        digest = hashlib.sha256(shown.inside(kind).encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    ids = shown.values("tr", "id")
    assert len(ids) == len(set(ids))
    local = {value[1:] for value in shown.values("a", "href") if value.startswith("#")}
    assert local <= set(ids)
    return shown


def test_page(tmp_path: Path) -> None:
    numbers = [{"peak": 10, "ok": True}, {"peak": 12.5, "ok": False}, {"peak": None, "note": "x"}]
    records = [*FEW, *(done(10 + n, numbers=one) for n, one in enumerate(numbers))]
    name = f"{UID}12"
    outputs = {"mip": f"series/{name}/mip.png", "v": f"series/{name}/v.zarr"}
    records[-1] = done(12, numbers=numbers[2], outputs=outputs)
    folder = target(tmp_path / "out", records)
    folder.write(outputs["mip"], png(400, 100))
    text = page(summarise(records), folder)
    shown = checked(text)
    rows = shown.series()
    assert set(rows) == {one.name for one in records}
    assert rows[name] == [name, "done", "3", "12.50", "1", "", "", "x", "mip v "]
    assert rows[f"{UID}11"][5:8] == ["12.5", "false", ""]
    assert rows[f"{UID}2"][1] == "failed: decode"
    assert shown.inside("h3").split() == ["DecodeError/truncated:", "2", "series"]
    # Links lead to what is there.
    links = [unquote(v) for v in shown.values("a", "href") if not v.startswith("#")]
    assert {f"records/{one.name}.json" for one in records} | set(outputs.values()) == set(links)
    (source,) = shown.values("img", "src")
    small = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert small.size == (160, 40)
    without = sum(one.done for one in records) - 1
    assert f"Series without a picture: {without}; their records may say why." in text


def test_no_paths_on_a_page(tmp_path: Path) -> None:
    folder = target(tmp_path / "out", FEW)
    text = page(summarise(FEW), folder)
    checked(text)
    for word in ("Doe", "jdoe", "/data", "/home", "my jobs", str(tmp_path), tmp_path.name):
        assert word not in text
    # What tells where it happened is there.
    assert "<p>IM 2.dcm, frame 2: the codestream ends early: 2 of 11 bytes</p>" in text
    assert "job.py" in text


def test_paths_relative_to_the_source_are_cut_too() -> None:
    file = "Doe John/st 1/IM1.dcm"
    said = f"{file}: as Doe John/st 1/IM9.dcm, 1/2; /t/series/1.2/mip.zarr exists"
    one = failure(0, "decode", "DecodeError", said, file=file, files=[file])
    told = "IM1.dcm: as IM9.dcm, 1/2; series/1.2/mip.zarr exists"
    assert without_folders(said, one, Folder.of("/t")) == told


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_records_are_inert(tmp_path: Path, number: int) -> None:
    bad = HOSTILE[number]
    outputs = {bad: bad, "up": "series/../../secret.png", "root": "/etc/secret.png"}
    outputs |= {"odd": f"series/{bad}.zarr", "gone": "series/x/gone.png"}
    records = [
        done(1, numbers={bad: bad, "list": [bad], "dict": {bad: bad}}, outputs=outputs),
        failure(2, bad, bad, bad, traceback=bad, file=bad, files=[bad], job=bad),
        failure(3, bad, bad, bad, traceback=bad, code="other"),
        Record(name=bad, done=True, job="", source="", numbers={"n": 3, bad: 1}),
    ]
    folder = Folder.of(tmp_path / "out")
    (tmp_path / "secret.png").write_bytes(png())
    text = page(summarise(records), folder)
    shown = checked(text)
    assert not shown.values("img", "src")
    rows = shown.series()
    assert len(rows) == 4
    if bad.isprintable():
        assert bad in rows and bad in shown.inside("pre")
    text.encode()
    assert all(c.isprintable() or c == "\n" for c in text)
    assert not [v for v in shown.values("a", "href") if "secret" in v]


def test_numbers_of_all_kinds(tmp_path: Path) -> None:
    values = [None, True, "text", 3, 2.5, math.nan, math.inf, -0.0, 10**400, [1], "<b>", 1e-320]
    records = [done(n, numbers={"x": value}) for n, value in enumerate(values)]
    shown = checked(page(summarise(records), Folder.of(tmp_path)))
    cells = [shown.series()[one.name][5] for one in records]
    assert cells[:8] == ["", "true", "text", "3", "2.5", "nan", "inf", "-0"]
    assert cells[9:] == ["[1]", "<b>", "9.99989e-321"] and len(cells[8]) < 100
    assert "3 series without a value; 5 other values not drawn" in shown.inside("p")


def test_bars_are_drawn_to_scale(tmp_path: Path) -> None:
    values = [1] * 6 + [2] * 3 + [4] * 12
    records = [done(n, seconds=1.0, numbers={"x": v}) for n, v in enumerate(values)]
    text = page(summarise(records), Folder.of(tmp_path))
    found = re.findall(r'height="([\d.]+)"><title>([^<]+)</title>', text)
    assert found == [("96", "1: 21"), ("48", "1: 6"), ("24", "2: 3"), ("96", "4: 12")]


def test_pictures_of_all_kinds(tmp_path: Path) -> None:
    contents = [png(), png(500, 1000, "RGB"), png(mode="P"), b"", png()[:45], b"<svg onload=x>"]
    names = [f"series/{UID}{n}/a.png" for n in range(len(contents))]
    records = [done(n, outputs={"a": name}) for n, name in enumerate(names)]
    folder = Folder.of(tmp_path)
    for name, content in zip(names[:-1], contents[:-1], strict=True):
        folder.write(name, content)
    text = page(summarise([*records, done(9)]), folder)
    shown = checked(text)
    assert len(shown.values("img", "src")) == 3
    assert "Pictures that are missing or cannot be read: 3." in text
    sizes = zip(shown.values("img", "width"), shown.values("img", "height"), strict=True)
    assert list(sizes) == [("40", "20"), ("80", "160"), ("40", "20")]
    assert "Series without a picture: 3;" in page(summarise(FEW), folder)
    # A thumbnail is what a series without one has; what a record says leads nowhere else.
    thumbnails = {name: png(30, 20) for name in (f"{UID}1", "../x")}
    for name, content in thumbnails.items():
        folder.write(f"records/{name}.png", content)
    shown = checked(page(summarise([*FEW, replace(FEW[0], name="../x")]), folder))
    assert shown.values("img", "alt") == [f"thumbnail of {UID}1"]
    assert f"records/{UID}1.png" in shown.values("a", "href")


def test_a_page_elsewhere(tmp_path: Path) -> None:
    folder = target(tmp_path / "a b" / "out", FEW)
    found = summarise(FEW)
    record = f"records/{UID}0.json"
    ways = {None: "", str(tmp_path / "pages" / "x.html"): "../a b/out/"}
    for path, way in ways.items():
        written = write_page(found, folder, path)
        assert written == (path or str(tmp_path / "a b" / "out" / "report.html"))
        links = [unquote(v) for v in checked(Path(written).read_text()).values("a", "href")]
        assert way + record in links
        assert (Path(written).parent / way / record).is_file()
    # From another place no link leads to an object store, and the page is there all the same.
    remote = target_in_memory()
    written = write_page(found, remote, str(tmp_path / "r.html"))
    assert not [v for v in checked(Path(written).read_text()).values("a", "href") if v[0] != "#"]
    assert write_page(found, remote) == f"{remote.url}/report.html"
    assert b"<!doctype html>" in remote.read(["report.html"])["report.html"]
    remote.remove("")


def target_in_memory() -> Folder:
    folder = Folder.of("memory://report-test/out")
    for one in FEW:
        one.write(folder)
    return folder


def many(number: int, outputs: bool = False) -> list[Record]:
    rng = np.random.default_rng(0)
    found = []
    for n in range(number):
        if n % 10 == 0:
            found.append(cut_short(n))
            continue
        numbers = {"mean": float(rng.normal()), "peak": int(rng.integers(4096)), "ok": n % 3 == 0}
        own = {"mip": f"series/{UID}{n}/mip.png"} if outputs else {}
        found.append(done(n, numbers=numbers, outputs=own))
    return found


def test_pictures_are_bounded(tmp_path: Path) -> None:
    records = many(700, outputs=True)
    folder = Folder.of(tmp_path)
    for one in records:
        for path in one.outputs.values():
            folder.write(path, png())
    text = page(summarise(records), folder)
    assert len(checked(text).values("img", "src")) == 500
    assert "These are of the first 500 of " in text
    # By their size, too.
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), "u1")
    held = io.BytesIO()
    Image.fromarray(noise).save(held, "PNG", compress_level=0)
    for one in records[:500]:
        for path in one.outputs.values():
            folder.write(path, held.getvalue())
    text = page(summarise(records), folder)
    assert len(text) < 7_000_000
    assert 0 < len(checked(text).values("img", "src")) < 500


def test_a_page_of_many_series_and_causes(tmp_path: Path) -> None:
    records = many(3000)
    letters = ["".join(chr(97 + int(digit)) for digit in str(n)) for n in range(1000, 1300)]
    records += [failure(4000 + n, "process", word, word) for n, word in enumerate(letters)]
    records += [done(9999, numbers={f"x{n}": n for n in range(100)})]
    text = page(summarise(records), Folder.of(tmp_path))
    shown = checked(text)
    assert set(shown.series()) == {one.name for one in records}
    assert "And 201 causes more" in text and "1000 of 3301 rows are shown" in text
    assert "and 250 more: sort the table below by state" in text
    assert "And 91 results more: results.csv has all." in text
    assert "And 43 results more: results.csv has all." in text
    assert len(text) < 600 * len(records)


# The command


def command(*arguments: Any, code: int = 0) -> str:
    app = typer.Typer()
    app.command()(report)
    ended = CliRunner().invoke(app, [str(one) for one in arguments])
    if code == 2:
        # As main() ends it.
        assert isinstance(ended.exception, ValueError | OSError)
        return str(ended.exception)
    assert ended.exit_code == code, (ended.output, ended.exception)
    return ended.stdout


def test_report_for_people(tmp_path: Path) -> None:
    target(tmp_path, FEW)
    text = command(tmp_path, code=1)
    facts, _, causes = text.partition("\n\n")
    assert [line.split()[0] for line in facts.splitlines()] == [
        "done",
        "failed",
        "tried",
        "data",
        "time",
        "a",
    ]
    assert "3 of 5 series" in facts and "15 frames, 4.88 kiB decoded" in facts
    assert "7.0 s for all series" in facts
    assert f"0.5 s (median), at most 4.5 s ({UID}4)" in facts
    table, _, examples = causes.partition("\n\n")
    assert re.search(r"^decode +2 +DecodeError/truncated", table, re.MULTILINE)
    heading, example = examples.splitlines()
    assert heading.startswith("for example")
    said = "/data/Doe John 2/IM 2.dcm, frame 2: the codestream ends early: 2 of 11 bytes"
    assert example == f"  {UID}2: {said}"


def test_many_causes_for_people(tmp_path: Path) -> None:
    words = [f"{chr(97 + n)}bc" for n in range(26)]
    target(tmp_path, [failure(n, "process", w, w * 400, frame=n) for n, w in enumerate(words)])
    lines = command(tmp_path, code=1).splitlines()
    assert "and 6 causes more" in lines
    assert lines[-1].endswith("(frame 3)") and max(map(len, lines)) < 400


def test_report_for_programs(tmp_path: Path) -> None:
    target(tmp_path, FEW)
    told = json.loads(command(tmp_path, "--json", "--html", code=1))
    assert (told["series"], told["done"], told["failed"]) == (5, 3, 2)
    assert told["seconds"] == {
        "all": 7.0,
        "median": 0.5,
        "longest": 4.5,
        "longest_series": f"{UID}4",
    }
    (cause,) = told["causes"]
    assert [one["series"] for one in cause["failures"]] == [f"{UID}2", f"{UID}3"]
    assert cause["failures"][0]["frame"] == 2 and "IM 2.dcm" in cause["failures"][0]["file"]
    checked(Path(told["page"]).read_text())


def test_report_ends(tmp_path: Path) -> None:
    target(tmp_path / "good", [done(1)])
    assert "failed at" not in command(tmp_path / "good")
    elsewhere = tmp_path / "x.html"
    assert command(tmp_path / "good", "--html", elsewhere).rstrip().endswith(str(elsewhere))
    assert elsewhere.is_file() and not (tmp_path / "good" / "report.html").exists()
    assert "no records of a job" in command(tmp_path / "none", code=2)
    assert "--html" in command(tmp_path / "good", "x.html", code=2)
    # While a job runs, or where one was broken off, other files lie there.
    (tmp_path / "good" / "records" / f".{UID}2.lock").touch()
    (tmp_path / "good" / "records" / f"{UID}3.json").write_text("{")
    assert "1 of 1 series" in command(tmp_path / "good")


def test_a_terminal_is_not_steered(tmp_path: Path) -> None:
    bad = HOSTILE[-2] + HOSTILE[-1]
    target(tmp_path, [failure(1, bad, bad, bad, file=bad, files=[bad])])
    for flags in ([], ["--json"]):
        text = command(tmp_path, *flags, code=1)
        assert all(c.isprintable() or c == "\n" for c in text)


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
def test_a_browser_runs_only_our_script(tmp_path: Path) -> None:
    records = [done(n, seconds=1.0, numbers={"x": n}) for n in range(3)]
    records += [failure(7 + n, bad, bad, bad, traceback=bad) for n, bad in enumerate(HOSTILE)]
    folder = target(tmp_path / "out", records)
    written = write_page(summarise(records), folder)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/p"]
    shown = subprocess.run(
        [BROWSER, *options, "--enable-logging=stderr", "--dump-dom", f"file://{written}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # Ours ran, and the policy refused nothing that is ours.
    assert '<html lang="en" class="scripted">' in shown.stdout
    assert "Content Security Policy" not in shown.stderr and "Uncaught" not in shown.stderr
