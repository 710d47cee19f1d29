"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Theme: the system's until the reader chooses.
  const theme = document.getElementById("theme");
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  theme.hidden = false;
  nameTheme();

  // Sorting: rows without a value stay last.
  const valueOf = (row, index) => row.cells[index].dataset.value;
  const compare = (a, b, numeric, sign) => {
    if (a === b) return 0;
    if (a === "") return 1;
    if (b === "") return -1;
    return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b));
  };
  const sortBy = (table, header) => {
    const index = header.cellIndex;
    const numeric = header.classList.contains("num");
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of all("th[aria-sort]", table)) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((a, b) => compare(valueOf(a, index), valueOf(b, index), numeric, ascending ? 1 : -1));
    body.append(...rows);
  };
  for (const button of all("thead button")) {
    button.disabled = false;
    button.addEventListener("click", () => sortBy(button.closest("table"), button.closest("th")));
  }

  // Filter: every word must occur in defense or attack.
  for (const field of all("input[data-filter]")) {
    const section = field.dataset.filter;
    const rows = all(`table[data-table="${section}"] tbody tr`);
    const count = document.querySelector(`[data-count="${section}"]`);
    field.closest("label").hidden = rows.length < 4;
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let kept = 0;
      for (const row of rows) {
        const text = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        kept += row.hidden ? 0 : 1;
      }
      count.textContent = words.length ? `${kept} of ${rows.length} rows` : "";
    });
  }

  // Which leakage score the panels show.
  for (const select of all("select[data-panels]")) {
    select.addEventListener("change", () => {
      for (const panels of all(`.panels[data-of="${select.dataset.panels}"]`)) {
        panels.hidden = panels.dataset.index !== select.value;
      }
    });
  }

  // A link to a cell opens it.
  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", openTarget);
  openTarget();
})();
