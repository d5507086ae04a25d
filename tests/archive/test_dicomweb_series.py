"""Series, slides and segmentations of a DICOMweb server are what they are from files."""

import csv
import json
import pickle
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from distributed import Client, LocalCluster
from made_segmentations import masks, source, written
from made_series import AXIAL, along, classic
from made_slides import made_slide
from make_dicom import encapsulated, native, noise
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, JPEGLSLossless, RLELossless
from real_files import corpus_files
from servers import orthanc, relay
from servers.relay import Answer

import dcmdask
from dcmdask import from_dicom, open_slide, scan
from dcmdask.archive.scan import Scan
from dcmdask.errors import AmbiguousSourceError, SourceChangedError, UnreachableError
from dcmdask.sources import ranges

ROOT = "1.2.826.0.1.3680043.8.498.81"
# Every so many of the files of the corpus is compared.
STRIDE = 19


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask once: Orthanc answers 500 to requests for some frames, which may pass elsewhere."""
    monkeypatch.setattr(ranges, "_PAUSES", ())


def put(server: orthanc.Orthanc, folder: Path) -> None:
    assert not server.put(path for path in sorted(folder.rglob("*")) if path.is_file())


def without_source(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if "source" not in name}


def assert_same(served: dcmdask.Series, stored: dcmdask.Series, **options: Any) -> None:
    assert len(served.stacks) == len(stored.stacks)
    for here, there in zip(served.stacks, stored.stacks, strict=True):
        a, b = here.to_xarray(**options), there.to_xarray(**options)
        assert (a.dims, a.dtype, a.name) == (b.dims, b.dtype, b.name)
        np.testing.assert_array_equal(a.values, b.values)
        assert a.coords.keys() == b.coords.keys()
        for name, coordinate in b.coords.items():
            np.testing.assert_array_equal(a.coords[name].values, coordinate.values)
            assert a.coords[name].attrs == coordinate.attrs
        assert without_source(a.attrs) == without_source(b.attrs)
        assert here.summary == there.summary


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, dicomweb: orthanc.Orthanc) -> Path:
    """A series of 20 files."""
    folder = tmp_path_factory.mktemp("series")
    frames = noise(20, 12, 16, dtype="i2", bits=12)
    positions = along(AXIAL, 2.5 * np.arange(20))
    ids = {"StudyInstanceUID": ROOT, "SeriesDescription": "of tésts"}
    classic(
        folder,
        frames,
        positions,
        series=f"{ROOT}.1",
        RescaleSlope="2",
        RescaleIntercept="-10",
        SpecificCharacterSet="ISO_IR 100",
        **ids,
    )
    put(dicomweb, folder)
    return folder


def url_of(base: str, number: int) -> str:
    return f"{base}/studies/{ROOT}/series/{ROOT}.{number}"


def test_a_series_is_opened_with_few_requests(series: Path, dicomweb: orthanc.Orthanc) -> None:
    with relay.passing_on(dicomweb.port) as server:
        x = from_dicom(url_of(server.url, 1))
        # The metadata of all, and one frame for the transfer syntax.
        kinds = Counter(one.split("/")[-2 if "/frames/" in one else -1] for one in server.asked)
        assert kinds == {"metadata": 1, "frames": 1}
        server.asked.clear()
        three = np.stack([x[at].compute(scheduler="sync") for at in (3, 7, 11)])
        asked = [one for one in server.asked if "/frames/" in one]
        assert len(asked) == len(server.asked)
        np.testing.assert_array_equal(three, from_dicom(series)[[3, 7, 11]])
    np.testing.assert_array_equal(from_dicom(url_of(dicomweb.url, 1)), from_dicom(series))


def test_instances_are_read_several_at_a_time(series: Path, dicomweb: orthanc.Orthanc) -> None:
    # None of four requests is answered before all four are there.
    together = threading.Barrier(4, timeout=60)

    def change(path: str, answer: Answer) -> Answer:
        together.wait()
        return answer

    with relay.passing_on(dicomweb.port) as server:
        frames = scan(url_of(server.url, 1))[0].stacks[0].flattened("stored", "error")
        server.change = change
        found = frames[4:8]
    np.testing.assert_array_equal(found, from_dicom(series)[4:8])


def test_a_series_is_what_it_is_from_files(series: Path, dicomweb: orthanc.Orthanc) -> None:
    (served,), (stored,) = scan(url_of(dicomweb.url, 1)), scan(series)
    assert_same(served, stored)
    assert_same(served, stored, values="modality")
    assert served.description == stored.description == "of tésts"
    assert served.metadata == stored.metadata and served.irregularities == stored.irregularities
    assert served.folder == f"{url_of(dicomweb.url, 1)}/instances"
    again = pickle.loads(pickle.dumps(served))
    np.testing.assert_array_equal(again.to_dask(), stored.to_dask())


def test_a_study_an_instance_and_the_whole_server(series: Path, dicomweb: orthanc.Orthanc) -> None:
    for url in (dicomweb.url, f"{dicomweb.url}/", f"{dicomweb.url}/studies/{ROOT}/"):
        assert len(scan(url)[f"{ROOT}.1"]) == 20
    url = f"{url_of(dicomweb.url, 1)}/instances/{ROOT}.1.4"
    (found,) = scan(url)
    assert len(found) == 1 and from_dicom(url).shape == (1, 12, 16)
    both = scan([url, url_of(dicomweb.url, 1)])
    assert [len(one) for one in both] == [20] and not both.skipped and both.files == 20
    few = scan(f"{dicomweb.url}/studies/{ROOT}", exclude=[f"{ROOT}.1.1*"])
    assert len(few[f"{ROOT}.1"]) == 20 - 11
    assert not len(scan(f"{dicomweb.url}/studies/{ROOT}", exclude="series/*"))
    mixed = scan([url, series])
    assert len(mixed[0]) == 21 and mixed[0].irregularities


def test_lists_of_servers_that_are_odd(series: Path, dicomweb: orthanc.Orthanc) -> None:
    uid = {"0020000D": {"vr": "UI", "Value": [ROOT]}}
    studies = json.dumps([uid, uid, {}, {"0020000D": {"vr": "UI", "Value": ["../x"]}}, 3])

    def change(path: str, answer: Answer) -> Answer:
        # The same page, whatever is asked for.
        if path.endswith("/studies"):
            return answer._replace(body=studies.encode())
        return answer

    with relay.passing_on(dicomweb.port) as server:
        server.change = change
        found = scan(server.url)
        assert [one.uid for one in found] == [f"{ROOT}.1"]
        assert [(one.path, one.code) for one in found.skipped] == [(server.url, "uid")]
        assert server.asked.count("/dicom-web/studies") == 2

        for body in (b"3", b"null", b"[" * 200_000, b"[" + b"9" * 5_000 + b"]"):
            server.change = lambda path, answer, body=body: (
                answer._replace(body=body) if path.endswith("/studies") else answer
            )
            with pytest.raises(UnreachableError, match="no list"):
                scan(server.url)
        server.change = lambda path, answer: (
            Answer(500, {}, b"") if path.endswith("/series") else answer
        )
        assert {one.code for one in scan(server.url).skipped} == {"UnreachableError/refused"}
        with pytest.raises(UnreachableError, match="500"):
            scan(f"{server.url}/studies/{ROOT}")


def test_an_instance_that_is_told_twice(series: Path, dicomweb: orthanc.Orthanc) -> None:
    with relay.passing_on(dicomweb.port) as server:

        def change(path: str, answer: Answer) -> Answer:
            if not path.endswith("/metadata"):
                return answer
            return answer._replace(body=json.dumps(2 * json.loads(answer.body)).encode())

        server.change = change
        found = scan(f"{server.url}/studies/{ROOT}/series/{ROOT}.1")
        assert len(found) == 1 and len(found[0]) == 20 and not found.skipped


def test_what_is_not_there(dicomweb: orthanc.Orthanc) -> None:
    for rest in ("studies/1.9", "studies/1.9/series/1.8", "studies/1.9/series/1.8/instances/1.7"):
        with pytest.raises(FileNotFoundError, match=re.escape(rest)):
            scan(f"{dicomweb.url}/{rest}")


@pytest.mark.parametrize(
    "options",
    [
        {"downsamples": (1, 2), "associated": ("LABEL",)},
        {"syntax": JPEGLSLossless, "organisation": "TILED_SPARSE", "shuffled": True},
    ],
    ids=["full", "sparse"],
)
def test_slides(options: dict[str, Any], dicomweb: orthanc.Orthanc, tmp_path: Path) -> None:
    made_slide(tmp_path, **options)
    put(dicomweb, tmp_path)
    one = dcmread(next(tmp_path.iterdir()), stop_before_pixels=True)
    url = f"{dicomweb.url}/studies/{one.StudyInstanceUID}"
    try:
        served, stored = open_slide(url), open_slide(tmp_path)
        assert len(served.levels) == len(stored.levels)
        for here, there in zip(served.levels, stored.levels, strict=True):
            a, b = here.to_xarray(), there.to_xarray()
            np.testing.assert_array_equal(a.values, b.values)
            assert a.dims == b.dims and without_source(a.attrs) == without_source(b.attrs)
            for name in b.coords:
                np.testing.assert_array_equal(a.coords[name].values, b.coords[name].values)
        region = (10, 20), 0, (90, 100)
        np.testing.assert_array_equal(served.read_region(*region), stored.read_region(*region))
    finally:
        # Slides have the same UIDs.
        dicomweb.forget(str(one.StudyInstanceUID))


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentations(kind: str, dicomweb: orthanc.Orthanc, tmp_path: Path) -> None:
    images = source(tmp_path / "ct")
    made = masks()
    pixels = made if kind != "LABELMAP" else (made * [1, 2, 3]).max(axis=-1).astype("u1")
    path = written(tmp_path / "seg.dcm", images, pixels, kind)
    assert not dicomweb.put([path])
    one = dcmread(path, stop_before_pixels=True)
    study = f"{dicomweb.url}/studies/{one.StudyInstanceUID}"
    try:
        (served,) = scan(f"{study}/series/{one.SeriesInstanceUID}")
        (stored,) = scan(path)
        assert_same(served, stored)
    finally:
        dicomweb.forget(str(one.StudyInstanceUID))


def test_instances_without_pixels_are_left_out(dicomweb: orthanc.Orthanc, tmp_path: Path) -> None:
    study = f"{ROOT}.5"
    ids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    frames = noise(3, 8, 8)
    report = dcmread(tmp_path_of(tmp_path, native(frames, **ids, SOPInstanceUID=f"{study}.1.1")))
    del report.PixelData, report.Rows, report.Columns
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    report.save_as(tmp_path / "report.dcm")
    image = encapsulated(frames, RLELossless, **ids, SOPInstanceUID=f"{study}.1.2")
    assert not dicomweb.put([tmp_path / "report.dcm", image])
    found = scan(f"{dicomweb.url}/studies/{study}")
    stored = scan(tmp_path / "report.dcm")
    assert [len(one) for one in found] == [1]
    assert [one[1:] for one in found.skipped] == [one[1:] for one in stored.skipped]


def tmp_path_of(folder: Path, data: bytes) -> Path:
    path = folder / "made.dcm"
    path.write_bytes(data)
    return path


def test_other_transfer_syntaxes_in_a_series_are_an_error_and_no_pixels(
    dicomweb: orthanc.Orthanc,
) -> None:
    study = f"{ROOT}.6"
    frames = noise(2, 8, 8, bits=6)
    for number, syntax in enumerate((JPEGLSLossless, RLELossless)):
        ids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
        ids["SOPInstanceUID"] = f"{study}.1.{number}"
        made = encapsulated(frames[number : number + 1], syntax, InstanceNumber=number, **ids)
        assert not dicomweb.put([made])
    series = scan(f"{dicomweb.url}/studies/{study}")[0]
    with pytest.warns(dcmdask.DcmdaskWarning, match="position"):
        x = series.to_dask(on_irregular="keep")
    np.testing.assert_array_equal(x[0].compute(), frames[0])
    with pytest.raises(SourceChangedError, match=f"{RLELossless}, and {JPEGLSLossless}"):
        x[1].compute()


def test_a_series_that_fails_stops_no_other(dicomweb: orthanc.Orthanc) -> None:
    study = f"{ROOT}.7"
    for number in range(2):
        uid = f"{study}.{number}"
        ids = {"StudyInstanceUID": study, "SeriesInstanceUID": uid, "SOPInstanceUID": f"{uid}.1"}
        assert not dicomweb.put([native(noise(2, 8, 8), **ids)])

    def change(path: str, answer: Answer) -> Answer:
        return Answer(500, {}, b"") if f"{study}.1/metadata" in path else answer

    with relay.passing_on(dicomweb.port) as server:
        server.change = change
        url = f"{server.url}/studies/{study}"
        found = scan(url)
        assert [one.uid for one in found] == [f"{study}.0"]
        ((path, reason, kind, code),) = found.skipped
        assert path == f"{url}/series/{study}.1" and "500" in reason
        assert (kind, code) == ("doubtful", "UnreachableError/refused")
        # But not where it is all that was asked for.
        with pytest.raises(UnreachableError, match="500 Internal Server Error"):
            scan(f"{url}/series/{study}.1")
        for answer in (b"{}", b'[{"00080018": {"vr": "UI", "Value": ["../../etc"]}}]'):
            server.change = lambda path, found, answer=answer: (
                found._replace(body=answer) if "metadata" in path else found
            )
            if answer == b"{}":
                with pytest.raises(UnreachableError, match="no metadata"):
                    scan(f"{url}/series/{study}.1")
            else:
                (skipped,) = scan(f"{url}/series/{study}.1").skipped
                assert skipped.code == "sop-instance-uid"


def test_a_worker_process_of_a_cluster(series: Path, dicomweb: orthanc.Orthanc) -> None:
    x = from_dicom(url_of(dicomweb.url, 1), values="modality")
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
    ):
        np.testing.assert_array_equal(x.compute(), from_dicom(series, values="modality"))


def test_the_command(series: Path, dicomweb: orthanc.Orthanc) -> None:
    done = run("scan", url_of(dicomweb.url, 1), "--json")
    assert done.returncode == 0 and f'"{ROOT}.1"' in done.stdout
    assert "dicomweb+https://" in run("scan", "--help").stdout
    table = run("scan", f"{dicomweb.url}/studies/{ROOT}")
    assert table.returncode == 0 and "20 files, 1 series" in table.stdout
    info = run("info", f"{url_of(dicomweb.url, 1)}/instances/{ROOT}.1.4")
    assert info.returncode == 0 and "Explicit VR Little Endian" in info.stdout
    gone = run("scan", "dicomweb+http://127.0.0.1:1/root/studies/1")
    assert gone.returncode != 0 and gone.stderr.count("\n") == 1
    assert "127.0.0.1:1/root/studies/1" in gone.stderr


def test_an_export(series: Path, dicomweb: orthanc.Orthanc, tmp_path: Path) -> None:
    import zarr

    for name, src in (("served", url_of(dicomweb.url, 1)), ("stored", series)):
        dcmdask.to_zarr(src, tmp_path / name)
    here, there = (zarr.open_group(tmp_path / name, mode="r") for name in ("served", "stored"))
    assert sorted(here.array_keys()) == sorted(there.array_keys())
    for name, array in there.arrays():
        np.testing.assert_array_equal(here[name][...], array[...])


def test_a_job(series: Path, dicomweb: orthanc.Orthanc, tmp_path: Path) -> None:
    url = url_of(dicomweb.url, 1)
    script = Path(__file__).parents[2] / "pipelines/quality.py"
    done = run("run", script, url, tmp_path / "out", "--workers", 1)
    assert done.returncode == 0, done.stderr
    (result,) = csv.DictReader((tmp_path / "out/results.csv").read_text("utf-8").splitlines())
    assert f"{ROOT}.1" in result["series"]


def test_two_series_where_one_is_meant(series: Path, dicomweb: orthanc.Orthanc) -> None:
    with pytest.raises(AmbiguousSourceError, match="series where one is meant"):
        from_dicom(dicomweb.url)


# The corpus. Frames that Orthanc 1.10 does not give (big endian, deflated, HTJ2K, 4:2:2 that is not
# compressed, floating point, 1 bit in rows that are no whole bytes, fragments without a table) are
# read from the file, which is fetched whole.


def _opened(src: Any) -> tuple[Any, Scan | None]:
    try:
        return from_dicom(src).compute(scheduler="sync"), scan(src)
    except Exception as error:
        return error, None


@pytest.mark.filterwarnings("ignore")
def test_the_corpus(corpus: Path, dicomweb: orthanc.Orthanc, compared: Any) -> None:
    equal = 0
    for path in corpus_files()[::STRIDE]:
        if path.stat().st_size > 2e7 or dicomweb.put([path]):
            # Orthanc takes no files that lack a UID, or that are no DICOM.
            continue
        header = dcmread(path, force=True, stop_before_pixels=True)
        study = str(header.StudyInstanceUID)
        url = f"{dicomweb.url}/studies/{study}/series/{header.SeriesInstanceUID}"
        served, found = _opened(f"{url}/instances/{header.SOPInstanceUID}")
        dicomweb.forget(study)
        stored, there = _opened(path)
        if isinstance(stored, Exception):
            assert isinstance(served, Exception), path
        elif isinstance(served, Exception):
            raise AssertionError(f"{path}: {served}")
        else:
            assert served.dtype == stored.dtype, path
            np.testing.assert_array_equal(served, stored, err_msg=str(path))
            assert found is not None and there is not None
            _assert_described_alike(found, there, path)
            equal += 1
        compared(path)
    assert equal >= 40


def _assert_described_alike(served: Scan, stored: Scan, path: Path) -> None:
    assert [len(one) for one in served] == [len(one) for one in stored], path
    for here, there in zip(served, stored, strict=True):
        for a, b in zip(here.instances, there.instances, strict=True):
            for name in (
                "sop_class_uid",
                "modality",
                "image_type",
                "units",
                "padding",
                "transfer_syntax",
                "dimensions",
                "index_values",
                "tiling",
                "lossy",
            ):
                assert getattr(a, name) == getattr(b, name), (path, name)
            for name in a.facts.dtype.names or ():
                # Numbers in JSON have no zeros at their ends, and Orthanc rounds 1e-16.
                if a.facts[name].dtype.kind == "f":
                    np.testing.assert_allclose(
                        a.facts[name], b.facts[name], rtol=1e-12, atol=1e-12, err_msg=str(path)
                    )
                else:
                    np.testing.assert_array_equal(a.facts[name], b.facts[name], err_msg=str(path))
