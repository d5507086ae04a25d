"""What `arrange` makes of facts of a known arrangement, whatever order they come in."""

from typing import Any

import numpy as np
import phantoms
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from phantoms import AXIAL, IRREGULAR, REGULAR, grid, without

from dcmdask.geometry.axes import NUMBERS, TIMES
from dcmdask.geometry.dimensions import Arrangement, arrange
from dcmdask.geometry.repair import filled, parts

EVERYTHING = {**{name: make for name, (make, _) in IRREGULAR.items()}} | {
    name: (lambda make=make: make().facts) for name, make in REGULAR.items()
}


def marks(arrangement: Arrangement, facts: np.ndarray) -> np.ndarray:
    """Which frames stand where, by their marks; -1 for none."""
    numbers = arrangement.numbers
    return np.where(numbers < 0, -1, facts["window_center"][numbers]).astype(int)


def assert_same(a: Arrangement, of_a: np.ndarray, b: Arrangement, of_b: np.ndarray) -> None:
    assert a.dims == b.dims and a.notes == b.notes
    np.testing.assert_array_equal(marks(a, of_a), marks(b, of_b))
    assert a.coordinates.keys() == b.coordinates.keys()
    for name, (dims, values) in a.coordinates.items():
        assert b.coordinates[name][0] == dims
        np.testing.assert_array_equal(b.coordinates[name][1], values)
    assert (a.geometry is None) == (b.geometry is None)
    if a.geometry is not None and b.geometry is not None:
        np.testing.assert_array_equal(a.geometry.spacing, b.geometry.spacing)
        assert a.geometry.orientation == b.geometry.orientation
        np.testing.assert_array_equal(a.geometry.positions, b.geometry.positions)
        assert (a.geometry.affine is None) == (b.geometry.affine is None)
        if a.geometry.affine is not None:
            np.testing.assert_array_equal(a.geometry.affine, b.geometry.affine)
    assert len(a.irregularities) == len(b.irregularities)
    for one, other in zip(a.irregularities, b.irregularities, strict=True):
        assert one[:2] == other[:2]
        named = (
            sorted(of["window_center"][list(i.frames)]) for of, i in ((of_a, one), (of_b, other))
        )
        assert next(named) == next(named)


@pytest.mark.parametrize("name", REGULAR)
def test_what_was_made_is_found(name: str) -> None:
    made = REGULAR[name]()
    found = arrange(made.facts)
    assert found.dims == made.dims
    np.testing.assert_array_equal(found.numbers, made.numbers)
    assert found.irregularities == () and found.geometry is not None
    assert found.geometry.regular and "missing" not in found.coordinates
    for z in range(made.lengths["z"]):
        for row in made.numbers[..., z].ravel():
            at = found.geometry.affine @ [0, 0, z, 1]
            np.testing.assert_allclose(at[:3], made.facts["position"][row], atol=1e-6)


@pytest.mark.parametrize("name", IRREGULAR)
def test_what_is_irregular_is_classified(name: str) -> None:
    make, kinds = IRREGULAR[name]
    facts = make()
    found = arrange(facts)
    assert {one.code for one in found.irregularities} == kinds
    present = found.numbers[found.numbers >= 0]
    assert sorted(present) == list(range(len(facts)))


@pytest.mark.parametrize("name", EVERYTHING)
@settings(max_examples=10)
@given(data=st.data())
def test_the_order_of_the_rows_does_not_matter(name: str, data: Any) -> None:
    facts = EVERYTHING[name]()
    order = np.array(data.draw(st.permutations(range(len(facts)))))
    assert_same(arrange(facts), facts, arrange(facts[order]), facts[order])


# Every way to tell time


def told_by(column: str, t: np.ndarray, z: np.ndarray, lengths: dict[str, int]) -> Any:
    positions = lengths["z"]
    turn = np.random.default_rng(positions).permutation(positions)[z]
    return {
        "temporal_position": t + 1,
        "trigger_time": 31.25 * t,
        "reference_time": np.array([0, 10, 40, 100, 200, 400, 700, 1000])[t] * 1e3,
        # Each frame has its own: positions are measured in any order, or one by one.
        "acquisition_time": 1.7e12 + 3000 * t + 3000 / positions * turn,
        "content_time": 1.7e12 + 3000 * t + 3000 / positions * turn,
        "acquisition_time by position": 1.7e12 + 900 * (t + (lengths["t"] + 2) * turn),
        "acquisition_number": t + 7,
        "instance_number": 1 + t * positions + turn,
        "instance_number by position": 1 + t + lengths["t"] * turn,
    }[column]


