"""`Level`: one resolution of a whole slide, as an array of its total pixel matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.dicom.header import read_whole_header
from dcmdask.dicom.image_pixel import check_options
from dcmdask.dicom.tiles.tiling import OpticalPath
from dcmdask.errors import Advice, MissingElementError
from dcmdask.images.tiled import frames_of
from dcmdask.images.volume import Stack

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

Colour: TypeAlias = Literal["stored", "srgb"]

_OPTICAL_PATHS = 0x00480105


class Level:
    """One resolution of a slide.

    Nothing is decoded before something is computed, and of a part only the tiles that it touches.

    Attributes
    ----------
    stack : Stack
    downsample : float
        Size of the finest level, divided by the size of this one.
    """

    def __init__(self, stack: Stack, downsample: float = 1.0) -> None:
        self.stack = stack
        self.downsample = downsample

    @property
    def name(self) -> str:
        """Display name of the files."""
        files = [part.source.name for one in self.stack.instances for part in one.stored or (one,)]
        return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes: y, x and sample; in front ``optical_path`` and ``z``, if several."""
        return self.stack.dims

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.stack.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return self.stack.dtype

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the total pixel matrix."""
        one = self.stack.instances[0]
        return one.rows, one.columns

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        part = self.stack.instances[0].stored[0]
        return part.rows, part.columns

    @property
    def mpp(self) -> tuple[float, float]:
        """Micrometres from row to row, and from column to column; NaN where they are not known."""
        rows, columns = self.stack.facts["spacing"][0].tolist()
        return rows * 1000, columns * 1000

    @property
    def optical_paths(self) -> tuple[OpticalPath, ...]:
        """Optical paths, in the order of the axis ``optical_path``."""
        known: dict[str, OpticalPath] = {}
        for one in self.stack.instances:
            for part in one.stored:
                paths = part.tiling.paths if part.tiling else ()
                known |= {path.identifier: path for path in paths}
        names = dict.fromkeys(self.stack.facts["optical_path"].tolist())
        if names.keys() == {b""}:
            return tuple(known.values())
        found = [name.decode("ascii", "replace") for name in names]
        return tuple(known.get(name, OpticalPath(name)) for name in found)

    @property
    def focal_planes(self) -> tuple[float, ...]:
        """Heights of the focal planes above the glass in micrometres, in the order of ``z``.

        Tiles at several heights that (0048,0303) calls one focal plane are at that of the origin
        of the total pixel matrix (0048,0008), 0 where it has none, as in TILED_FULL.
        """
        heights = self.stack.facts["position"][:, 2] * 1000
        arrangement = self.stack.arrangement
        if "z" not in arrangement.dims:
            return (float(heights[0]),)
        # A focal plane that one optical path lacks is there for another.
        others = tuple(i for i, dim in enumerate(arrangement.dims) if dim != "z")
        return tuple(heights[arrangement.numbers.max(axis=others)].tolist())

    @property
    def transfer_syntax(self) -> UID:
        """Transfer syntax of the tiles (PS3.5 section 10)."""
        return UID(self.stack.instances[0].transfer_syntax)

    @property
    def photometric_interpretation(self) -> str:
        """(0028,0004), as the header has it."""
        return self.stack.instances[0].photometric_interpretation

    def frames(
        self,
        color: Colour = "stored",
        fill_value: float | None = None,
        reduced: int = 1,
        **decoding_options: Any,
    ) -> ArrangedFrames:
        """Return the level as an array-like that decodes the tiles of an index.

        Parameters
        ----------
        color : {"stored", "srgb"}
            As the decoder gives colours, or by the ICC profiles of the slide as sRGB.
        fill_value : number, optional
            Value of pixels without a tile. By default the colour that the header recommends
            (0048,0015); otherwise white for colour and 0 for grey.
        reduced : {1, 2, 4, 8}
            Decode 1 / `reduced` of the rows and columns, in the codec of JPEG and JPEG 2000
            (:meth:`FrameArray.reduced` says how that differs from means of pixels); tiles of other
            syntaxes are averaged. What tiles show beyond the edge is in the last row and column.
        raw : bool, optional
            Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB.
        decoding_plugin : str, optional
            The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
        **decoding_options
            pydicom's decoding options, and overrides of group 0028 by pydicom's keywords, such as
            `photometric_interpretation`.

        Raises
        ------
        MissingElementError
            ``"srgb"`` without an ICC profile.
        """
        check_options(decoding_options, self.frames)
        if color not in ("stored", "srgb"):
            raise ValueError(f"color {color!r} is neither 'stored' nor 'srgb'")
        if reduced not in (1, 2, 4, 8):
            raise ValueError(f"reduced is 1, 2, 4 or 8, not {reduced!r}")
        stack = self.stack
        arrangement = stack.arrangement
        profiles = self._profiles if color == "srgb" else ()
        frames: Any = frames_of(stack.instances, decoding_options, fill_value, reduced, profiles)
        # A label may be an image without tiles.
        empty = frames.fill_value if stack.instances[0].stored else 0
        numbers = np.where(arrangement.numbers >= 0, stack.frame_numbers[arrangement.numbers], -1)
        return ArrangedFrames(frames, numbers, empty)

    @cached_property
    def _profiles(self) -> list[bytes]:
        """ICC profile of each plane: that of its optical path, or of the data set."""
        found: list[bytes] = []
        for one in self.stack.instances:
            dataset = read_whole_header(
                one.source, UID(one.transfer_syntax), (_OPTICAL_PATHS, 0x00282000)
            )
            own = dataset.get("ICCProfile")
            items = dataset.get("OpticalPathSequence") or []
            profiles = {
                str(item.get("OpticalPathIdentifier", "")): item.get("ICCProfile") or own
                for item in items
            }
            for name in one.facts["optical_path"].tolist():
                profile = profiles.get(name.decode("ascii", "replace"))
                if profile is None and len(profiles) < 2:
                    profile = next(iter(profiles.values()), own)
                if not profile:
                    raise MissingElementError(
                        "there is no (0028,2000) 'ICC Profile' for an optical path",
                        source=one.source.name,
                        code="icc-profile",
                        advice=[Advice("color", "stored", "takes colours as they are decoded")],
                    )
                found.append(bytes(profile))
        return found

    def to_dask(
        self,
        *,
        color: Colour = "stored",
        fill_value: float | None = None,
        reduced: int = 1,
        chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
        **decoding_options: Any,
    ) -> da.Array:
        """Return the level as a lazy Dask array.

        Parameters
        ----------
        color : {"stored", "srgb"}
            As the decoder gives colours, or by the ICC profiles of the slide as sRGB.
        fill_value : number, optional
            Value of pixels without a tile. By default the colour that the header recommends
            (0048,0015); otherwise white for colour and 0 for grey.
        reduced : {1, 2, 4, 8}
            Decode 1 / `reduced` of the rows and columns, in the codec of JPEG and JPEG 2000
            (:meth:`FrameArray.reduced` says how that differs from means of pixels); tiles of other
            syntaxes are averaged. What tiles show beyond the edge is in the last row and column.
        chunks : int, str, tuple or dict, optional
            ``"auto"`` plans by the cost of decoding. A number is one of rows and of columns,
            multiples of a tile; a size such as ``"64 MiB"`` is taken by as many tiles. Or, by
            axis, a tuple or a dict.
        raw : bool, optional
            Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB.
        decoding_plugin : str, optional
            The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
        **decoding_options
            pydicom's decoding options, and overrides of group 0028 by pydicom's keywords, such as
            `photometric_interpretation`.

        Returns
        -------
        dask.array.Array
            With the axes of `dims`: (rows, columns) or (rows, columns, samples); the optical path
            and the focal plane before them, where there are several.
        """
        from dcmdask.arrays.chunks import to_dask

        return to_dask(self.frames(color, fill_value, reduced, **decoding_options), chunks)

    def to_xarray(
        self,
        *,
        color: Colour = "stored",
        fill_value: float | None = None,
        chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
        **decoding_options: Any,
    ) -> xr.DataArray:
        """Return the level as an :class:`xarray.DataArray`.

        Parameters
        ----------
        color : {"stored", "srgb"}
            As the decoder gives colours, or by the ICC profiles of the slide as sRGB.
        fill_value : number, optional
            Value of pixels without a tile. By default the colour that the header recommends
            (0048,0015); otherwise white for colour and 0 for grey.
        chunks : int, str, tuple or dict, optional
            ``"auto"`` plans by the cost of decoding. A number is one of rows and of columns,
            multiples of a tile; a size such as ``"64 MiB"`` is taken by as many tiles. Or, by
            axis, a tuple or a dict.
        raw : bool, optional
            Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB.
        decoding_plugin : str, optional
            The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
        **decoding_options
            pydicom's decoding options, and overrides of group 0028 by pydicom's keywords, such as
            `photometric_interpretation`.

        Returns
        -------
        xarray.DataArray
            With ``x`` and ``y`` in mm along rows and columns, from the origin of the slide;
            ``.dcm.affine`` takes indices to the axes of the slide (PS3.3 C.8.12.2.1.1). The
            attribute ``mpp`` has the micrometres from row to row and from column to column.
        """
        from dcmdask.labelled.labels import labelled

        stack = self.stack
        lazy = self.to_dask(color=color, fill_value=fill_value, chunks=chunks, **decoding_options)
        attributes = {**stack.attributes("stored"), "downsample": self.downsample}
        if not any(map(math.isnan, self.mpp)):
            attributes["mpp"] = list(self.mpp)
        if color == "srgb":
            attributes["color"] = "srgb"
        return labelled(lazy, stack.arrangement, stack.instances, stack.facts, attributes)

    def region(
        self,
        location: tuple[int, int],
        size: tuple[int, int],
        plane: tuple[int, ...] = (),
        color: Colour = "stored",
    ) -> npt.NDArray[Any]:
        """Return a part of the level; what is outside of it has the value of missing tiles.

        Parameters
        ----------
        location : (x, y)
            First column and first row; also negative ones.
        size : (width, height)
        plane : tuple of int, optional
            Indices of the axes in front of rows.
        color : {"stored", "srgb"}

        Returns
        -------
        ndarray
            (height, width[, samples])
        """
        frames = self._opened(color)
        (x, y), (width, height) = location, size
        rows, columns = self.size
        top, left = max(0, min(y, rows)), max(0, min(x, columns))
        bottom, right = max(top, min(y + height, rows)), max(left, min(x + width, columns))
        part = frames[(*plane, slice(top, bottom), slice(left, right))]
        if part.shape[:2] == (height, width):
            return part
        out = np.empty((height, width, *part.shape[2:]), part.dtype)
        out[...] = frames.fill_value
        out[top - y : bottom - y, left - x : right - x] = part
        return out

    def _opened(self, color: Colour) -> ArrangedFrames:
        if color not in self._known:
            self._known[color] = self.frames(color)
        return self._known[color]

    @cached_property
    def _known(self) -> dict[str, ArrangedFrames]:
        return {}

    def __repr__(self) -> str:
        lengths = ", ".join(f"{d}: {n}" for d, n in zip(self.dims, self.shape, strict=True))
        down, across = self.tile
        return (
            f"<Level ({lengths}) {self.dtype}, {self.mpp[0]:.4g} um, tiles of {down} x {across}, "
            f"{self.transfer_syntax.name}>"
        )
