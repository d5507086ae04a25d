"""Tables of facts of frames in a known arrangement, without a file.

A phantom's frames are in the order of its dimensions, the last fastest, so that what is
expected is `arange(n).reshape(lengths)` before it is shuffled or frames are taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dcmdask.dicom.description import FACTS

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
# Turned about two axes; orthonormal to ten digits.
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
ORIGIN = (-12.5, 30.25, -7.0)
DIMENSIONS = ("t", "diffusion", "echo", "component", "z")
COMPONENTS = (b"MAGNITUDE", b"PHASE", b"REAL", b"IMAGINARY")


def table(frames: int) -> np.ndarray:
    """Facts of which nothing is known but a mark, by which a frame is found again."""
    facts = np.zeros(frames, FACTS)
    for name in FACTS.names or ():
        if FACTS[name].base.kind == "f":
            facts[name] = np.nan
    facts["window_center"] = np.arange(frames)
    return facts


def normal_of(orientation: Sequence[float]) -> np.ndarray:
    row, column = np.reshape(orientation, (2, 3))
    return np.cross(row, column)


@dataclass
class Phantom:
    """Facts, and by name the lengths of the dimensions that they were made with."""

    facts: np.ndarray
    lengths: dict[str, int]

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(self.lengths)

    @property
    def numbers(self) -> np.ndarray:
        return np.arange(len(self.facts)).reshape(tuple(self.lengths.values()))

    def at(self, dim: str) -> np.ndarray:
        """The index of each frame along a dimension."""
        index = np.unravel_index(np.arange(len(self.facts)), tuple(self.lengths.values()))
        return index[self.dims.index(dim)]

    def tell(self, **columns: Any) -> Phantom:
        """Set columns of the facts, each from an array over frames or one value."""
        for name, values in columns.items():
            self.facts[name] = values
        return self


def grid(
    *,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = ORIGIN,
    gap: float = 2.5,
    lean: Sequence[float] = (0.0, 0.0, 0.0),
    spacing: Sequence[float] = (0.5, 0.75),
    **lengths: int,
) -> Phantom:
    """Frames on an even grid; `lean` is how far the origin moves for a mm along the normal."""
    made = Phantom(table(int(np.prod(list(lengths.values())))), lengths)
    step = gap * (normal_of(orientation) + np.array(lean))
    return made.tell(
        position=np.array(origin) + made.at("z")[:, np.newaxis] * step,
        orientation=orientation,
        spacing=spacing,
        thickness=gap,
        instance_number=np.arange(1, len(made.facts) + 1),
    )


def at_distances(distances: Sequence[float], orientation: Sequence[float] = OBLIQUE) -> np.ndarray:
    """Facts of frames at these distances along the normal."""
    facts = grid(z=len(distances), orientation=orientation).facts
    facts["position"] = np.array(ORIGIN) + np.outer(distances, normal_of(orientation))
    return facts


def without(facts: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    return np.delete(facts, list(rows))


# Time


def temporal() -> Phantom:
    made = grid(t=4, z=5)
    return made.tell(temporal_position=made.at("t") + 1)


def triggered() -> Phantom:
    made = grid(t=4, z=5)
    noise = 1e-9 * np.random.default_rng(0).random(20)
    return made.tell(trigger_time=33.3 * made.at("t") + noise)


def cine() -> Phantom:
    """Each position has been measured over heartbeats of another length."""
    made = grid(t=4, z=5)
    beat = np.array([30, 33.5, 29, 31, 35.0])[made.at("z")]
    return made.tell(trigger_time=beat * made.at("t"))


def interleaved() -> Phantom:
    """Each frame has a time of its own, in volumes of odd and then even positions."""
    made = grid(t=4, z=5)
    turn = np.array([0, 3, 1, 4, 2])[made.at("z")]
    return made.tell(acquisition_time=1.6e12 + 2000 * made.at("t") + 400 * turn)


def pet() -> Phantom:
    """Frames that last longer and longer."""
    made = grid(t=4, z=5)
    return made.tell(reference_time=np.array([5e3, 2e4, 6e4, 1.5e5])[made.at("t")])


def numbered() -> Phantom:
    return grid(t=3, z=5)


# Echoes, components, diffusion


def echoes() -> Phantom:
    made = grid(echo=3, component=2, z=4)
    return made.tell(
        echo_time=np.array([2.46, 4.92, 7.38])[made.at("echo")],
        echo_number=made.at("echo") + 1,
        component=np.array(COMPONENTS)[made.at("component")],
    )


def echoes_in_time() -> Phantom:
    made = grid(t=3, echo=2, z=4)
    return made.tell(
        echo_time=np.array([2.46, 4.92])[made.at("echo")],
        acquisition_time=1000 * made.at("t") + 50 * made.at("z"),
    )


def everything() -> Phantom:
    made = grid(t=2, echo=2, component=4, z=3)
    return made.tell(
        echo_time=np.array([10.0, 30.0])[made.at("echo")],
        temporal_position=made.at("t") + 1,
        component=np.array(COMPONENTS)[made.at("component")],
    )


DIRECTIONS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]], float)


def diffusion() -> Phantom:
    """Two measurements without weighting, then four directions."""
    made = grid(diffusion=6, z=4)
    weighting = made.at("diffusion")
    # What headers have for the direction of no weighting means nothing.
    direction = np.vstack([[0, 0, 1], np.full(3, np.nan), DIRECTIONS[[2, 1, 3, 0]]])
    return made.tell(
        b_value=np.where(weighting < 2, 0, 1000),
        direction=direction[weighting],
        acquisition_time=3000 * weighting + 100 * made.at("z"),
    )


def complex_diffusion() -> Phantom:
    made = grid(diffusion=3, component=2, z=4)
    return made.tell(
        b_value=np.array([0, 0, 700])[made.at("diffusion")],
        component=np.array(COMPONENTS)[made.at("component")],
        acquisition_time=3000 * made.at("diffusion"),
    )


REGULAR: dict[str, Callable[[], Phantom]] = {
    "one frame": lambda: grid(z=1),
    "two frames": lambda: grid(z=2, orientation=OBLIQUE),
    "axial": lambda: grid(z=7),
    "sagittal": lambda: grid(z=7, orientation=SAGITTAL),
    "oblique": lambda: grid(z=7, orientation=OBLIQUE),
    "tilted": lambda: grid(z=6, lean=(0, 0.25, 0)),
    "no numbers": lambda: grid(z=7).tell(instance_number=np.nan),
    "lying numbers": lambda: grid(z=7).tell(instance_number=[3, 3, 1, 9, 2, 2, 4]),
    "a lying index": lambda: grid(z=7).tell(position_index=[1, 2, 4, 3, 5, 6, 7]),
    "oct": lambda: grid(z=9, gap=0.01, spacing=(0.004, 0.004), orientation=OBLIQUE),
    "temporal": temporal,
    "triggered": triggered,
    "cine": cine,
    "interleaved": interleaved,
    "pet": pet,
    "numbered": numbered,
    "one position": lambda: grid(t=6, z=1).tell(temporal_position=np.arange(6)),
    "echoes": echoes,
    "echoes in time": echoes_in_time,
    "everything": everything,
    "complex diffusion": complex_diffusion,
}
"""Phantoms that are full, even grids: what `arrange` finds is what they were made with."""


def duplicate() -> np.ndarray:
    return np.concatenate([grid(z=6).facts, grid(z=6).facts[2:3]])


def scattered() -> np.ndarray:
    rng = np.random.default_rng(1)
    return grid(z=6).tell(position=rng.uniform(-50, 50, (6, 3))).facts


def side_by_side() -> np.ndarray:
    facts = np.concatenate([grid(z=4).facts, grid(z=4).facts])
    facts["position"][4:] += [80, 0, 0]
    facts["instance_number"] = np.arange(8)
    facts["window_center"] = np.arange(8)
    return facts


def of_unknown_times() -> np.ndarray:
    """The position that is measured first lacks its first frame: or is it last, and its last?"""
    return without(interleaved().tell(instance_number=np.nan).facts, [0])


def unplaced() -> np.ndarray:
    return grid(z=5).tell(position=np.nan).facts


def partly_placed() -> np.ndarray:
    facts = grid(z=5).facts
    facts["position"][[1, 3]] = np.nan
    return facts


IRREGULAR: dict[str, tuple[Callable[[], np.ndarray], set[str]]] = {
    "missing": (lambda: at_distances([0, 2.5, 5, 10, 12.5, 17.5]), {"missing"}),
    "uneven": (lambda: at_distances([0, 2.5, 5.1, 7.5, 11.9, 12.5]), {"uneven"}),
    "drifting": (lambda: at_distances(np.cumsum(np.linspace(1, 1.009, 90))), {"uneven"}),
    "tilted, missing": (lambda: without(grid(z=6, lean=(0, 0.25, 0)).facts, [2]), {"missing"}),
    "bent": (lambda: grid(z=6).tell(position=_bent()).facts, {"position"}),
    "duplicate": (duplicate, {"duplicate"}),
    "all at one position": (
        lambda: grid(z=1).facts[[0, 0, 0]],
        {"duplicate"},
    ),
    "scattered": (scattered, {"position", "uneven"}),
    "side by side": (side_by_side, {"position"}),
    "some without positions": (partly_placed, {"position"}),
    "skewed axes": (
        lambda: grid(z=5).tell(orientation=(1, 0, 0, 0.1, 1, 0)).facts,
        {"orientation"},
    ),
    "no spacing": (lambda: grid(z=5).tell(spacing=np.nan).facts, {"spacing"}),
    "zero spacing": (lambda: grid(z=5).tell(spacing=(0, 1)).facts, {"spacing"}),
    "negative spacing": (lambda: grid(z=5).tell(spacing=(-1, 1)).facts, {"spacing"}),
    "incomplete last volume": (lambda: temporal().facts[:18], {"missing"}),
    "incomplete, by numbers": (lambda: numbered().facts[:13], {"missing"}),
    "of unknown times": (of_unknown_times, {"missing"}),
    "frames missing": (lambda: without(interleaved().facts, [7, 13]), {"missing"}),
}
"""Facts that are not a full, even grid, with the kinds of irregularity that are expected."""


def _bent() -> np.ndarray:
    position = grid(z=6).facts["position"].copy()
    position[3] += [3, 0, 0]
    return position
