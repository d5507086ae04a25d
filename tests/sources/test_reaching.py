"""Servers that do not answer, and buckets that are not there: one line that says what helps."""

import json
import pickle
import socket
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from made_series import archive
from s3_here import BUCKET, Server, serving

import dcmdask
from dcmdask import UnreachableError, batch, cli
from dcmdask.batch.records import Record
from dcmdask.sources.access import options_of
from dcmdask.sources.folder import Folder

KEYS = ["key=key", "secret=secret"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An endpoint where nobody listens, for somebody without credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"endpoint_url=http://127.0.0.1:{port}"


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """Return the one line that a command ends with."""
    monkeypatch.setattr(sys, "argv", ["dcmdask", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("dcmdask: ")
    return err


COMMANDS = {
    "scan": (["scan", "s3://{bucket}/a"], "--storage-option"),
    "info": (["info", "s3://{bucket}/a.dcm"], "--storage-option"),
    "export": (["export", "{file}", "s3://{bucket}/a.zarr"], "--target-option"),
    "export inside": (["export", "s3://{bucket}/in", "s3://{bucket}/in/a.zarr"], "--target-option"),
    "verify": (["verify", "s3://{bucket}/a.zarr"], "--target-option"),
    "report": (["report", "s3://{bucket}/a"], "--target-option"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_server_that_does_not_answer(
    command: str,
    nobody: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive(tmp_path / "source", 1)
    words, option = COMMANDS[command]
    words = [word.format(bucket="somebody", file=tmp_path / "source/000/0000") for word in words]
    given = [word for pair in (nobody, *KEYS) for word in (option, pair)]
    told = said(monkeypatch, capsys, *words, *given)
    assert words[-1] in told and "Could not connect" in told
    assert f"({option}) endpoint_url=http://host:port" in told


def test_an_archive_on_a_server_that_does_not_answer(
    nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, inner = "zip://**::s3://somebody/a.zip", json.dumps(options_of([nobody, *KEYS]))
    told = said(monkeypatch, capsys, "scan", url, "--storage-option", f"s3={inner}")
    assert url in told and "Could not connect" in told


def test_a_page_on_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})("is down")

    target = "memory://page"
    Record("1.2", True, "j", "s").write(Folder.of(target))
    monkeypatch.setattr("dcmdask.report.page.write_page", refused)
    assert f"{target}: is down: " in said(monkeypatch, capsys, "report", target, "--html")


def test_a_job_on_a_server_that_does_not_answer(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = "s3://somebody/in", "s3://somebody/in/out"
    with pytest.raises(UnreachableError, match=rf"{target}: .*\(--target-option\)"):
        batch.run(len, source, target, target_options=options_of([nobody, *KEYS]))

    # Once the workers have started, the target has no options for them.
    def refused(*_: object) -> None:
        raise type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})

    archive(tmp_path / "in", 1)
    running = sys.modules["dcmdask.batch.run"]
    monkeypatch.setattr(running, "_cluster", nullcontext)
    monkeypatch.setattr(running, "check_workers", refused)
    with pytest.raises(UnreachableError, match=r"memory://refused: .*AWS_ACCESS_KEY_ID"):
        batch.run(len, tmp_path / "in", "memory://refused")

    # A source that is not there is no matter of the target.
    monkeypatch.setattr(sys, "argv", ["job.py", f"{tmp_path}/none*", "memory://out", "--dry-run"])
    with pytest.raises(SystemExit):
        batch.main(lambda series: None)
    told = capsys.readouterr().err
    assert "none*" in told and "memory://out" not in told


def test_no_credentials(
    nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(monkeypatch, capsys, "scan", "s3://somebody/a", "--storage-option", nobody)
    assert "s3://somebody/a: Unable to locate credentials: " in told
    assert "AWS_ACCESS_KEY_ID" in told and "(--storage-option) anon=true" in told


def test_an_option_that_is_none(
    nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(monkeypatch, capsys, "scan", "s3://somebody/a", "--storage-option", "nonsense=1")
    assert "s3://somebody/a: " in told and "'nonsense'" in told and "(--storage-option)?" in told


def test_a_bucket_that_is_not_there(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"{key}={value}" for key, value in server.options.items()]
    options = [word for pair in given for word in ("--storage-option", pair)]
    told = said(monkeypatch, capsys, "info", "s3://no-such-bucket/a.dcm", *options)
    assert "s3://no-such-bucket/a.dcm" in told or "no-such-bucket/a.dcm: there is no" in told


@pytest.mark.rare
def test_options_reach_both_file_systems(server: Server, nobody: str, tmp_path: Path) -> None:
    """With nothing in the environment: a source and a target that only options lead to."""

    # Not of this module, which workers do not find.
    def process(series: dcmdask.Series) -> dict[str, object]:
        import fsspec

        from dcmdask import batch

        with fsspec.open(batch.output("a.txt"), "wb", **batch.target_options()) as file:
            file.write(b"mine")
        x = series.to_dask()
        return {"peak": x.max(), "mip": x.max(axis=0)}

    options = server.options
    archive(tmp_path, 1)
    for path in (tmp_path / "000").iterdir():
        server.put(f"reached/in/{path.name}", path.read_bytes())
    source = f"s3://{BUCKET}/reached/in"
    (series,) = dcmdask.scan(source, storage_options=options)
    store = f"s3://{BUCKET}/reached/out.zarr"
    how = {"storage_options": options, "target_options": options}
    assert dcmdask.to_zarr(source, store, **how).store == store
    assert dcmdask.verify(store, source, **how).ok
    report = batch.run(process, source, f"s3://{BUCKET}/reached/out", **how)
    assert report.ok and report.to_frame()["peak"].item() == series.to_dask().max().compute()
    names = server.objects(f"reached/out/series/{series.uid}/")
    assert {"a.txt", "mip.zarr/zarr.json"} <= names.keys() and names["a.txt"] == b"mine"
    assert b"secret" not in b"".join(server.objects("reached/out").values())


def test_options_of_the_command_line() -> None:
    told = options_of(["anon=true", "key=a=b", 'client_kwargs={"verify": false}', "n=3"])
    assert told == {"anon": True, "key": "a=b", "client_kwargs": {"verify": False}, "n": 3}
    with pytest.raises(ValueError, match="'anon' is no option of a file system: key=value"):
        options_of(["anon"])


def test_the_error_pickles() -> None:
    error = pickle.loads(pickle.dumps(UnreachableError("nobody answers", source="s3://a")))
    assert isinstance(error, OSError) and str(error) == "s3://a: nobody answers"
