"""Arguments and options that commands share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import typer

Source = Annotated[
    str, typer.Argument(metavar="FILE", help="A DICOM file: a path, or a URL for fsspec.")
]
Raw = Annotated[bool, typer.Option("--raw", help="Leave YCbCr colours as they are.")]
NumberOfFrames = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Read the first N frames, of a truncated file for example."
    ),
]
TransferSyntaxUid = Annotated[
    str | None,
    typer.Option(metavar="UID", help="For files that do not say it: a transfer syntax."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEYWORD=VALUE",
        help="For headers that lack an element or are wrong: bits_stored=12, rows=512, "
        "photometric_interpretation=RGB, transfer_syntax_uid=1.2.840.10008.1.2.1. Holds for all "
        "files. Can be given several times.",
    ),
]
Series = Annotated[
    str | None,
    typer.Option(
        metavar="SERIES",
        help="One series of a folder: its number in dcmdask scan, its Series Instance UID, or the "
        "end of that with a dot in it.",
    ),
]
Stack = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="One stack of a series that has several, by its number in dcmdask info.",
    ),
]
Values = Annotated[
    Literal["stored", "modality", "philips-float", "display"],
    typer.Option(
        help="As the decoder gives them, in the units of the modality, the precise ones of "
        "Philips, or as a viewer shows them."
    ),
]
OnIrregular = Annotated[
    Literal["error", "keep", "fill"],
    typer.Option(help="Where positions of a series are missing, double or uneven."),
]
OnDuplicate = Annotated[
    Literal["error", "first"],
    typer.Option(help="Where a scan is there in single-frame and in multi-frame files."),
]
OrderBy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEYWORD",
        help="Attribute that tells frames of one position of a series apart, such as "
        "TriggerTime. Can be given several times.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        metavar="MM",
        help="Largest distance of positions from an even grid; by default 3 % of a step, "
        "or less than the last digit of positions.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Compute on this Dask cluster: tcp://host:8786"),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Number of processes of this machine."),
]
InflateLimit = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="BYTES", help="Limit of what a deflated data set inflates to; 1 GiB."
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Leave out files and folders of this name, such as '*.png', or of this path below "
        "the source, such as 'old/*'. Can be given several times.",
    ),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow links to folders; each is scanned once.")
]
StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="For the file system of a source that is a URL: anon=true, "
        "endpoint_url=http://host:9000. Can be given several times.",
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Likewise, for the file system of the target."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def opening(
    raw: bool,
    number_of_frames: int | None,
    transfer_syntax_uid: str | None,
    inflate_limit: int | None,
    set: list[str] | None,
) -> dict[str, Any]:
    """Return the options for opening a file that were given."""
    given = {
        "number_of_frames": number_of_frames,
        "transfer_syntax_uid": transfer_syntax_uid,
        "inflate_limit": inflate_limit,
    }
    given = {key: value for key, value in given.items() if value is not None}
    return {"raw": raw, **given, **overrides_of(set)}


def overrides_of(pairs: Iterable[str] | None) -> dict[str, Any]:
    """Return values of ``--set``, by pydicom's keywords.

    Examples
    --------
    >>> overrides_of(["bits_stored=12", "PhotometricInterpretation=RGB"])
    {'bits_stored': 12, 'photometric_interpretation': 'RGB'}
    """
    from dcmdask.dicom.image_pixel import OVERRIDES

    texts = {"photometric_interpretation", "transfer_syntax_uid"}
    found: dict[str, Any] = {}
    for pair in pairs or ():
        keyword, _, value = pair.partition("=")
        # The standard's BitsStored is bits_stored in pydicom.
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", keyword).lower()
        if name not in OVERRIDES | texts:
            known = ", ".join(sorted(OVERRIDES | texts))
            raise typer.BadParameter(f"{pair!r}: KEYWORD is one of {known}", param_hint="--set")
        try:
            found[name] = value if name in texts else int(value)
        except ValueError:
            raise typer.BadParameter(f"{pair!r}: a whole number", param_hint="--set") from None
    return found