WAYS = [*TIMES, "acquisition_time by position", *NUMBERS, "instance_number by position"]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=30)
@given(t=st.integers(2, 8), z=st.integers(1, 9), echoes=st.integers(1, 3), data=st.data())
def test_time(way: str, t: int, z: int, echoes: int, data: Any) -> None:
    made = grid(t=t, echo=echoes, z=z) if echoes > 1 else grid(t=t, z=z)
    column = way.partition(" ")[0]
    made.tell(
        **{
            "instance_number": np.nan,
            column: told_by(way, made.at("t"), made.at("z"), made.lengths),
        }
    )
    if echoes > 1:
        made.tell(echo_time=12.5 * (made.at("echo") + 1))
    order = np.array(data.draw(st.permutations(range(len(made.facts)))))
    facts = made.facts[order]
    found = arrange(facts)
    assert found.dims == made.dims and found.irregularities == ()
    np.testing.assert_array_equal(marks(found, facts), made.numbers)
    assert any(NUMBERS.get(column, "-") in note.text for note in found.notes) == (column in NUMBERS)
    assert len(found.notes) == (column in NUMBERS)
    if column in ("temporal_position", *NUMBERS):
        assert "t" not in found.coordinates
    else:
        dims, times = found.coordinates["t"]
        assert dims == ("t",)
        first = made.facts[column][made.numbers.reshape(t, -1)].min(axis=1)
        np.testing.assert_allclose(times, first - first[0])
    if echoes > 1:
        np.testing.assert_allclose(found.coordinates["echo"][1], 12.5 * np.arange(1, echoes + 1))


SHARED = ["temporal_position", "trigger_time", "reference_time", "acquisition_number"]


@pytest.mark.parametrize("way", SHARED)
@settings(max_examples=40)
@given(t=st.integers(4, 8), z=st.integers(4, 9), data=st.data())
def test_frames_missing_in_a_grid_are_named(way: str, t: int, z: int, data: Any) -> None:
    made = grid(t=t, z=z).tell(instance_number=np.nan)
    made.tell(**{way: told_by(way, made.at("t"), made.at("z"), made.lengths)})
    cells = st.tuples(st.integers(0, t - 1), st.integers(0, z - 1))
    lost = data.draw(st.sets(cells, min_size=1, max_size=t * z // 5))
    # Of a time that is lost altogether nothing tells.
    assume(all(sum(cell[0] == i for cell in lost) < z for i in range(t)))
    rows = [int(made.numbers[cell]) for cell in lost]
    facts = without(made.facts, rows)
    found = arrange(facts)
    assert found.dims == ("t", "z")
    expected = made.numbers.copy()
    expected.ravel()[rows] = -1
    np.testing.assert_array_equal(marks(found, facts), expected)
    (irregularity,) = found.irregularities
    assert irregularity.code == "missing"
    assert irregularity.text.startswith(f"{len(lost)} of {t * z} frames are missing: ")
    for cell in sorted(lost)[:3]:
        assert f"t {cell[0]} at {2.5 * cell[1]:.4g} mm" in irregularity.text
    # The frame before it along z is named, or the first that there is.
    there = [[row for row in expected[of] if row >= 0] for of, _ in lost]
    beside = {
        max((row for row in line if row % z < at), default=line[0])
        for line, (_, at) in zip(there, lost, strict=True)
    }
    assert set(facts["window_center"][list(irregularity.frames)]) == beside
    np.testing.assert_array_equal(found.coordinates["missing"][1], expected < 0)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in SHARED])
