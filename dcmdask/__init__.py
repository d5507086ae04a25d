"""DICOM pixel data as Dask arrays.

>>> import dcmdask
>>> from pydicom.data import get_testdata_file
>>> x = dcmdask.from_dicom(get_testdata_file("examples_ybr_color.dcm"))
>>> x.shape
(30, 240, 320, 3)
>>> x[5].compute().mean().round(1)
np.float64(9.3)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dcmdask import errors
from dcmdask.errors import *  # noqa: F403  the exceptions are all public, and cost nothing

if TYPE_CHECKING:
    from dcmdask import batch as batch
    from dcmdask.arrays.dask_array import from_dicom as from_dicom
    from dcmdask.arrays.scan import Scan as Scan
    from dcmdask.arrays.scan import scan as scan
    from dcmdask.arrays.series import Series as Series
    from dcmdask.arrays.stacks import Stack as Stack
    from dcmdask.export.dask_writer import write_array as write_array
    from dcmdask.export.report import ExportReport as ExportReport
    from dcmdask.export.verify import VerifyReport as VerifyReport
    from dcmdask.export.verify import verify as verify
    from dcmdask.export.writer import to_zarr as to_zarr
    from dcmdask.frames.frame_array import FrameArray as FrameArray
    from dcmdask.frames.frame_array import open_frames as open_frames
    from dcmdask.frames.pixels import iter_pixels as iter_pixels
    from dcmdask.frames.pixels import pixel_array as pixel_array

__version__ = "0.1.0"

# Loaded when first asked for, so that importing the package stays quick.
_HOMES = {
    "ExportReport": "dcmdask.export.report",
    "FrameArray": "dcmdask.frames.frame_array",
    "Scan": "dcmdask.arrays.scan",
    "Series": "dcmdask.arrays.series",
    "Stack": "dcmdask.arrays.stacks",
    "VerifyReport": "dcmdask.export.verify",
    "from_dicom": "dcmdask.arrays.dask_array",
    "iter_pixels": "dcmdask.frames.pixels",
    "open_frames": "dcmdask.frames.frame_array",
    "pixel_array": "dcmdask.frames.pixels",
    "scan": "dcmdask.arrays.scan",
    "to_zarr": "dcmdask.export.writer",
    "verify": "dcmdask.export.verify",
    "write_array": "dcmdask.export.dask_writer",
}

__all__ = [*errors.__all__, *_HOMES, "__version__", "batch"]  # noqa: PLE0604  all of them are strings


def __getattr__(name: str) -> Any:
    if name == "batch":
        return import_module("dcmdask.batch")
    if name not in _HOMES:
        raise AttributeError(f"module 'dcmdask' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
