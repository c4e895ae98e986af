// The flame graph: callers above their callees, as wide as their time per request, coloured by its change. The layout
// and the search are those of d3-flame-graph; the bars are also a tree for the keyboard and for screen readers.
"use strict";
(() => {
  const ROW = 20; // pixels
  const LEAST = 0.5; // narrower bars are left out
  const ON_PAPER = 690; // pixels: the width of an A4 or letter page
  let onPaper = false; // then the width is that of the paper, not of the window
  const time = (ns) => units.format("duration", ns);
  const signed = (ns) => `${ns > 0 ? "+" : ""}${time(ns)}`;

  /** The tree of all stacks below one root; the time of a function includes that of its callees. */
  function treeOf({ frames, nodes }) {
    const bar = (name, place, before_ns, now_ns) => ({ name, place, before_ns, now_ns, children: [] });
    const made = nodes.map(([, frame, before, now]) => bar(frames[frame][0], frames[frame][1], before, now));
    const all = bar("all", "", 0, 0);
    for (let at = nodes.length - 1; at >= 0; at--) { // callees come after their callers
      const caller = made[nodes[at][0]] ?? all;
      caller.before_ns += made[at].before_ns;
      caller.now_ns += made[at].now_ns;
      caller.children.unshift(made[at]);
    }
    return { all, made };
  }

  function kindOf({ before_ns, now_ns }, total, compared) {
    if (!compared || Math.abs(now_ns - before_ns) < 0.01 * total) return "same";
    if (before_ns === 0) return "new";
    return now_ns > before_ns ? "slower" : "faster";
  }

  function wordsOf({ name, place, before_ns, now_ns }, compared) {
    const where = place ? ` (${place})` : "";
    if (!compared) return `${name}${where}: ${time(now_ns)} per request`;
    return `${name}${where}: ${time(before_ns)} → ${time(now_ns)} per request, ${signed(now_ns - before_ns)}`;
  }

  function flame(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent), compared = data.sides.length > 1;
    const { all, made } = treeOf(data);
    const total = Math.max(all.now_ns, all.before_ns);
    const most = Math.max(...made.map((bar) => Math.abs(bar.now_ns - bar.before_ns)), 1);
    const place = figure.querySelector(".plot"), said = figure.querySelector(".said"), help = said.textContent;
    const search = figure.querySelector("input[type=search]");
    let side = "now_ns", chart = null, width = 0, active = null;

    let order = 0;
    d3.hierarchy(all).eachBefore(({ data: bar }) => (bar.order = order++)); // that in which they are read
    for (const bar of [all, ...made]) {
      bar.kind = kindOf(bar, total, compared);
      const share = Math.round(15 + (35 * Math.abs(bar.now_ns - bar.before_ns)) / most);
      const colour = { slower: "--failed", new: "--failed", faster: "--present" }[bar.kind];
      bar.fill = colour ? `color-mix(in srgb, var(${colour}) ${share}%, var(--card))` : "var(--faint)";
    }

    const say = (text) => (said.textContent = text || help);
    const bars = () => d3.select(place).select("svg").selectAll("g.frame");
    const shown = (one) => one && (one.x1 - one.x0) * width > LEAST;
    const root = () => d3.select(place).datum();

    /** What the library leaves to animation, or does not know: places, names, colours and the keyboard's stop. */
    function dress() {
      const svg = d3.select(place).select("svg");
      svg.selectAll("text.title").remove();
      svg.attr("role", "tree").attr("aria-labelledby", `${figure.id}-title ${figure.id}-summary`);
      if (!shown(active)) active = root();
      svg.selectAll("g").interrupt().sort((one, two) => one.data.order - two.data.order)
        .attr("transform", (one) => `translate(${one.x0 * width},${one.depth * ROW})`)
        .attr("class", ({ data, highlight }) => `frame ${data.kind}${highlight ? " found" : ""}`)
        .attr("role", "treeitem")
        .attr("aria-level", (one) => one.depth + 1)
        .attr("aria-label", ({ data }) => wordsOf(data, compared))
        .attr("tabindex", (one) => (one === active ? 0 : -1))
        .on("focus", (_event, one) => say(wordsOf(one.data, compared)));
      svg.selectAll("g").select("rect").interrupt().attr("width", (one) => (one.x1 - one.x0) * width);
      svg.selectAll("g").select("foreignObject").attr("aria-hidden", true).select("div").interrupt().text(({ data }) => data.name);
      svg.selectAll("g").select("title").remove();
    }

    function draw(given) {
      const wide = given ?? Math.round(place.clientWidth);
      if (!wide || (onPaper && !given) || (chart && wide === width)) return;
      width = wide;
      if (chart) chart.width(width).update();
      else {
        chart = flamegraph.default().width(width).cellHeight(ROW).inverted(true).transitionDuration(0).minFrameSize(LEAST)
          .getValue((one) => one[side] ?? one.value)
          .setColorMapper(({ data }) => data.fill)
          .setSearchMatch(({ data }, words) => `${data.name} ${data.place}`.toLowerCase().includes(words))
          .setSearchHandler((found, sum, of) => say(`${found.length} found: ${time(sum)} of ${time(of)} per request, ${units.format("ratio", of ? sum / of : 0)}`))
          .setDetailsHandler((text) => say(text))
          .setLabelHandler(({ data }) => wordsOf(data, compared))
          .onClick((one) => {
            dress(); // the library has drawn anew
            go(one);
          });
        const height = d3.hierarchy(all).height + 1;
        d3.select(place).datum(all).call(chart.height(height * ROW));
      }
      dress();
      figure.dataset.width = width;
    }

    function go(one) {
      const both = bars().filter((other) => other === one || other === active);
      active = one;
      both.attr("tabindex", (other) => (other === one ? 0 : -1)).filter((other) => other === one).node()?.focus();
    }
    function zoomOut() {
      chart.resetZoom(); // goes to the root
    }

    function find() {
      const words = search.value.trim().toLowerCase();
      place.classList.toggle("searching", words !== "");
      if (words) chart.search(words);
      else chart.clear();
      dress();
    }

    /** The bar beside one at its depth, of the same caller or another. */
    function beside(one, step) {
      const level = root().descendants().filter((other) => other.depth === one.depth && shown(other)).sort((a, b) => a.x0 - b.x0);
      return level[level.indexOf(one) + step];
    }
    const moves = {
      ArrowDown: (one) => one.children?.filter(shown).sort((a, b) => b.x1 - b.x0 - (a.x1 - a.x0))[0],
      ArrowUp: (one) => one.parent,
      ArrowLeft: (one) => beside(one, -1),
      ArrowRight: (one) => beside(one, 1),
      Home: () => root(),
    };
    place.addEventListener("keydown", (event) => {
      if (moves[event.key]) {
        const next = moves[event.key](active);
        if (next) go(next);
      } else if (event.key === "Enter" || event.key === " ") chart.zoomTo(active);
      else if (event.key === "Escape") zoomOut();
      else if (event.key === "/") search.focus();
      else return;
      event.preventDefault();
    });
    search.addEventListener("input", find);
    figure.querySelector("button").addEventListener("click", zoomOut);
    figure.querySelector(".switch")?.addEventListener("change", ({ target }) => {
      side = target.value;
      chart.destroy();
      chart = active = null;
      draw(width);
      find();
    });
    for (const hidden of figure.querySelectorAll(":scope > [hidden]")) hidden.hidden = false;
    new ResizeObserver(() => requestAnimationFrame(() => draw())).observe(place);
    return { draw };
  }

  const flames = [...document.querySelectorAll("figure.flame")].map((figure) => ({ figure, made: null }));
  const open = (one) => (one.made ??= flame(one.figure));
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) open(flames.find(({ figure }) => figure === target)).draw();
  }, { rootMargin: "400px" });
  for (const { figure } of flames) seen.observe(figure);
  function print(begins) {
    onPaper = begins;
    for (const one of flames) open(one).draw(begins ? ON_PAPER : undefined);
  }
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
})();
