"use strict";
// A browser needs seconds to lay out 20 000 rows, so the style hides most of a long table; with
// this class only, since without a script nobody could ask for the others.
document.documentElement.classList.add("scripted");

function keyOf(text) {
  const number = text === "" ? NaN : Number(text);
  const rank = text === "" ? 2 : Number.isNaN(number) ? 1 : 0;
  return { rank, value: rank === 0 ? number : text };
}

function compared(a, b, sign, texts) {
  if (a.rank === 2 || b.rank === 2) return a.rank - b.rank;
  if (a.rank !== b.rank) return sign * (a.rank - b.rank);
  return sign * (a.rank === 0 ? a.value - b.value : texts.compare(a.value, b.value));
}

// Sorts the series by the column whose head is pressed: numbers, then texts; empty cells are last
// whichever way round.
function sort(table, head, texts) {
  const sign = head.ariaSort === "ascending" ? -1 : 1;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => {
    return { row, key: keyOf(row.cells[head.cellIndex].textContent.trim()) };
  });
  rows.sort((a, b) => compared(a.key, b.key, sign, texts));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  body.replaceChildren(...rows.map((one) => one.row));
}

document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector(".series");
  const texts = new Intl.Collator("en", { numeric: true });
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(table, button.parentElement, texts));
  }
  const more = document.querySelector(".more");
  more?.querySelector("button").addEventListener("click", () => {
    table.classList.add("whole");
    more.remove();
  });
});
