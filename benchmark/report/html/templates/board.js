"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const make = (tag, values = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(values)) {
      if (name === "text") element.textContent = value;
      else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const storage = (store) => ({
    get(name) { try { return window[store].getItem(`privbench.${name}`); } catch { return null; } },
    set(name, value) { try { window[store].setItem(`privbench.${name}`, value); } catch { /* storage is disabled */ } },
  });
  const persistent = storage("localStorage");
  const session = storage("sessionStorage");

  // Before the first paint: let the style sheet hide what scripts show on demand, and apply the saved theme.
  root.classList.add("js");
  const chosenTheme = persistent.get("theme");
  if (chosenTheme === "dark" || chosenTheme === "light") root.dataset.theme = chosenTheme;

  // ---- theme ----
  const startTheme = () => {
    const button = byId("theme");
    const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    const updateLabel = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      persistent.set("theme", root.dataset.theme);
      updateLabel();
    });
    button.hidden = false;
    updateLabel();
  };

  // ---- state in the URL: #ANCHOR&name=value... ----
  const readHash = () => {
    const [first, ...rest] = location.hash.slice(1).split("&");
    const decode = (text) => { try { return decodeURIComponent(text); } catch { return ""; } };
    const state = new Map();
    for (const part of first.includes("=") ? [first, ...rest] : rest) {
      const at = part.indexOf("=");
      if (at > 0) state.set(decode(part.slice(0, at)), decode(part.slice(at + 1)));
    }
    return { anchor: first.includes("=") ? "" : decode(first), state };
  };
  let anchor = "";
  let state = new Map();
  const writeHash = () => {
    const parts = [...state].filter(([, value]) => value !== "").map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
    const text = [anchor, ...parts].filter(Boolean).join("&");
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  };
  const setState = (name, value) => {
    state.set(name, value);
    writeHash();
  };

  // ---- tables: sorting, filtering, the first rows ----
  const FIRST = { leaders: 50, rows: 200 };
  const tables = new Map();
  // The first text of a cell is its value; intervals, rank sets and reasons follow.
  const valueOf = (cell, numeric) => {
    const first = [...cell.childNodes].find((node) => node.textContent.trim());
    const text = first ? first.textContent.trim() : "";
    if (!numeric) return text === "–" || !text ? null : cell.textContent.trim().toLowerCase();
    const found = text.match(/-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?/);
    return found ? Number(found[0].replace(/,/g, "")) : null;
  };
  const collator = new Intl.Collator();
  const startTable = (table) => {
    const rows = [...table.tBodies[0].rows].map((row, index) => ({ row, index }));
    const headers = [...table.tHead.rows[0].cells];
    const entry = { table, rows, headers, showAll: false, leaders: table.classList.contains("leaders") };
    for (const header of headers.filter((cell) => cell.dataset.column)) {
      const button = make("button", { type: "button" });
      const sub = header.querySelector(".sub");
      button.append(...[...header.childNodes].filter((node) => node !== sub));
      header.prepend(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const ascending = header.getAttribute("aria-sort") !== "ascending";
        sort(entry, header.dataset.column, ascending);
        setState(`sort.${table.id}`, `${header.dataset.column}.${ascending ? "up" : "down"}`);
      });
    }
    tables.set(table.id, entry);
  };
  const sort = (entry, column, ascending) => {
    const header = entry.headers.find((cell) => cell.dataset.column === column);
    for (const other of entry.headers) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    if (header) {
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const numeric = header.classList.contains("num");
      const index = header.cellIndex;
      for (const each of entry.rows) each.value = valueOf(each.row.cells[index], numeric);
      const sign = ascending ? 1 : -1;
      entry.rows.sort((a, b) => {
        if (a.value === b.value) return a.index - b.index;
        if (a.value === null) return 1;
        if (b.value === null) return -1;
        return sign * (numeric ? a.value - b.value : collator.compare(a.value, b.value));
      });
    } else {
      entry.rows.sort((a, b) => a.index - b.index);
    }
    entry.table.tBodies[0].append(...entry.rows.map((each) => each.row));
    showFirst(entry);
  };
  const showFirst = (entry) => {
    const first = entry.leaders ? FIRST.leaders : FIRST.rows;
    let shown = 0;
    for (const { row } of entry.rows) {
      if (row.hidden) continue;
      shown += 1;
      row.classList.toggle("beyond", !entry.showAll && shown > first);
    }
    const button = document.querySelector(`[data-more="${CSS.escape(entry.table.id)}"]`);
    if (!button) return;
    button.textContent = `Show all ${shown.toLocaleString("en")} ${entry.leaders ? "defenses" : "rows"}`;
    button.parentElement.hidden = entry.showAll || shown <= first;
  };
  const splitWords = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  const prepare = (entry) => {
    for (const each of entry.rows) {
      const cells = each.row.cells;
      if (entry.leaders) {
        each.defense = each.row.dataset.defense;
        each.text = each.row.querySelector("th bdi").textContent.toLowerCase();
        each.seeds = Math.max(0, ...(each.row.querySelector(".seeds").textContent.match(/\d+/g) || []).map(Number));
      } else {
        each.defense = cells[0].textContent.trim().split(" ")[0];
        each.attack = cells[1].textContent.trim().split(" ")[0];
        each.text = `${cells[0].textContent} ${cells[1].textContent}`.toLowerCase();
        each.seeds = Number(cells[2].textContent);
      }
    }
    entry.prepared = true;
  };
  const filterAll = () => {
    const [defense, attack, budget] = ["defense", "attack", "budget"].map((name) => state.get(name) || "");
    const seeds = Number(state.get("seeds") || 0);
    const words = splitWords(state.get("q") || "");
    const defenseWords = words.filter(hasDefense);
    const active = Boolean(defense || attack || budget || seeds || words.length);
    let matching = 0;
    let total = 0;
    let groups = 0;
    const sections = all("section.board");
    for (const section of sections) {
      const inBudget = !budget || section.dataset.budget === budget;
      let inSection = 0;
      for (const entry of [...tables.values()].filter((each) => section.contains(each.table))) {
        if (!entry.prepared) prepare(entry);
        for (const each of entry.rows) {
          const matches = inBudget && (!defense || each.defense === defense) && each.seeds >= seeds
            && (entry.leaders || !attack || each.attack === attack)
            && (entry.leaders ? defenseWords : words).every((word) => each.text.includes(word));
          each.row.hidden = !matches;
          if (!entry.leaders) {
            total += 1;
            inSection += matches ? 1 : 0;
          }
        }
        showFirst(entry);
      }
      for (const panel of all(".panel", section)) panel.hidden = Boolean(attack) && panel.dataset.attack !== attack;
      for (const point of all(".panel a[data-defense]", section)) point.classList.toggle("faded", Boolean(defense) && point.dataset.defense !== defense);
      section.hidden = active && inSection === 0;
      matching += inSection;
      groups += inSection ? 1 : 0;
    }
    const status = byId("filter-status");
    status.textContent = active ? `${matching.toLocaleString("en")} of ${total.toLocaleString("en")} rows in ${groups} of ${sections.length} groups. Ranks refer to all defenses.` : "";
  };
  let defenseTexts = null;
  const hasDefense = (word) => {
    defenseTexts ??= [...tables.values()].filter((entry) => entry.leaders).flatMap((entry) => entry.rows.map((each) => each.row.querySelector("th bdi").textContent.toLowerCase()));
    return defenseTexts.some((text) => text.includes(word));
  };
  const startFilter = () => {
    const form = byId("filter");
    if (!form) return;
    form.hidden = false;
    let timer = 0;
    const changed = () => {
      for (const field of form.elements) if (field.name) state.set(field.name, field.value);
      writeHash();
      filterAll();
    };
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", changed);
    form.addEventListener("input", (event) => {
      clearTimeout(timer);
      timer = setTimeout(changed, event.target.type === "search" ? 120 : 0);
    });
    form.addEventListener("reset", () => setTimeout(changed));
  };

  // ---- the leakage score of a leaderboard ----
  const chooseScore = (section, score) => {
    for (const ranking of all(`.ranking[data-of="${CSS.escape(section)}"]`)) ranking.classList.toggle("chosen", ranking.dataset.score === score);
    const select = document.querySelector(`select[data-choose="${CSS.escape(section)}"]`);
    if (select) select.value = score;
  };
  const startScores = () => {
    for (const select of all("select[data-choose]")) {
      select.closest("label").hidden = false;
      select.addEventListener("change", () => {
        const page = select.selectedOptions[0].dataset.page;
        if (page) {
          location.href = page;
          return;
        }
        chooseScore(select.dataset.choose, select.value);
        setState(`score.${select.dataset.choose}`, select.selectedIndex ? select.value : "");
      });
    }
  };

  // ---- from the URL to the view ----
  const applyHash = () => {
    ({ anchor, state } = readHash());
    if (byId("compare-result")) showComparison();
    const form = byId("filter");
    if (form) {
      for (const field of form.elements) if (field.name) field.value = state.get(field.name) || "";
      for (const [name, value] of state) {
        if (name.startsWith("score.")) chooseScore(name.slice(6), value);
        if (name.startsWith("sort.") && tables.has(name.slice(5))) {
          const [, column, direction] = value.match(/^(.*)\.(up|down)$/) || [];
          sort(tables.get(name.slice(5)), column, direction === "up");
        }
      }
      if (state.has("pick")) {
        pick(state.get("pick"), true);
        state.delete("pick");
        writeHash();
      }
      filterAll();
    }
    const target = anchor && byId(anchor);
    if (!target) return;
    if (target.matches(".ranking")) chooseScore(target.dataset.of, target.dataset.score);
    if (target.matches("details")) target.open = true;
    const owner = target.closest("table.rows");
    if (owner && target.classList.contains("beyond")) {
      tables.get(owner.id).showAll = true;
      showFirst(tables.get(owner.id));
    }
    for (const row of all("tr.here")) row.classList.remove("here");
    if (target.matches("tr")) target.classList.add("here");
    target.scrollIntoView({ block: target.matches("tr") ? "center" : "start" });
  };

  // ---- selecting two cells ----
  const VALID = /^[0-9a-f]{16,64}$/;
  let picks = [];
  const nameOf = (url) => (url.match(/(?:cells\/|#cell-|^)([0-9a-f]{16,64})(?:\.html)?$/) || [])[1];
  const readPicks = () => {
    try {
      picks = (JSON.parse(session.get("picks") || "[]") || []).filter((each) => VALID.test(each.id)).slice(0, 2);
    } catch {
      picks = [];
    }
  };
  const pick = (id, selected, title = "") => {
    if (!VALID.test(id)) return;
    picks = picks.filter((each) => each.id !== id);
    if (selected) picks = [...picks, { id, title: title || titleOf(id) }].slice(-2);
    session.set("picks", JSON.stringify(picks));
    showPicks();
  };
  const titleOf = (id) => {
    const box = document.querySelector(`input[data-pick="${id}"]`);
    return box ? box.dataset.title : `cell ${id.slice(0, 8)}`;
  };
  const showPicks = () => {
    for (const box of all("input[data-pick]")) box.checked = picks.some((each) => each.id === box.dataset.pick);
    let bar = byId("compare-bar");
    if (!bar) {
      bar = make("aside", { id: "compare-bar", "aria-label": "Cells to compare" },
        make("p", { role: "status" }), make("div", { class: "picks" }));
      document.body.append(bar);
    }
    bar.hidden = picks.length === 0;
    bar.querySelector("[role=status]").textContent = picks.length === 2 ? "Two cells selected" : picks.length ? "One cell selected, select another" : "";
    const list = bar.querySelector(".picks");
    list.replaceChildren();
    for (const each of picks) {
      const drop = make("button", { type: "button", class: "drop", "aria-label": `Remove ${each.title}` });
      drop.append(make("span", { "aria-hidden": "true", text: "× " }), make("bdi", { text: each.title }));
      drop.addEventListener("click", () => pick(each.id, false));
      list.append(drop);
    }
    if (picks.length === 2) list.append(make("a", { class: "go", id: "compare-go", href: `${document.body.dataset.compare}${picks[0].id},${picks[1].id}`, text: "Compare" }));
  };
  const pickBox = (id, title) => {
    const box = make("input", { type: "checkbox", "data-pick": id, "data-title": title, "aria-label": `Compare ${title}`, title: `Compare ${title}` });
    box.addEventListener("change", () => pick(id, box.checked, title));
    return box;
  };
  const startPicks = () => {
    for (const table of all("table.rows")) {
      for (const row of table.tBodies[0].rows) {
        for (const link of all("a:not(.flagged)", row.cells[3])) {
          const id = nameOf(link.getAttribute("href"));
          const title = `${row.cells[0].textContent} under ${row.cells[1].textContent}, seed ${link.textContent}`;
          const holder = make("span", { class: "pick" });
          link.replaceWith(holder);
          holder.append(pickBox(id, title), link);
        }
      }
    }
    for (const cell of all(".cell[data-cell]")) {
      const tools = cell.querySelector(".tools");
      const label = make("label", { class: "pick" });
      label.append(pickBox(cell.dataset.cell, cell.dataset.title), " Compare this cell");
      label.firstChild.removeAttribute("aria-label");
      tools.append(label, make("a", { class: "find-other", href: `${document.body.dataset.index}${document.body.dataset.root === undefined ? "&" : "#"}pick=${cell.dataset.cell}`, text: "with another cell of the tables" }));
      tools.hidden = false;
    }
    readPicks();
    showPicks();
  };

  // ---- comparison ----
  const loaded = new Map();
  window.privbenchCell = (cell) => loaded.set(cell.id, cell);
  const load = (id) => new Promise((resolve, reject) => {
    const inline = byId(`data-${id}`);
    if (inline) loaded.set(id, JSON.parse(inline.textContent));
    if (loaded.has(id)) {
      resolve(loaded.get(id));
      return;
    }
    if (document.body.dataset.root === undefined) {
      reject(new Error(id));
      return;
    }
    const script = make("script", { src: `${document.body.dataset.root}cells/${id}.js` });
    script.addEventListener("load", () => (loaded.has(id) ? resolve(loaded.get(id)) : reject(new Error(id))));
    script.addEventListener("error", () => reject(new Error(id)));
    document.head.append(script);
  });
  const comparedIds = () => {
    const text = document.body.dataset.root === undefined ? state.get("compare") || "" : location.hash.slice(1);
    const ids = text.split(",");
    return ids.length === 2 && ids.every((id) => VALID.test(id)) ? ids : null;
  };
  const showComparison = async () => {
    const section = byId("compare");
    const ids = comparedIds();
    const result = byId("compare-result");
    const status = byId("compare-status");
    byId("compare-help").hidden = Boolean(ids);
    result.replaceChildren();
    status.textContent = "";
    if (!ids) return;
    try {
      const [a, b] = await Promise.all(ids.map(load));
      result.replaceChildren(...comparison(a, b));
      if (document.body.dataset.root === undefined) section.scrollIntoView();
      else document.title = `${a.title} / ${b.title} - privbench`;
    } catch (problem) {
      status.textContent = `This report has no cell ${problem.message}; the link may belong to another report.`;
    }
  };
  const cellUrl = (id) => (document.body.dataset.root === undefined ? `#cell-${id}` : `${document.body.dataset.root}cells/${id}.html`);
  const compareUrl = (a, b) => `${document.body.dataset.compare}${a},${b}`;
  const formatDifference = (value, unit) => {
    const sign = value < 0 ? "−" : "+";
    const size = Math.abs(value);
    if (unit === "fraction") return sign + (100 * size).toFixed(1);
    if (unit === "decibel") return sign + size.toFixed(2);
    if (unit === "similarity") return sign + size.toFixed(3);
    return sign + (size >= 1000 && size < 1e9 ? Math.round(size).toLocaleString("en") : size.toPrecision(4));
  };
  const header = (...names) => make("thead", {}, make("tr", {}, ...names.map((name, i) => make("th", { scope: "col", class: i ? "num" : false, text: name }))));
  const table = (label, name, head, rows) => {
    const found = make("table", { class: name }, make("caption", { class: "hidden", text: label }), head, make("tbody", {}, ...rows));
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, found);
  };
  const scoreCell = (score) => {
    if (!score) return make("td", { class: "num missing", text: "not scored" });
    const cell = make("td", { class: "num" }, make("b", { text: score.text }));
    if (score.range) cell.append(make("span", { class: "sub", text: score.range }));
    if (score.value !== null) cell.append(make("span", { class: "sub", text: `n ${score.n.toLocaleString("en")}` }));
    if (score.reason) cell.append(make("span", { class: "reason", text: score.reason }));
    return cell;
  };
  const verdict = (a, b) => {
    if (!a || !b || a.value === null || b.value === null) return "cannot be compared";
    if (!a.interval || !b.interval) return "no intervals to compare";
    const separate = a.interval[1] < b.interval[0] || b.interval[1] < a.interval[0];
    if (!separate) return "intervals overlap";
    const leftBetter = a.better === "higher" ? a.value > b.value : a.value < b.value;
    return `intervals do not overlap; ${leftBetter ? "left" : "right"} is better for the defender`;
  };
  const comparison = (a, b) => {
    const parts = [];
    const heads = [a, b].map((cell, i) => {
      const block = make("div", { class: "side" },
        make("p", { class: "sub", text: `${i ? "Right" : "Left"} · ${cell.section}` }),
        make("h3", {}, make("a", { href: cellUrl(cell.id) }, make("bdi", { text: cell.title }))));
      if (cell.seeds.length) {
        const others = make("p", { class: "sub", text: "other seeds: " });
        for (const seed of cell.seeds) others.append(make("a", { href: i ? compareUrl(a.id, seed.id) : compareUrl(seed.id, b.id), text: seed.label }), " ");
        block.append(others);
      }
      for (const flag of cell.flags) {
        const box = make("p", { class: "flag" }, make("b", {}, make("bdi", { text: flag.name })), ": ", make("bdi", { text: flag.message }));
        if (flag.explanation) box.append(make("span", { class: "why", text: ` ${flag.explanation}` }));
        block.append(box);
      }
      if (cell.picture) block.append(make("img", { class: "drawing", src: cell.picture.source.startsWith("data:") ? cell.picture.source : document.body.dataset.root + cell.picture.source.replace(/^(\.\.\/)+/, ""), width: cell.picture.width, height: cell.picture.height, alt: `Reconstructions of ${cell.title}` }));
      else block.append(make("p", { class: "caption", text: "This cell has no picture." }));
      return block;
    });
    if (a.section !== b.section) parts.push(make("p", { class: "flag", text: "These cells have different protocols, budgets or data sets; their numbers are not comparable." }));
    parts.push(make("div", { class: "sides" }, ...heads));
    parts.push(make("p", { class: "tools" }, make("a", { href: compareUrl(b.id, a.id), text: "Swap sides" })));
    const byName = (cell) => new Map(cell.scores.map((score) => [score.name, score]));
    const [left, right] = [byName(a), byName(b)];
    const rows = [...new Set([...left.keys(), ...right.keys()])].map((name) => {
      const [x, y] = [left.get(name), right.get(name)];
      const known = x && y && x.value !== null && y.value !== null && x.unit === y.unit;
      return make("tr", {}, make("th", { scope: "row" }, make("bdi", { text: (x || y).title })), scoreCell(x), scoreCell(y),
        make("td", { class: "num", text: known ? formatDifference(y.value - x.value, x.unit) : "–" }),
        make("td", { class: "verdict", text: verdict(x, y) }));
    });
    const scoreHead = header("Score", "Left", "Right", "Right − left");
    scoreHead.rows[0].append(make("th", { scope: "col", text: "95 % intervals" }));
    parts.push(make("h3", { text: "Scores" }), table("Scores side by side", "compared-scores", scoreHead, rows));
    parts.push(make("p", { class: "caption", text: "Each interval belongs to one cell. Overlapping intervals do not show that the cells are equal." }));
    const facts = (name) => {
      const [x, y] = [new Map(a[name]), new Map(b[name])];
      const keys = [...new Set([...x.keys(), ...y.keys()])];
      const kinds = [...new Set(keys.map((key) => key.split(".")[0]))];
      keys.sort((one, other) => kinds.indexOf(one.split(".")[0]) - kinds.indexOf(other.split(".")[0]));
      return keys.map((key) => [key, x.get(key) ?? "–", y.get(key) ?? "–"]);
    };
    const factRow = ([key, x, y]) => {
      const wrap = (text) => make("td", {}, x === y ? make("bdi", { text }) : make("mark", {}, make("bdi", { text })));
      return make("tr", { class: x === y ? false : "differs" }, make("th", { scope: "row" }, make("bdi", { text: key })), wrap(x), wrap(y));
    };
    const settings = facts("settings");
    const differing = settings.filter(([, x, y]) => x !== y);
    const plainHead = (name) => make("thead", {}, make("tr", {}, ...[name, "Left", "Right"].map((text) => make("th", { scope: "col", text }))));
    parts.push(make("h3", { text: `Different settings (${differing.length} of ${settings.length})` }));
    parts.push(table("Different settings", "compared-fields", plainHead("Setting"), differing.map(factRow)));
    const same = settings.filter(([, x, y]) => x === y);
    parts.push(make("details", { class: "same" }, make("summary", { text: `Equal settings (${same.length})` }), table("Equal settings", "compared-fields", plainHead("Setting"), same.map(factRow))));
    const costRow = ([key, x, y]) => make("tr", {}, make("th", { scope: "row" }, make("bdi", { text: key })), make("td", { text: x }), make("td", { text: y }));
    parts.push(make("h3", { text: "Cost" }), table("Cost side by side", "compared-costs", plainHead("Cost"), facts("costs").map(costRow)));
    return parts;
  };

  // ---- commands ----
  const startCopy = () => {
    for (const block of all(".command")) {
      const button = make("button", { type: "button", class: "copy", text: "Copy" });
      const status = make("span", { role: "status", class: "hidden" });
      button.addEventListener("click", async () => {
        const code = block.querySelector("code");
        try {
          await navigator.clipboard.writeText(code.textContent);
          button.textContent = status.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(code);
          button.textContent = status.textContent = "Selected; copy it with the keyboard";
        }
        setTimeout(() => { button.textContent = "Copy"; status.textContent = ""; }, 2500);
      });
      block.append(button, status);
    }
  };

  // ---- printing opens all details ----
  const startPrint = () => {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = all("details:not([open])");
      for (const each of closed) each.open = true;
    });
    addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
  };

  addEventListener("DOMContentLoaded", () => {
    startTheme();
    for (const table of all("table.sortable")) startTable(table);
    for (const entry of tables.values()) showFirst(entry);
    for (const button of all("[data-more]")) {
      button.addEventListener("click", () => {
        const entry = tables.get(button.dataset.more);
        entry.showAll = true;
        showFirst(entry);
      });
    }
    startScores();
    startFilter();
    startPicks();
    startCopy();
    startPrint();
    addEventListener("hashchange", applyHash);
    applyHash();
  });
})();
