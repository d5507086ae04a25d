"""``dcmdask export``: one DICOM file to one Zarr store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcmdask.cli import options
from dcmdask.cli.output import counted, show

if TYPE_CHECKING:
    from dcmdask.export.writer import ExportReport


class Compressor(StrEnum):
    """What `--compressor` takes."""

    auto = "auto"
    zstd = "zstd"
    gzip = "gzip"
    none = "none"


# As zarr's metadata writes them; the levels are zarr's own defaults.
COMPRESSORS: Mapping[Compressor, Any] = {
    Compressor.auto: "auto",
    Compressor.zstd: {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
    Compressor.gzip: {"name": "gzip", "configuration": {"level": 5}},
    Compressor.none: None,
}


def export(
    file: options.Source,
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="The Zarr store to make: a path or a URL.")
    ],
    chunks: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default="planned by the cost of decoding",
            help="Frames per chunk.",
        ),
    ] = None,
    compressor: Annotated[
        Compressor, typer.Option(help="Of the chunks; auto is Blosc with Zstandard, bit shuffled.")
    ] = Compressor.auto,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the Zarr store that is there.")
    ] = False,
    raw: options.Raw = False,
    number_of_frames: options.NumberOfFrames = None,
    transfer_syntax_uid: options.TransferSyntaxUid = None,
    as_json: options.AsJson = False,
) -> None:
    """Export the frames of a DICOM file to a Zarr 3 store.

    The store is whole or not there: a failure leaves what was there before. It holds no
    names, dates or other personal data from the header.
    """
    from dcmdask.cli.progress import progress
    from dcmdask.export.writer import to_zarr

    with progress():
        report = to_zarr(
            file,
            store,
            chunks="auto" if chunks is None else chunks,
            compressors=COMPRESSORS[compressor],
            overwrite=overwrite,
            **options.opening(raw, number_of_frames, transfer_syntax_uid),
        )
    if as_json:
        show(json.dumps(dataclasses.asdict(report), indent=2, default=str))
    else:
        show(_summary(report))


def _summary(report: ExportReport) -> str:
    from dask.utils import format_bytes

    stored = ""
    if report.bytes_stored:
        ratio = report.bytes_decoded / report.bytes_stored
        stored = f", {format_bytes(report.bytes_stored)} stored ({ratio:.1f} : 1)"
    count = -(-report.shape[0] // report.chunks[0])
    speed = format_bytes(int(report.bytes_decoded / report.seconds))
    return (
        f"{report.store}\n"
        f"  {report.shape} {report.dtype}, {counted(count, 'chunk')} of "
        f"{counted(report.chunks[0], 'frame')}\n"
        f"  {format_bytes(report.bytes_decoded)} decoded{stored}\n"
        f"  {report.seconds:.1f} s, {speed}/s"
    )
