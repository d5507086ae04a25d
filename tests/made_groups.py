"""Items of functional groups, made for tests in each encoding."""

from __future__ import annotations

import struct

from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from dcmdask.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Encoding,
    Filter,
    Wanted,
    Window,
)

EVERYTHING = Filter(every=True)
ENCODINGS = [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG]
GROUPS = 0x52009230
POSITION, CONTENT, DIFFUSION, ECHO = 0x00209113, 0x00209111, 0x00189117, 0x00189114
LEAVES = (
    Wanted((POSITION, 0x00200032), 0, "DS"),
    Wanted((CONTENT, 0x00209057), 1, "UL"),
    Wanted((CONTENT, 0x00209056), 2, "SH"),
    Wanted((DIFFUSION, 0x00189087), 3, "FD"),
    Wanted((DIFFUSION, 0x00189076, 0x00189089), 4, "FD"),
    Wanted((ECHO, 0x00189082), 5, "FD"),
    Wanted((0x00200013,), 6, "IS"),
    # Shares a column, as what has a macro in some kinds of instances does.
    Wanted((0x00209171, 0x00189087), 3, "FD"),
)
WANTED = Filter(LEAVES)
COLUMNS = 7

VALUES = {
    "ImagePositionPatient": st.sampled_from([[0, 0, 1], [0, 0, 2.5], [-12.25, 3, 1e-3]]),
    "InStackPositionNumber": st.integers(1, 3),
    "StackID": st.sampled_from(["1", "left"]),
    "DiffusionBValue": st.sampled_from([0.0, 1000.0]),
    "DiffusionGradientOrientation": st.sampled_from([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]),
    "EffectiveEchoTime": st.sampled_from([30.0, 60.5]),
    "InstanceNumber": st.integers(1, 12),
    "TriggerTime": st.integers(1, 1000),
    "ICCProfile": st.sampled_from([b"", b"\xfe\xff\x0d\xe0\0\0\0\0", bytes(40)]),
}
SEQUENCES = [
    "PlanePositionSequence",
    "FrameContentSequence",
    "MRDiffusionSequence",
    "DiffusionGradientDirectionSequence",
    "MREchoSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "ReferencedImageSequence",
    "DerivationImageSequence",
]
CONTENTS = st.fixed_dictionaries({}, optional=VALUES)
# What the items of sequences hold, nested, and whether sequence and items have lengths.
TREES = st.recursive(
    CONTENTS,
    lambda inner: st.builds(
        lambda leaves, nested: {**leaves, **nested},
        CONTENTS,
        st.dictionaries(
            st.sampled_from(SEQUENCES),
            st.tuples(st.lists(inner, max_size=2), st.booleans(), st.booleans()),
            max_size=3,
        ),
    ),
    max_leaves=10,
)


def build(tree: dict[str, object], *, with_length: bool = True) -> Dataset:
    dataset = Dataset()
    dataset.is_undefined_length_sequence_item = not with_length
    for keyword, content in tree.items():
        if isinstance(content, tuple):
            items, closed, closed_items = content
            made = [build(item, with_length=closed_items) for item in items]
            dataset.add_new(keyword, "SQ", Sequence(made))
            dataset[keyword].is_undefined_length = not closed
        elif keyword == "ICCProfile":
            dataset.add_new(keyword, "OB", content)
        else:
            setattr(dataset, keyword, content)
    return dataset


def written(items: list[Dataset], encoding: Encoding, *, with_length: bool = True) -> bytes:
    dataset = Dataset()
    dataset.PerFrameFunctionalGroupsSequence = Sequence(items)
    dataset["PerFrameFunctionalGroupsSequence"].is_undefined_length = not with_length
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = encoding.implicit, encoding.little_endian
    write_dataset(file, dataset)
    return file.getvalue()


def counted(data: bytes, step: int = 1 << 14) -> Window:
    return Window(lambda offset, length: data[offset : offset + length], len(data), step=step)


def positions(count: int) -> list[Dataset]:
    return [
        build({"PlanePositionSequence": ([{"ImagePositionPatient": f"0\\0\\{i}"}], True, True)})
        for i in range(count)
    ]


def explicit(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    length = len(value) if length is None else length
    if vr in (b"SQ", b"UN", b"OB"):
        return head + struct.pack("<HL", 0, length) + value
    return head + struct.pack("<H", length) + value


def as_item(content: bytes, length: int | None = None) -> bytes:
    length = len(content) if length is None else length
    return struct.pack("<HHL", 0xFFFE, 0xE000, length) + content


def open_ended(tag: int, *contents: bytes) -> bytes:
    """A sequence of undefined length, of items of undefined length."""
    end_of_item, end = (struct.pack("<HHL", 0xFFFE, number, 0) for number in (0xE00D, 0xE0DD))
    items = [as_item(content, 0xFFFFFFFF) + end_of_item for content in contents]
    return explicit(tag, b"SQ", b"".join([*items, end]), 0xFFFFFFFF)


def every_way(encoding: Encoding) -> bytes:
    """Groups with sequences of each form."""
    tree = {
        "InstanceNumber": 3,
        "PlanePositionSequence": ([{"ImagePositionPatient": [1, 2, 3]}], False, False),
        "MRDiffusionSequence": (
            [
                {
                    "DiffusionBValue": 5.0,
                    "DiffusionGradientDirectionSequence": (
                        [{"DiffusionGradientOrientation": [1.0, 0.0, 0.0]}],
                        True,
                        False,
                    ),
                }
            ],
            True,
            True,
        ),
        "DerivationImageSequence": (
            [{"ReferencedImageSequence": ([{"ICCProfile": bytes(20)}, {}], False, True)}],
            False,
            False,
        ),
    }
    items = [build(tree, with_length=bool(i % 2)) for i in range(6)]
    return written(items, encoding, with_length=False)
