"""Text that may hold anything: which of it is a term of the standard, and how it is shown.

What is not a term may be a name, and is left out where results are shared.
"""

from __future__ import annotations

import re

# PS3.3 C.7.3.1.1.1, the retired terms included.
MODALITIES = (
    "ANN AR ASMT AU BDUS BI BMD CD CF CFM CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DS DX EC "
    "ECG EEG EMG EOG EPS ES FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS "
    "NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF "
    "RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF ST "
    "STAIN TEXTUREMAP TG US VA VF VIDD VL XA XAPROTOCOL XC"
)
# PS3.3 C.8.9.1.1.3, and the Rescale Types of PS3.3 C.11.1.1.2; "US" is unspecified.
UNITS = (
    "CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS PROPCPS "
    "MLMINML MLML GML STDDEV OD HU MGML Z_EFF ED EDW HU_MOD PCT"
)


def uid(text: str | None) -> str | None:
    """Return `text` if it has the form of a UID (PS3.5 section 9), otherwise None."""
    return text if text and re.fullmatch(r"[0-9.]{1,64}", text) else None


def term(text: str | None, terms: str) -> str | None:
    """Return `text` if it is one of `terms`, otherwise None."""
    return text if text in terms.split() else None


def plain(text: str) -> str:
    """Return text of one line with what would steer a terminal written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
