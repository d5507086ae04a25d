"""Opening with all warnings in view, for the tests of the frame index."""

import warnings
from typing import Any

from dcmdask.errors import DcmdaskWarning
from dcmdask.pixels.frame_array import FrameArray, open_frames


def opened(data: bytes, *notes: str, **options: Any) -> FrameArray:
    """Open `data`; it must warn with exactly these `notes`, in this order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = open_frames(data, **options)
    warned = [w.message for w in caught if isinstance(w.message, DcmdaskWarning)]
    told = [str(warning) for warning in warned]
    assert len(told) == len(notes), told
    for note, message in zip(notes, told, strict=True):
        assert note in message
    assert [warning.code for warning in warned] == [note.code for note in frames.notes]
    assert all(
        note.code and str(note) in text for note, text in zip(frames.notes, told, strict=True)
    )
    return frames
