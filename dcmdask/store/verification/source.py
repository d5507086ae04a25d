"""The source of a store, opened as its export opened it, and decoded with the general path."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zarr.abc.store import Store

from dcmdask.archive.descriptions import quiet
from dcmdask.dicom.image_pixel import header_options
from dcmdask.errors import Note
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.pixels.guard import SYNTAXES
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.store.contents import Contents, contents
from dcmdask.store.export import Prepared, prepare
from dcmdask.store.ome.metadata import DEFAULT_VERSION
from dcmdask.store.source import images_of, source_of
from dcmdask.store.target.place import located, with_options
from dcmdask.store.verification.comparison import Difference, Expected
from dcmdask.store.verification.metadata import open_stored

# An option that pydicom's decoders have by default. Named, it keeps frames from being decoded
# in a shorter way.
_GENERAL = {"as_rgb": True}


class Reopened(NamedTuple):
    """A source that a store is compared with.

    Attributes
    ----------
    prepared : Prepared
        Export of this source with the same options, but for chunks, shards and levels.
    expected : tuple of Expected
        Expected values of level 0, and of each further level of a whole slide; none where shape or
        type are not those of the store.
    token_same : bool
    notes : list of Note
    differences : list of Difference
    """

    prepared: Prepared
    expected: tuple[Expected, ...]
    token_same: bool
    notes: list[Note]
    differences: list[Difference]


def recorded(
    store: str | os.PathLike[str] | Store, target_options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the decoding options that a store says its source was scanned with."""
    with reaching(store, TARGET_OPTION):
        there = open_stored(located(with_options(store, target_options)))
    return header_options(there.metadata["plan"]["options"])


def reopen(
    source: Any,
    plans: Sequence[Mapping[str, Any]],
    storage_options: Mapping[str, Any] | None,
    opening: Mapping[str, Any],
) -> Reopened:
    """Open a source with the options of an export; nothing is decoded.

    `plans` are those of each image of the store, and `opening` replaces options in them.
    """
    plan = plans[0]
    options = dict(plan["options"])
    filling = options.pop("fill_value", None)
    on_duplicate = options.pop("on_duplicate", "error")
    common = {
        **{name: plan[name] for name in ("values", "on_irregular", "order_by", "with_identifiers")},
        "fill_value": None if filling is None else float(filling),
        "storage_options": storage_options,
        # A FrameArray has its own.
        **({} if isinstance(source, FrameArray) else options),
        **opening,
    }
    # It is opened twice, and scanned once.
    source = source_of(
        source,
        arranged=plan["format"] != "zarr",
        on_duplicate=on_duplicate,
        storage_options=storage_options,
        **header_options(common),
    )
    form = {
        "format": plan["format"],
        "ome_version": plan.get("ome_version", DEFAULT_VERSION),
        "shards": None,
        "compressors": None,
        "levels": len(plans),
    }
    prepared = prepare(source, **form, **common)
    pyramid, notes = prepared.pyramid, []
    tokens = [one.contents.frames.token for one in pyramid]
    same = tokens == [one["source"] for one in plans]
    if not same:
        text = (
            "the source is not the one that was exported, by path, size and time, or was changed "
            "since"
        )
        notes.append(Note("other-source", text))
    if reason := _unlike(pyramid, plans):
        return Reopened(prepared, (), same, notes, [Difference("source", reason)])
    if isinstance(source, FrameArray):
        text = "a FrameArray decodes as it was opened; a path, without short cuts"
        notes.append(Note("frame-array", text))
        decoded = [prepared.contents]
    else:
        # Opening it a second time, the same warnings would be given again.
        with quiet():
            sources = images_of(source, len(plans))
            decoded = [contents(one, **{**_GENERAL, **common}) for one in sources]
    expected = tuple(
        Expected(
            general.frames, one.contents.frames, _is_by_codec(one.contents, common), one.absent
        )
        for general, one in zip(decoded, pyramid, strict=True)
    )
    return Reopened(prepared, expected, same, notes, [])


def _unlike(pyramid: Sequence[Prepared], plans: Sequence[Mapping[str, Any]]) -> str:
    """Return the reason why a source cannot be compared with the images of a store, if any."""
    if len(pyramid) != len(plans):
        return f"the slide has {len(pyramid)} of the {len(plans)} levels that were exported"
    for one, stored in zip(pyramid, plans, strict=True):
        own = [list(one.plan.levels[0].shape), one.plan.dtype.str]
        if own != [stored["shape"], stored["dtype"]]:
            return f"it is {own[0]} {own[1]}, and the store {stored['shape']} {stored['dtype']}"
        if (one.plan.tile is None) != (stored.get("tile") is None):
            are = "are no" if one.plan.tile is None else "are"
            return f"its frames {are} tiles of a matrix, other than those of the store"
    return ""


def _is_by_codec(what: Contents, options: Mapping[str, Any]) -> bool:
    """Return whether a JPEG codec may have converted the colours of frames."""
    if options.get("raw") or options.get("decoding_plugin") or what.frames.dtype.itemsize > 1:
        return False
    header: Any = what.attributes["header"]
    syntaxes = header["TransferSyntaxUID"]
    # Whatever Photometric Interpretation is: the codestream may decide about the colours.
    return what.colour and any(
        syntax in SYNTAXES and SYNTAXES[syntax].kind == "jpeg"
        for syntax in (syntaxes if isinstance(syntaxes, list) else [syntaxes])
    )
