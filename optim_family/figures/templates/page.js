"use strict";
// Tables that sort, hide columns and copy themselves; buttons that copy; one filter for the whole page.
document.documentElement.classList.add("js");

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

function copyButton(label, text) {
  const button = element("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch { // no permission, as in a frame: the way of older browsers
      const area = element("textarea", { value: text() });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

// The visible cells of a table, by rows, the header first.
function visibleCells(table) {
  const rows = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden);
  return rows.map((row) => [...row.cells].filter((cell) => !cell.hidden).map((cell) => cell.textContent.trim()));
}

function asMarkdown(table) {
  const [head, ...rows] = visibleCells(table);
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n") + "\n";
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "&": "\\&", "%": "\\%",
  "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}", $: "\\$", "−": "$-$", "±": "$\\pm$", "×": "$\\times$", "–": "--",
  "→": "$\\to$", η: "$\\eta$", λ: "$\\lambda$", β: "$\\beta$", ε: "$\\varepsilon$", τ: "$\\tau$", ρ: "$\\rho$",
  "₁": "$_1$", "₂": "$_2$" };

function asLatex(table) {
  const line = (cells) => `${cells.map((text) => [...text].map((c) => LATEX[c] ?? c).join("")).join(" & ")} \\\\`;
  const [head, ...rows] = visibleCells(table);
  const body = ["\\hline", line(head), "\\hline", ...rows.map(line), "\\hline"];
  return [`\\begin{tabular}{${"l".repeat(head.length)}}`, ...body, "\\end{tabular}"].join("\n") + "\n";
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent.trim();
  const compare = (a, b) => (isNaN(a - b) ? a.localeCompare(b) : a - b);
  const sort = (head, i) => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const empty = (row) => value(row, i) === "";
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => empty(a) - empty(b) || sign * compare(value(a, i), value(b, i)));
    table.tBodies[0].append(...rows);
  };
  heads.forEach((head, i) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head, i));
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head, i));
  });
}

function addTools(table) {
  const columns = [...table.tHead.rows[0].cells].map((head, i) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      for (const row of table.rows) row.cells[i].hidden = !box.checked;
    });
    return element("label", {}, box, ` ${head.textContent}`);
  });
  const choice = element("details", {}, element("summary", {}, "columns"), ...columns);
  const copies = [["copy Markdown", asMarkdown], ["copy LaTeX", asLatex]];
  const buttons = copies.map(([label, text]) => copyButton(label, () => text(table)));
  table.closest(".scroll").before(element("div", { className: "tools" }, ...buttons, choice));
}

// Whether something of this key and text passes the filter: every word, or the whole key in quotation marks.
function passes(filter, key, text) {
  const exact = /^"(.*)"$/.exec(filter.trim());
  if (exact) return key === undefined || key === exact[1];
  const words = filter.toLowerCase().split(/\s+/);
  return words.every((word) => `${key ?? ""} ${text}`.toLowerCase().includes(word));
}

function filterPage(filter) {
  for (const row of document.querySelectorAll("table.sortable tbody tr, .strip [data-key], details.card"))
    row.hidden = !passes(filter, row.dataset.key, row.tagName === "TR" ? row.textContent : "");
}

function showRun(link) {
  const card = document.querySelector(link.hash);
  card.open = true;
  card.scrollIntoView({ block: "start" });
  card.querySelector("summary").focus({ preventScroll: true });
}

function enhance(root) {
  for (const table of root.querySelectorAll("table.sortable")) {
    makeSortable(table);
    addTools(table);
  }
  for (const command of root.querySelectorAll(".command"))
    command.append(copyButton("copy", () => command.querySelector("pre").textContent));
  for (const link of root.querySelectorAll("a.dot"))
    link.addEventListener("click", (event) => {
      event.preventDefault(); // the address keeps the state of the figure
      showRun(link);
    });
  for (const figures of root.querySelectorAll("details.static")) figures.open = false;
}

enhance(document);
addEventListener("beforeprint", () => document.querySelectorAll("details.printed").forEach((d) => (d.open = true)));
