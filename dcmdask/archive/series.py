"""`Series`: the instances of one Series Instance UID, and the stacks that they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.valued import Values
from dcmdask.dicom.conversion import MODALITIES, UNITS, term, uid
from dcmdask.dicom.description import Described, facts_of
from dcmdask.dicom.instance import outside
from dcmdask.errors import AmbiguousSourceError, DcmdaskWarning
from dcmdask.geometry.grid import clusters
from dcmdask.geometry.repair import OnIrregular
from dcmdask.images.volume import Stack, compacted, is_mosaic

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from dcmdask.arrays.chunks import Chunks

# Direction cosines and, relatively, pixel spacings that differ by less are the same: over 500
# mm that is 0.01 mm.
_SAME = 2e-5
# Number of stacks that a message lists.
_LISTED = 10
# No direction cosine and no logarithm of a spacing.
_ABSENT = 99.0


# Keyword to the attribute of a Described, and what lets only values through that are no name.
_METADATA: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "SeriesInstanceUID": ("series_uid", uid),
    "StudyInstanceUID": ("study_uid", uid),
    "FrameOfReferenceUID": ("frame_of_reference_uid", uid),
    "SOPClassUID": ("sop_class_uid", uid),
    "TransferSyntaxUID": ("transfer_syntax", uid),
    "Modality": ("modality", partial(term, terms=MODALITIES)),
    "PhotometricInterpretation": ("photometric_interpretation", str),
    "BitsAllocated": ("bits_allocated", int),
    "BitsStored": ("bits_stored", int),
    "Units": ("units", partial(term, terms=UNITS)),
}


class Series:
    """The instances of one Series Instance UID.

    Parameters
    ----------
    uid : str
    instances : sequence of Described
        In any order.
    conflicts : sequence of str, optional
        What of the instances contradicts itself, in words.
    left_out : sequence of str, optional
        Files that may be part of it, and why they are not: those beside its own that are
        damaged, empty or unreadable.
    """

    def __init__(
        self,
        uid: str,
        instances: Iterable[Described],
        conflicts: Iterable[str] = (),
        left_out: Iterable[str] = (),
    ) -> None:
        self.uid = uid
        self.instances = tuple(sorted(instances, key=lambda one: one.source.name))
        self.conflicts = tuple(conflicts)
        self.left_out = tuple(left_out)

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks, each of which can be one array; the largest first."""
        return stacks_of(self.uid, self.instances)

    @property
    def irregularities(self) -> tuple[str, ...]:
        """Irregularities of its stacks, and instances that contradict each other."""
        # Conflicts inside a stack are among those of the series.
        found = (text for stack in self.stacks for text in stack.worded(but="conflict"))
        return (*self.conflicts, *found)

    @property
    def metadata(self) -> dict[str, Any]:
        """Technical facts that all its instances share, by DICOM keyword; nothing personal."""
        found = {}
        for keyword, (attribute, allowed) in _METADATA.items():
            values = {getattr(one, attribute) for one in self.instances}
            if len(values) == 1 and (value := allowed(values.pop())) is not None:
                found[keyword] = value
        return found

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self.instances)

    @property
    def name(self) -> str:
        """Display name."""
        return f"series {uid(self.uid) or 'without a valid UID'}"

    def __repr__(self) -> str:
        stacks = "; ".join(map(repr, self.stacks[:_LISTED]))
        more = len(self.stacks) - _LISTED
        stacks += f" and {more} more" if more > 0 else ""
        return f"<{self.name.capitalize()}, {len(self)} instances: {stacks}>"

    def only_stack(self) -> Stack:
        """Return the stack where there is one.

        Raises
        ------
        AmbiguousSourceError
            There are several; the message lists them.
        """
        if len(self.stacks) != 1:
            shown = self.stacks[:_LISTED]
            listed = "\n".join(f"- stacks[{i}]: {stack}" for i, stack in enumerate(shown))
            more = len(self.stacks) - _LISTED
            listed += f"\n- and {more} more" if more > 0 else ""
            raise AmbiguousSourceError(
                f"{len(self.stacks)} stacks where one array is meant:\n{listed}\n"
                "take one of them, such as scan(...)[0].stacks[0].to_dask()",
                source=self.name,
            )
        return self.stacks[0]

    def tell_left_out(self) -> None:
        """Warn of files that may be part of it and are not."""
        if self.left_out:
            shown = "; ".join(self.left_out[:_LISTED])
            warnings.warn(
                f"{self.name}: left out beside it, though maybe part of it "
                f"({len(self.left_out)}): {shown}",
                DcmdaskWarning,
                stacklevel=outside(),
            )

    def to_dask(
        self,
        values: Values = "stored",
        *,
        on_irregular: OnIrregular = "error",
        order_by: str | Sequence[str] | None = None,
        fill_value: float | None = None,
        chunks: Chunks = "auto",
        **decoding_options: Any,
    ) -> da.Array:
        """Return the only stack as a lazy Dask array (..., z, rows, columns[, samples]).

        Parameters, result and errors are those of :meth:`Stack.to_dask`.

        Raises
        ------
        AmbiguousSourceError
            There are several stacks; the message lists them.
        """
        stack = self.only_stack()
        self.tell_left_out()
        return stack.to_dask(
            values,
            on_irregular=on_irregular,
            order_by=order_by,
            fill_value=fill_value,
            chunks=chunks,
            **decoding_options,
        )

    def to_xarray(
        self,
        values: Values = "stored",
        *,
        on_irregular: OnIrregular = "error",
        order_by: str | Sequence[str] | None = None,
        fill_value: float | None = None,
        chunks: Chunks = "auto",
        **decoding_options: Any,
    ) -> xr.DataArray:
        """Return the only stack as an :class:`xarray.DataArray` with labels, units and affine.

        Parameters, result and errors are those of :meth:`Stack.to_xarray`.

        Raises
        ------
        AmbiguousSourceError
            There are several stacks; the message lists them.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> from dcmdask import scan
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
        >>> v = scan(folder)[0].to_xarray(values="modality")
        >>> v.dims, v.shape, v.attrs["units"]
        (('z', 'y', 'x'), (5, 16, 16), 'HU')
        >>> v.z.values
        array([ 0. ,  2.5,  5. ,  7.5, 10. ])
        >>> v.attrs["affine"][:3, 3]
        array([ -72.199997, -143.      ,   -1.2375  ])
        """
        stack = self.only_stack()
        self.tell_left_out()
        return stack.to_xarray(
            values,
            on_irregular=on_irregular,
            order_by=order_by,
            fill_value=fill_value,
            chunks=chunks,
            **decoding_options,
        )


