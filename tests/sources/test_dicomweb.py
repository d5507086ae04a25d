"""Frames of a DICOMweb server: those of the files, with few requests, or an error that says why."""

import gzip
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_dicom import LOSSLESS, encapsulated, native, noise, saved
from pydicom import dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)
from servers import orthanc, relay
from servers.relay import Answer

from dcmdask import (
    DcmdaskError,
    HeaderError,
    SourceChangedError,
    UnreachableError,
    from_dicom,
    open_frames,
    pixel_array,
    scan,
)
from dcmdask.dicom import offsets
from dcmdask.sources import dicomweb_session, held, ranges
from dcmdask.sources.dicomweb import Resource, ServedFile, ServedInstance, resource_of
from dcmdask.sources.files import Inflated

STUDY = "1.2.826.0.1.3680043.8.498.80"
FRAMES = noise(9, 16, 24, dtype="u1", bits=6)


def identified(number: int) -> dict[str, str]:
    return {
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.{number}",
        "SOPInstanceUID": f"{STUDY}.{number}.1",
    }


def url_of(base: str, number: int) -> str:
    return f"{base}/studies/{STUDY}/series/{STUDY}.{number}/instances/{STUDY}.{number}.1"


def encoded_frames(path: Path) -> list[bytes]:
    """The frames of a file as they are stored: what its items hold, or native bytes."""
    frames = open_frames(path)
    found = [frames.encoded(number) for number in range(len(frames))]
    if frames.transfer_syntax.is_encapsulated:
        return [bytes(offsets.payload(one)) for one in found]
    return found


MADE: dict[str, Any] = {
    "explicit": lambda **ids: native(FRAMES, ExplicitVRLittleEndian, **ids),
    "implicit": lambda **ids: native(FRAMES, ImplicitVRLittleEndian, **ids),
    "16-bit": lambda **ids: native(noise(5, 7, 9, dtype="i2", bits=12), **ids),
    "odd": lambda **ids: native(noise(5, 5, 5), **ids),
    "colour": lambda **ids: native(noise(2, 8, 8, samples=3), **ids),
    "bits": lambda **ids: native(
        noise(4, 8, 8, dtype="?"), BitsAllocated=1, BitsStored=1, HighBit=0, **ids
    ),
    "fragments": lambda **ids: encapsulated(FRAMES, JPEG2000Lossless, fragments=2, **ids),
    "extended": lambda **ids: encapsulated(FRAMES, JPEGLSLossless, table="extended", **ids),
    "jpeg": lambda **ids: encapsulated(FRAMES, JPEGBaseline8Bit, **ids),
    **{
        syntax.keyword: lambda syntax=syntax, **ids: encapsulated(FRAMES, syntax, **ids)
        for syntax in LOSSLESS
        # Orthanc 1.10 does not know it.
        if syntax != HTJ2KLossless
    },
}


