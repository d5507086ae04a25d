"""``dcmdask export``: a file or a series to one Zarr store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dcmdask.cli.verify import json_of
from dcmdask.console import options
from dcmdask.console.output import FAILURES, listing, show
from dcmdask.dicom.conversion import plain
from dcmdask.sources.access import options_of

if TYPE_CHECKING:
    from dcmdask.store.export import Prepared


def numbers(text: str, option: str) -> Any:
    """Return ``auto``, None, a number, or numbers that are separated by commas."""
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: auto, a number, or one for each axis: 1,512,512", param_hint=option
        ) from None
    if min(found) < 1:
        raise typer.BadParameter(f"{text!r}: numbers from 1 on", param_hint=option)
    return found[0] if len(found) == 1 else found


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A DICOM file, or a folder, archive or pattern with one series or whole slide.",
        ),
    ],
    store: Annotated[
        str, typer.Argument(metavar="DEST", help="Zarr store to write: a path or a URL.")
    ],
    format: Annotated[
        Literal["zarr", "ome-zarr"],
        typer.Option(help="One array, or an OME-Zarr pyramid."),
    ] = "zarr",
    ome_version: Annotated[
        Literal["0.4", "0.5"],
        typer.Option(help="Version of OME-Zarr; 0.4 is for readers of Zarr 2, and has no shards."),
    ] = "0.5",
    chunks: Annotated[
        str,
        typer.Option(
            metavar="N,N,N",
            help="Chunk shape: a number for each axis but the samples, or one number of whole "
            "frames; of a slide, one of rows and columns.",
        ),
    ] = "auto",
    shards: Annotated[
        str,
        typer.Option(metavar="N,N,N", help="Shard shape, in whole chunks; none for no shards."),
    ] = "auto",
    compressor: Annotated[
        Literal["auto", "zstd", "gzip", "none"],
        typer.Option(
            help="Compression; auto is Blosc with Zstandard, bit shuffled, and a checksum (none in "
            "OME-Zarr 0.4)."
        ),
    ] = "auto",
    series: options.Series = None,
    stack: options.Stack = None,
    values: options.Values = "stored",
    levels: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Number of levels of an OME-Zarr pyramid, with those that a slide has, or auto.",
        ),
    ] = "auto",
    on_irregular: options.OnIrregular = "error",
    on_duplicate: options.OnDuplicate = "error",
    order_by: options.OrderBy = None,
    tolerance: options.Tolerance = None,
    on_error: Annotated[
        Literal["fail", "fill"],
        typer.Option(
            help="If a frame or tile cannot be decoded: end, or fill, mark and report it."
        ),
    ] = "fail",
    fill_value: Annotated[
        float | None,
        typer.Option(
            metavar="VALUE", help="For missing frames; by default Pixel Padding Value, or 0."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an export that ended early, if there is one."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing store if dcmdask wrote all of it."),
    ] = False,
    verify: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="FRACTION",
            help="Decode this part of the source again, and compare.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be written.")
    ] = False,
    with_identifiers: Annotated[
        bool,
        typer.Option(
            "--with-identifiers", help="Also store names, dates and the paths of the source."
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(metavar="SEG", help="Segmentation of the image, for labels of an OME-Zarr."),
    ] = None,
    keep_codec: Annotated[
        bool,
        typer.Option(
            "--keep-codec",
            help="Of a whole slide: store its tiles as they are encoded, as chunks of Zarr 2.",
        ),
    ] = False,
    scheduler: options.Scheduler = None,
    workers: options.Workers = None,
    raw: options.Raw = False,
    number_of_frames: options.NumberOfFrames = None,
    transfer_syntax_uid: options.TransferSyntaxUid = None,
    inflate_limit: options.InflateLimit = None,
    set: options.Set = None,
    storage_option: options.StorageOption = None,
    target_option: options.TargetOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Export a DICOM file or series to a Zarr store.

    The frames of a file keep their order; those of a series become a volume (or more dimensions)
    in spatial order, and so do those of a file as OME-Zarr. A store that is not whole is marked
    as incomplete, and --resume writes the rest. Names, dates and other personal data of the
    header are not stored.

    Of a whole slide an OME-Zarr has the levels that the slide has, and further ones that are made
    of the coarsest; label, overview and thumbnail images are left out:

        dcmdask export slide/ slide.ome.zarr --format ome-zarr

    A local store is written by one export at a time. On an object store two exports of one
    source write the same bytes, which does no harm.
    """
    from dcmdask.console.progress import counting
    from dcmdask.store.scheduler import cluster

    asked: dict[str, Any] = {
        "format": format,
        "ome_version": ome_version,
        "chunks": numbers(chunks, "--chunks"),
        "shards": numbers(shards, "--shards"),
        "compressors": compressor,
        "levels": numbers(levels, "--levels"),
        "values": values,
        "on_irregular": on_irregular,
        "on_duplicate": on_duplicate,
        "order_by": order_by,
        "tolerance": tolerance,
        "on_error": on_error,
        "fill_value": fill_value,
        "with_identifiers": with_identifiers,
        "labels": labels,
        "keep_codec": keep_codec,
        "storage_options": options_of(storage_option or ()),
        **options.opening(raw, number_of_frames, transfer_syntax_uid, inflate_limit, set),
    }
    target_options = options_of(target_option or ())
    src: Any = source
    if series is not None or stack is not None:
        from dcmdask.cli.choice import chosen
        from dcmdask.dicom.image_pixel import header_options

        storage = asked.pop("storage_options")
        src = chosen(source, series, stack, storage, **header_options(asked))
    if resume and overwrite:
        raise ValueError("--resume keeps what was written and --overwrite does not: not both")
    with cluster(scheduler, workers):
        if dry_run:
            _show_plan(src, asked, as_json)
            return
        from dcmdask.store.writer import to_zarr

        with counting("regions") as advance:
            report = to_zarr(
                src,
                store,
                resume=resume,
                overwrite=overwrite,
                progress=advance,
                target_options=target_options,
                **asked,
            )
        found = None
        if verify is not None:
            from dcmdask.store.verification.verify import verify as compare

            with counting("regions compared") as advance:
                found = compare(
                    store,
                    src,
                    fraction=verify,
                    progress=advance,
                    storage_options=asked.get("storage_options"),
                    target_options=target_options,
                )
    if as_json:
        facts = dataclasses.asdict(report)
        if found is not None:
            facts["verified"] = json_of(found)
        show(json.dumps(facts, indent=2, default=str))
    else:
        texts = [str(report), *([] if found is None else [str(found)])]
        show("\n".join(plain(line) for text in texts for line in text.splitlines()))
    if report.failures or (found is not None and not found.ok):
        raise typer.Exit(FAILURES)


