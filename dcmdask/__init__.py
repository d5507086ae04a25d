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
    from dcmdask.archive.catalog.build_catalog import build_catalog as build_catalog
    from dcmdask.archive.catalog.catalog import Catalog as Catalog
    from dcmdask.archive.catalog.catalog import open_catalog as open_catalog
    from dcmdask.archive.discovery import Skipped as Skipped
    from dcmdask.archive.from_dicom import from_dicom as from_dicom
    from dcmdask.archive.open_slide import open_slide as open_slide
    from dcmdask.archive.scan import Scan as Scan
    from dcmdask.archive.scan import scan as scan
    from dcmdask.archive.series import Series as Series
    from dcmdask.geometry.grid import Geometry as Geometry
    from dcmdask.geometry.grid import Irregularity as Irregularity
    from dcmdask.images.slides.level import Level as Level
    from dcmdask.images.slides.whole_slide import Slide as Slide
    from dcmdask.images.volume import Stack as Stack
    from dcmdask.labelled import pictures as pictures
    from dcmdask.pixels.frame_array import FrameArray as FrameArray
    from dcmdask.pixels.frame_array import open_frames as open_frames
    from dcmdask.pixels.pixel_array import iter_pixels as iter_pixels
    from dcmdask.pixels.pixel_array import pixel_array as pixel_array
    from dcmdask.store.dask_writer import write_array as write_array
    from dcmdask.store.export_report import ExportReport as ExportReport
    from dcmdask.store.verification.verify import VerifyReport as VerifyReport
    from dcmdask.store.verification.verify import verify as verify
    from dcmdask.store.writer import to_zarr as to_zarr

__version__ = "0.3.0.dev0"

# Loaded when first asked for, so that importing the package stays quick.
_HOMES = {
    "Catalog": "dcmdask.archive.catalog.catalog",
    "ExportReport": "dcmdask.store.export_report",
    "FrameArray": "dcmdask.pixels.frame_array",
    "Geometry": "dcmdask.geometry.grid",
    "Irregularity": "dcmdask.geometry.grid",
    "Level": "dcmdask.images.slides.level",
    "Scan": "dcmdask.archive.scan",
    "Series": "dcmdask.archive.series",
    "Skipped": "dcmdask.archive.discovery",
    "Slide": "dcmdask.images.slides.whole_slide",
    "Stack": "dcmdask.images.volume",
    "VerifyReport": "dcmdask.store.verification.verify",
    "build_catalog": "dcmdask.archive.catalog.build_catalog",
    "from_dicom": "dcmdask.archive.from_dicom",
    "iter_pixels": "dcmdask.pixels.pixel_array",
    "open_catalog": "dcmdask.archive.catalog.catalog",
    "open_frames": "dcmdask.pixels.frame_array",
    "open_slide": "dcmdask.archive.open_slide",
    "pixel_array": "dcmdask.pixels.pixel_array",
    "scan": "dcmdask.archive.scan",
    "to_zarr": "dcmdask.store.writer",
    "verify": "dcmdask.store.verification.verify",
    "write_array": "dcmdask.store.dask_writer",
}

# Modules that are public as they are.
_MODULES = {"batch": "dcmdask.batch", "pictures": "dcmdask.labelled.pictures"}

__all__ = [*errors.__all__, *_HOMES, *_MODULES, "__version__"]  # noqa: PLE0604  all of them are strings


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'dcmdask' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
