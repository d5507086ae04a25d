"""Real series exported, verified in full, and opened by other readers."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

import dcmdask
from dcmdask import DcmdaskWarning, to_zarr, verify
from dcmdask.errors import DcmdaskError

# Bytes of a stack, decoded; and how many of them there are to be at least.
LARGEST, LEAST = 300_000, 10


# A third of them each time, and all before a release.
@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.rare) for n in (1, 2))])
def test_real_series(part: int, corpus: Path, tmp_path: Path) -> None:
    """Every small stack, as a pyramid or plain by turns; what is refused is refused first."""
    seen = {"ome-zarr": 0, "zarr": 0}
    kept = (s for series in dcmdask.scan(corpus) for s in series.stacks)
    for number, stack in enumerate(kept):
        with warnings.catch_warnings():
            # Of real files much is odd, and other tests are about that.
            warnings.simplefilter("ignore", DcmdaskWarning)
            if number // 2 % 3 == part and stack.frames.nbytes <= LARGEST:
                form = list(seen)[number % 2]
                seen[form] += stored_and_read(stack, tmp_path / str(number), form)
    assert min(seen.values()) >= LEAST, seen


def stored_and_read(stack: dcmdask.Stack, store: Path, form: Any) -> bool:
    """Return whether a stack can be stored in this form, once it was compared."""
    try:
        to_zarr(stack, store, format=form, values="modality")
    except DcmdaskError:
        if store.exists():
            # Begun, and a frame was damaged.
            told: Any = zarr.open_group(store, mode="r").attrs["dcmdask"]
            assert told["complete"] is False
        return False
    report = verify(store, stack)
    assert report.ok and report.source_token_same, str(report)
    expected = stack.to_dask(values="modality").compute()
    if form == "zarr":
        with xarray.open_zarr(store) as opened:
            assert opened.pixels.dims == stack.dims
            np.testing.assert_array_equal(opened.pixels.values, expected)
    else:
        (node,) = Reader(parse_url(str(store)))()
        largest = np.asarray(node.data[0])
        assert largest.size == expected.size
        assert largest.sum(dtype="f8") == pytest.approx(expected.sum(dtype="f8"))
    return True
