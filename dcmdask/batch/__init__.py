"""One function over all series of an archive: on this machine or a cluster, again and again.

>>> from dcmdask import batch
>>> def process(series):
...     v = series.to_dask(values="modality")
...     return {"peak": v.max(), "projection": v.max(axis=0)}
>>> report = batch.run(process, "archive/", "results/")  # doctest: +SKIP
"""

from dcmdask.batch.main import main
from dcmdask.batch.outcome import BatchReport, Progress
from dcmdask.batch.outputs import output, target_options
from dcmdask.batch.records import Record
from dcmdask.batch.results import Picture
from dcmdask.batch.run import run

__all__ = [
    "BatchReport",
    "Picture",
    "Progress",
    "Record",
    "main",
    "output",
    "run",
    "target_options",
]