# Orthanc 1.10 does not give frames of these: files are fetched whole.
WHOLE: dict[str, Any] = {
    "big endian": lambda **ids: native(noise(5, 7, 9, dtype="i2"), ExplicitVRBigEndian, **ids),
    "deflated": lambda **ids: native(FRAMES, DeflatedExplicitVRLittleEndian, **ids),
    "HTJ2K": lambda **ids: encapsulated(FRAMES, HTJ2KLossless, **ids),
    "float": lambda **ids: native(noise(3, 5, 6, dtype="f4"), **ids),
    "odd bits": lambda **ids: native(
        noise(4, 5, 5, dtype="?"), BitsAllocated=1, BitsStored=1, HighBit=0, **ids
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, dicomweb: orthanc.Orthanc) -> Path:
    """A file of each kind, all of which are also on the server."""
    root = tmp_path_factory.mktemp("stored")
    for number, (name, made) in enumerate({**MADE, **WHOLE}.items()):
        saved(root, made(**identified(number)), name)
    assert not dicomweb.put(root / name for name in (*MADE, *WHOLE))
    return root


@pytest.fixture
def relayed(
    folder: Path, dicomweb: orthanc.Orthanc, monkeypatch: pytest.MonkeyPatch
) -> Iterator[relay.Relay]:
    monkeypatch.setattr(ranges, "_PAUSES", (0.0, 0.0, 0.0))
    with relay.passing_on(dicomweb.port) as server:
        yield server


@pytest.mark.parametrize("name", MADE)
def test_frames_are_those_of_the_file(name: str, folder: Path, dicomweb: orthanc.Orthanc) -> None:
    url = url_of(dicomweb.url, list(MADE).index(name))
    served, stored = open_frames(url), open_frames(folder / name)
    assert served.transfer_syntax == stored.transfer_syntax
    assert (served.shape, served.dtype) == (stored.shape, stored.dtype)
    for number, wanted in enumerate(encoded_frames(folder / name)):
        found = served.encoded(number)
        payload = offsets.payload(found) if stored.transfer_syntax.is_encapsulated else found
        assert bytes(payload) == wanted, number
    np.testing.assert_array_equal(served[:], stored[:])
    np.testing.assert_array_equal(served[[1, 0, 0], 2:4], stored[[1, 0, 0], 2:4])
    np.testing.assert_array_equal(from_dicom(url)[1].compute(), stored[1])
    np.testing.assert_array_equal(pixel_array(url), pixel_array(folder / name))


@pytest.mark.parametrize("name", WHOLE)
def test_files_are_fetched_whole_where_the_server_gives_no_frames(
    name: str, folder: Path, relayed: relay.Relay
) -> None:
    url = url_of(relayed.url, len(MADE) + list(WHOLE).index(name))
    served, stored = open_frames(url), open_frames(folder / name)
    assert sum(one.endswith(".1") for one in relayed.asked) == 1
    source = served.instance.source
    source = source.deflated if isinstance(source, Inflated) else source
    assert isinstance(source, ServedFile)
    assert (served.transfer_syntax, served.dtype) == (stored.transfer_syntax, stored.dtype)
    np.testing.assert_array_equal(served[:], stored[:])
    # It is kept for a while, and in no pickle.
    again = pickle.loads(pickle.dumps(served))
    assert len(pickle.dumps(source)) < 1000
    np.testing.assert_array_equal(again[1:3], stored[1:3])
    assert sum(one.endswith(".1") for one in relayed.asked) == 1
    held._HELD.clear()
    np.testing.assert_array_equal(again[1:3], stored[1:3])
    assert sum(one.endswith(".1") for one in relayed.asked) == 2
    held._HELD.clear()
    relayed.change = lambda _, answer: answer._replace(body=answer.body.replace(b"DICM", b"DICN"))
    with pytest.raises(SourceChangedError, match="has changed"):
        again[1:3]


def test_the_header_is_that_of_the_file(folder: Path, dicomweb: orthanc.Orthanc) -> None:
    served = open_frames(url_of(dicomweb.url, 0)).dataset
    stored = dcmread(folder / "explicit", stop_before_pixels=True)
    served.pop("SpecificCharacterSet", None), stored.pop("SpecificCharacterSet", None)
    assert served == stored and served.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_several_frames_come_with_one_request_and_several_requests_at_a_time(
    relayed: relay.Relay,
) -> None:
    url = url_of(relayed.url, list(MADE).index("extended"))
    frames = open_frames(url)
    # The metadata, and the first frame for its transfer syntax.
    assert [one.rpartition("/")[2] for one in relayed.asked] == ["metadata", "1"]
    relayed.asked.clear()
    np.testing.assert_array_equal(frames[:], FRAMES)
    assert sorted(one.rpartition("/")[2] for one in relayed.asked) == ["1,2,3,4,5", "6,7,8,9"]
    relayed.asked.clear()
    np.testing.assert_array_equal(frames[7], FRAMES[7])
    assert [one.rpartition("/")[2] for one in relayed.asked] == ["8"]


def test_links_to_bulk_data_are_followed_where_they_are_needed(
    relayed: relay.Relay, dicomweb: orthanc.Orthanc, tmp_path: Path
) -> None:
    table = np.arange(256, dtype="u2") * 7
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    path = saved(tmp_path, native(FRAMES, **identified(90), **palette))
    assert not dicomweb.put([path])
    url = url_of(relayed.url, 90)
    stored = from_dicom(url).compute()
    np.testing.assert_array_equal(stored, FRAMES)
    assert not any("/bulk/" in one for one in relayed.asked)
    shown = from_dicom(url, values="display")
    np.testing.assert_array_equal(shown.compute(), from_dicom(path, values="display").compute())
    assert sum("/bulk/" in one for one in relayed.asked) == 3


def test_sources_and_arrays_pickle(folder: Path, dicomweb: orthanc.Orthanc) -> None:
    secret = {"headers": {"X-Key": "a secret"}}
    url = url_of(dicomweb.url, list(MADE).index("extended"))
    frames = open_frames(url, storage_options=secret)
    source = frames.instance.source
    assert isinstance(source, ServedInstance) and not source.start
    assert "secret" not in f"{source!r} {source.name} {source.token} {frames!r} {frames.token}"
    assert len(pickle.dumps(source)) < 1500
    again = pickle.loads(pickle.dumps(frames))
    assert again.instance.source == source and again.token == frames.token
    np.testing.assert_array_equal(again[2:4], FRAMES[2:4])
    x = pickle.loads(pickle.dumps(from_dicom(url)))
    np.testing.assert_array_equal(x.compute(scheduler="processes", num_workers=1), FRAMES)


# Credentials


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc.Orthanc]:
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    with orthanc.serving(tmp_path_factory.mktemp("private"), {"me": "letmein"}) as server:
        yield server


