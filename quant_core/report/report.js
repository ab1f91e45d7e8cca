"use strict";
(() => {
  const charts = [...document.querySelectorAll(".chart")].map((place) => ({
    place,
    figure: JSON.parse(document.getElementById(place.dataset.figure).textContent),
  }));

  // Figures name colours as CSS variables; plotly wants the values of the theme in force.
  const resolve = (value, style) => {
    if (typeof value === "string") {
      const match = /^var\((--[\w-]+)\)$/.exec(value);
      return match ? style.getPropertyValue(match[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
    }
    return value;
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const family = getComputedStyle(document.body).fontFamily;
    for (const { place, figure } of charts) {
      const { data, layout } = resolve(figure, style);
      layout.font.family = family;
      Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
    }
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // Paper is white whatever the theme.
  addEventListener("beforeprint", () => { document.documentElement.classList.add("printed"); draw(); });
  addEventListener("afterprint", () => { document.documentElement.classList.remove("printed"); draw(); });

  for (const button of document.querySelectorAll(".layers thead button")) {
    button.addEventListener("click", () => {
      const header = button.closest("th");
      const body = header.closest("table").tBodies[0];
      const falling = header.getAttribute("aria-sort") === "ascending";
      for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (row) => row.cells[header.cellIndex].dataset.value ?? row.cells[header.cellIndex].textContent;
      const numeric = header.classList.contains("number");
      // A dash stands for no value; it goes below every number.
      const number = (row) => { const value = parseFloat(key(row)); return Number.isNaN(value) ? -Infinity : value; };
      const compare = (a, b) => numeric ? (number(a) > number(b)) - (number(a) < number(b)) : key(a).localeCompare(key(b));
      const rows = [...body.rows].sort((a, b) => (falling ? -1 : 1) * compare(a, b));
      body.append(...rows);
    });
  }
})();
