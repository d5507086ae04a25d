"""Multipart messages: parts are found however the blocks fall, and what is wrong is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmdask.sources.multipart import MultipartError, media_type, parts

BOUNDARY = "a-b"
HEADERS = "Content-Type: application/octet-stream\r\nX: y\r\n"


def message(bodies: list[bytes], headers: str = HEADERS, preamble: bytes = b"") -> bytes:
    made = b"".join(f"--{BOUNDARY}\r\n{headers}\r\n".encode() + body + b"\r\n" for body in bodies)
    return preamble + made + f"--{BOUNDARY}--\r\n".encode()


def read(data: bytes, block: int = 7, longest: int = 1000) -> list[bytes]:
    blocks = (data[at : at + block] for at in range(0, len(data), block))
    return [part.body for part in parts(blocks, BOUNDARY, longest)]


@given(
    bodies=st.lists(st.binary(max_size=60) | st.sampled_from([b"\r\n", b"\r\n--a", b"--a-"])),
    block=st.integers(1, 90),
    headers=st.sampled_from(["", HEADERS]),
    preamble=st.sampled_from([b"", b"for nobody\r\n"]),
)
def test_parts_are_found_however_the_blocks_fall(
    bodies: list[bytes], block: int, headers: str, preamble: bytes
) -> None:
    if bodies:
        assert read(message(bodies, headers, preamble), block) == bodies


def test_headers_have_names_in_lower_case() -> None:
    (part,) = parts([message([b"x"])], BOUNDARY, 1)
    assert part.headers == {"content-type": "application/octet-stream", "x": "y"}


def test_what_follows_the_last_boundary_is_for_nobody() -> None:
    assert read(message([b"x"]) + b"epilogue") == [b"x"]
    assert read(message([b"x"])[:-2]) == [b"x"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends before the first boundary"),
        (b"no boundary at all\r\n", "ends before the first boundary"),
        (message([b"x", b"y"])[:-9], "ends before the boundary behind a part"),
        (message([b"x"])[:30], "ends before the end of the headers"),
        (message([b"x"]).replace(b"--a-b\r\n", b"--a-bc\r\n"), "bytes follow a boundary"),
        (message([b"x"], "no colon\r\n"), "no colon"),
        (message([b"x"], "a: b\r\n" * 10_000), "end of the headers .* within"),
        (message([bytes(1001)]), "within 1000 bytes"),
        (message([bytes(5000)]), "within 1000 bytes"),
        (bytes(10**6), "first boundary does not come within"),
        (message([b"xyz"], "Content-Length: 2\r\n"), "has 3 bytes, and its header says 2"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, reason: str) -> None:
    for block in (1, 7, 10**6):
        with pytest.raises(MultipartError, match=reason):
            read(data, block)


@pytest.mark.parametrize("boundary", ["", "x" * 201])
def test_boundaries_that_are_none(boundary: str) -> None:
    with pytest.raises(MultipartError, match="the boundary has"):
        list(parts([b"--\r\n"], boundary, 10))


def test_no_byte_is_looked_at_often() -> None:
    # A reader that looks at all again with each of the 70 000 blocks would not come to an end.
    data = message([b"\r\n--a-" * 700_000])
    assert len(read(data, 64, len(data))) == 1


def test_media_types_of_orthanc_have_a_parameter_in_a_parameter() -> None:
    said = 'multipart/related; type="image/jls; transfer-syntax=1.2.3"; boundary=a-b'
    kind, parameters = media_type(said)
    assert (kind, parameters["boundary"]) == ("multipart/related", "a-b")
    assert media_type("")[0] == ""