def test_who_is_not_known_is_not_let_in(private: orthanc.Orthanc) -> None:
    wrong = {"headers": {"Authorization": "Basic d3Jvbmc6d3Jvbmc="}}
    for options in ({}, wrong):
        with pytest.raises(PermissionError, match="401 Unauthorized") as caught:
            from_dicom(url_of(private.url, 0), storage_options=options)
        text = str(caught.value)
        assert url_of(private.url, 0) in text and "d3Jvbmc" not in text and "\n" not in text
    # The header of the one who is.
    right = {"headers": {"Authorization": "Basic bWU6bGV0bWVpbg=="}}
    with pytest.raises(FileNotFoundError, match="404 Not Found"):
        from_dicom(url_of(private.url, 0), storage_options=right)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    for url in ("dicomweb+https://me:letmein@host/root", "dicomweb+http://letmein@host/studies/1"):
        with pytest.raises(ValueError, match="user name or a password") as caught:
            from_dicom(url)
        assert "letmein" not in str(caught.value)


def test_headers_do_not_follow_to_another_host(relayed: relay.Relay) -> None:
    options = {"headers": {"Authorization": "Bearer secret", "X-Key": "secret"}}
    with relay.passing_on(int(relayed.host.partition(":")[2])) as first:

        def redirected(path: str, answer: Answer) -> Answer:
            return Answer(307, {"Location": f"http://{relayed.host}{path}"}, b"")

        first.change = redirected
        x = from_dicom(url_of(first.url, 0), storage_options=options)
        np.testing.assert_array_equal(x[2].compute(), FRAMES[2])
        assert len(first.headers) == 3
        assert all(one["Authorization"] == "Bearer secret" for one in first.headers)
        # Each request comes by the first server, which passes it on, and then by the redirect.
        assert [one.get("X-Key") for one in relayed.headers] == ["secret", None] * 3
        assert [one.get("Authorization") for one in relayed.headers[1::2]] == [None] * 3
        assert all(one["Host"] == relayed.host for one in relayed.headers[1::2])


def test_options_that_are_none() -> None:
    with pytest.raises(ValueError, match="'headers'"):
        from_dicom(
            "dicomweb+http://127.0.0.1:1/studies/1/series/2/instances/3",
            storage_options={"anon": True},
        )
    for url in ("", "/studies/1", "/studies/1/series/2", "/studies/1/series/2/instances/3"):
        with pytest.raises(ValueError, match="'headers'"):
            scan(f"dicomweb+http://127.0.0.1:1{url}", storage_options={"headers": "x"})


