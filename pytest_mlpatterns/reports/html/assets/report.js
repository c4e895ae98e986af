// Behaviour of the page: charts are drawn when they come into view, the overview is sorted and filtered, and the tests
// that a link names are opened. All text and tables are plain HTML and stay readable without scripts.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  // --- charts ----------------------------------------------------------------------------------------------------

  const tables = new WeakMap();
  function tableOf(figure) {
    if (!tables.has(figure)) tables.set(figure, JSON.parse(figure.querySelector("script").textContent));
    return tables.get(figure);
  }

  function draw(figure, given) {
    const place = figure.querySelector(".plot"), width = given ?? Math.round(place.clientWidth);
    if (!width || Number(figure.dataset.width) === width) return;
    const svg = charts.draw(tableOf(figure), width);
    for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label"); // it is read as one
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-labelledby", `${figure.id}-title ${figure.id}-summary`);
    place.replaceChildren(svg);
    addLegend(figure, place);
    figure.dataset.width = width;
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) {
          draw(target);
          sized.observe(target.querySelector(".plot"));
        } else sized.unobserve(target.querySelector(".plot"));
      }
    },
    { rootMargin: "400px" },
  );
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) requestAnimationFrame(() => draw(target.closest("figure")));
  });

  function addLegend(figure, place) {
    const series = charts.legend(tableOf(figure));
    if (series.length < 2 || figure.querySelector(".legend")) return;
    const list = make("ul", undefined, "legend");
    for (const [how, name] of series) {
      const item = make("li");
      item.append(make("i", "", how), name);
      list.append(item);
    }
    place.before(list);
  }

  /** The table of a chart, made when the reader opens it. */
  function fill(details) {
    if (details.querySelector("table")) return;
    const { columns, rows } = tableOf(details.closest("figure"));
    const table = make("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const [name] of columns) {
      const cell = make("th", name);
      cell.scope = "col";
      head.append(cell);
    }
    for (const row of rows) {
      const line = body.insertRow();
      columns.forEach(([, unit], column) => (line.insertCell().textContent = units.format(unit, row[column])));
    }
    const region = make("div", undefined, "scroll");
    region.tabIndex = 0;
    region.setAttribute("role", "group");
    region.setAttribute("aria-label", `Data of ${details.closest("figure").querySelector(".title").textContent}`);
    region.append(table);
    details.append(region);
  }

  for (const figure of all("figure.chart")) seen.observe(figure);
  for (const details of all("details.data")) details.addEventListener("toggle", () => details.open && fill(details));

  // --- tables that scroll ----------------------------------------------------------------------------------------

  const scrolls = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const given = { tabindex: 0, role: "group", "aria-label": target.dataset.name };
      for (const [name, value] of Object.entries(given)) {
        if (target.scrollWidth > target.clientWidth) target.setAttribute(name, value);
        else target.removeAttribute(name);
      }
    }
  });
  for (const region of all(".scroll[data-name]")) scrolls.observe(region);

  // --- the overview ----------------------------------------------------------------------------------------------

  const overview = document.getElementById("overview-table");
  if (overview) {
    const body = overview.tBodies[0], rows = [...body.rows];
    const buttons = all("thead button", overview);

    /** By a column's numbers or words; what a test does not have comes last, either way. */
    function sort(button) {
      const header = button.closest("th"), column = header.cellIndex;
      const rising = header.getAttribute("aria-sort") !== "ascending";
      for (const other of buttons) other.closest("th").removeAttribute("aria-sort");
      header.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? "";
      const order = (one, two) =>
        header.dataset.numbers === undefined ? one.localeCompare(two, "en", { numeric: true }) : Number(one) - Number(two);
      const sorted = [...rows].sort((one, two) => {
        const [first, second] = [key(one), key(two)];
        if (first === "" || second === "") return (first === "") - (second === "");
        return rising ? order(first, second) : order(second, first);
      });
      body.append(...sorted);
    }
    for (const button of buttons) button.addEventListener("click", () => sort(button));

    const search = document.getElementById("search"), states = all("#filters input[name=state]");
    const count = document.getElementById("shown");
    function filter() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = new Set(states.filter((state) => state.checked).map((state) => state.value));
      let shown = 0;
      for (const row of rows) {
        const keep = wanted.has(row.dataset.state) && words.every((word) => row.dataset.words.includes(word));
        row.hidden = !keep;
        document.getElementById(row.dataset.test).hidden = !keep;
        shown += keep;
      }
      count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} tests shown`;
    }
    search.addEventListener("input", filter);
    for (const state of states) state.addEventListener("change", filter);
    filter(); // a browser may remember what was typed before the page was loaded again
  }

  const everything = document.getElementById("open-all");
  everything?.addEventListener("click", () => {
    const tests = all("details.test");
    const open = tests.some((details) => !details.open);
    for (const details of tests) details.open = open;
    everything.textContent = open ? "Close all" : "Open all";
  });

  // --- opening, printing -----------------------------------------------------------------------------------------

  /** What a link names; one that a person wrote may have a percent sign of its own. */
  function targetOf(name) {
    try {
      return document.getElementById(decodeURIComponent(name)) ?? document.getElementById(name);
    } catch {
      return document.getElementById(name);
    }
  }

  function openTarget() {
    const target = location.hash && targetOf(location.hash.slice(1));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  }
  addEventListener("hashchange", openTarget);
  openTarget();

  const ON_PAPER = 340; // pixels: half of an A4 or letter page, as the style sheet has it
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details.test:not([open]), details.group:not([open])");
    for (const details of closed) details.open = true;
    for (const figure of all("figure.chart")) draw(figure, ON_PAPER);
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
    for (const figure of all("figure.chart[data-width]")) draw(figure);
  });

  // --- light and dark --------------------------------------------------------------------------------------------

  const KEY = "pytest-mlpatterns-theme", root = document.documentElement, theme = document.getElementById("theme");
  const remembered = (() => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a browser may refuse storage to a file
    }
  })();
  function show(choice) {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
    for (const input of theme.querySelectorAll("input")) input.checked = input.value === (root.dataset.theme ?? "auto");
  }
  show(remembered);
  theme.hidden = false;
  theme.addEventListener("change", ({ target }) => {
    show(target.value);
    try {
      localStorage.setItem(KEY, target.value);
    } catch {
      // the choice holds for this visit
    }
  });
})();
