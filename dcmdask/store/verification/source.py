"""The source of a store, opened as its export opened it, and decoded without short cuts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.archive.collection import is_collection, only_stack
from dcmdask.archive.descriptions import quiet
from dcmdask.archive.scan import scan
from dcmdask.archive.series import Series
from dcmdask.arrays.placement import ABSENT, ArrangedFrames
from dcmdask.dicom.image_pixel import YBR
from dcmdask.images.volume import Stack
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.pixels.guard import SYNTAXES
from dcmdask.store.contents import Contents, contents
from dcmdask.store.export import Prepared, prepare
from dcmdask.store.verification.comparison import Difference, Expected

# What pydicom's decoders do anyway. Asked for by name, it keeps to them: only what is left
# as it is by default is decoded in a shorter way.
_GENERAL = {"as_rgb": True}


class Reopened(NamedTuple):
    """A source that a store is compared with.

    Attributes
    ----------
    prepared : Prepared
        Of the same source and options, but for chunks, shards and levels.
    expected : Expected or None
        Expected values of level 0; None where shape or type are not those of the store.
    token_same : bool
    notes : list of str
    differences : list of Difference
    """

    prepared: Prepared
    expected: Expected | None
    token_same: bool
    notes: list[str]
    differences: list[Difference]


def reopen(
    source: Any,
    told: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None,
    opening: Mapping[str, Any],
) -> Reopened:
    """Open a source as the export did that a store tells of; nothing is decoded.

    Parameters
    ----------
    source : as for :func:`dcmdask.to_zarr`
    told : mapping
        The store's attribute ``dcmdask``.
    storage_options : mapping or None
    opening : mapping
        Options of :func:`dcmdask.to_zarr`, in place of what the store tells.

    Raises
    ------
    DcmdaskError
        The source cannot be opened, as for :func:`dcmdask.to_zarr`.
    """
    plan = told["plan"]
    if not isinstance(source, Stack | Series | FrameArray) and (
        is_collection(source, storage_options)
        or (plan["format"] != "zarr" and isinstance(source, str | os.PathLike))
    ):
        # Found once, and not for each try.
        source, storage_options = only_stack(scan(source, storage_options=storage_options)), None
    options = dict(plan["options"])
    filling = options.pop("fill_value")
    common = {
        "values": plan["values"],
        "on_irregular": plan["on_irregular"],
        "order_by": plan["order_by"],
        "fill_value": None if filling is None else float(filling),
        "with_identifiers": plan["with_identifiers"],
        "storage_options": storage_options,
        # A FrameArray has its own.
        **({} if isinstance(source, FrameArray) else options),
        **opening,
    }
    prepared = prepare(
        source,
        format=plan["format"],
        chunks="auto",
        shards=None,
        compressors=None,
        levels="auto",
        on_error="fail",
        **common,
    )
    notes = []
    what = prepared.contents
    same = what.frames.token == plan["source"]
    if not same:
        notes.append(
            "the source is not the one that was exported, by path, size and time, or was changed "
            "since"
        )
    own = [list(prepared.plan.levels[0].shape), prepared.plan.dtype.str]
    if own != [plan["shape"], plan["dtype"]]:
        reason = f"it is {own[0]} {own[1]}, and the store {plan['shape']} {plan['dtype']}"
        return Reopened(prepared, None, same, notes, [Difference("source", reason)])
    frames = what.frames
    if isinstance(source, FrameArray):
        notes.append("a FrameArray decodes as it was opened; a path, without short cuts")
    else:
        arranged = plan["format"] != "zarr"
        with quiet():
            # What is odd about the source has been told.
            frames = contents(source, arranged=arranged, **{**_GENERAL, **common}).frames
    expected = Expected(frames, what.frames, _by_codec(what, common), prepared.absent)
    return Reopened(prepared, expected, same, notes, [])


def _by_codec(what: Contents, options: Mapping[str, Any]) -> npt.NDArray[np.bool_] | None:
    """Return of which frames a JPEG codec may have converted the colours; None if of none."""
    frames = what.frames
    if options.get("raw") or options.get("decoding_plugin"):
        return None
    if what.instances:
        each = [
            one.bits_allocated == 8
            and SYNTAXES.get(one.transfer_syntax) == "jpeg"
            and one.photometric_interpretation in YBR
            for one in what.instances
        ]
        converted = np.repeat(each, [len(one) for one in what.instances])
    elif isinstance(frames, FrameArray):
        coded = frames.decoding["photometric_interpretation"] in YBR
        jpeg = SYNTAXES.get(frames.transfer_syntax) == "jpeg"
        converted = np.full(len(frames), coded and jpeg and frames.dtype.itemsize == 1)
    if not converted.any():
        return None
    if isinstance(frames, ArrangedFrames):
        return np.asarray(converted[frames.numbers] & (frames.numbers != ABSENT))
    # There may be more frames than the header says, all of them alike.
    return np.resize(converted, len(frames))