@settings(max_examples=30)
@given(t=st.integers(2, 8), z=st.integers(4, 9), data=st.data())
def test_frames_missing_by_times_of_their_own_are_counted(
    way: str, t: int, z: int, data: Any
) -> None:
    """Most positions have all their frames; which ones the others lack is not guessed."""
    made = grid(t=t, z=z).tell(instance_number=np.nan)
    column = way.partition(" ")[0]
    made.tell(**{column: told_by(way, made.at("t"), made.at("z"), made.lengths)})
    short = data.draw(st.sets(st.integers(0, z - 1), min_size=1, max_size=(z - 1) // 2))
    rows = [int(made.numbers[data.draw(st.integers(0, t - 1)), at]) for at in short]
    facts = without(made.facts, rows)
    found = arrange(facts)
    (irregularity,) = found.irregularities
    assert found.dims == ("z",) and irregularity.code == "missing"
    assert f"{z - len(short)} positions have {t} frames, and {len(short)} have fewer" in (
        irregularity.text
    )
    assert set(facts["window_center"][list(irregularity.frames)] % z) == short
    assert filled(found, facts) is found
    apart = parts(facts, found)
    assert sum(map(len, apart)) == len(facts)
    assert all(arrange(facts[part]).irregularities == () for part in apart)
    # A number that says the time settles it.
    made.tell(acquisition_number=made.at("t"))
    settled = arrange(without(made.facts, rows))
    if len(rows) <= t * z // 4:
        expected = np.where(np.isin(made.numbers, rows), -1, made.numbers)
        np.testing.assert_array_equal(marks(settled, without(made.facts, rows)), expected)


@settings(max_examples=60)
@given(
    t=st.integers(4, 9),
    z=st.integers(2, 9),
    seed=st.integers(0, 1000),
    lacked=st.lists(st.integers(1, 7), min_size=9, max_size=9),
)
def test_positions_with_equally_many_frames_go_together_by_rank(
    t: int, z: int, seed: int, lacked: list[int]
) -> None:
    """Whatever each of them lacks; the coordinate says when each frame was made."""
    lost = 1 + np.array(lacked)[:z] % (t - 2)
    steps = np.random.default_rng(seed).uniform(700, 1300, t - 1)
    made = grid(t=t, z=z).tell(instance_number=np.nan)
    times = np.concatenate([[0], np.cumsum(steps)])[made.at("t")] + 20_000 * made.at("z")
    facts = made.tell(acquisition_time=times).facts[made.at("t") != lost[made.at("z")]]
    found = arrange(facts)
    assert found.dims == ("t", "z") and found.irregularities == ()
    dims, said = found.coordinates["acquisition_time"]
    assert dims == ("t", "z") and (np.diff(said, axis=0) > 0).all()
    np.testing.assert_array_equal(said, facts["acquisition_time"][found.numbers])


T, Z = np.indices((5, 5))
BEATS = np.array([0, 700, 2200, 3000, 4400])[T]
ONE_BY_ONE = BEATS + 50_000 * Z
OWN_TIMES = {
    "a pause in the middle of a volume": BEATS + 100 * Z + 5500 * (BEATS + 100 * Z > 2300),
    "there and back": BEATS + 150 * np.where(T % 2, 4 - Z, Z),
    "one waits": ONE_BY_ONE + 1000 * ((Z == 2) & (T > 1)),
    "positions overlap": BEATS + 2000 * Z,
    "each position lacks another frame": ONE_BY_ONE + 900 * (T >= Z),
}


@pytest.mark.parametrize("name", OWN_TIMES)
def test_times_of_their_own(name: str) -> None:
    made = grid(t=5, z=5).tell(instance_number=np.nan)
    found = arrange(made.tell(acquisition_time=1.6e12 + OWN_TIMES[name].ravel()).facts)
    assert found.dims == ("t", "z") and found.irregularities == ()
    np.testing.assert_array_equal(found.numbers, made.numbers)
    uneven = name != "positions overlap"
    assert ("t is their order at each" in "".join(map(str, found.notes))) == uneven


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25)
@given(t=st.integers(2, 7), z=st.integers(2, 9), data=st.data())
def test_a_grid_that_lacks_frames_is_never_regular(way: str, t: int, z: int, data: Any) -> None:
    """Wherever they were, as long as one position has all of its frames."""
    made = grid(t=t, z=z)
    column = way.partition(" ")[0]
    made.tell(
        **{
            "instance_number": np.nan,
            column: told_by(way, made.at("t"), made.at("z"), made.lengths),
        }
    )
    rows = st.integers(0, t * z - 1).filter(lambda row: row % z != 1)
    facts = without(made.facts, sorted(data.draw(st.sets(rows, min_size=1, max_size=t * z // 2))))
    assume(len(np.unique(facts["position"], axis=0)) == z)
    found = arrange(facts)
    assert [one.code for one in found.irregularities] in (["missing"], ["duplicate"])
    assert found.dims in (("t", "z"), ("z",))


@settings(max_examples=50)
@given(
    t=st.integers(2, 10),
    z=st.integers(1, 40),
    repetition=st.sampled_from([1300, 2000, 3330]),
    unit=st.sampled_from([None, 10, 100]),
    seed=st.integers(0, 1000),
)
def test_clocks_are_not_exact(t: int, z: int, repetition: int, unit: int | None, seed: int) -> None:
    """Positions in any order, at times that are late or early or have few digits."""
    rng = np.random.default_rng(seed)
    made = grid(t=t, z=z)
    turn = rng.permutation(z)[made.at("z")]
    times = 1.7e12 + rng.integers(5000) + repetition * (made.at("t") + turn / z)
    if unit is None:
        times += rng.uniform(-0.08, 0.08, t * z) * repetition
    else:
        times = times // unit * unit
    found = arrange(made.tell(acquisition_time=times).facts)
    assert found.dims == ("t", "z") and found.irregularities == ()
    np.testing.assert_array_equal(found.numbers, made.numbers)


# What begins or ends in the middle of a volume

CUT = slice(2, 17)
EXPECTED = np.array(
    [[-1, -1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, -1, -1, -1]]
)


@pytest.mark.parametrize("column", ["temporal_position", "trigger_time", "reference_time"])
def test_values_in_common_are_no_ranks(column: str) -> None:
    """All positions have as many frames, and not of the same times."""
    made = grid(t=4, z=5).tell(instance_number=np.nan)
    facts = made.tell(**{column: 33.0 * (1 + made.at("t"))}).facts[CUT]
    found = arrange(facts)
    assert [one.code for one in found.irregularities] == ["missing"] and found.notes == ()
    np.testing.assert_array_equal(marks(found, facts), EXPECTED)


def test_numbers_tell_where_times_do_not() -> None:
    made = grid(t=4, z=5).tell(
        instance_number=np.nan, acquisition_number=np.repeat(np.arange(4), 5)
    )
    made.tell(acquisition_time=1000.0 * made.at("t") + 200 * made.at("z"))
    facts = made.facts[CUT]
    found = arrange(facts)
    np.testing.assert_array_equal(marks(found, facts), EXPECTED)
    assert [one.code for one in found.irregularities] == ["missing"] and found.notes == ()


def test_an_index_is_never_ranked() -> None:
    facts = grid(t=2, z=3).tell(temporal_position=[1, 1, 2, 2, 3, 3]).facts
    found = arrange(facts)
    assert found.dims == ("z",) and [one.code for one in found.irregularities] == ["duplicate"]


def test_values_that_hardly_differ_are_not_in_common() -> None:
    made = grid(t=4, z=5)
    times = 30.0 * made.at("t")
    times[7] += 0.1
    found = arrange(made.tell(trigger_time=times).facts)
    np.testing.assert_array_equal(found.numbers, made.numbers)
    assert found.irregularities == () == found.notes


@settings(max_examples=100)
@given(
    way=st.sampled_from(WAYS[:-1]),
    t=st.integers(3, 6),
    z=st.integers(3, 7),
    numbered=st.booleans(),
    data=st.data(),
)
def test_the_ends_of_a_scan_are_missed(way: str, t: int, z: int, numbered: bool, data: Any) -> None:
    """A time series is either of one time or not made."""
    made = grid(t=t, z=z)
    column = way.partition(" ")[0]
    told = told_by(way, made.at("t"), made.at("z"), made.lengths)
    if column not in ("temporal_position", "trigger_time", "reference_time"):
        assume(numbered)
        made.tell(acquisition_number=made.at("t"))
    made.tell(instance_number=np.nan)
    made.tell(**{column: told})
    first, last = data.draw(st.integers(0, z - 1)), data.draw(st.integers(0, z - 1))
    facts = made.facts[first : len(made.facts) - last]
    found = arrange(facts)
    if 4 * len(facts) < 3 * t * z:
        assert found.irregularities or found.notes or found.dims == ("z",)
        return
    if [one.code for one in found.irregularities] == ["duplicate"]:
        return
    assert found.dims == ("t", "z")
    expected = np.where(np.isin(made.numbers, facts["window_center"]), made.numbers, -1)
    np.testing.assert_array_equal(marks(found, facts), expected)


def test_numbers_may_deny_midnight() -> None:
    made = grid(t=4, z=3)
    times = np.array([86_380_000, 86_390_000, 86_410_000, 86_430_000.0])
    made.tell(acquisition_time=times[made.at("t")])
    assert arrange(made.facts).notes == ()
    made.tell(instance_number=(made.at("t") + 2) % 4)
    assert "seems to pass midnight" in only_notes(arrange(made.facts))


# What the dimensions and coordinates are


def only_notes(arrangement: Arrangement) -> str:
    (note,) = arrangement.notes
    return note.text


def test_echoes_and_components_are_labelled() -> None:
    found = arrange(phantoms.echoes().facts)
    assert found.coordinates["echo"][0] == ("echo",) and "echo_time" not in found.coordinates
    assert found.coordinates["echo"][1].tolist() == [2.46, 4.92, 7.38]
    assert found.coordinates["component"][1].tolist() == ["magnitude", "phase"]
    assert found.notes == ()


def test_echo_numbers_are_not_times() -> None:
    facts = phantoms.echoes().tell(echo_time=np.nan).facts
    found = arrange(facts)
    assert found.dims == ("echo", "component", "z") and "echo" not in found.coordinates
    assert found.coordinates["echo_number"][1].tolist() == [1, 2, 3]


def test_components_of_other_names_come_last() -> None:
    made = grid(component=4, z=3)
    words = np.array([b"PHASE", b"", b"MIXED", b"VELOCITY"])
    found = arrange(made.tell(component=words[made.at("component")]).facts)
    assert found.dims == ("component", "z")
    assert found.coordinates["component"][1].tolist() == ["phase", "unknown", "mixed", "velocity"]


def test_diffusion_is_in_the_order_of_weightings() -> None:
    made = phantoms.diffusion()
    facts = made.facts
    found = arrange(facts)
    assert found.dims == ("diffusion", "z") and found.irregularities == () == found.notes
    # Unweighted ones in the order in which they were measured, then by direction.
    np.testing.assert_array_equal(found.numbers, made.numbers[[0, 1, 2, 3, 4, 5]])
    assert found.coordinates["b_value"][1].tolist() == [0, 0, 1000, 1000, 1000, 1000]
    directions = found.coordinates["direction"]
    assert directions[0] == ("diffusion", "patient") and np.isnan(directions[1][:2]).all()
    np.testing.assert_array_equal(directions[1][2:], phantoms.DIRECTIONS[[2, 1, 3, 0]])


@pytest.mark.parametrize("column", ["acquisition_time", "instance_number"])
def test_weightings_are_in_the_order_of_their_acquisition(column: str) -> None:
    """As users of dcm2niix have it in the .bval and .bvec files beside them."""
    made = grid(diffusion=4, z=3)
    weighting = made.at("diffusion")
    made.tell(
        b_value=np.array([1000, 0, 500, 1000])[weighting],
        direction=np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1.0]])[weighting],
        instance_number=np.nan,
        acquisition_time=7.0,
    )
    made.tell(**{column: 10 * weighting + 3 * made.at("z")})
    found = arrange(made.facts)
    np.testing.assert_array_equal(found.numbers, made.numbers)
    assert found.coordinates["b_value"][1].tolist() == [1000, 0, 500, 1000]
    # Where nothing tells it, by weighting and direction.
    found = arrange(made.tell(**{column: np.nan}).facts)
    np.testing.assert_array_equal(found.numbers, made.numbers[[1, 2, 3, 0]])


def test_a_frame_of_a_repeated_weighting_is_missing() -> None:
    made = phantoms.diffusion()
    found = arrange(without(made.facts, [5]))
    assert found.dims == ("z",) and [one.code for one in found.irregularities] == ["missing"]


def test_unweighted_frames_in_time_are_no_diffusion() -> None:
    found = arrange(phantoms.temporal().tell(b_value=0).facts)
    assert found.dims == ("t", "z") and "b_value" not in found.coordinates


def test_times_of_their_own_do_not_hide_echoes() -> None:
    """Each frame has a time, an index of time goes through all of them: the echoes remain."""
    made = grid(t=3, echo=2, z=4).tell()
    made.tell(
        echo_time=12.0 * (1 + made.at("echo")),
        temporal_position=1 + 2 * made.at("t") + made.at("echo"),
        acquisition_time=1000 * made.at("t") + 12 * made.at("echo") + 100 * made.at("z"),
    )
    found = arrange(made.facts)
    assert found.dims == made.dims
    np.testing.assert_array_equal(found.numbers, made.numbers)


def test_echoes_that_go_with_weightings_are_one_dimension() -> None:
    made = grid(diffusion=2, z=5)
    weighting = made.at("diffusion")
    found = arrange(made.tell(b_value=800 * weighting, echo_time=60 + 20 * weighting).facts)
    assert found.dims == ("diffusion", "z")
    assert found.coordinates["echo_time"][0] == ("diffusion",)
    assert found.coordinates["echo_time"][1].tolist() == [60, 80]


@pytest.mark.parametrize("name", ["interleaved", "cine", "echoes in time", "pet"])
def test_classic_and_enhanced_headers_say_the_same(name: str) -> None:
    """The latter also number the positions and the times."""
    classic = REGULAR[name]()
    enhanced = REGULAR[name]()
    enhanced.tell(
        temporal_position=enhanced.at("t") + 1,
        position_index=enhanced.at("z") + 1,
        stack_id=b"1",
        instance_number=1,
    )
    a, b = arrange(classic.facts), arrange(enhanced.facts, np.arange(len(enhanced.facts)))
    assert_same(a, classic.facts, b, enhanced.facts)
    assert "t" in a.coordinates


def test_times_are_relative() -> None:
    found = arrange(phantoms.interleaved().facts)
    np.testing.assert_allclose(found.coordinates["t"][1], [0, 2000, 4000, 6000])
    dims, times = found.coordinates["acquisition_time"]
    assert dims == ("t", "z")
    np.testing.assert_allclose(times[1], 2000 + 400 * np.array([0, 3, 1, 4, 2]))


def test_times_along_z_are_coordinates() -> None:
    made = grid(z=4)
    found = arrange(made.tell(acquisition_time=1e12 + 500 * made.at("z")).facts)
    assert found.dims == ("z",)
    assert found.coordinates["acquisition_time"][0] == ("z",)
    assert found.coordinates["acquisition_time"][1].tolist() == [0, 500, 1000, 1500]


# What is said about it


def test_two_copies_are_told_apart_by_their_numbers_and_that_is_said() -> None:
    found = arrange(grid(t=2, z=5).tell(acquisition_time=5.0).facts)
    assert found.dims == ("t", "z") and found.irregularities == ()
    assert "only Instance Number" in only_notes(found) and "t" not in found.coordinates


def test_copies_with_the_same_numbers_are_duplicates() -> None:
    facts = grid(t=2, z=5).facts
    facts["instance_number"] = np.tile(np.arange(5), 2)
    found = arrange(facts)
    (irregularity,) = found.irregularities
    assert found.dims == ("z",) and irregularity.code == "duplicate"
    assert irregularity.frames == tuple(range(10))
    assert "10 frames share 5 positions, at 0, 2.5, 5, 7.5, 10 mm" in irregularity.text
    assert found.geometry is not None and found.geometry.affine is None
    z = found.coordinates["z"][1] - found.geometry.z[0]
    assert z.tolist() == [0, 0, 2.5, 2.5, 5, 5, 7.5, 7.5, 10, 10]


def test_a_frame_that_is_there_twice_makes_no_time() -> None:
    """Whatever its own time is."""
    for column in (*TIMES, *NUMBERS):
        facts = grid(z=20).tell(**{column: np.arange(20)}).facts
        facts = np.concatenate([facts, facts[7:8]])
        facts[column][20] = 20
        found = arrange(facts)
        assert found.dims == ("z",) and [i.code for i in found.irregularities] == ["duplicate"]
        assert found.irregularities[0].frames == (7, 20)


def test_an_order_with_holes_is_none() -> None:
    times = [0, 1000, 9000, 0, 4000, 5000, 0, 100, 4100, 0, 7000]
    facts = grid(z=4).facts[[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]]
    facts["acquisition_time"] = times
    found = arrange(facts)
    assert found.dims == ("z",) and [one.code for one in found.irregularities] == ["missing"]


def test_weightings_in_another_order_at_each_position() -> None:
    """By time alone they would be mixed, and then each frame says its own."""
    made = grid(t=3, z=4)
    b = np.array([[0, 0, 1000], [0, 1000, 0], [1000, 0, 0], [0, 0, 1000]]).T
    made.tell(b_value=b.ravel(), acquisition_time=1000 * made.at("t") + 10 * made.at("z"))
    found = arrange(made.facts)
    assert found.dims == ("t", "z")
    assert found.coordinates["b_value"][0] == ("t", "z")
    np.testing.assert_array_equal(found.coordinates["b_value"][1], b)


def test_a_lying_index_is_said_and_positions_decide() -> None:
    made = grid(t=2, z=4)
    made.tell(temporal_position=made.at("t"))
    for index, lies in [
        (made.at("z"), False), (-made.at("z"), False), (3 * made.at("z") + 2, False),
        (np.where(made.at("t") == 0, made.at("z"), np.nan), False),
        (np.array([0, 2, 1, 3])[made.at("z")], True), (np.arange(8), True), (np.zeros(8), True),
    ]:  # fmt: skip
        found = arrange(made.tell(position_index=index).facts)
        np.testing.assert_array_equal(found.numbers, made.numbers)
        assert found.irregularities == ()
        assert any("contradicts Image Position" in note.text for note in found.notes) == lies


@pytest.mark.parametrize(
    ("numbers", "stored", "note"),
    [
        ([3, 1, 2, 5, 4], [0] * 5, "in the order of Instance Number"),
        ([3, 1, 2, 2, 4], [0] * 5, "is arbitrary"),
        ([np.nan] * 5, [0] * 5, "is arbitrary"),
        ([7] * 5, [4, 3, 2, 1, 0], ""),
        ([np.nan] * 5, [4, 3, 2, 1, 0], ""),
        ([2, 2, 1, 1, 1], [0, 1, 0, 1, 2], "in the order of Instance Number"),
        ([1, 1, 1, 1, 1], [0, 1, 0, 1, 2], "is arbitrary"),
    ],
    ids=["numbers", "twice", "none", "one file", "one file, none", "two files", "two alike"],
)  # fmt: skip
def test_frames_without_positions(numbers: list[float], stored: list[int], note: str) -> None:
    facts = phantoms.unplaced()
    facts["instance_number"] = numbers
    found = arrange(facts, np.array(stored))
    assert found.dims == ("frame",) and found.geometry is None and found.irregularities == ()
    assert [note in one.text for one in found.notes] == ([True] if note else [])
    if "arbitrary" not in note:
        np.testing.assert_array_equal(found.numbers, np.lexsort((stored, np.nan_to_num(numbers))))


def test_one_frame_without_a_position() -> None:
    found = arrange(phantoms.unplaced()[:1])
    assert found.dims == ("frame",) and found.numbers.tolist() == [0] and found.notes == ()


def test_some_frames_have_no_position() -> None:
    found = arrange(phantoms.partly_placed())
    (irregularity,) = found.irregularities
    assert irregularity.frames == (1, 3) and "2 of 5 frames" in irregularity.text


# Anything at all

VALUES: dict[str, list[Any]] = {
    "position": [np.zeros(3), np.array([0, 0, 2.5]), np.array([0, 0, 5.0]), np.array([1, 2, 2.5]),
                 np.full(3, np.nan), np.array([0, 0, 1e300]), np.array([np.inf, 0, 0])],
    "orientation": [AXIAL, AXIAL, AXIAL, (1, -0.0, 0, 0, 1, 0), (0,) * 6],
    "spacing": [(1, 1), (1, 1), (0, 1), (np.nan, np.nan)],
    "component": [b"", b"PHASE", b"MAGNITUDE"],
    "direction": [(np.nan,) * 3, (1, 0, 0), (0, 1, 0), (np.inf,) * 3],
    **{column: [np.nan, 0.0, 1.0, 2.0, 2.0000001, 1e300, -1.7e308, np.inf, -np.inf]
       for column in (*TIMES, *NUMBERS, "echo_time", "echo_number", "b_value", "position_index",
                      "thickness", "slope", "intercept")},
}  # fmt: skip


@st.composite
def anything(draw: Any) -> np.ndarray:
    facts = grid(t=draw(st.integers(1, 3)), z=draw(st.integers(1, 4))).facts
    facts = facts[draw(st.lists(st.integers(0, len(facts) - 1), min_size=1, max_size=12))]
    facts["window_center"] = np.arange(len(facts))
    for column in draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=4)):
        facts[column] = [draw(st.sampled_from(VALUES[column])) for _ in facts]
    return facts


