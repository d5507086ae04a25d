"""Images of labels of a store: whether each object is there and decodes."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np
import zarr

from dcmdask.store.ome import metadata as ome
from dcmdask.store.ome.labels import FOLDER
from dcmdask.store.regions import grid_of
from dcmdask.store.target.place import Place, check_reached
from dcmdask.store.verification.comparison import Difference, error_text, read_object
from dcmdask.store.zarr_format import key_of


def is_of_labels(name: str) -> bool:
    """Return whether an array or a group is one of labels."""
    return name == FOLDER or name.startswith(f"{FOLDER}/")


def check_group(group: zarr.Group, name: str) -> None:
    """Refuse a group of labels that has not the metadata of OME-Zarr."""
    try:
        found = zarr.open_group(
            group.store, path=name, mode="r", zarr_format=group.metadata.zarr_format
        )
        told = ome.told_in(found.attrs.asdict())
    except FileNotFoundError:
        raise ValueError("it is missing") from None
    except Exception as error:
        check_reached(error)
        raise ValueError(f"it is damaged: {error_text(error)}") from error
    wanted = "labels" if name == FOLDER else "image-label"
    if not isinstance(told, dict) or wanted not in told:
        raise ValueError(f"its metadata of OME-Zarr has no {wanted}")


def label_differences(
    place: Place, arrays: Mapping[str, zarr.Array[Any]], faults: Container[str]
) -> Iterator[Difference]:
    """Read each object of arrays without faults, and yield those that are missing or damaged."""
    there = place.sizes()
    for name, array in arrays.items():
        if name in faults:
            continue
        lengths = array.shards or array.chunks
        for index in np.ndindex(*grid_of(array.shape, lengths)):
            key = key_of(name, index, array.metadata.zarr_format)
            if key not in there:
                yield Difference(key, "it is missing")
                continue
            starts = [number * length for number, length in zip(index, lengths, strict=True)]
            region = tuple(
                slice(start, start + length) for start, length in zip(starts, lengths, strict=True)
            )
            found = read_object(place, array, key, region)
            if isinstance(found, Difference):
                yield found
