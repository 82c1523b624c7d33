// What the theme leaves to us: a filter on long pages, signs where something is cut off, and names for buttons.
const FIT = 3; // pixels by which letters may stand out of their boxes

function filter(box) {
  const items = [...document.querySelectorAll("article :is(" + box.dataset.items + ")")];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const groups = [...document.querySelectorAll("article section section, article table")]
    .filter((group) => items.some((item) => group.contains(item)));
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/);
    items.forEach((item, i) => { item.hidden = !words.every((word) => texts[i].includes(word)); });
    for (const group of groups) {
      group.hidden = items.every((item) => item.hidden || !group.contains(item));
    }
  });
  box.hidden = false;
}

// The bibliography is called a list, but its entries have a role of their own.
for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role");

// Stacked cells have no heading above them, and say themselves what they are.
function label(table) {
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
  for (const row of table.querySelectorAll("tbody tr")) {
    [...row.cells].forEach((cell, i) => { if (i) cell.dataset.label = heads[i] + ": "; });
  }
}

// What is wider than its box can be scrolled, by keyboard too, and shows it.
function mark(box) {
  const cut = box.scrollWidth > box.clientWidth + FIT;
  box.classList.toggle("spurlib-cut", cut);
  if (cut) box.tabIndex = 0;
}
const boxes = new ResizeObserver((entries) => entries.forEach(({ target }) => mark(target)));

// Statements may move from one chapter to another; their old addresses lead to where they are now.
async function find() {
  const name = decodeURIComponent(location.hash.slice(1));
  if (!name || document.getElementById(name) || !location.pathname.includes("/chapters/")) return;
  const places = await (await fetch("../_static/places.json")).json();
  const chapter = places[name.replace(/^equation-/, "")];
  if (chapter) location.replace(chapter + ".html#" + name);
}

addEventListener("load", async () => {
  find();
  document.querySelectorAll(".spurlib-filter").forEach(filter);
  document.querySelectorAll(".spurlib-stacked").forEach(label);
  for (const button of document.querySelectorAll("button.copybtn")) {
    button.setAttribute("aria-label", "Copy this code");
  }
  for (const button of document.querySelectorAll("button.search-button-field")) {
    button.removeAttribute("aria-label"); // the theme's is less than what is written on it
  }
  for (const icon of document.querySelectorAll(".theme-switch")) {
    // A decoration: its title is not the name of its button.
    icon.querySelector("title")?.remove();
    icon.removeAttribute("aria-labelledby");
    icon.removeAttribute("role");
    icon.setAttribute("aria-hidden", "true");
  }
  await window.MathJax?.startup?.promise;
  const wide = ".math mjx-container, .pst-scrollable-table-container, .cell_output .output, .spurlib-scroll, .spurlib-graph";
  const all = document.querySelectorAll("article :is(" + wide + ")");
  all.forEach((box) => boxes.observe(box));
  await document.fonts.ready; // which changes what the boxes hold and not the boxes
  all.forEach(mark);
});