def assert_true(arrangement: Arrangement, facts: np.ndarray) -> None:
    """What coordinates say is what the facts say of each frame."""
    there = arrangement.numbers >= 0
    for name, column in [
        ("echo", "echo_time"), ("echo_time",) * 2, ("b_value",) * 2, ("slope",) * 2,
    ]:  # fmt: skip
        if name not in arrangement.coordinates:
            continue
        dims, values = arrangement.coordinates[name]
        shape = [n if d in dims else 1 for d, n in zip(arrangement.dims, there.shape, strict=True)]
        said = np.broadcast_to(values.reshape(shape), there.shape)[there]
        expected = facts[column][arrangement.numbers[there]]
        meant = np.abs(expected) < (np.inf if name == "slope" else 1e15)
        np.testing.assert_allclose(said[meant], expected[meant], atol=1e-6)
        absent = np.isnan(expected) if name == "b_value" else ~meant
        assert np.isnan(said[absent]).all() and np.isinf(said[~meant & ~absent]).all()


@settings(max_examples=400)
@given(facts=anything(), data=st.data())
def test_anything_has_an_arrangement(facts: np.ndarray, data: Any) -> None:
    found = arrange(facts)
    order = np.array(data.draw(st.permutations(range(len(facts)))))
    assert_same(found, facts, arrange(facts[order]), facts[order])
    for arrangement in (found, filled(found, facts)):
        lengths = dict(zip(arrangement.dims, arrangement.numbers.shape, strict=True))
        numbers = arrangement.numbers
        assert sorted(numbers[numbers >= 0]) == list(range(len(facts)))
        assert (numbers >= 0).all() or (
            "missing" in arrangement.coordinates
            or "missing" in [one.code for one in arrangement.irregularities]
        )
        for dims, values in arrangement.coordinates.values():
            assert values.shape == tuple(lengths.get(dim, 3) for dim in dims)
        assert_true(arrangement, facts)
        for one in arrangement.irregularities:
            assert all(0 <= row < len(facts) for row in one.frames)
    if not found.irregularities:
        assert (found.numbers >= 0).all()
    split = parts(facts, found)
    assert sorted(np.concatenate(split)) == list(range(len(facts)))


