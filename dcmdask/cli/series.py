"""``dcmdask info`` of a folder: its series, and the stacks of each."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dcmdask.cli.choice import named
from dcmdask.console.output import listing, show, skipped_files
from dcmdask.errors import DcmdaskError, DcmdaskWarning
from dcmdask.images.summary import counted

if TYPE_CHECKING:
    from dcmdask.archive.series import Series
    from dcmdask.images.volume import Stack


def series_info(source: str, series: str | None, as_json: bool, **how: Any) -> None:
    """Say what series there are, how they would be read, and what is not regular.

    `series` is the number, UID or end of the UID of the only one to describe, and `how` as for
    :func:`dcmdask.scan`.
    """
    from dcmdask.archive.collection import check_found
    from dcmdask.archive.scan import scan
    from dcmdask.console.progress import counting

    with counting("files") as advance:
        found = scan(source, progress=advance, **how)
    check_found(found)
    facts = [_facts(one) for one in (found if series is None else [named(found, series)])]
    if as_json:
        skipped = [one._asdict() for one in found.skipped]
        answer = {"files": found.files, "series": facts, "skipped": skipped}
        show(json.dumps(answer, indent=2))
        return
    listings = []
    for one in facts:
        if all(stack["tiles"] and stack["kind"] == "slide" for stack in one["stacks"]):
            listings.append(listing(_slide_lines(one)))
            continue
        for number, stack in enumerate(one["stacks"]):
            listings.append(listing(_lines(one, number, stack)))
    if found.skipped:
        listings.append(skipped_files(found))
    show("\n\n".join(listings))


def _facts(series: Series) -> dict[str, Any]:
    from dcmdask.dicom.conversion import uid

    return {
        "uid": uid(series.uid),
        "metadata": series.metadata,
        "transfer_syntaxes": sorted({one.transfer_syntax for one in series.instances}),
        "conflicts": list(map(str, series.conflicts)),
        "stacks": [_stack_facts(stack) for stack in series.stacks],
    }


def _stack_facts(stack: Stack) -> dict[str, Any]:
    from dcmdask.archive.series import without_conflicts
    from dcmdask.store.provenance import jsonable

    geometry = stack.geometry
    coordinates = stack.arrangement.coordinates
    axes = {
        dim: jsonable(coordinates[dim][1])
        for dim in stack.arrangement.dims
        if dim in coordinates and coordinates[dim][0] == (dim,)
    }
    return {
        "kind": stack.kind,
        "summary": stack.summary,
        "files": len(stack.instances),
        "dims": list(stack.dims),
        "shape": list(stack.shape),
        "dtype": str(stack.dtype),
        "spacing": jsonable(geometry.spacing) if geometry else None,
        "orientation": list(geometry.orientation) if geometry else None,
        "codes": geometry.codes or None if geometry else None,
        "tiles": _tile_facts(stack),
        "affine": geometry.affine.tolist() if geometry and geometry.affine is not None else None,
        "coordinates": axes,
        "irregularities": list(map(str, without_conflicts(stack.irregularities))),
        "notes": [*map(str, stack.notes), *_cut_files(stack)],
    }


def _tile_facts(stack: Stack) -> dict[str, Any] | None:
    """Return what is to be said of a total pixel matrix; None of other images."""
    from dcmdask.images.objects.slide import flavour_of

    parts = [part for one in stack.instances for part in one.stored]
    if not parts or parts[0].tiling is None:
        return None
    return {
        "frames": sum(part.tiling.frames for part in parts if part.tiling),
        "rows": parts[0].rows,
        "columns": parts[0].columns,
        "transfer_syntax": parts[0].transfer_syntax,
        "flavour": flavour_of(parts[0]),
        "pyramid_uid": parts[0].tiling.pyramid or None,
        "optical_paths": [path.identifier for path in parts[0].tiling.paths],
    }


def _cut_files(stack: Stack) -> Iterator[str]:
    """Yield why files of tiles cannot be opened.

    A Sequence Delimitation Item at the end of a file shows that no item is cut off. Items are
    counted only where there is none, since other elements may follow.
    """
    from pydicom.uid import UID

    from dcmdask.dicom.instance import open_instance
    from dcmdask.dicom.offsets import SEQUENCE_DELIMITER
    from dcmdask.sources import files
    from dcmdask.sources.dicomweb import ServedInstance

    for part in (part for one in stack.instances for part in one.stored):
        is_served = isinstance(part.source, ServedInstance)
        if is_served or not UID(part.transfer_syntax).is_encapsulated:
            # Its length was compared when it was described; a server gives single frames.
            continue
        try:
            (end,) = files.read(part.source, [part.source.size - 8], [8])
            if end != SEQUENCE_DELIMITER + bytes(4):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DcmdaskWarning)
                    open_instance(part.source, dict(part.overrides))
        except (DcmdaskError, OSError) as error:
            yield str(error)


def _lines(
    series: Mapping[str, Any], number: int, stack: Mapping[str, Any]
) -> list[tuple[str, str]]:
    from pydicom.uid import UID

    metadata, several = series["metadata"], len(series["stacks"]) > 1
    kind = UID(metadata["SOPClassUID"]).name if "SOPClassUID" in metadata else "several kinds"
    what = ", ".join(filter(None, [kind, metadata.get("Modality"), stack["summary"]]))
    lengths = zip(stack["dims"], stack["shape"], strict=True)
    lines = [
        ("series", series["uid"] or "without a valid Series Instance UID"),
        *([("stack", f"{number} of {len(series['stacks'])}")] if several else []),
        ("what", what),
        ("array", ", ".join(f"{d}: {n}" for d, n in lengths) + f"  {stack['dtype']}"),
        ("files", str(stack["files"])),
        ("syntax", ", ".join(UID(uid).name for uid in series["transfer_syntaxes"])),
    ]
    tiles = stack["tiles"]
    if tiles:
        lines.append(("tiles", f"{tiles['frames']} of {tiles['rows']} x {tiles['columns']} pixels"))
    if stack["spacing"]:
        spacing = " x ".join("?" if mm is None else f"{mm:.6g}" for mm in stack["spacing"])
        lines.append(("spacing", f"{spacing} mm (z, y, x)"))
    if stack["codes"] and not tiles:
        directions = ", ".join(_PATIENT[code] for code in stack["codes"])
        lines.append(("order", f"x, y, z point to {directions}"))
    for dim, values in stack["coordinates"].items():
        if len(values) > 1:
            lines.append((dim, _range(values, _UNITS.get(dim, ""))))
    lines += [("irregular", text) for text in [*series["conflicts"], *stack["irregularities"]]]
    return lines + [("note", note) for note in stack["notes"]]


def _slide_lines(series: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return lines of a whole slide: one for each of its levels and other pictures."""
    from pydicom.uid import UID

    metadata = series["metadata"]
    kind = UID(metadata["SOPClassUID"]).name if "SOPClassUID" in metadata else "whole slide"
    lines = [("series", series["uid"] or "without a valid Series Instance UID"), ("what", kind)]
    levels: Counter[str | None] = Counter()
    flavours = ("", "VOLUME")
    of_slides = [one["tiles"] for one in series["stacks"] if one["tiles"]["flavour"] in flavours]
    pyramids = list(dict.fromkeys(tiles["pyramid_uid"] for tiles in of_slides))
    for stack in series["stacks"]:
        tiles = stack["tiles"]
        name, pyramid = tiles["flavour"].lower(), tiles["pyramid_uid"]
        if tiles["flavour"] in flavours:
            name = f"level {levels[pyramid]}"
            levels[pyramid] += 1
            if len(pyramids) > 1:
                name = f"pyramid {pyramids.index(pyramid) + 1}, {name}"
        lengths = zip(stack["dims"], stack["shape"], strict=True)
        words = [", ".join(f"{dim}: {n}" for dim, n in lengths) + f" {stack['dtype']}"]
        if stack["spacing"] and None not in stack["spacing"][1:]:
            words.append(" x ".join(f"{1000 * mm:.4g}" for mm in stack["spacing"][1:]) + " um")
        words.append(f"{counted(tiles['frames'], 'tile')} of {tiles['rows']} x {tiles['columns']}")
        words.append(UID(tiles["transfer_syntax"]).name)
        lines.append((name, "; ".join(words)))
    odd = [
        *series["conflicts"],
        *(t for stack in series["stacks"] for t in stack["irregularities"]),
    ]
    lines += [("irregular", text) for text in odd]
    return lines + [("note", text) for stack in series["stacks"] for text in stack["notes"]]


_PATIENT = {
    "L": "the left",
    "R": "the right",
    "P": "the back",
    "A": "the front",
    "S": "the head",
    "I": "the feet",
}
_UNITS = {"z": " mm", "t": " ms", "echo": " ms"}
_SHOWN = 6


def _range(values: list[Any], unit: str) -> str:
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if len(words) > _SHOWN:
        words = [*words[:3], "...", words[-1]]
    return " ".join(words) + unit
