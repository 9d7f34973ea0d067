// Theme, filters, sorting and the dialog. Text goes into the page as text only: nothing here makes
// HTML of strings.
/* global pageCharts */
(() => {
  "use strict";

  const root = document.documentElement;
  const FIELDS = ["program", "run", "link", "outcome", "q"];
  const KEYS = [...FIELDS, "sort", "history", "variant"];
  const BAD = new Set(["failed", "xpassed", "error"]);
  const THEMES = ["automatic", "light", "dark"];
  const STORED = "nox-variants-theme";

  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  let data, charts, state = {}, theme = "automatic", printing = false;

  // --- theme: before anything is drawn ---------------------------------------------------------

  function setTheme(name) {
    theme = THEMES.includes(name) ? name : "automatic";
    if (theme === "automatic") delete root.dataset.theme;
    else root.dataset.theme = theme;
  }

  function storedTheme() {
    try { return localStorage.getItem(STORED); } catch { return null; }
  }

  root.classList.add("js");
  setTheme(storedTheme());

  function startTheme() {
    const button = one("#theme");
    const say = () => { button.textContent = `Theme: ${theme}`; };
    say();
    button.addEventListener("click", () => {
      setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
      try { localStorage.setItem(STORED, theme); } catch { /* it is not kept */ }
      say();
      redraw();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  // --- what is chosen: it lives in the address ---------------------------------------------------

  function read() {
    const text = location.hash.slice(1);
    const anchor = /^v-(\d+)$/.exec(text);
    if (anchor) return { variant: data.entries[anchor[1]]?.variant };
    if (text && !text.includes("=")) return state;
    const given = new URLSearchParams(text);
    return Object.fromEntries(KEYS.map((key) => [key, given.get(key) || ""]));
  }

  function go(changes, replace = false) {
    const params = new URLSearchParams();
    for (const key of KEYS) {
      const value = key in changes ? changes[key] : state[key];
      if (value) params.set(key, value);
    }
    const address = location.href.split("#")[0] + (params.size ? `#${params}` : "");
    if (address !== location.href) {
      try { window.history[replace ? "replaceState" : "pushState"](null, "", address); }
      catch { location.hash = params; }
    }
    apply();
  }

  function matches(entry) {
    const words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    const text = entry.text.toLowerCase();
    return ["program", "run", "link"].every((key) => !state[key] || entry[key] === state[key])
      && (!state.outcome || entry.outcome === state.outcome || (state.outcome === "bad" && BAD.has(entry.outcome)))
      && words.every((word) => text.includes(word));
  }

  function apply() {
    state = read();
    if (data.entries.length) {
      fillForm();
      const shown = new Set(data.entries.flatMap((entry, number) => (matches(entry) ? [number] : [])));
      show(shown);
      sort();
      charts.drawSizes(shown);
    }
    showDialog();
    chooseHistory();
  }

  function fillForm() {
    for (const key of FIELDS) {
      const control = one("#filters").elements[key];
      if (control.value !== (state[key] || "")) control.value = state[key] || "";
      if (control.selectedIndex === -1) { control.value = ""; state[key] = ""; }
      control.toggleAttribute("data-active", Boolean(state[key]));
    }
    for (const link of all(".count")) {
      const current = link.hash === `#outcome=${state.outcome}`;
      if (current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
  }

  function show(shown) {
    for (const element of all("[data-entry]")) element.hidden = !shown.has(Number(element.dataset.entry));
    for (const section of all(".program")) showGrid(section);
    for (const text of all(".nothing")) text.hidden = shown.size > 0;
    const total = data.entries.length;
    one("#found").textContent = shown.size === total ? `${total} variants` : `${shown.size} of ${total} variants`;
    one("#reset").disabled = !FIELDS.some((key) => state[key]);
    one("#variants .scroll").hidden = shown.size === 0;
    one("#matrix .legend").hidden = shown.size === 0;
  }

  function showGrid(section) {
    const rows = all("tr", section).map((row) => [...row.children]);
    const full = (cell) => all(".cell", cell).some((link) => !link.hidden);
    const columns = rows[0].map((_, at) => at === 0 || rows.slice(1).some((row) => full(row[at])));
    for (const row of rows) row.forEach((cell, at) => { cell.hidden = !columns[at]; });
    for (const row of rows.slice(1)) row[0].parentElement.hidden = !row.some(full);
    section.hidden = !columns.slice(1).some(Boolean);
  }

  function startFilters() {
    const form = one("#filters");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      go({ [event.target.name]: event.target.value }, event.target.name === "q");
    });
    one("#reset").addEventListener("click", () => {
      go(Object.fromEntries(FIELDS.map((key) => [key, ""])));
      form.elements.q.focus();
    });
  }

  function follow(event) {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    const anchor = /^#v-(\d+)$/.exec(link.hash);
    event.preventDefault();
    if (anchor) return go({ variant: data.entries[anchor[1]].variant });
    if (link.hash.includes("=")) {
      const outcome = new URLSearchParams(link.hash.slice(1)).get("outcome");
      return go({ outcome: state.outcome === outcome ? "" : outcome });
    }
    one(link.hash).scrollIntoView();
    one(link.hash).focus({ preventScroll: true });
  }

  // --- sorting -----------------------------------------------------------------------------------

  function startSorting() {
    for (const head of all("#list thead th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const name = button.textContent;
        go({ sort: state.sort === name ? `-${name}` : name });
      });
    }
  }

  function sort() {
    const name = (state.sort || "").replace(/^-/, ""), down = (state.sort || "").startsWith("-");
    const heads = all("#list thead th"), at = heads.findIndex((head) => head.textContent === name);
    heads.forEach((head, number) => {
      if (number === at) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const number = (row) => Number(row.dataset.entry);
    const rows = all("#list tbody tr").sort((a, b) => number(a) - number(b));
    if (at >= 0) rows.sort((a, b) => compare(a.children[at], b.children[at], down));
    one("#list tbody").append(...rows);
  }

  function compare(a, b, down) {
    const numeric = a.classList.contains("number");
    const [x, y] = [a, b].map((cell) => (numeric ? cell.dataset.order : cell.textContent.trim()) || "");
    if (!x || !y) return !x - !y; // what has none comes last, either way
    const order = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
    return down ? -order : order;
  }

  // --- one variant: dialog, and a word on it beside its cell -------------------------------------

  function showDialog() {
    const dialog = one("#dialog"), number = data.entries.findIndex((entry) => entry.variant === state.variant);
    if (number < 0) return dialog.close();
    const entry = data.entries[number], body = one(`#v-${number}`).cloneNode(true);
    body.removeAttribute("id");
    one("#dialog-head").textContent = entry.variant;
    one("#dialog-outcome").replaceChildren(one(".badge", one(`#facts [data-entry="${number}"]`)).cloneNode(true));
    one("#dialog-body").replaceChildren(body);
    one("#to-history").hidden = !data.variants.some(([name]) => name === entry.variant);
    hideTip();
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    one("#dialog-head").focus();
  }

  function startDialog() {
    const dialog = one("#dialog");
    one("#close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => { if (!dialog.open && state.variant) go({ variant: "" }); });
    one("#to-history").addEventListener("click", () => {
      go({ history: state.variant, variant: "" });
      one("#history").scrollIntoView();
      one("#variant").focus({ preventScroll: true });
    });
  }

  function hideTip() {
    one("#tip").hidden = true;
    one("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
  }

  function showTip(cell) {
    const tip = one("#tip"), { note } = data.entries[cell.dataset.entry];
    hideTip();
    if (!note) return;
    tip.textContent = note;
    tip.hidden = false;
    cell.setAttribute("aria-describedby", "tip");
    placeTip();
  }

  function placeTip() {
    const tip = one("#tip"), cell = one("[aria-describedby=tip]");
    if (!cell) return;
    const at = cell.getBoundingClientRect(), room = document.documentElement;
    const below = at.bottom + tip.offsetHeight + 4 < room.clientHeight;
    tip.style.left = `${Math.max(8, Math.min(at.left, room.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${below ? at.bottom + 2 : Math.max(4, at.top - tip.offsetHeight - 2)}px`;
  }

  function startTip() {
    const matrix = one("#matrix"), over = (event) => event.target.closest?.(".cell");
    for (const kind of ["mouseover", "focusin"]) {
      matrix.addEventListener(kind, (event) => { if (over(event)) showTip(over(event)); });
    }
    for (const kind of ["mouseout", "focusout"]) {
      matrix.addEventListener(kind, (event) => {
        if (event.relatedTarget !== one("#tip")) hideTip();
      });
    }
    one("#tip").addEventListener("mouseleave", hideTip);
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
    addEventListener("scroll", placeTip, { capture: true, passive: true });
  }

  // --- whose history is shown ---------------------------------------------------------------------

  function startHistory() {
    if (!one("#history")) return;
    const select = one("#variant"), places = new Map(data.entries.map((entry, at) => [entry.variant, at]));
    const place = (name) => places.get(name) ?? Infinity;
    const groups = Map.groupBy([...data.variants].sort(([a], [b]) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0)),
      ([, program]) => program);
    for (const [program, rows] of groups) {
      const group = select.appendChild(document.createElement("optgroup"));
      group.label = program;
      for (const [name] of rows) {
        const option = group.appendChild(document.createElement("option"));
        option.value = name;
        option.textContent = places.has(name) ? name : `${name} (not in this run)`;
      }
    }
    select.addEventListener("change", () => go({ history: select.value }));
    one("#history-data").addEventListener("toggle", () => charts.tabulate());
  }

  function chooseHistory() {
    const select = one("#variant");
    if (!select) return;
    const names = new Set(data.variants.map(([name]) => name));
    const worth = data.entries.find((entry) => BAD.has(entry.outcome) && names.has(entry.variant));
    const wanted = names.has(state.history) ? state.history : worth?.variant ?? select.options[0].value;
    if (select.dataset.drawn === wanted) return;
    select.value = select.dataset.drawn = wanted;
    charts.drawHistory();
  }

  // --- paper ---------------------------------------------------------------------------------------

  function redraw() {
    charts.forget();
    apply();
    charts.drawHistory();
  }

  function print(on) {
    if (on === printing) return;
    printing = on;
    if (on) root.dataset.theme = "light";
    else setTheme(theme);
    for (const each of all("details.facts")) each.open = on;
    charts.print(on);
    redraw();
    if (on) charts.resize(660);
  }

  document.addEventListener("DOMContentLoaded", () => {
    data = JSON.parse(one("#data").textContent);
    charts = pageCharts(data, (variant) => go({ variant }));
    startTheme();
    startDialog();
    startHistory();
    if (data.entries.length) {
      startFilters();
      startSorting();
      startTip();
    }
    document.addEventListener("click", follow);
    addEventListener("popstate", apply);
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
    matchMedia("print").addEventListener("change", (event) => print(event.matches));
    apply();
  });
})();