def test_two_times_that_a_user_chooses_have_names_of_their_own() -> None:
    """Phases of a heartbeat, measured again and again."""
    made = grid(t=3, diffusion=2, z=4).tell(instance_number=np.nan)
    made.tell(temporal_position=made.at("t") + 1, trigger_time=40 + 25.0 * made.at("diffusion"))
    found = arrange(made.facts, order_by=("TemporalPositionIdentifier", "TriggerTime"))
    assert found.dims == ("t", "trigger_time", "z") and found.irregularities == ()
    np.testing.assert_array_equal(found.numbers, made.numbers)
    dims, values = found.coordinates["trigger_time"]
    assert dims == ("trigger_time",) and values.tolist() == [0, 25]


def test_numbers_that_a_user_chooses_second_stay_what_they_are() -> None:
    made = grid(t=3, diffusion=2, z=4)
    made.tell(echo_time=10.0 + made.at("t"), echo_number=made.at("diffusion") + 1)
    found = arrange(made.facts, order_by=("EchoTime", "EchoNumbers"))
    assert found.dims == ("echo", "echo_number", "z")
    assert found.coordinates["echo_number"][1].tolist() == [1, 2]
    assert found.coordinates["echo"][1].tolist() == [10, 11, 12]


# Trigger times


def test_trigger_times_of_a_functional_run_that_count_something_else() -> None:
    """GE: steps of 4 s where Repetition Time is 2 s; other times are those of t, if there are."""
    made = grid(t=5, z=3).tell(repetition_time=2000.0)
    made.tell(trigger_time=4000.0 * made.at("t") + 600.0 * made.at("z"))
    found = arrange(made.facts)
    assert found.dims == ("t", "z") and "t" not in found.coordinates
    assert [note.code for note in found.notes] == ["trigger-time"]
    assert "t has no coordinate" in found.notes[0].text
    np.testing.assert_array_equal(found.numbers, made.numbers)
    np.testing.assert_array_equal(found.coordinates["trigger_time"][1][:, 0], 4000 * np.arange(5))
    made.tell(acquisition_time=1e12 + 2000.0 * made.at("t"))
    np.testing.assert_array_equal(arrange(made.facts).coordinates["t"][1], 2000 * np.arange(5))
    assert "t is from other times" in arrange(made.facts).notes[0].text
    # dcm2niix issue 560: times may well agree that it takes two repetitions.
    made.tell(acquisition_time=1e12 + 4000.0 * made.at("t"))
    np.testing.assert_array_equal(arrange(made.facts).coordinates["t"][1], 4000 * np.arange(5))


@pytest.mark.parametrize(
    ("step", "repetition_time"),
    [(2000.0, 2000.0), (2000.0, np.nan), (2000.0, 0.0), (100.0, 50.0), (5000.0, 2000.0),
     (2000.0, 500.0), (6000.0, 4.0)],
)  # fmt: skip
def test_trigger_times_that_are_those_of_t(step: float, repetition_time: float) -> None:
    """Steps of a repetition, within a heartbeat, no multiple, or of several excitations."""
    made = grid(t=5, z=3).tell(repetition_time=repetition_time)
    made.tell(trigger_time=step * made.at("t"))
    found = arrange(made.facts)
    assert found.notes == ()
    np.testing.assert_array_equal(found.coordinates["t"][1], step * np.arange(5))