def stacks_of(uid: str, instances: Sequence[Described]) -> tuple[Stack, ...]:
    """Group frames that look alike, and lie and measure alike, into stacks.

    Alike are: rows, columns, samples, type of the stored values, what grey means, localizer
    or mosaic or neither, frame of reference; orientation, pixel spacing and Stack ID.
    Transfer syntaxes may differ.
    """
    looks: dict[tuple[Any, ...], list[int]] = {}
    for number, one in enumerate(instances):
        looks.setdefault(_look(one), []).append(number)
    stacks: list[Stack] = []
    for members in looks.values():
        alike = [instances[number] for number in members]
        stacks += compacted(uid, alike, _placed_alike(facts_of(alike)))
    return tuple(sorted(stacks, key=_size_and_name))


def _size_and_name(stack: Stack) -> tuple[Any, ...]:
    numbers = stack.frame_numbers
    return -len(numbers), stack.instances[0].source.name, int(numbers[0])


def _look(one: Described) -> tuple[Any, ...]:
    return (
        one.rows,
        one.columns,
        one.samples,
        one.bits_allocated,
        one.signed,
        one.pixel_keyword,
        one.photometric_interpretation if one.samples == 1 else "",
        "LOCALIZER" in one.image_type,
        is_mosaic(one),
        one.frame_of_reference_uid,
    )


def _placed_alike(facts: npt.NDArray[Any]) -> list[npt.NDArray[np.int64]]:
    """Return the rows of each combination of orientation, pixel spacing and Stack ID."""
    scale = np.where(facts["spacing"] > 0, facts["spacing"], np.nan)
    measures = np.column_stack([facts["orientation"], np.log(scale)])
    measures = np.where(np.isfinite(measures), measures, _ABSENT)
    stack_id = np.unique(facts["stack_id"], return_inverse=True)[1].reshape(-1)
    labels = np.column_stack([stack_id, *(clusters(one, _SAME) for one in measures.T)])
    group = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
