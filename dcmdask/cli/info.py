"""``dcmdask info``: what a file is, without a look at its pixels or its patient."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dcmdask.cli.series import series_info
from dcmdask.console import options
from dcmdask.console.output import listing, show
from dcmdask.errors import DcmdaskWarning, HeaderError
from dcmdask.images.summary import counted
from dcmdask.sources.access import options_of

if TYPE_CHECKING:
    from dcmdask.pixels.frame_array import FrameArray
    from dcmdask.sources.files import Stored


def info(
    file: options.Source,
    series: options.Series = None,
    raw: options.Raw = False,
    number_of_frames: options.NumberOfFrames = None,
    transfer_syntax_uid: options.TransferSyntaxUid = None,
    inflate_limit: options.InflateLimit = None,
    set: options.Set = None,
    exclude: options.Exclude = None,
    follow_links: options.FollowLinks = False,
    storage_option: options.StorageOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what is in a DICOM file, or in the series of a folder; nothing is decoded."""
    from dcmdask.archive.collection import one_file
    from dcmdask.dicom import image_pixel
    from dcmdask.pixels.frame_array import open_frames
    from dcmdask.sources import files

    storage_options = options_of(storage_option or ())
    opening = options.opening(raw, number_of_frames, transfer_syntax_uid, inflate_limit, set)
    limit = image_pixel.inflate_limit(opening)
    src = one_file(file, storage_options, limit)
    if src is None:
        if opening.pop("raw"):
            raise ValueError(f"--raw is for one file, and {file} is a folder or a pattern")
        how = {"exclude": exclude or (), "follow_links": follow_links, **opening}
        series_info(file, series, as_json, storage_options=storage_options, **how)
        return
    if exclude or follow_links or series:
        raise ValueError(
            f"--exclude, --follow-links and --series are for folders, and {file} is a file"
        )
    with warnings.catch_warnings():
        # They are among the facts.
        warnings.simplefilter("ignore", DcmdaskWarning)
        frames = open_frames(src, **opening)
    # A file that is read whole to be opened is held to the same limit here.
    source = files.locate(src, limit=limit)
    facts = {
        "file": file,
        "summary": _summary(source, opening),
        **_facts(frames),
        # An instance on a server may have no file.
        "bytes_file": source.size or None,
    }
    show(json.dumps(facts, indent=2) if as_json else listing(_lines(facts)))


def _summary(source: Stored, opening: Mapping[str, Any]) -> str:
    """Return what the file is as an array, or why that is not known."""
    from dcmdask.archive.series import Series
    from dcmdask.dicom.description import describe

    try:
        described = describe(source, opening)
    except HeaderError as error:
        return error.message
    series = Series(described.series_uid, [described])
    return "; ".join(stack.summary for stack in series.stacks)


def _facts(frames: FrameArray) -> dict[str, Any]:
    from pydicom.datadict import tag_for_keyword
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    from dcmdask.arrays.chunks import plan_chunks
    from dcmdask.pixels import codecs
    from dcmdask.store.provenance import ELEMENTS, technical_header

    syntax = frames.transfer_syntax
    tags = [tag_for_keyword(keyword) for keyword in (*ELEMENTS, "SharedFunctionalGroupsSequence")]
    dataset = frames.elements(filter(None, tags))
    header = technical_header(
        dataset, [str(syntax)], frames.decoding, "stored", frames.interpretation_given
    )
    # 12-bit lossy JPEG is left to pydicom's plugins.
    left = syntax == JPEGExtended12Bit and header.get("BitsStored", 8) != 8
    own = ["imagecodecs"] if codecs.own_decoder(syntax) and not left else []
    return {
        "sop_class_uid": header.get("SOPClassUID"),
        "modality": header.get("Modality"),
        "shape": list(frames.shape),
        "dtype": str(frames.dtype),
        "bits_stored": header.get("BitsStored"),
        "photometric_interpretation": header["PhotometricInterpretation"],
        "photometric_interpretation_in_file": frames.decoding["photometric_interpretation"],
        "transfer_syntax_uid": str(syntax),
        "indexed_by": frames.indexed_by,
        "decoders": own + list(get_decoder(syntax).available_plugins),
        "encapsulated": bool(syntax.is_encapsulated),
        "chunks": [lengths[0] for lengths in plan_chunks(frames)],
        "bytes_decoded": frames.nbytes,
        "notes": [str(note) for note in frames.notes],
    }


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    from dask.utils import format_bytes
    from pydicom.uid import UID

    kind = UID(facts["sop_class_uid"]).name if facts["sop_class_uid"] else "SOP class not given"
    colours, coded = (
        facts["photometric_interpretation"],
        facts["photometric_interpretation_in_file"],
    )
    bits = f", {facts['bits_stored']} bits stored" if facts["bits_stored"] else ""
    first, *others = facts["decoders"] or ["none is installed"]
    decoder = f"{first}, then {', '.join(others)}" if others else first
    if not facts["encapsulated"]:
        decoder = "none needed"
    size = f"{format_bytes(facts['bytes_decoded'])} decoded"
    if facts["bytes_file"]:
        ratio = facts["bytes_decoded"] / facts["bytes_file"]
        size += f", {format_bytes(facts['bytes_file'])} in the file ({ratio:.1f} : 1)"
    frames, chunk = facts["shape"][0], facts["chunks"][0]
    each = format_bytes(facts["bytes_decoded"] // frames * chunk)
    return [
        ("file", facts["file"]),
        ("what", ", ".join(filter(None, [kind, facts["modality"], facts["summary"]]))),
        ("array", f"({', '.join(map(str, facts['shape']))}) {facts['dtype']}"),
        ("pixels", f"{colours if colours == coded else f'{colours} from {coded}'}{bits}"),
        ("syntax", f"{UID(facts['transfer_syntax_uid']).name} ({facts['transfer_syntax_uid']})"),
        ("index", facts["indexed_by"]),
        ("decoder", decoder),
        ("size", size),
        ("chunks", f"{-(-frames // chunk)} of {counted(chunk, 'frame')}, {each} each"),
        *(("note", note) for note in facts["notes"]),
    ]
