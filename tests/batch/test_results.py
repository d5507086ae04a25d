"""What a job returns comes back from its target: labels, attributes, columns, harmless cells."""

import csv
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dcmdask.batch.outcome import write_table
from dcmdask.batch.results import keep
from dcmdask.batch.staging import Staging
from dcmdask.sources.folder import Folder

VOLUME = xr.DataArray(
    da.arange(120, chunks=30, dtype="i2").reshape(4, 5, 6),
    dims=("t", "y", "x"),
    coords={
        "t": pd.date_range("2020-01-01", periods=4, freq="s"),
        "y": ("y", np.arange(5) * 0.5, {"units": "mm"}),
        "label": ("t", ["rest", "task", "rest", "a longer word"]),
        "missing": ("t", [False, True, False, False]),
        "echo": ("t", [0.0, np.nan, 2.0, 0.0]),
        "patient": "a hash",
    },
    attrs={"units": "HU", "affine": np.eye(4), "spacing": (1.0, 0.5, 0.5), "n": np.int64(3)},
)


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder.of(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


def stored(value: Any, folder: Folder) -> xr.Dataset:
    """Return what `xarray.open_zarr` gives of a result."""
    staging = Staging(folder, "1.2", "job")
    with dask.config.set(scheduler="threads"):
        keep({"a": value}, staging)
    return xr.open_zarr(staging.path("a.zarr")).load()


def plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {
        name: np.asarray(value).tolist() if not isinstance(value, str) else value
        for name, value in attributes.items()
    }


@pytest.mark.parametrize(
    "value",
    [
        VOLUME,
        VOLUME.compute(),
        VOLUME.rename("anything"),
        VOLUME.max("t"),
        VOLUME.astype("f4"),
        VOLUME > 3,
        VOLUME.isel(x=slice(0, 0)),
        VOLUME.chunk(t=(1, 3), y=(2, 2, 1)),
        VOLUME.t,
    ],
    ids=["lazy", "loaded", "named", "reduced", "float", "bool", "empty", "uneven", "times"],
)
def test_a_data_array_keeps_its_labels(value: xr.DataArray, folder: Folder) -> None:
    found = stored(value, folder)
    assert found.attrs["dcmdask"]["complete"] is True
    expected = value.rename("pixels").compute()
    xr.testing.assert_equal(found.pixels, expected)
    assert found.pixels.dtype.kind == value.dtype.kind
    assert found.pixels.attrs == plain(value.attrs)
    assert found.coords.keys() == value.coords.keys()
    assert found.pixels.y.attrs == {"units": "mm"} if "y" in value.coords else True


def test_a_data_set_keeps_its_variables(folder: Folder) -> None:
    value = xr.Dataset(
        {"a": VOLUME, "b": VOLUME.mean("t"), "text": ("t", list("abcd")), "n": 3},
        attrs={"title": "two of them"},
    )
    found = stored(value, folder)
    assert found.attrs.pop("dcmdask")["complete"] is True
    xr.testing.assert_equal(found, value.compute())
    assert found.attrs == {"title": "two of them"}
    assert found.a.attrs == plain(VOLUME.attrs)


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"volume": [1.5, np.nan], "count": [3, 4], "name": ["left", "right"]}),
        pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="organ")),
        pd.Series([1.0, 2.0], name="dose"),
    ],
    ids=["columns", "index", "series"],
)
def test_a_table_keeps_its_columns(table: Any, folder: Folder) -> None:
    found = stored(table, folder).to_dataframe()
    expected = table if table.ndim == 2 else table.to_frame()
    # A group has no order.
    pd.testing.assert_frame_equal(
        found[list(expected.columns)], expected, check_dtype=False, check_names=False
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (VOLUME.assign_attrs(odd=object()), "attribute 'odd' of pixels has no place in JSON"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "columns that share a name"),
        (pd.DataFrame({"a": [1]}, index=[[1], [2]]), "an index of several levels"),
        (pd.DataFrame({"index": [1, 2]}, index=["p", "q"]), "share a name with each other or"),
        (pd.DataFrame({"HU/mm": [1, 2]}), "'HU/mm' is no name of an array"),
        (pd.DataFrame({"n": pd.array([2**60 + 1, None], "Int64")}), "'n' would not come back"),
        (pd.DataFrame({"text": ["", None]}), "'text' would not come back"),
        (xr.DataArray(np.arange(3), attrs={"scale_factor": 2.0}), "'pixels' would not come back"),
        (xr.DataArray(np.arange(3), attrs={"units": "days since 2020-01-01"}), "'pixels' would"),
        (VOLUME.assign_attrs(_FillValue=3), "'pixels' would not come back|cannot be read back"),
    ],
    ids=range(10),
)
def test_what_has_no_place_in_a_store(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        stored(value, Folder.of(tmp_path))


def test_cells_that_a_spreadsheet_would_execute(tmp_path: Path) -> None:
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "a\x1b[31mb\r\nc", "plain", -1.5]
    columns = {"series": list("abcdefgh"), "text": cells, "job": ["x"] * 8}
    write_table(columns, Folder.of(tmp_path))
    with (tmp_path / "results.csv").open(newline="") as file:
        read = [row["text"] for row in csv.DictReader(file)]
    assert read == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", " =1", "a [31mb  c", "plain", "-1.5"]
    # Nothing executes Parquet.
    told = pd.read_parquet(tmp_path / "results.parquet").text
    assert list(told) == [str(cell) for cell in cells]
