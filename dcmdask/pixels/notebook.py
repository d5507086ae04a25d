"""Tables that a notebook shows of an object."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a notebook."""
    lines = [f"<div>{html.escape(caption)}</div><table><thead><tr>"]
    lines += [f"<th>{html.escape(head)}</th>" for head in heads]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>")
    return "".join([*lines, "</tbody></table>"])
