"use strict";
// Everything can be read without this; it opens the cell a link leads to and filters the list.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const cell = target && target.closest("details.cell");
  if (cell) {
    cell.hidden = false;
    cell.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link && link.getAttribute("href") === location.hash) reveal();
});
reveal();
const filter = document.getElementById("filter");
filter.hidden = false;
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const cell of document.querySelectorAll("details.cell")) {
    const text = cell.dataset.text.toLowerCase();
    cell.hidden = !words.every((word) => text.includes(word));
  }
});