def _show_plan(source: Any, asked: Mapping[str, Any], as_json: bool) -> None:
    if asked.get("keep_codec"):
        _show_kept(source, asked, as_json)
        return
    from dcmdask.store.export import prepare
    from dcmdask.store.plan import check_fits
    from dcmdask.store.scheduler import room

    prepared = prepare(source, **asked)
    share, why = room()
    facts = _facts(prepared)
    if as_json:
        show(json.dumps({**facts, "bytes_room": share}, indent=2))
    else:
        show(listing([*_lines(facts), ("room", f"{_size(share)} for a region ({why})")]))
    for one in prepared.all:
        check_fits(one.plan, share, why)


def _show_kept(source: Any, asked: Mapping[str, Any], as_json: bool) -> None:
    from dcmdask.store.tiles.writer import planned_levels

    levels = planned_levels(source, asked)
    facts = [
        {
            "name": one.name,
            "dims": list(one.dims),
            "shape": list(one.shape),
            "chunks": list(one.chunks),
            "dtype": str(one.dtype),
            "codec": one.codec,
            "tiles": len(one.tiles),
        }
        for one in levels
    ]
    if as_json:
        show(json.dumps({"levels": facts}, indent=2))
        return
    lines = [
        (
            one.name,
            f"{_times(list(one.shape))} {one.dtype}, {len(one.tiles)} chunks of "
            f"{_times(list(one.chunks))}, {(one.codec or {}).get('id', 'not compressed')}",
        )
        for one in levels
    ]
    show(listing(lines))


def _facts(prepared: Prepared) -> dict[str, Any]:
    plan = prepared.plan
    masks = [one.layout.mask for one in prepared.pyramid]
    return {
        "dims": list(plan.dims),
        "dtype": str(plan.dtype),
        "levels": [
            {
                "name": name,
                "shape": list(level.shape),
                "chunks": list(level.chunks),
                "shards": list(level.shards) if level.shards else None,
            }
            for one in prepared.pyramid
            for name, level in zip(one.layout.names, one.plan.levels, strict=True)
        ],
        "coordinates": sorted({*prepared.coordinates, *filter(None, masks)}),
        "labels": [one.folder.rpartition("/")[2] for one in prepared.beside if one.folder],
        "regions": sum(one.layout.regions for one in prepared.pyramid),
        "bytes_region": max(one.plan.region_bytes for one in prepared.pyramid),
        "bytes_decoded": sum(one.contents.frames.nbytes for one in prepared.pyramid),
    }


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("axes", ", ".join(facts["dims"])), ("type", facts["dtype"])]
    for level in facts["levels"]:
        shards = f", shards {_times(level['shards'])}" if level["shards"] else ""
        text = f"{_times(level['shape'])}, chunks {_times(level['chunks'])}{shards}"
        lines.append((level["name"], text))
    if facts["coordinates"]:
        lines.append(("beside", ", ".join(facts["coordinates"])))
    if facts["labels"]:
        lines.append(("labels", ", ".join(facts["labels"])))
    region = f"{facts['regions']}, of up to {_size(facts['bytes_region'])}"
    return [*lines, ("regions", region), ("decoded", _size(facts["bytes_decoded"]))]


def _times(lengths: list[int]) -> str:
    return " x ".join(map(str, lengths))


def _size(count: int) -> str:
    from dask.utils import format_bytes

    return format_bytes(count)
