"use strict";
// What the page does beyond showing itself: it needs none of this to be read. Texts are only ever set as text.
const table = document.querySelector("#rows");
const body = table ? table.tBodies[0] : null;
const form = document.querySelector("#filter");

function valueOf(row, column) {
  const cell = row.cells[column];
  const number = cell.dataset.value;
  return number === undefined ? cell.textContent : number === "" ? -Infinity : Number(number);
}

function sortBy(header, column) {
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [valueOf(one, column), valueOf(other, column)];
    return sign * (typeof a === "number" ? (a > b) - (a < b) : a.localeCompare(b, "en", { numeric: true }));
  });
  body.append(...rows);
}

function filter() {
  const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdict = form.elements.verdict.value;
  let shown = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !(words.every((word) => text.includes(word)) && (!verdict || row.dataset.verdict === verdict));
    shown += !row.hidden;
  }
  document.querySelector("#shown").textContent = `${shown} of ${body.rows.length} cases`;
}

if (body && form) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sortBy(header, column));
    header.replaceChildren(button);
    header.setAttribute("aria-sort", "none");
  });
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

// A link into the table shows its row, whatever is filtered.
window.addEventListener("hashchange", () => {
  const row = body && document.getElementById(location.hash.slice(1));
  if (!row || !body.contains(row)) return;
  if (row.hidden && form) { form.reset(); filter(); }
  row.scrollIntoView({ block: "center" });
  row.focus({ preventScroll: true });
});

// What a point is, beside it: on hover, and where the keyboard is.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);

function show(event) {
  const mark = event.target.closest ? event.target.closest("svg a, svg [aria-roledescription=point]") : null;
  const named = mark && (mark.matches("[aria-label]") ? mark : mark.querySelector("[aria-label]"));
  tip.hidden = !named;
  if (!named) return;
  tip.textContent = named.getAttribute("aria-label");
  const box = named.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${box.top > tip.offsetHeight + 12 ? box.top - tip.offsetHeight - 8 : box.bottom + 8}px`;
}
for (const what of ["mouseover", "focusin"]) document.addEventListener(what, show);
for (const what of ["scroll", "focusout"]) document.addEventListener(what, () => { tip.hidden = true; }, true);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
