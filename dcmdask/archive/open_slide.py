"""`open_slide`: the files of a whole slide, as levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dcmdask.archive.collection import check_found
from dcmdask.archive.scan import scan
from dcmdask.archive.series import Series
from dcmdask.dicom.image_pixel import check_options
from dcmdask.dicom.instance import issue
from dcmdask.errors import Advice, AmbiguousSourceError
from dcmdask.images.objects.slide import flavour_of, is_slide
from dcmdask.images.slides.whole_slide import Slide
from dcmdask.images.volume import Stack


def open_slide(
    src: Any, *, storage_options: Mapping[str, Any] | None = None, **decoding_options: Any
) -> Slide:
    """Open a whole slide: the levels of one pyramid, and the pictures that belong to it.

    Levels are the images that Image Type calls VOLUME, put together by their total pixel matrix
    (PS3.3 C.8.12.4); only headers are read. They belong to one pyramid by their Pyramid UID, or by
    Frame of Reference and orientation; label, overview and thumbnail are of the same study, and of
    the same series if it has some.

    Parameters
    ----------
    src : str, path-like, iterable of these, or Series
        A folder, files or URLs with one slide, one file of it, or a series of a scan.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file system of URLs.
    **decoding_options
        For all files: overrides of group 0028 by pydicom's keywords (`rows`, `bits_stored`,
        `photometric_interpretation`, ...) and `transfer_syntax_uid`, where headers lack an element
        or are wrong; `inflate_limit` and `allow_excess_frames`.

    Returns
    -------
    Slide

    Raises
    ------
    AmbiguousSourceError
        There is no slide or several, or two images of one size for the same optical path and
        focal plane.
    HeaderError
        The tiles of a level cannot be put together: the size of the total pixel matrix
        contradicts their number, or they have no positions in it.

    Examples
    --------
    A picture of one tile stands for a slide here:

    >>> import tempfile
    >>> import pydicom
    >>> dataset = pydicom.examples.rgb_color
    >>> dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(
    ...     "1.2.840.10008.5.1.4.1.1.77.1.6"
    ... )
    >>> dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    >>> dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = 230, 310
    >>> folder = tempfile.TemporaryDirectory()
    >>> dataset.save_as(f"{folder.name}/0.dcm")
    >>> slide = open_slide(folder.name)
    >>> slide
    <Slide 230 x 310, 1 levels>
    >>> slide.levels[0].to_dask()[100:120, 50:60].compute().shape
    (20, 10, 3)
    >>> slide.read_region((300, 220), 0, (20, 20)).shape
    (20, 20, 3)
    >>> folder.cleanup()
    """
    check_options(decoding_options, open_slide)
    if isinstance(src, Series):
        return slide_of([src], src.name)
    found = scan(src, storage_options=storage_options, **decoding_options)
    check_found(found)
    return slide_of(found, found.name)


def slide_of(every: Iterable[Series], name: str) -> Slide:
    """Return the one slide of some series, and warn of what is odd about it.

    Raises
    ------
    AmbiguousSourceError, HeaderError
        As :func:`open_slide` does.
    """
    stacks = [stack for series in every for stack in series.stacks if is_slide(stack)]
    if not stacks:
        raise AmbiguousSourceError("there is no image of a whole slide", source=name, code="slide")
    pyramids = _pyramids(stacks)
    if len(pyramids) > 1:
        listed = "\n".join(
            f"- {members[0].instances[0].rows} x {members[0].instances[0].columns} and "
            f"{len(members) - 1} more levels, {members[0].instances[0].source.name}"
            for members in pyramids.values()
        )
        raise AmbiguousSourceError(
            f"{len(pyramids)} slides where one is meant:\n{listed}",
            source=name,
            code="slides",
            advice=[Advice("", "", "open_slide takes a list of files, or a Series of a scan")],
        )
    slide = Slide(_of_one_glass(stacks, *pyramids.values()))
    for note in slide.notes:
        issue(note, slide.name)
    return slide


def _of_one_glass(stacks: list[Stack], levels: Sequence[Stack] = ()) -> list[Stack]:
    """Return levels, and the pictures of their study: those of their series come first."""
    if not levels:
        return stacks
    of_levels, study = levels[0].series_uid, levels[0].instances[0].study_uid
    others = [one for one in stacks if one not in levels and one.instances[0].study_uid == study]
    return [*levels, *sorted(others, key=lambda one: one.series_uid != of_levels)]


def _pyramids(stacks: list[Stack]) -> dict[tuple[object, ...], list[Stack]]:
    """Group the images of slides themselves by what says that they belong together."""
    found: dict[tuple[object, ...], list[Stack]] = {}
    for stack in stacks:
        one = stack.instances[0]
        if flavour_of(one) in ("", "VOLUME"):
            pyramid = one.tiling.pyramid if one.tiling else ""
            # There is a zero with a sign; to add another takes it away.
            orientation = tuple((stack.facts["orientation"][0].round(3) + 0.0).tolist())
            place = () if pyramid else (one.frame_of_reference_uid, str(orientation))
            found.setdefault((stack.series_uid, pyramid, *place), []).append(stack)
    return found