@pytest.mark.parametrize(
    "value", ["Bearer secret\u20ac", "Bearer secret\nX-Other: y", b"secret", None]
)
def test_headers_that_cannot_be_sent_are_not_repeated(value: Any) -> None:
    options = {"headers": {"Authorization": value}}
    for url in ("", "/studies/1/series/2/instances/3"):
        with pytest.raises(ValueError, match="a header is no string") as caught:
            scan(f"dicomweb+http://127.0.0.1:1{url}", storage_options=options)
        assert "secret" not in repr(caught.value)


# URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dicomweb+https://host", Resource("https://host")),
        ("dicomweb+https://host/studies/", Resource("https://host")),
        ("dicomweb+http://host:80/a/b/", Resource("http://host:80/a/b")),
        ("dicomweb+https://host/studies/1.2", Resource("https://host", ("1.2",))),
        ("dicomweb+https://h/a/studies/1/series/2/", Resource("https://h/a", ("1", "2"))),
        (
            "dicomweb+https://h/studies/9/studies/1/series/2/instances/3",
            Resource("https://h/studies/9", ("1", "2", "3")),
        ),
    ],
)
def test_urls(url: str, expected: Resource) -> None:
    found = resource_of(url)
    assert found == expected and resource_of(found.name) == found


@pytest.mark.parametrize(
    "rest",
    [
        "/studies/a", "/studies/1/series", "/series/1", "/studies/1/instances/2", "?q=1",
        "/studies/1/series/2/instances/3/frames/1", "/studies/1/series/2/3", "/studies/1#a",
    ],
)  # fmt: skip
def test_urls_that_are_none(rest: str) -> None:
    with pytest.raises(ValueError, match="not a URL of a DICOMweb server"):
        resource_of(f"dicomweb+https://host/root{rest}")


@pytest.mark.parametrize(
    "rest",
    ["host?token=secret", "host/studies/1?token=secret", "host#secret", "me:secret/a@host", "[a/b"],
)
def test_a_token_in_a_url_is_not_repeated(rest: str) -> None:
    with pytest.raises(ValueError, match="not a URL of a DICOMweb server") as caught:
        scan(f"dicomweb+https://{rest}")
    assert "secret" not in str(caught.value)


# Faults


def test_a_server_that_is_gone(folder: Path, dicomweb: orthanc.Orthanc) -> None:
    with relay.passing_on(dicomweb.port) as server:
        url = url_of(server.url, 0)
        frames = open_frames(url)
    for ask in (lambda: frames[0], lambda: from_dicom(url)):
        with pytest.raises(UnreachableError, match="does not answer") as caught:
            ask()
        assert url in str(caught.value) and "\n" not in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_instance_that_is_not_there(dicomweb: orthanc.Orthanc) -> None:
    with pytest.raises(FileNotFoundError, match="404 Not Found"):
        from_dicom(url_of(dicomweb.url, 77))


def _failing(times: int, status: int) -> Any:
    left = [times]

    def change(path: str, answer: Answer) -> Answer:
        left[0] -= 1
        return answer if left[0] < 0 else Answer(status, {}, b"")

    return change


def test_faults_that_pass(relayed: relay.Relay) -> None:
    for status in (503, 429, 500):
        relayed.change = _failing(3, status)
        frames = open_frames(url_of(relayed.url, 0))
        relayed.change = _failing(3, status)
        np.testing.assert_array_equal(frames[1], FRAMES[1])
    relayed.change = _failing(4, 503)
    with pytest.raises(UnreachableError, match="503 Service Unavailable"):
        frames[1]


def _replaced(old: bytes, new: bytes, more: tuple[str, str] = ("", "")) -> Any:
    """Change answers to requests for frames."""

    def change(path: str, answer: Answer) -> Answer:
        if "/frames/" not in path:
            return answer
        headers = {name: value.replace(*more) for name, value in answer.headers.items()}
        return Answer(answer.status, headers, answer.body.replace(old, new))

    return change


def _cut(path: str, answer: Answer) -> Answer:
    return answer._replace(body=answer.body[:-80]) if "/frames/" in path else answer


