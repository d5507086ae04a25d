"""Any request is stored as it was decoded, or refused before anything is written."""

import os
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from made_series import AXIAL, along, classic
from make_dicom import encapsulated, native, noise, saved
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import dcmdask
from dcmdask import AlignmentError, LayoutError, to_zarr, verify

SYNTAXES = [
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEG2000Lossless,
    JPEGLSLossless,
]
CODECS = ["auto", None, {"name": "gzip", "configuration": {"level": 1}}]


def shapes(draw: st.DrawFn, lengths: tuple[int, ...]) -> Any:
    """Chunks or shards, of which some do not go together."""
    kind = draw(st.sampled_from(["auto", "number", "each", "each", "none"]))
    if kind == "number":
        return draw(st.integers(1, lengths[0] + 2))
    if kind == "each":
        return tuple(draw(st.integers(1, n + 3)) for n in lengths)
    return None if kind == "none" else "auto"


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Options of `to_zarr` for frames of this shape."""
    colour = draw(st.booleans())
    shape = (draw(st.integers(1, 7)), draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    dtype = "u1" if colour else draw(st.sampled_from(["u1", "u2", "i2"]))
    made = {
        "shape": shape,
        "samples": 3 if colour else 1,
        "dtype": dtype,
        "syntax": draw(st.sampled_from(SYNTAXES)),
        "series": draw(st.booleans()) and not colour,
    }
    ome = draw(st.booleans()) and (made["series"] or shape[0] == 1)
    chunks = shapes(draw, shape)
    options: dict[str, Any] = {
        "format": "ome-zarr" if ome else "zarr",
        "chunks": "auto" if chunks is None else chunks,
        "shards": shapes(draw, shape),
        "compressors": draw(st.sampled_from(CODECS)),
        "values": draw(st.sampled_from(["stored", "modality", "display"])),
        "on_error": draw(st.sampled_from(["fail", "fill"])),
    }
    if ome:
        options["levels"] = draw(st.sampled_from(["auto", 1, 2, 3]))
        options["ome_version"] = draw(st.sampled_from(["0.4", "0.5"]))
    return {"made": made, "options": options}


def source(folder: Path, made: dict[str, Any]) -> Path:
    frames = noise(*made["shape"], samples=made["samples"], dtype=made["dtype"])
    if made["series"]:
        classic(folder / "series", frames, along(AXIAL, 2.5 * np.arange(len(frames))))
        return folder / "series"
    syntax = made["syntax"]
    if made["dtype"] == "i2" and syntax.is_encapsulated:
        syntax = RLELossless
    data = (encapsulated if syntax.is_encapsulated else native)(frames, syntax)
    return saved(folder, data)


@pytest.mark.slow
@settings(max_examples=30)
@given(request=requests())
def test_stored_or_refused(
    request: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    src, store = source(folder, request["made"]), folder / "out.zarr"
    options = request["options"]
    as_ome = options["format"] == "ome-zarr"
    with dask.config.set(scheduler="sync"):
        try:
            report = to_zarr(src, store, **options)
        except (AlignmentError, LayoutError, ValueError):
            assert not store.exists()
            assert not [name for name in os.listdir(folder) if name.startswith(".")]
            return
        group = zarr.open_group(store, mode="r")
        stored = group["0" if as_ome else "pixels"][...]
        if as_ome:
            (stack,) = dcmdask.scan(src)[0].stacks
            expected = stack.to_dask(options["values"]).compute()
            if request["made"]["samples"] == 3:
                expected = np.moveaxis(expected, -1, 1)
        else:
            expected = dcmdask.from_dicom(src, values=options["values"]).compute()
        assert stored.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(stored, expected)
        assert (report.shape, report.failures) == (expected.shape, ())
        checked = verify(store, src)
        assert checked.ok and checked.source_token_same, str(checked)
        # Nothing is left to be done.
        assert to_zarr(src, store, **options, resume=True).written == 0
