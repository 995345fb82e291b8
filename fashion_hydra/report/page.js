"use strict";

// Sort a table when a column heading is clicked; reverse the order on a second click.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
    const column = heading.cellIndex; // headings to click are in the last header row, which has no spans
    const text = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
    const number = (row) => (text(row) === "" || isNaN(text(row)) ? -Infinity : Number(text(row)));
    const numeric = heading.classList.contains("n");
    const before = heading.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending", other = numeric ? "ascending" : "descending";
    const order = before === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    for (const sorted of table.tHead.querySelectorAll("[aria-sort]")) sorted.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", order);
    const compare = numeric ? (a, b) => (number(a) > number(b)) - (number(a) < number(b))
      : (a, b) => text(a).localeCompare(text(b));
    body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
  });
}

