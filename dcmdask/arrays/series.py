"""`Series`: the instances of one Series Instance UID, and the stacks that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.stacks import OnIrregular, Stack, is_mosaic
from dcmdask.arrays.valued import Values
from dcmdask.errors import AmbiguousSourceError, IrregularSeriesError
from dcmdask.frames.facts import Described, facts_of
from dcmdask.frames.terms import MODALITIES, UNITS, term, uid

if TYPE_CHECKING:
    from dcmdask.arrays.chunks import Chunks

# Direction cosines and, relatively, pixel spacings that differ by less are the same.
_SAME = 1e-3
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
    """

    def __init__(
        self, uid: str, instances: Iterable[Described], conflicts: Iterable[str] = ()
    ) -> None:
        self.uid = uid
        self.instances = tuple(sorted(instances, key=lambda one: one.source.name))
        self.conflicts = tuple(conflicts)

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """What can be one array each; the largest first."""
        return stacks_of(self.uid, self.instances)

    @property
    def irregularities(self) -> tuple[str, ...]:
        """What is not regular in its stacks, and instances that contradict each other."""
        return (*self.conflicts, *(text for stack in self.stacks for text in stack.irregularities))

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

    def __repr__(self) -> str:
        stacks = "; ".join(map(repr, self.stacks))
        return f"<Series {self.uid}, {len(self)} instances: {stacks}>"

    def only_stack(self, on_irregular: OnIrregular = "error") -> Stack:
        """Return the stack where there is one.

        Raises
        ------
        AmbiguousSourceError
            There are several; the message lists them.
        IrregularSeriesError
            Instances contradict each other, and `on_irregular` is not ``"keep"``.
        """
        if self.conflicts and on_irregular != "keep":
            raise IrregularSeriesError(
                "instances contradict each other: " + "; ".join(self.conflicts) + "; "
                "on_irregular='keep' takes them all",
                source=f"series {self.uid}",
            )
        if len(self.stacks) != 1:
            listed = "\n".join(f"- stacks[{i}]: {stack}" for i, stack in enumerate(self.stacks))
            raise AmbiguousSourceError(
                f"{len(self.stacks)} stacks where one array is meant:\n{listed}\n"
                "take one of them, such as scan(...)[0].stacks[0].to_dask()",
                source=f"series {self.uid}",
            )
        return self.stacks[0]

    def to_dask(
        self,
        values: Values = "stored",
        on_irregular: OnIrregular = "error",
        chunks: Chunks = "auto",
        *,
        fill_value: float | None = None,
        **opening: Any,
    ) -> Any:
        """Return the only stack as a lazy Dask array (..., z, rows, columns[, samples]).

        Parameters, result and errors are those of :meth:`Stack.to_dask`.

        Raises
        ------
        AmbiguousSourceError
            There are several stacks; the message lists them.
        """
        stack = self.only_stack(on_irregular)
        return stack.to_dask(values, on_irregular, chunks, fill_value=fill_value, **opening)

    def to_xarray(
        self,
        values: Values = "stored",
        on_irregular: OnIrregular = "error",
        chunks: Chunks = "auto",
        *,
        fill_value: float | None = None,
        **opening: Any,
    ) -> Any:
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
        stack = self.only_stack(on_irregular)
        return stack.to_xarray(values, on_irregular, chunks, fill_value=fill_value, **opening)


def stacks_of(uid: str, instances: Sequence[Described]) -> tuple[Stack, ...]:
    """Group frames that look alike, and lie and measure alike, into stacks.

    Alike are: rows, columns, samples, type of the stored values, what grey means, localizer
    or mosaic or neither, frame of reference; orientation, pixel spacing and Stack ID.
    Transfer syntaxes may differ.
    """
    looks: dict[tuple[Any, ...], list[int]] = {}
    for number, one in enumerate(instances):
        looks.setdefault(_look(one), []).append(number)
    stacks = []
    for members in looks.values():
        alike = tuple(instances[number] for number in members)
        facts = facts_of(alike)
        for rows in _placed_alike(facts):
            stacks.append(Stack(uid, alike, rows).compact())
    return tuple(
        sorted(stacks, key=lambda s: (-len(s.rows), s.instances[0].source.name, s.rows[0]))
    )


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
    # Real headers repeat these to the last digit, so few are left to be compared.
    measures = np.nan_to_num(measures, nan=_ABSENT)
    distinct, which = np.unique(measures, axis=0, return_inverse=True)
    which = which.reshape(-1)
    leaders: list[int] = []
    group = np.empty(len(distinct), np.int64)
    for number, measure in enumerate(distinct):
        for place, leader in enumerate(leaders):
            if np.all(np.abs(measure - distinct[leader]) < _SAME):
                group[number] = place
                break
        else:
            group[number] = len(leaders)
            leaders.append(number)
    keys = np.rec.fromarrays([group[which], facts["stack_id"]])
    _, inverse = np.unique(keys, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [np.flatnonzero(inverse == one) for one in range(inverse.max() + 1)]