def _repeated(path: str, answer: Answer) -> Answer:
    end = answer.body.rindex(b"\r\n--")
    mark = answer.body[: answer.body.index(b"\r\n")]
    more = answer.body[:end] + b"\r\n" + mark + b"\r\n\r\nx" + answer.body[end:]
    return answer._replace(body=more) if "/frames/" in path else answer


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("extended", _replaced(b"4.80\r\n", b"4.90\r\n"), "transfer syntax 1.2.840.10008.1.2.4.90"),
        (
            "explicit",
            _replaced(b".1.2.1\r\n", b".1.2.2\r\n"),
            "transfer syntax 1.2.840.10008.1.2.2",
        ),
        ("explicit", _replaced(b"Content-Length: 384", b"Content-Length: 383"), "header says 383"),
        ("explicit", _cut, "ends before the boundary"),
        ("explicit", _repeated, "more parts came for 1"),
        ("explicit", lambda _, answer: answer._replace(body=b"--a--"), "not as it should be"),
        ("explicit", lambda _, answer: Answer(200, {"Content-Type": "image/jls"}, b"x"), "2.4.80"),
        (
            "explicit",
            lambda _, answer: Answer(200, {"Content-Type": "application/octet-stream"}, bytes(99)),
            "99 bytes came for frame 3, which has 384",
        ),
        (
            "explicit",
            lambda _, answer: Answer(
                200, {"Content-Type": "application/octet-stream"}, bytes(10**6)
            ),
            "more than",
        ),
    ],
)
def test_answers_that_are_wrong(name: str, change: Any, reason: str, relayed: relay.Relay) -> None:
    frames = open_frames(url_of(relayed.url, list(MADE).index(name)))
    relayed.change = change
    with pytest.raises(SourceChangedError, match=reason) as caught:
        frames[3]
    assert url_of(relayed.url, list(MADE).index(name)) in str(caught.value)


def test_an_answer_that_grows_without_end_takes_no_memory(
    relayed: relay.Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = open_frames(url_of(relayed.url, 0))
    monkeypatch.setattr(dicomweb_session, "_MOST_ANSWER", 10**6)
    body = gzip.compress(bytes(10**7))
    assert len(body) < 10**5
    how = {"Content-Encoding": "gzip"}
    relayed.change = lambda path, answer: Answer(200, how, body)
    with pytest.raises(SourceChangedError, match="more than"):
        frames[1]
    for function in (open_frames, scan):
        with pytest.raises(UnreachableError, match="the answer has more than 1000000 bytes"):
            function(url_of(relayed.url, 0))
    # What comes with a redirect is read before it is followed.
    relayed.change = lambda path, answer: Answer(302, {**how, "Location": "/"}, body)
    with pytest.raises(UnreachableError, match="the answer has more than 1000000 bytes"):
        frames[1]


def test_one_frame_may_come_without_parts(relayed: relay.Relay) -> None:
    frames = open_frames(url_of(relayed.url, 0))

    def change(path: str, answer: Answer) -> Answer:
        body = re.split(rb"\r\n\r\n", answer.body, maxsplit=1)[1][:384]
        return Answer(200, {"Content-Type": "application/octet-stream"}, body)

    relayed.change = change
    np.testing.assert_array_equal(frames[3], FRAMES[3])


@pytest.mark.parametrize("where", ["in the type", "beside the type"])
def test_the_transfer_syntax_may_be_told_for_all_parts(where: str, relayed: relay.Relay) -> None:
    frames = open_frames(url_of(relayed.url, list(MADE).index("extended")))

    def change(path: str, answer: Answer, syntax: str = JPEGLSLossless) -> Answer:
        body = re.sub(rb"Content-Type: [^\r]*\r\n", b"", answer.body)
        said = f'"image/jls"; transfer-syntax={syntax}'
        if where == "in the type":
            said = f'"image/jls; transfer-syntax={syntax}"'
        kind = re.sub('type="[^"]*"', f"type={said}", answer.headers["Content-Type"])
        return Answer(200, {"Content-Type": kind}, body)

    relayed.change = change
    np.testing.assert_array_equal(frames[3], FRAMES[3])
    relayed.change = lambda path, answer: change(path, answer, "1.2.840.10008.1.2.4.81")
    with pytest.raises(SourceChangedError, match=r"1\.2\.4\.81"):
        frames[3]


def _metadata(change: Any) -> Any:
    def changed(path: str, answer: Answer) -> Answer:
        return answer._replace(body=change(answer.body)) if "/metadata" in path else answer

    return changed


@pytest.mark.parametrize(
    ("change", "expected", "reason"),
    [
        (lambda body: b"[]", UnreachableError, "no metadata"),
        (lambda body: b"<html>", UnreachableError, "no JSON"),
        (lambda body: b"[3]", UnreachableError, "no metadata"),
        (lambda body: b"[" * 200_000, UnreachableError, "no metadata"),
        (lambda body: b"[" + b"9" * 5_000 + b"]", UnreachableError, "no metadata"),
        (lambda body: b"[{}]", UnreachableError, "no metadata"),
        (lambda body: body.replace(b'"vr" : "US"', b'"vr" : 1'), HeaderError, "has no VR"),
        (lambda body: body.replace(b"498.80.0.1", b"498.80.0.9"), SourceChangedError, "498.80.0.9"),
    ],
)
def test_metadata_that_are_wrong(
    change: Any, expected: type[Exception], reason: str, relayed: relay.Relay
) -> None:
    relayed.change = _metadata(change)
    with pytest.raises(expected, match=reason):
        from_dicom(url_of(relayed.url, 0))


def _with_element(key: str, element: Any) -> Any:
    """Change one element of all metadata."""

    def change(body: bytes) -> bytes:
        return json.dumps([{**one, key: element} for one in json.loads(body)]).encode()

    return _metadata(change)


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ({"vr": []}, "has no VR"),
        ({"vr": {}}, "has no VR"),
        ([], "has no VR"),
        ({"vr": "US", "Value": [1.5]}, "is no US"),
        ({"vr": "US", "Value": [True]}, "is no US"),
        ({"vr": "SQ", "Value": [None]}, "no object"),
    ],
)
def test_elements_that_are_wrong(element: Any, reason: str, relayed: relay.Relay) -> None:
    relayed.change = _with_element("00280034", element)
    with pytest.raises(HeaderError, match=reason):
        from_dicom(url_of(relayed.url, 0))


