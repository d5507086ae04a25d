"use strict";
// Sorts the table of series by the column whose head is pressed: numbers, then texts, then
// empty cells, whichever way round.
const table = document.querySelector(".series");
const texts = new Intl.Collator("en", { numeric: true });

function keyOf(text) {
  const number = text === "" ? NaN : Number(text);
  const rank = text === "" ? 2 : Number.isNaN(number) ? 1 : 0;
  return { rank, value: rank === 0 ? number : text };
}

function compared(a, b, sign) {
  if (a.rank !== b.rank) return a.rank === 2 || b.rank === 2 ? a.rank - b.rank : sign * (a.rank - b.rank);
  return sign * (a.rank === 0 ? a.value - b.value : texts.compare(a.value, b.value));
}

for (const button of table.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => {
      return { row, key: keyOf(row.cells[head.cellIndex].textContent.trim()) };
    });
    rows.sort((a, b) => compared(a.key, b.key, sign));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    body.append(...rows.map((one) => one.row));
  });
}
