"""Each series of a job gets a picture: the right frame, window and aspect, and no result lost."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_jobs import nothing, pictured
from distributed import Client, LocalCluster
from made_series import AXIAL, along, classic
from PIL import Image

import dcmdask
from dcmdask import batch
from dcmdask.batch.results import thumbnail

# Neither row nor column is blank, and the window shows only a part of the values.
FRAME = np.add.outer(np.arange(12), np.arange(20)).astype("u1") * 4


def volume(folder: Path, **elements: Any) -> Path:
    frames = np.stack([FRAME, FRAME[::-1], FRAME[:, ::-1]])
    window = {"WindowCenter": 60, "WindowWidth": 61, **elements}
    classic(folder, frames, along(AXIAL, np.arange(3.0)), **window)
    return folder


def shown(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]))


def test_the_middle_frame_in_its_window(tmp_path: Path) -> None:
    series = dcmdask.scan(volume(tmp_path / "a", spacing=(1, 1)))[0]
    display = series.to_dask(values="display").compute()
    np.testing.assert_array_equal(shown(thumbnail(series)), display[1])
    assert {0, 255} < set(display[1].ravel())


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((2, 1), (24, 20)), ((1, 2), (12, 40)), ((1, 100), (12, 20)), ((0, 1), (12, 20))],
)
def test_the_aspect_is_that_of_the_pixels(
    tmp_path: Path, spacing: tuple[float, float], shape: tuple[int, int]
) -> None:
    series = dcmdask.scan(volume(tmp_path / "a", spacing=spacing))[0]
    assert shown(thumbnail(series)).shape == shape


def test_large_frames_are_small_pictures(tmp_path: Path) -> None:
    frames = np.zeros((1, 700, 1300), "u1")
    classic(tmp_path / "a", frames, None)
    assert shown(thumbnail(dcmdask.scan(tmp_path / "a")[0])).shape == (117, 326)


def test_a_job_and_its_thumbnails(tmp_path: Path) -> None:
    archive = volume(tmp_path / "archive/whole").parent
    # Its colours are nowhere.
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    classic(archive / "odd", FRAME[None], None, series="1.2.3", **palette)
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        report = batch.run(nothing, archive, tmp_path / "out", client=client)
        own = batch.run(pictured, archive, tmp_path / "own", client=client)
        without = batch.run(nothing, archive, tmp_path / "off", client=client, thumbnails=False)
    assert report.ok and own.ok and without.ok
    made = {one.name: tmp_path / f"out/records/{one.name}.png" for one in report.records}
    (noted,) = [one for one in report.records if one.notes]
    assert noted.name == "1.2.3" and noted.notes[0].code == "no-thumbnail/MissingElementError"
    assert [name for name, path in made.items() if not path.exists()] == ["1.2.3"]
    assert not list((tmp_path / "own/records").glob("*.png"))
    assert not list((tmp_path / "off").rglob("*.png"))