def test_text_in_items_is_that_of_the_json_whatever_character_set_they_say(
    relayed: relay.Relay,
) -> None:
    item = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00081080": {"vr": "LO", "Value": ["ä\u0416"]},
    }
    relayed.change = _with_element("00081115", {"vr": "SQ", "Value": [{}, item]})
    found = open_frames(url_of(relayed.url, 0)).dataset.ReferencedSeriesSequence
    assert len(found) == 2 and not found[0]
    assert found[1].AdmittingDiagnosesDescription == "ä\u0416"


@pytest.mark.parametrize("name", ["explicit", "extended"])
def test_each_frame_is_asked_for_once_and_in_order(name: str, relayed: relay.Relay) -> None:
    frames = open_frames(url_of(relayed.url, list(MADE).index(name)))
    for numbers, expected in (([1, 1], ["2"]), ([7, 3, 5, 3, 7], ["4,6", "8"])):
        relayed.asked.clear()
        np.testing.assert_array_equal(frames[numbers], FRAMES[numbers])
        assert sorted(one.rpartition("/")[2] for one in relayed.asked) == expected


def test_frames_in_another_order_are_noticed(relayed: relay.Relay) -> None:
    frames = open_frames(url_of(relayed.url, 0))

    def change(path: str, answer: Answer, step: int = 0) -> Answer:
        first = int(re.split("[/,]", path.partition("/frames/")[2])[0])
        numbers = iter(range(first + step, first + 99))

        def located(found: re.Match[bytes]) -> bytes:
            place = f"\r\nContent-Location: {path.rpartition('/')[0]}/{next(numbers)}"
            return place.encode() + found[0]

        return answer._replace(body=re.sub(rb"\r\nContent-Type:", located, answer.body))

    relayed.change = change
    np.testing.assert_array_equal(frames[2:6], FRAMES[2:6])
    relayed.change = lambda path, answer: change(path, answer, 1)
    with pytest.raises(SourceChangedError, match="gives frame 4 where frame 3 was asked for"):
        frames[3]


