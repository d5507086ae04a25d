"""Real files behind a web server and in an object store: what they are on a disk."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import s3_here
import xarray as xr
from servers import nginx

import dcmdask
from dcmdask import DcmdaskError, DcmdaskWarning, Series, Stack

# Files that are left out for another reason, which is known: only of local files is looked
# whether they are packed.
PACKED = ("packed", "not DICOM")
# Bytes of a stack of which all is compared, with coordinates.
SMALL = 500_000
# Stacks of each test of which a frame decodes, at least.
LEAST = 8

Names = Mapping[str, Any] | None


def parts(corpus: Path) -> list[list[str]]:
    """Return the collections of the corpus in three parts that take about as long."""
    names = sorted(path.name for path in corpus.iterdir() if path.is_dir())
    files = {name: sum(1 for _ in (corpus / name).rglob("*")) for name in names}
    found: list[list[str]] = [[], [], []]
    for name in sorted(names, key=lambda name: -files[name]):
        min(found, key=lambda part: sum(files[one] for one in part)).append(name)
    return found


def test_a_web_server(corpus: Path, tmp_path: Path, compared: Callable[[Path], None]) -> None:
    if nginx.missing():
        pytest.skip(nginx.missing())
    with nginx.serving(corpus, tmp_path / "nginx", "autoindex on;") as server:
        compare(corpus, [str(corpus)], server.url, [f"{server.url}/"], None, compared)


# A third each time, the one of most kinds of files, and all before a release.
@pytest.mark.parametrize("part", [1, *(pytest.param(n, marks=pytest.mark.rare) for n in (0, 2))])
def test_an_object_store(part: int, corpus: Path, compared: Callable[[Path], None]) -> None:
    names = parts(corpus)[part]
    with s3_here.serving() as server:
        for name in names:
            for path in (corpus / name).rglob("*"):
                if path.is_file():
                    server.put(path.relative_to(corpus).as_posix(), path.read_bytes())
        base = f"s3://{s3_here.BUCKET}"
        folders = [f"{base}/{name}" for name in names]
        local = [str(corpus / name) for name in names]
        compare(corpus, local, base, folders, server.options, compared)


def compare(
    corpus: Path,
    local: list[str],
    base: str,
    urls: list[str],
    options: Names,
    compared: Callable[[Path], None],
) -> None:
    """Compare a scan of local folders with that of the same ones below `base`."""
    here, there = dcmdask.scan(local), dcmdask.scan(urls, storage_options=options)
    assert here.files == there.files
    skipped = by_path(here.skipped, str(corpus)), by_path(there.skipped, base)
    assert skipped[0].keys() == skipped[1].keys()
    for path, one in skipped[0].items():
        other = skipped[1][path]
        assert (one.code, other.code) == PACKED or (one.kind, one.code) == (other.kind, other.code)
    series = keyed(here, str(corpus)), keyed(there, base)
    assert series[0].keys() == series[1].keys()
    with warnings.catch_warnings():
        # Of real files much is odd, and other tests are about that.
        warnings.simplefilter("ignore", DcmdaskWarning)
        shown = 0
        for key, expected in series[0].items():
            shown += compare_series(expected, series[1][key], str(corpus), base)
            for name in key[1]:
                compared(corpus / name)
    assert shown >= LEAST


def below(path: str, base: str) -> str:
    """Return a path below `base`, as which a web server writes it otherwise."""
    assert path.startswith(f"{base}/")
    path = path.removeprefix(f"{base}/")
    return unquote(path) if base.startswith("http") else path


def by_path(skipped: Iterable[dcmdask.Skipped], base: str) -> dict[str, dcmdask.Skipped]:
    return {below(one.path, base): one for one in skipped}


def keyed(found: dcmdask.Scan, base: str) -> dict[tuple[str, tuple[str, ...]], Series]:
    return {(one.uid, tuple(sorted(below(f, base) for f in one.files))): one for one in found}


def compare_series(here: Series, there: Series, root: str, base: str) -> int:
    """Compare two series, and return the number of stacks with frames that decode."""
    shown = 0
    assert odd(here, root) == odd(there, base)
    assert here.metadata == there.metadata and len(here.stacks) == len(there.stacks)
    for one, other in zip(here.stacks, there.stacks, strict=True):
        assert (one.shape, one.dims, one.summary) == (other.shape, other.dims, other.summary)
        assert odd(one, root) == odd(other, base)
        frame = picture(one)
        assert frame == picture(other)
        shown += not isinstance(frame, str)
        if one.frames.nbytes <= SMALL:
            xr.testing.assert_identical(labelled(one), labelled(other))
    return shown


def odd(one: Series | Stack, base: str) -> list[tuple[Any, ...]]:
    """Return irregularities and notes, with paths as they are below `base`."""
    found = []
    for code, text, *frames in (*one.irregularities, *one.notes):
        text = text.replace(f"{base}/", "")
        found.append((code, unquote(text) if base.startswith("http") else text, *frames))
    return found


def picture(stack: Stack) -> Any:
    """Return the values of the frame in the middle, or the error that it is."""
    try:
        frame = stack.frames[len(stack.frames) // 2]
    except DcmdaskError as error:
        return error.code
    return frame.dtype, frame.shape, frame.tobytes()


def labelled(stack: Stack) -> Any:
    try:
        return stack.to_xarray(on_irregular="keep").compute()
    except DcmdaskError as error:
        return xr.DataArray(error.code)
