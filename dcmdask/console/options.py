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
        "photometric_interpretation=RGB, transfer_syntax_uid=1.2.840.10008.1.2.1; also "
        "allow_excess_frames=false and inflate_limit=N. Holds for all files. Can be given several "
        "times.",
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


def _checked(values: str) -> str:
    # Imported where it is used, since the help of a command does not wait for it.
    from dcmdask.arrays.transformation import check_values

    try:
        check_values(values, {})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return values


Values = Annotated[
    str,
    typer.Option(
        callback=_checked,
        metavar="VALUES",
        help="stored, as the decoder gives them; modality, such as Hounsfield units; "
        "philips-float, the precise ones of Philips; suv, suv-lbm or suv-bsa, of PET; real-world "
        "or real-world:LABEL, by the Real World Value Mapping of this LUT Label; or display, as "
        "a viewer shows them.",
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
    overrides = overrides_of(set)
    for name in given.keys() & overrides.keys():
        raise _refused(f"{name}={overrides[name]}", f"--{name.replace('_', '-')} is given too")
    return {"raw": raw, **given, **overrides}


def overrides_of(pairs: Iterable[str] | None) -> dict[str, Any]:
    """Return values of ``--set``, by the names of the options that a file is described with.

    Examples
    --------
    >>> overrides_of(["bits_stored=12", "PhotometricInterpretation=RGB"])
    {'bits_stored': 12, 'photometric_interpretation': 'RGB'}
    >>> overrides_of(["allow_excess_frames=false"])
    {'allow_excess_frames': False}
    """
    from dcmdask.dicom.image_pixel import HEADER_OPTIONS

    texts = {"photometric_interpretation", "transfer_syntax_uid"}
    found: dict[str, Any] = {}
    for pair in pairs or ():
        keyword, _, value = pair.partition("=")
        # The standard's BitsStored is bits_stored in pydicom.
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", keyword).lower()
        if name not in HEADER_OPTIONS:
            raise _refused(pair, f"KEYWORD is one of {', '.join(sorted(HEADER_OPTIONS))}")
        if not value:
            raise _refused(pair, "KEYWORD=VALUE, and VALUE is missing")
        if name in found:
            raise _refused(pair, f"{name} is given twice")
        if name == "allow_excess_frames":
            if value.lower() not in ("true", "false"):
                raise _refused(pair, "true or false")
            found[name] = value.lower() == "true"
            continue
        try:
            found[name] = value if name in texts else int(value)
        except ValueError:
            raise _refused(pair, "a whole number") from None
    return found


def _refused(pair: str, why: str) -> typer.BadParameter:
    return typer.BadParameter(f"{pair!r}: {why}", param_hint="--set")
