"""Credentials reach the server that they are for, and nobody else."""

import base64
import io
import pickle
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import dask
import numpy as np
import pytest
import s3_here
from make_dicom import native, noise
from servers import faults, nginx

import dcmdask
from dcmdask import DcmdaskError, UnreachableError, batch, cli, from_dicom, open_frames, scan

FRAMES = noise(600, 32, 32)
TOKEN, PASSWORD = "a-token-nobody-sees", "a-password-nobody-sees"
SIGNED = "/signed.dcm?Signature=a-signature-nobody-sees"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()

with warnings.catch_warnings():
    # aiohttp 4 will have no such class, and people use it with those before.
    warnings.simplefilter("ignore", DeprecationWarning)
    AUTH = aiohttp.BasicAuth("user", PASSWORD)


@pytest.fixture
def other() -> Iterator[faults.Faults]:
    """A server that another one redirects to."""
    with faults.serving() as served:
        served.files[SIGNED] = native(FRAMES)
        yield served


@pytest.fixture
def redirecting(other: faults.Faults, tmp_path: Path) -> Iterator[str]:
    """A URL from which a server redirects to another host."""
    if nginx.missing():
        pytest.skip(nginx.missing())
    to = f"http://localhost:{other.url.rpartition(':')[2]}{SIGNED}"
    with nginx.serving(
        tmp_path, tmp_path / "nginx", f"location /a.dcm {{ return 302 {to}; }}"
    ) as n:
        yield f"{n.url}/a.dcm"


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Authorization": f"Bearer {TOKEN}"}},
        {"client_kwargs": {"headers": {"authorization": f"Bearer {TOKEN}"}}},
        {"client_kwargs": {"auth": AUTH}},
    ],
)
def test_credentials_stay_behind_where_a_server_redirects(
    options: dict[str, Any], other: faults.Faults, redirecting: str
) -> None:
    x = from_dicom(redirecting, storage_options=options)
    np.testing.assert_array_equal(x[599].compute(), FRAMES[599])
    assert len(scan(redirecting, storage_options=options)) == 1
    assert len(other.headers) > 3
    assert not any("authorization" in one for one in other.headers)


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Authorization": f"Basic {BASIC}"}},
        {"client_kwargs": {"auth": AUTH}},
    ],
)
@pytest.mark.parametrize("chained", [False, True])
def test_credentials_reach_the_server_that_is_asked(
    chained: bool, options: dict[str, Any], other: faults.Faults
) -> None:
    url = f"{other.url}{SIGNED}"
    if chained:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a.dcm", native(FRAMES))
        other.files["/a.zip"] = packed.getvalue()
        url, options = f"zip://a.dcm::{other.url}/a.zip", {"http": options}
    np.testing.assert_array_equal(open_frames(url, storage_options=options)[599], FRAMES[599])
    assert {one["authorization"] for one in other.headers} == {f"Basic {BASIC}"}


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_signed_url_that_a_server_redirects_to_is_told_nowhere(
    status: int, other: faults.Faults, redirecting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcmdask.sources.ranges._PAUSES", (0.0,))
    frames = open_frames(redirecting)
    other.faults = [status] * 2
    with pytest.raises(OSError, match=redirecting) as reading:
        frames[0]
    other.status = status
    with pytest.raises(OSError, match=redirecting) as opening:
        open_frames(redirecting)
    for caught in (reading, opening):
        # Records of a job have it.
        told = "".join(traceback.format_exception(caught.value))
        assert "nobody-sees" not in told
        if status != 404:
            # Which server it was is told.
            assert isinstance(caught.value, UnreachableError) and "//localhost:" in told


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{PASSWORD}@127.0.0.1:1/a.dcm",
        f"https://{PASSWORD}@127.0.0.1:1/folder/",
        f"http://user:{PASSWORD}@x@127.0.0.1:1?a@b",
        f"ftp://user:{PASSWORD}@127.0.0.1:1/a.dcm",
        f"s3://key:{PASSWORD}@bucket/a.dcm",
        f"zip://**::https://user:{PASSWORD}@127.0.0.1:1/a.zip",
    ],
)
def test_passwords_in_urls_are_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: from_dicom(url),
        lambda: open_frames(url),
        lambda: dcmdask.open_slide(url),
        lambda: scan(url),
        lambda: scan([url, tmp_path]),
        lambda: batch.run(len, url, tmp_path / "job"),
        lambda: batch.run(len, tmp_path, url),
        lambda: dcmdask.to_zarr(FRAMES, url),
        lambda: dcmdask.verify(url),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="a user or a password in the URL") as caught:
            call()
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    written = (path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in b"".join(written)
    monkeypatch.setattr(sys, "argv", ["dcmdask", "scan", url])
    with pytest.raises(SystemExit):
        cli.main()
    assert PASSWORD not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "url",
    ["github://org:repo@main/a.dcm", "s3://bucket/a:b@c.dcm", "zip://a:b@c.dcm::memory://none.zip"],
)
def test_not_everything_before_an_at_sign_is_a_password(url: str) -> None:
    from dcmdask.sources.access import reaching

    with reaching(url):
        pass


def test_credentials_of_a_store_are_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_here.serving() as store:
        options = {**store.options, "key": TOKEN, "secret": PASSWORD, "token": f"{TOKEN}-session"}
        for number in range(2):
            made = native(FRAMES[:2], SeriesInstanceUID="1.2", SOPInstanceUID=f"1.2.{number}")
            store.put(f"told/{number}.dcm", made)
        store.put("told/short.dcm", native(FRAMES[:1])[:-100])
        folder = f"s3://{s3_here.BUCKET}/told"
        found = scan(folder, storage_options=options)
        frames = open_frames(f"{folder}/0.dcm", storage_options=options)
        x = from_dicom(frames)
        opened = (frames, frames.instance, frames.instance.source, x, dict(x.dask.layers))
        said = [
            *map(repr, (found, *found, *found.skipped, *found[0].stacks, *found[0].instances)),
            *map(str, (found, found[0], found[0].stacks[0])),
            *map(repr, opened),
            *(one._repr_html_() for one in (found, found[0], frames, x)),
            found.to_frame().to_csv(),
            repr((found[0].metadata, frames.instance.source.token, frames.token, x.name)),
            repr([*dask.utils.ensure_dict(x.dask)]),
        ]
        errors = [
            failed(lambda: from_dicom(f"{folder}/none.dcm", storage_options=options)),
            failed(lambda: from_dicom(f"{folder}/short.dcm", storage_options=options)),
            failed(lambda: scan("s3://no-such-bucket/a", storage_options=options)),
            failed(lambda: scan(folder, storage_options={**options, "nonsense": PASSWORD})),
        ]
        store.delete("told/0.dcm")
        errors.append(failed(lambda: frames[0]))
        hidden = {**options, "endpoint_url": f"http://user:{PASSWORD}@127.0.0.1:1"}
        errors.append(failed(lambda: scan(folder, storage_options=hidden)))
    for text in (*said, *errors):
        assert "nobody-sees" not in text


def failed(call: Callable[[], object]) -> str:
    with pytest.raises((DcmdaskError, OSError, ValueError)) as caught:
        call()
    again = pickle.loads(pickle.dumps(caught.value))
    return "".join(traceback.format_exception(caught.value)) + repr(again) + repr(vars(again))
