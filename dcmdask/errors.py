"""Exception hierarchy.

Every exception derives from :class:`DcmdaskError` and from the built-in that a
caller would catch without knowing this package::

    DcmdaskError
    ├── NotDicomError           (ValueError)           the bytes are not DICOM
    ├── HeaderError             (ValueError)           an element is invalid or contradicts another
    ├── MissingElementError     (AttributeError)       a required element is absent
    │   └── NoPixelDataError                           there is no pixel data at all
    ├── PixelDataError          (ValueError)           the pixel data does not hold the frames
    ├── UnsupportedSyntaxError  (NotImplementedError)  nothing can decode this transfer syntax
    ├── DecodeError             (RuntimeError)         one frame does not decode
    ├── FrameNumberError        (IndexError, ValueError) a frame that does not exist
    ├── SourceChangedError      (OSError)              the file is not the one that was opened
    ├── UnreachableError        (OSError)              a server does not answer or lets nobody in
    ├── AmbiguousSourceError    (ValueError)           several series or stacks, and one is meant
    ├── IrregularSeriesError    (ValueError)           positions missing, double or uneven
    ├── GeometryError           (ValueError)           an array does not say where it lies
    ├── AlignmentError          (ValueError)           chunks that cannot be written whole
    ├── CatalogError            (ValueError)           a catalog is damaged or of another version
    ├── LayoutError             (ValueError)           a format has no place for the data
    ├── StoreExistsError        (FileExistsError)      a target that is not to be replaced
    ├── StoreLostError          (OSError)              a target that did not keep what was written
    └── ClusterError            (RuntimeError)         workers that cannot do what they are to do

    DcmdaskWarning              (UserWarning)          the result is usable, but look at this

A file that is absent, a directory or unreadable raises what :func:`open` raises.

Each exception has a :attr:`~DcmdaskError.code`, the stable name of its cause, which a
report groups by. A text is for people and is never read back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "Advice",
    "AlignmentError",
    "AmbiguousSourceError",
    "CatalogError",
    "ClusterError",
    "DcmdaskError",
    "DcmdaskWarning",
    "DecodeError",
    "FrameNumberError",
    "GeometryError",
    "HeaderError",
    "IrregularSeriesError",
    "LayoutError",
    "MissingElementError",
    "NoPixelDataError",
    "NotDicomError",
    "Note",
    "PixelDataError",
    "SourceChangedError",
    "StoreExistsError",
    "StoreLostError",
    "UnreachableError",
    "UnsupportedSyntaxError",
]


class Advice(NamedTuple):
    """Option that settles what an error is about.

    Attributes
    ----------
    option : str
        Keyword; empty where another call helps, which the effect then names.
    value : str or float
        Value of it, such as ``"keep"``.
    effect : str
        Effect of it, such as ``"takes the frames as they are"``.

    Examples
    --------
    >>> print(Advice("on_irregular", "keep", "takes the frames as they are"))
    on_irregular='keep' takes the frames as they are
    """

    option: str
    value: str | float
    effect: str

    def __str__(self) -> str:
        return f"{self.option}={self.value!r} {self.effect}" if self.option else self.effect


def how_to_pass(keyword: str) -> str:
    """Return how to pass an option, in Python and on the command line, for a message."""
    return f"pass {keyword} (--set {keyword}=...)"


class DcmdaskError(Exception):
    """Base of every exception that dcmdask raises.

    Parameters
    ----------
    message : str
        Description, with the numbers and the likely cause.
    source : str, optional
        The file that it happened in; put in front of the message.
    frame : int, optional
        The frame, counted from 0; put in front of the message.
    detail : str, optional
        The offending value, or the words of another library; put behind the message.
    code : str, optional
        Name of the cause where an exception class has several.
    advice : iterable of Advice, optional
        Options that settle it; put behind all else.

    Attributes
    ----------
    code : str
        Stable name of the cause: that of the class, and behind a slash the one given.
    message : str
        Description without source, frame and detail: nothing in it is from a text element
        of the file.
    text : str
        All but the advice, which a command gives in its own words.

    Examples
    --------
    >>> import pickle
    >>> error = DecodeError("the codestream ends early", source="cine.dcm", frame=7)
    >>> print(pickle.loads(pickle.dumps(error)))
    cine.dcm, frame 7: the codestream ends early
    """

    source: str | None
    frame: int | None
    detail: str
    code: str
    message: str
    text: str
    advice: tuple[Advice, ...]

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        frame: int | None = None,
        detail: str = "",
        code: str = "",
        advice: Iterable[Advice] = (),
    ) -> None:
        where = ", ".join(
            part
            for part in (source, None if frame is None else f"frame {frame}")
            if part is not None
        )
        self.text = ": ".join(part for part in (where, message, detail) if part)
        self.advice = tuple(advice)
        # One positional argument, so that the default pickling (class, args,
        # attributes) restores the exception without composing it again.
        super().__init__("\n".join(filter(None, [self.text, "; ".join(map(str, self.advice))])))
        self.source = source
        self.frame = frame
        self.detail = detail
        self.code = f"{type(self).__name__}/{code}" if code else type(self).__name__
        self.message = message

    def __str__(self) -> str:
        return str(self.args[0])


class NotDicomError(DcmdaskError, ValueError):
    """The bytes are not a DICOM file or data set."""


class HeaderError(DcmdaskError, ValueError):
    """An element's value is invalid, or contradicts the rest of the header."""


