"""Names with odd characters, on a disk, behind a web server and in an object store."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest
import s3_here
from make_dicom import native, noise
from servers import nginx

from dcmdask import from_dicom, open_frames, scan

NAMES = [
    "a b.dcm",
    " space.dcm",
    "100%.dcm",
    "a%20b.dcm",
    "a%2Fb.dcm",
    "#1.dcm",
    "a#b.dcm",
    "what?.dcm",
    "a?b=c&d.dcm",
    "a+b.dcm",
    "ä ö.dcm",
    "e\N{COMBINING ACUTE ACCENT}.dcm",
    "日本.dcm",
    "it's.dcm",
    'say "x".dcm',
    "a[1].dcm",
    "[ab].dcm",
    "a*.dcm",
    "**.dcm",
    "{x}.dcm",
    "a;b,c.dcm",
    "~a.dcm",
    "a\\b.dcm",
    "a:b@c.dcm",
    "-a.dcm",
    "a\tb.dcm",
    "<b>.dcm",
    "a&amp;b.dcm",
    "a!$'()*.dcm",
    "..dcm",
    "http:.dcm",
    "a?versionId=1.dcm",
    "sub dir#1/x?.dcm",
    "[x]/[y].dcm",
]
# nginx does not list hidden files, and fsspec takes what begins like a URL for one.
NOT_LISTED = {"..dcm", "http:.dcm"}
# s3fs takes this for the version of an object.
OF_A_VERSION = {"a?versionId=1.dcm"}
FRAMES = {name: noise(1, 8, 8, seed=number) for number, name in enumerate(NAMES)}
FILES = {
    name: native(frame, SOPInstanceUID=f"1.2.{number}", SeriesInstanceUID=f"1.3.{number}")
    for number, (name, frame) in enumerate(FRAMES.items())
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    for name, data in FILES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return root


def check(
    base: str,
    listed: set[str],
    opened: set[str],
    quoted: Callable[[str], str] = str,
    options: dict[str, Any] | None = None,
    skipped: Iterable[str] = (),
) -> None:
    """Check that files below `base` are found, and that those that are named are opened."""
    found = scan(base, storage_options=options)
    series = {one.files[0].removeprefix(base): one for one in found}
    assert {unquote(name) if quoted is quote else name for name in series} == listed
    assert {one.path for one in found.skipped} == {f"{base}{name}" for name in skipped}
    for name, one in series.items():
        expected = FRAMES[unquote(name) if quoted is quote else name]
        np.testing.assert_array_equal(one.stacks[0].frames[0], expected[0])
        # As it was found.
        np.testing.assert_array_equal(
            from_dicom(one.files[0], storage_options=options).compute(), expected
        )
    for name in opened:
        url = f"{base}{quoted(name)}"
        np.testing.assert_array_equal(open_frames(url, storage_options=options)[:], FRAMES[name])
        (one,) = scan(url, storage_options=options)
        assert one.files == (url,)


def test_local(folder: Path) -> None:
    check(f"{folder}/", {*NAMES}, {*NAMES})


def test_a_web_server(folder: Path, tmp_path: Path) -> None:
    if nginx.missing():
        pytest.skip(nginx.missing())
    with nginx.serving(folder, tmp_path, "autoindex on;") as server:
        check(f"{server.url}/", {*NAMES} - NOT_LISTED, {*NAMES}, quote)


def test_an_object_store() -> None:
    with s3_here.serving() as server:
        for name, data in FILES.items():
            server.put(f"names/{name}", data)
        base, names = f"s3://{s3_here.BUCKET}/names/", {*NAMES} - OF_A_VERSION
        check(base, names, names, options=server.options, skipped=OF_A_VERSION)


def test_empty_objects_that_stand_for_folders_are_no_files() -> None:
    with s3_here.serving() as server:
        for name in ("marked/", "marked/a/", "marked/empty/"):
            server.put(name, b"")
        server.put("marked/a/b.dcm", FILES["a b.dcm"])
        for name in ("marked/", "marked", "marked/a/", "marked/a", "marked/**"):
            found = scan(f"s3://{s3_here.BUCKET}/{name}", storage_options=server.options)
            assert (len(found), found.files, found.skipped) == (1, 1, ())
        assert not scan(f"s3://{s3_here.BUCKET}/marked/empty/", storage_options=server.options)
        # No warning that the series may lack files.
        x = from_dicom(f"s3://{s3_here.BUCKET}/marked", storage_options=server.options)
        np.testing.assert_array_equal(x.compute(), FRAMES["a b.dcm"])
