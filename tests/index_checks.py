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
    told = [str(w.message) for w in caught if issubclass(w.category, DcmdaskWarning)]
    assert len(told) == len(notes), told
    for note, message in zip(notes, told, strict=True):
        assert note in message
    assert len(frames.notes) == len(notes)
    return frames
