
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent.trim();
  const compare = (a, b) => (a === "") - (b === "") || (isNaN(a - b) ? a.localeCompare(b) : a - b);
  const sort = (head, i) => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    const empty = (row) => value(row, i) === "";
    rows.sort((a, b) => (empty(a) - empty(b)) || sign * compare(value(a, i), value(b, i)));
    table.tBodies[0].append(...rows);
  };
  heads.forEach((head, i) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head, i));
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head, i));
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details.printed").forEach((d) => (d.open = true)));