class MissingElementError(DcmdaskError, AttributeError):
    """An element that decoding needs is absent."""


class NoPixelDataError(MissingElementError):
    """The data set has no Pixel Data, Float Pixel Data or Double Float Pixel Data."""


class PixelDataError(DcmdaskError, ValueError):
    """The pixel data does not hold the frames that the header declares."""


class UnsupportedSyntaxError(DcmdaskError, NotImplementedError):
    """No decoder exists for the transfer syntax."""


class DecodeError(DcmdaskError, RuntimeError):
    """A frame's bytes do not decode; the other frames stay readable."""


class FrameNumberError(DcmdaskError, IndexError, ValueError):
    """A frame number that the instance does not have."""


class SourceChangedError(DcmdaskError, OSError):
    """The source is not, or no longer, the one that was opened."""


class UnreachableError(DcmdaskError, OSError):
    """The server of a URL does not answer, or lets nobody in without credentials."""


class AmbiguousSourceError(DcmdaskError, ValueError):
    """There are several series or stacks, or none, where one array is meant."""


class IrregularSeriesError(DcmdaskError, ValueError):
    """The frames of a series do not lie on a regular grid, and nobody said what to do then."""


class GeometryError(DcmdaskError, ValueError):
    """The coordinates of an array do not say where it lies, or not so that it can be done."""


class AlignmentError(DcmdaskError, ValueError):
    """Chunks or shards that tasks cannot write whole."""


class CatalogError(DcmdaskError, ValueError):
    """A catalog is damaged, of another version, or what it says cannot be."""


class LayoutError(DcmdaskError, ValueError):
    """A format of stores has no place for what is to be exported."""


class StoreExistsError(DcmdaskError, FileExistsError):
    """The target of an export exists and is not to be replaced."""


class StoreLostError(DcmdaskError, OSError):
    """The target of an export went away, or did not keep what was written."""


class ClusterError(DcmdaskError, RuntimeError):
    """The workers of a cluster cannot do what they are to do."""


class Note(NamedTuple):
    """Oddity of the data that does not keep them from being read.

    Attributes
    ----------
    code : str
        Stable name of the oddity, which a report groups by.
    text : str
        Description, with the numbers and the likely cause.
    """

    code: str
    text: str

    def __str__(self) -> str:
        return self.text


class DcmdaskWarning(UserWarning):
    """Something in the data is not as it should be; the result is usable.

    Parameters
    ----------
    message : str
    code : str, optional
        Stable name of what is odd, as a :class:`Note` has it.
    """

    code: str

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code
