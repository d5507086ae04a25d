"""Opens and decodes every file of a folder in a process with little memory.

Run as a script by test_bad_input.py: one line of JSON per file with what happened, so that
the last line tells where a process ended that did not come to its end.
"""

import faulthandler
import json
import logging
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset

from dcmdask.errors import DcmdaskError
from dcmdask.pixels.frame_array import open_frames
from dcmdask.pixels.pixel_array import iter_pixels, pixel_array

# Beyond what the process has when its libraries are loaded.
MEMORY = 1 << 30
SECONDS = 60


def use_index(path: Path) -> None:
    frames = open_frames(path)
    for i in {0, len(frames) // 2, len(frames) - 1}:
        frame = frames[i]
        assert (frame.shape, frame.dtype) == (frames.shape[1:], frames.dtype)
    frames[:2, :1]


def use_all(path: Path) -> None:
    array = pixel_array(path)
    assert array.size


def use_raw_stream(path: Path) -> None:
    sum(1 for _ in iter_pixels(path, raw=True))


def use_header(path: Path) -> None:
    assert isinstance(open_frames(path).dataset, Dataset)
    filled = Dataset()
    pixel_array(path, index=0, ds_out=filled, specific_tags=[0x00100010])


USES: list[Callable[[Path], None]] = [use_index, use_all, use_raw_stream, use_header]


def outcome(use: Callable[[Path], None], path: Path) -> str:
    """An empty string where the result is an array or an error of ours."""
    try:
        use(path)
    except DcmdaskError as error:
        return "" if str(path) in str(error) else f"no file is named in: {error}"
    except BaseException as error:  # panics of Rust extensions are no Exceptions
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
        return f"{type(error).__name__}: {error} ({where})"
    return ""


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    paths = sorted(folder.glob("*.dcm"))
    # Decode once, so that everything is loaded before memory becomes short.
    for good in sorted(folder.glob("*.good")):
        assert np.size(pixel_array(good))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for path in paths:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        for use in USES:
            print(json.dumps([path.name, use.__name__, outcome(use, path)]), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps("done"), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
