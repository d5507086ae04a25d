"""A scan as a table: selections, and its form in a notebook."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_series import AXIAL, SERIES, along, classic
from make_dicom import noise

import dcmdask

FRAMES = noise(4, 5, 7, dtype="i2")


@pytest.fixture
def found(tmp_path: Path) -> dcmdask.Scan:
    positions = along(AXIAL, [0, 1, 2, 3])
    for number, (modality, name, tr) in enumerate(
        [("MR", "ep2d_BOLD_rest", "2000"), ("MR", "<b>t1&t2</b>", "9"), ("CT", "", None)]
    ):
        classic(
            tmp_path / f"folder {number}", FRAMES, positions, series=f"{SERIES}.{number}",
            modality=modality, SeriesDescription=name, RepetitionTime=tr,
        )  # fmt: skip
    return dcmdask.scan(tmp_path)


def uids(scan: dcmdask.Scan) -> list[str]:
    return [one.uid[-1] for one in scan]


def test_select(found: dcmdask.Scan) -> None:
    assert uids(found.select(Modality="MR")) == ["0", "1"]
    assert uids(found.select(SeriesDescription="*bold*")) == ["0"]
    assert uids(found.select(SeriesDescription="")) == ["2"]
    # From the header of the first instance.
    assert uids(found.select(RepetitionTime=2000, Modality="m?")) == ["0"]
    assert uids(found.select("Modality == 'MR' and frames == 4", SeriesDescription="<*")) == ["1"]
    assert uids(found.select(Modality="US")) == []
    chosen = found.select(Modality="CT")
    assert chosen[0].uid == f"{SERIES}.2" and chosen.files == found.files
    with pytest.raises(ValueError, match="'SeriesName' is not a DICOM keyword"):
        found.select(SeriesName="x")
    with pytest.raises(ValueError, match="matches none of 3 series: Modality is MR"):
        found.select("Modality == 'US'")


def test_a_series_by_the_end_of_its_uid(found: dcmdask.Scan) -> None:
    assert found["7.1"].uid == f"{SERIES}.1"
    for key in ("498", "", "1.2.3"):
        with pytest.raises(KeyError, match="of 3 series"):
            _ = found[key]


def test_what_a_series_says(found: dcmdask.Scan, tmp_path: Path) -> None:
    series = found[0]
    assert series.description == "ep2d_BOLD_rest"
    assert len(series.files) == 4 and series.folder == str(tmp_path / "folder 0")
    assert all(Path(name).is_file() for name in series.files)
    assert series.header.RepetitionTime == 2000 and "PixelData" not in series.header
    row = found.rows()[1]
    assert row["number"] == 1 and row["description"] == "<b>t1&t2</b>"
    assert list(row) == list(found.to_frame().columns)


def test_the_folder_of_several(tmp_path: Path) -> None:
    for number, name in enumerate(["a/x", "a/y"]):
        classic(
            tmp_path / name, FRAMES[:2], along(AXIAL, [2 * number, 2 * number + 1]),
            each={"SOPInstanceUID": [f"1.2.{number}", f"1.2.{number}.1"]},
        )  # fmt: skip
    (series,) = dcmdask.scan(tmp_path)
    assert series.folder == str(tmp_path / "a")


class Cells(HTMLParser):
    """The texts of the cells of a table; markup that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_tables_of_a_notebook(found: dcmdask.Scan, tmp_path: Path) -> None:
    cells = Cells(found._repr_html_()).cells
    assert "<b>t1&t2</b>" in cells and "z:4 y:5 x:7 int16" in cells and "1 x 0.5 x 0.75" in cells
    assert "folder 2" in cells and str(tmp_path) in found._repr_html_()
    assert "volume of 4 planes" in Cells(found[0]._repr_html_()).cells
    assert "z:4 y:5 x:7 int16" in Cells(found[0].stacks[0]._repr_html_()).cells
    many = dcmdask.Scan([found[0]] * 150, [], 9, "here")
    assert "50 more are not shown" in many._repr_html_()


def test_text_in_another_character_set(tmp_path: Path) -> None:
    text = "\u0433\u043e\u043b\u043e\u0432\u0430"
    classic(
        tmp_path, FRAMES, along(AXIAL, np.arange(4)), SpecificCharacterSet="ISO_IR 144",
        SeriesDescription=text,
    )  # fmt: skip
    assert dcmdask.scan(tmp_path)[0].description == text
