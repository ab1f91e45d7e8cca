/** Let the buttons in the heads of these tables sort their rows. */
export function sortable(tables: Iterable<HTMLTableElement>): void {
  for (const table of tables) {
    for (const button of table.querySelectorAll("thead button")) {
      button.addEventListener("click", () => sort(table, button.closest("th")!));
    }
  }
}

function sort(table: HTMLTableElement, header: HTMLTableCellElement): void {
  const falling = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentElement!.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const key = (row: HTMLTableRowElement) => {
    const cell = row.cells[header.cellIndex]!;
    return cell.dataset["value"] ?? cell.textContent ?? "";
  };
  // A dash stands for no value; it goes below every number.
  const number = (row: HTMLTableRowElement) => {
    const value = Number.parseFloat(key(row));
    return Number.isNaN(value) ? -Infinity : value;
  };
  const compare = header.classList.contains("number")
    ? (a: HTMLTableRowElement, b: HTMLTableRowElement) => number(a) - number(b) || 0
    : (a: HTMLTableRowElement, b: HTMLTableRowElement) => key(a).localeCompare(key(b));
  const body = table.tBodies[0]!;
  body.append(...[...body.rows].sort((a, b) => (falling ? -1 : 1) * compare(a, b)));
}