def test_links_to_other_servers_are_not_followed(relayed: relay.Relay) -> None:
    relayed.change = _metadata(
        lambda body: body.replace(
            b'"00100010"',
            b'"00091001": {"vr": "OB", "BulkDataURI": "http://127.0.0.1:1/x"}, "00100010"',
        )
    )
    frames = open_frames(url_of(relayed.url, 0))
    np.testing.assert_array_equal(frames[1], FRAMES[1])
    with pytest.raises(UnreachableError, match="another server"):
        _ = frames.dataset


def test_what_a_link_leads_to_may_be_none(relayed: relay.Relay) -> None:
    link = f"http://{relayed.host}/link?signature=secret"
    metadata = _with_element("00091001", {"vr": "OB", "BulkDataURI": link})
    page = Answer(200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
    for found, expected, reason in (
        (Answer(404, {}, b""), FileNotFoundError, "404 Not Found"),
        (Answer(400, {}, b""), UnreachableError, "400 Bad Request"),
        (page, SourceChangedError, "a page for a browser"),
    ):
        relayed.change = lambda path, answer, found=found: (
            found if path == "/link" else metadata(path, answer)
        )
        frames = open_frames(url_of(relayed.url, 0))
        with pytest.raises(expected, match=reason) as caught:
            _ = frames.dataset
        assert "/link" in str(caught.value) and "secret" not in str(caught.value)
    # So may a frame.
    relayed.change = lambda path, answer: page
    with pytest.raises(SourceChangedError, match="a page for a browser"):
        frames[1]


def test_an_available_transfer_syntax_is_believed(relayed: relay.Relay) -> None:
    told = b'"00083002": {"vr": "UI", "Value": ["%s"]}, "00100010"'
    number = list(MADE).index("extended")
    relayed.change = _metadata(
        lambda body: body.replace(b'"00100010"', told % JPEGLSLossless.encode())
    )
    frames = open_frames(url_of(relayed.url, number))
    assert [one.rpartition("/")[2] for one in relayed.asked] == ["metadata"]
    np.testing.assert_array_equal(frames[3], FRAMES[3])
    for value in (JPEGLSLossless + " ", "", None):
        relayed.change = _with_element("00083002", {"vr": "UI", "Value": [value]})
        np.testing.assert_array_equal(open_frames(url_of(relayed.url, number))[3], FRAMES[3])
    # But not over the answer.
    relayed.change = _metadata(
        lambda body: body.replace(b'"00100010"', told % JPEG2000Lossless.encode())
    )
    with pytest.raises(SourceChangedError, match=JPEGLSLossless):
        open_frames(url_of(relayed.url, number))[3]


def test_a_header_that_asks_for_too_much_takes_no_memory(relayed: relay.Relay) -> None:
    relayed.change = _metadata(
        lambda body: re.sub(rb'("00280010" :\s*\{\s*"Value" :\s*\[\s*)16', rb"\g<1>65535", body)
    )
    for name in ("explicit", "RLELossless", "extended"):
        frames = open_frames(url_of(relayed.url, list(MADE).index(name)))
        assert frames.shape[1] == 65535
        with pytest.raises(DcmdaskError):
            frames[1]


@pytest.mark.parametrize("name", ["explicit", "implicit", "extended"])
def test_an_option_does_not_outrank_the_server(
    name: str, folder: Path, dicomweb: orthanc.Orthanc
) -> None:
    url = url_of(dicomweb.url, list(MADE).index(name))
    syntax = open_frames(url).transfer_syntax
    assert open_frames(url, transfer_syntax_uid=str(syntax)).shape == FRAMES.shape
    for other in {ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless} - {syntax}:
        with pytest.raises(DcmdaskError):
            open_frames(url, transfer_syntax_uid=str(other))
    for function in (scan, from_dicom):
        found = function(url, rows=8)
        shape = found.shape if function is from_dicom else found[0].to_dask().shape
        assert shape[1] == 8


def test_a_transfer_syntax_that_nothing_decodes(relayed: relay.Relay) -> None:
    relayed.change = _replaced(b".1.2.1\r\n", b".1.9.9\r\n")
    with pytest.raises(DcmdaskError, match="transfer syntax"):
        from_dicom(url_of(relayed.url, 0))
    assert UID("1.2.840.10008.1.9.9").name
