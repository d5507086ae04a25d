"""Counts the work that is done while a test runs."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dcmdask.pixels import bulk, decode


def count_decodings(monkeypatch: pytest.MonkeyPatch, told: Callable[[int], None]) -> None:
    """Call `told` with each frame that is decoded, in the thread that does it.

    Native frames of a local file that are read into place count as well.
    """
    decode_into, read_native = decode.decode_into, bulk._read_native

    def counting_decode(instance: Any, how: Any, encoded: decode.Encoded, out: Any) -> None:
        told(encoded.frame)
        decode_into(instance, how, encoded, out)

    def counting_read(instance: Any, frames: Sequence[int], *rest: Any) -> None:
        for frame in frames:
            told(frame)
        read_native(instance, frames, *rest)

    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("dcmdask.") and getattr(module, "decode_into", None) is decode_into
    ]
    for module in users:
        monkeypatch.setattr(module, "decode_into", counting_decode)
    monkeypatch.setattr(bulk, "_read_native", counting_read)


def count_calls(function: Callable[[], object]) -> int:
    """How many functions are called in this thread, and generators resumed, by `function`."""
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls
