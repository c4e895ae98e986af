// How each kind of chart looks: a table in, an SVG element out. Colours come from the style sheet, so that light, dark
// and paper need no drawing of their own.
"use strict";
const charts = (() => {
  const PRESENT = "var(--present)", OTHER = "var(--other)", ACCENT = "var(--accent)", FAINT = "var(--faint)";
  const HEIGHT = 240;
  const ROW_HEIGHT = 40;
  const LOG_FROM = 12; // a range this many times its lowest value is read better on a log scale
  const MOST_BARS = 40;

  const plain = (value) => value !== null && value !== undefined;
  const values = (rows, ...columns) => rows.flatMap((row) => columns.map((column) => row[column])).filter(plain);

  // --- axes ------------------------------------------------------------------------------------------------------

  function logTicks(low, high, most) {
    const steps = Math.log10(high / low) > most / 2.2 ? [1] : Math.log10(high / low) > most / 3.5 ? [1, 3] : [1, 2, 5];
    const found = [];
    for (let decade = Math.floor(Math.log10(low)); decade <= Math.ceil(Math.log10(high)); decade++) {
      for (const step of steps) found.push(step * 10 ** decade);
    }
    return found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  }

  /** A scale over these numbers, labelled with its unit: from zero, or logarithmic if they differ much. */
  function scaleOf(unit, numbers, { log = "auto", most = 5, top = null } = {}) {
    const highest = Math.max(...numbers, 0), lowest = Math.min(...numbers.filter((number) => number > 0));
    const isLog = Number.isFinite(lowest) && (log === true || (log === "auto" && highest / lowest > LOG_FROM));
    const tickFormat = (value) => units.tick(unit, value);
    if (isLog) {
      const domain = [lowest / 1.06, Math.max(highest, lowest * 1.2) * 1.06];
      let ticks = logTicks(...domain, most);
      if (ticks.length < 2) ticks = d3.ticks(...domain, 3);
      return { type: "log", domain, ticks, tickFormat };
    }
    const end = top ?? (highest || 1), step = units.step(unit, end);
    const ticks = d3.ticks(0, end / step, most).map((tick) => tick * step);
    const next = ticks.length > 1 ? ticks.at(-1) + (ticks[1] - ticks[0]) : end;
    if (top === null && end > ticks.at(-1) * 1.001) ticks.push(next);
    return { domain: [0, top ?? ticks.at(-1)], ticks, tickFormat };
  }

  function marginOf(scale) {
    const longest = Math.max(...scale.ticks.map((tick) => scale.tickFormat(tick).length));
    return 18 + 6.6 * longest;
  }

  // Ticks are given as text: of a tickFormat Plot leaves out what it thinks too many on a log scale.
  function axes(x, y, xLabel) {
    return [
      Plot.gridY(y.ticks, { stroke: "var(--grid)", strokeOpacity: 1 }),
      Plot.axisY(y.ticks, { text: y.tickFormat, tickSize: 0, label: null }),
      Plot.axisX(x.ticks, { text: x.tickFormat, tickSize: 4, label: xLabel, labelArrow: "none", labelAnchor: "center", color: "var(--muted)" }),
    ];
  }

  function frame(width, x, y, xLabel, marks, options = {}) {
    const { domain, type } = y;
    return Plot.plot({
      width,
      height: HEIGHT,
      marginLeft: marginOf(y),
      marginRight: 14,
      marginTop: 14,
      marginBottom: 42,
      style: { background: "none", color: "var(--muted)", fontFamily: "inherit", fontSize: "12px", overflow: "visible" },
      x: { type: x.type, base: x.base, domain: x.domain, label: null },
      y: { type, domain, label: null },
      marks: [...axes(x, y, xLabel), ...marks],
      ...options,
    });
  }

  /** A row of a table in words, for what the pointer, or a finger, is over. */
  function wordsOf(table, row) {
    return table.columns
      .map(([name, unit], column) => [name, unit, row[column]])
      .filter(([, , value]) => plain(value))
      .map(([name, unit, value]) => `${name}: ${units.format(unit, value)}`)
      .join("\n");
  }

  function tip(table, x, y, pointer = Plot.pointerX) {
    const words = (row) => wordsOf(table, row);
    const rows = table.rows.filter((row) => plain(y(row)));
    return [
      Plot.ruleX(rows, pointer({ x, stroke: "var(--muted)", strokeOpacity: 0.5, maxRadius: 60 })),
      Plot.tip(rows, pointer({ x, y, title: words, maxRadius: 60, lineWidth: 30, textPadding: 8, fontSize: 12, preferredAnchor: "bottom" })),
    ];
  }

  // --- latency ---------------------------------------------------------------------------------------------------

  function percentiles(table, width) {
    const beyond = Math.max(...table.rows.filter(([percent]) => percent < 100).map(([percent]) => percent), 0);
    const end = -Math.log10(1 - beyond / 100) + 0.25; // the slowest request has no place of its own on this axis
    const place = (percent) => (percent >= 100 ? end : -Math.log10(1 - percent / 100));
    const percents = width < 420 ? [50, 90, 99, 99.9, 99.99] : [0, 50, 90, 99, 99.9, 99.99];
    const named = percents.filter((percent) => ((end - place(percent)) / end) * width > 48); // beside "max"
    const x = {
      domain: [0, end],
      ticks: [...named.map(place), end],
      tickFormat: (at) => (at === end ? "max" : `p${Number((100 * (1 - 10 ** -at)).toPrecision(7))}`),
    };
    const y = scaleOf("duration", values(table.rows, 1, 2));
    const at = (row) => place(row[0]);
    return frame(width, x, y, table.axis, [
      ...(table.columns.length > 2
        ? [Plot.line(table.rows.filter((row) => plain(row[2])), { x: at, y: "2", stroke: OTHER, strokeWidth: 2, strokeDasharray: "5 4" })]
        : []),
      Plot.line(table.rows.filter((row) => plain(row[1])), { x: at, y: "1", stroke: PRESENT, strokeWidth: 2.25 }),
      ...tip(table, at, (row) => row[1] ?? row[2]),
    ]);
  }

  function histogram(table, width) {
    const x = scaleOf("duration", values(table.rows, 0, 1), { log: true, most: width < 420 ? 4 : 6 });
    x.domain = [table.rows[0][0], table.rows.at(-1)[1]];
    x.ticks = x.ticks.filter((tick) => tick >= x.domain[0] && tick <= x.domain[1]);
    const y = scaleOf("ratio", values(table.rows, 2, 3), { log: false, most: 4 });
    const middle = (row) => Math.sqrt(row[0] * row[1]);
    const steps = table.rows.flatMap((row) => [[row[0], row[3]], [row[1], row[3]]]);
    return frame(width, x, y, table.axis, [
      Plot.rectY(table.rows, { x1: "0", x2: "1", y: "2", fill: PRESENT, fillOpacity: 0.75, insetLeft: 0.25, insetRight: 0.25 }),
      ...(table.columns.length > 3 ? [Plot.line(steps, { x: "0", y: "1", stroke: OTHER, strokeWidth: 1.75 })] : []),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      ...tip(table, middle, (row) => Math.max(row[2], row[3] ?? 0)),
    ]);
  }

  // --- capacity --------------------------------------------------------------------------------------------------

  function inFlight(table) {
    const all = table.rows.map(([concurrency]) => concurrency);
    const powers = all.filter((number) => Number.isInteger(Math.log2(number)));
    const domain = [all[0] / 1.15, all.at(-1) * 1.15];
    return { type: "log", base: 2, domain, ticks: powers.length > 1 ? powers : all, tickFormat: d3.format(",d") };
  }

  function knee(table) {
    const at = table.marks?.NMRT;
    if (!at) return [];
    return [
      Plot.ruleX([at], { stroke: ACCENT, strokeWidth: 1.5, strokeDasharray: "2 3" }),
      Plot.text([at], {
        x: (number) => number,
        frameAnchor: "top",
        text: () => `NMRT at ${units.format("count", at)}`,
        fill: ACCENT,
        fontWeight: 600,
        dy: -18,
        textAnchor: "middle",
      }),
    ];
  }

  function ladder(table, width) {
    const x = inFlight(table);
    const kept = Object.entries(table.marks ?? {}).filter(([name]) => name !== "NMRT"); // rates that keep an objective
    const y = scaleOf("rate", [...values(table.rows, 1, 3), ...kept.map(([, rate]) => rate)], { log: false });
    return frame(width, x, y, "requests in flight", [
      ...knee(table),
      Plot.ruleY(kept, { y: ([, rate]) => rate, stroke: ACCENT, strokeWidth: 1.5 }),
      Plot.text(kept, {
        y: ([, rate]) => rate,
        frameAnchor: "left",
        dx: 4,
        text: ([name, rate]) => `${name} up to ${units.format("rate", rate)}`,
        dy: -7,
        ...{ fill: ACCENT, stroke: "var(--card)", strokeWidth: 4, lineWidth: width / 12, textOverflow: "ellipsis" },
      }),
      Plot.areaY(table.rows, { x: "0", y1: "2", y2: "3", fill: PRESENT, fillOpacity: 0.15 }),
      Plot.ruleX(table.rows, { x: "0", y1: "2", y2: "3", stroke: PRESENT, strokeWidth: 1.5 }),
      Plot.line(table.rows, { x: "0", y: "1", stroke: PRESENT, strokeWidth: 2.25 }),
      Plot.dot(table.rows, { x: "0", y: "1", r: 4, stroke: PRESENT, strokeWidth: 2, fill: (row) => (row[5] || row[4] > 0 ? "var(--card)" : PRESENT) }),
      ...tip(table, (row) => row[0], (row) => row[1]),
    ], { marginTop: 28 });
  }

  function latencies(table, width) {
    const x = inFlight(table);
    const y = scaleOf("duration", values(table.rows, 1));
    return frame(width, x, y, "requests in flight", [
      ...knee(table),
      Plot.line(table.rows, { x: "0", y: "1", stroke: PRESENT, strokeWidth: 2.25 }),
      Plot.dot(table.rows, { x: "0", y: "1", r: 4, fill: PRESENT }),
      ...tip(table, (row) => row[0], (row) => row[1]),
    ], { marginTop: 28 });
  }

  /** NMRT with its intervals, beside what as many replicas would have if nothing were lost. */
  function scaling(table, width) {
    const x = { ...inFlight(table), ticks: table.rows.map(([replicas]) => replicas) };
    const most = 1.5 * Math.max(...values(table.rows, 1, 4)); // a wider interval would flatten the curves: it is cut there
    const upper = (row) => Math.min(row[3], most);
    const y = scaleOf("rate", [...table.rows.map(upper), ...values(table.rows, 1, 4)], { log: false });
    return frame(width, x, y, "replicas", [
      Plot.line(table.rows, { x: "0", y: "4", stroke: OTHER, strokeWidth: 1.75, strokeDasharray: "5 4" }),
      Plot.ruleX(table.rows, { x: "0", y1: "2", y2: upper, stroke: PRESENT, strokeWidth: 6, strokeOpacity: 0.35, strokeLinecap: "round" }),
      Plot.line(table.rows, { x: "0", y: "1", stroke: PRESENT, strokeWidth: 2.25 }),
      Plot.dot(table.rows, { x: "0", y: "1", r: 4, fill: PRESENT }),
      ...tip(table, (row) => row[0], (row) => row[1]),
    ]);
  }

  /** Goodput beside what was offered: the distance between them is what was refused, late or failed. */
  function overload(table, width) {
    const offered = table.rows.map(([share]) => share), end = Math.max(...offered);
    const x = { domain: [0, end * 1.04], ticks: d3.ticks(0, end, width < 420 ? 4 : 6), tickFormat: (value) => units.tick("ratio", value) };
    const y = scaleOf("ratio", values(table.rows, 0, 1), { log: false });
    return frame(width, x, y, "offered load, of NMRT", [
      Plot.ruleX([1], { stroke: ACCENT, strokeWidth: 1.5, strokeDasharray: "2 3" }),
      Plot.text([1], { x: 1, frameAnchor: "top", text: () => "NMRT", fill: ACCENT, fontWeight: 600, dy: -18, textAnchor: "middle" }),
      Plot.line(table.rows, { x: "0", y: "0", stroke: OTHER, strokeWidth: 1.75, strokeDasharray: "5 4" }),
      Plot.areaY(table.rows, { x: "0", y: "1", fill: PRESENT, fillOpacity: 0.15 }),
      Plot.line(table.rows, { x: "0", y: "1", stroke: PRESENT, strokeWidth: 2.25 }),
      Plot.dot(table.rows, { x: "0", y: "1", r: 4, fill: PRESENT }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      ...tip(table, (row) => row[0], (row) => row[1]),
    ], { marginTop: 28 });
  }

  /** Goodput with its intervals; where the load is a rate, beside what all requests would be. */
  function goodput(table, width) {
    const offered = table.columns.length > 4, loads = values(table.rows, 0), end = Math.max(...loads) * 1.04;
    const unit = table.columns[0][1];
    const x = { domain: [0, end], ticks: d3.ticks(0, end, width < 420 ? 4 : 6), tickFormat: (value) => units.tick(unit, value) };
    const y = scaleOf("rate", values(table.rows, 1, 3, ...(offered ? [4] : [])), { log: false });
    return frame(width, x, y, table.columns[0][0], [
      ...(offered ? [Plot.line([[0, 0], [end, end]], { clip: true, stroke: OTHER, strokeWidth: 1.75, strokeDasharray: "5 4" })] : []),
      Plot.ruleX(table.rows, { x: "0", y1: "2", y2: "3", stroke: PRESENT, strokeWidth: 6, strokeOpacity: 0.35, strokeLinecap: "round" }),
      Plot.line(table.rows, { x: "0", y: "1", stroke: PRESENT, strokeWidth: 2.25 }),
      Plot.dot(table.rows, { x: "0", y: "1", r: 4, fill: PRESENT }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      ...tip(table, (row) => row[0], (row) => row[1]),
    ]);
  }

  // --- over time -------------------------------------------------------------------------------------------------

  /** Steps beside the load: a band from begin to end, and the name at its begin. */
  function stepMarks(table) {
    const spans = table.spans ?? [], end = table.rows.at(-1)[0];
    const names = { x: "0", frameAnchor: "top", text: "2", fill: ACCENT, fontWeight: 600, stroke: "var(--card)", strokeWidth: 4 };
    return [
      Plot.rectX(spans, { x1: "0", x2: "1", fill: ACCENT, fillOpacity: 0.14 }),
      Plot.ruleX(spans, { x: "0", stroke: ACCENT, strokeWidth: 1.5, strokeDasharray: "2 3" }),
      ...[["start", (span) => span[0] <= 0.7 * end], ["end", (span) => span[0] > 0.7 * end]].map(([textAnchor, fits]) =>
        Plot.text(spans.filter(fits), { ...names, textAnchor, dy: -14 }),
      ),
    ];
  }

  function overTime(table, width, { unit, curve = "linear", top = null, more = [] }) {
    const domain = [0, table.rows.at(-1)[0]];
    const rows = table.rows[0][0] > 0 ? [[0, ...table.rows[0].slice(1)], ...table.rows] : table.rows; // a value ends its block
    const x = { domain, ticks: d3.ticks(...domain, width < 420 ? 4 : 6), tickFormat: (value) => units.tick("seconds", value) };
    const y = scaleOf(unit, values(table.rows, 1, 2), { log: false, most: 4, top });
    return frame(width, x, y, "time in the window", [
      ...stepMarks(table),
      Plot.areaY(rows, { x: "0", y: "1", fill: PRESENT, fillOpacity: 0.15, curve }),
      ...(table.columns.length > 2
        ? [Plot.line(rows, { x: "0", y: "2", stroke: OTHER, strokeWidth: 1.75, strokeDasharray: "5 4", curve })]
        : []),
      Plot.line(rows, { x: "0", y: "1", stroke: PRESENT, strokeWidth: 2, curve }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      ...more,
      ...tip(table, (row) => row[0], (row) => row[1] ?? 0),
    ], table.spans ? { marginTop: 24 } : {});
  }

  /** The median and the longest latency of short pieces of the window, and where requests failed. */
  function courseOfLatency(table, width) {
    const failed = table.rows.filter((row) => row[3] > 0);
    const more = [Plot.dot(failed, { x: "0", y: 0, r: 4, fill: "var(--failed)" })];
    return overTime(table, width, { unit: "duration", more });
  }

  /** Memory over the requests, from its lowest value on, and the line of its growth. */
  function growth(table, width) {
    const end = table.rows.at(-1)[0], begin = table.rows[0][0];
    const x = { domain: [begin, end], ticks: d3.ticks(begin, end, width < 420 ? 3 : 6), tickFormat: (value) => units.tick("count", value) };
    const shown = values(table.rows, 1, 2), low = Math.min(...shown), high = Math.max(...shown);
    const room = 0.08 * Math.max(high - low, 0.02 * high), domain = [Math.max(low - room, 0), high + room];
    const step = units.step("size", high), ticks = d3.ticks(domain[0] / step, domain[1] / step, 4).map((tick) => tick * step);
    const y = { domain, ticks, tickFormat: (value) => units.tick("size", value) };
    return frame(width, x, y, "requests answered", [
      Plot.line(table.rows, { x: "0", y: "1", stroke: PRESENT, strokeWidth: 2 }),
      ...(table.columns.length > 2
        ? [Plot.line(table.rows.filter((row) => plain(row[2])), { x: "0", y: "2", stroke: ACCENT, strokeWidth: 1.75, strokeDasharray: "5 4" })]
        : []),
      ...tip(table, (row) => row[0], (row) => row[1]),
    ]);
  }

  const TONES = { worse: "var(--failed)", better: "var(--passed)", open: "var(--undecided)" };

  /** From what to what a course is drawn: a run that is far off, or a wide error, must not flatten all others. */
  function rangeOf(rows, unit) {
    const drawn = rows.map((row) => row[3]);
    const smooth = drawn.map((_, at) => d3.median(drawn.slice(Math.max(at - 1, 0), at + 2)));
    const shown = drawn.length > 2 ? [...smooth, ...values(rows, 6)] : drawn;
    const low = Math.min(...shown), high = Math.max(...shown);
    const room = 0.35 * Math.max(high - low, unit === "change" ? 0.04 : 0.04 * Math.abs(high), 1e-9);
    return [unit === "change" ? low - room : Math.max(low - room, 0), high + room];
  }

  /** Neighbouring rows with the same level, as lines. */
  function levelsOf(rows) {
    const found = [];
    for (const row of rows) {
      const last = found.at(-1);
      if (last && last.level === row[6] && last.end === row[0] - 1) last.end = row[0];
      else found.push({ level: row[6], start: row[0], end: row[0] });
    }
    return found.filter(({ level }) => plain(level));
  }

  /** What changed: a line between two runs, or a band for a change in small steps, with how much above. */
  function changeMarks(changes, begin, end) {
    const inside = (place) => Math.max(place, begin);
    const steps = changes.filter((one) => one.end - one.start < 2), drifts = changes.filter((one) => one.end - one.start >= 2);
    const middle = (one) => (inside(one.start) + one.end) / 2;
    const stroke = (one) => TONES[one.tone];
    const dashed = (one) => one.tone === "open";
    const sides = [[0, 0.12, "start"], [0.12, 0.88, "middle"], [0.88, 1.01, "end"]];
    const share = (one) => (middle(one) - begin) / (end - begin || 1);
    return [
      Plot.rectX(drifts, { x1: (one) => inside(one.start), x2: "end", fill: stroke, fillOpacity: 0.12 }),
      Plot.ruleX(steps.filter((one) => !dashed(one)), { x: middle, stroke, strokeWidth: 1.5 }),
      Plot.ruleX(steps.filter(dashed), { x: middle, stroke, strokeWidth: 1.5, strokeDasharray: "4 3" }),
      ...sides.flatMap(([from, to, textAnchor]) =>
        [0, 1].map((line) =>
          Plot.text(changes.filter((one, at) => at % 2 === line && share(one) >= from && share(one) < to), {
            ...{ x: middle, frameAnchor: "top", dy: -19 + 11 * line, text: "label", fill: stroke, fontWeight: 600, textAnchor },
          }),
        ),
      ),
    ];
  }

  /** A metric over many runs: points with their errors, the level of each stretch, borders, and what changed. */
  function course(table, width) {
    const { rows } = table, unit = table.columns[3][1];
    const begin = rows[0][0], end = rows.at(-1)[0], [low, high] = rangeOf(rows, unit);
    const step = units.step(unit, high), each = Math.ceil(rows.length / Math.max(2, Math.floor(width / 105)));
    const dated = new Map(rows.map((row) => [row[0], row[2]]));
    const x = {
      domain: [begin - 0.6, end + 0.6],
      ticks: rows.filter((_, at) => at % each === Math.floor(each / 2)).map((row) => row[0]),
      tickFormat: (at) => dated.get(at),
    };
    const y = {
      domain: [low, high],
      ticks: d3.ticks(low / step, high / step, 4).map((tick) => tick * step),
      tickFormat: (value) => units.tick(unit, value),
    };
    const inside = (value) => Math.min(Math.max(value, low), high);
    const shown = rows.filter((row) => inside(row[3]) === row[3]), off = rows.filter((row) => inside(row[3]) !== row[3]);
    const borders = (table.borders ?? []).filter(([at]) => at > begin);
    return frame(width, x, y, table.axis, [
      ...(unit === "change" && low < 0 && high > 0 ? [Plot.ruleY([0], { stroke: "var(--muted)" })] : []),
      Plot.ruleX(borders, { x: ([at]) => at - 0.5, stroke: "var(--muted)", strokeDasharray: "1 3", strokeWidth: 1.5 }),
      ...(borders.length > 6
        ? []
        : [Plot.text(borders, { x: ([at]) => at - 0.5, frameAnchor: "bottom", dx: 4, dy: -4, text: "1", textAnchor: "start", fill: "var(--muted)", stroke: "var(--card)", strokeWidth: 4, fontSize: 11 })]),
      ...changeMarks(table.changes ?? [], begin, end),
      Plot.ruleX(shown, { x: "0", y1: (row) => inside(row[4] ?? row[3]), y2: (row) => inside(row[5] ?? row[3]), stroke: PRESENT, strokeOpacity: rows.length > 120 ? 0.25 : 0.5, strokeWidth: 1.25 }),
      Plot.link(levelsOf(rows), { x1: ({ start }) => start - 0.4, x2: ({ end }) => end + 0.4, y1: "level", y2: "level", stroke: OTHER, strokeWidth: 2 }),
      Plot.dot(shown, { x: "0", y: "3", r: rows.length > 120 ? 1.75 : 2.75, fill: PRESENT }),
      ...[["▲", 4, off.filter((row) => row[3] > high)], ["▼", -4, off.filter((row) => row[3] < low)]].map(([sign, dy, some]) =>
        Plot.text(some, { x: "0", y: (row) => inside(row[3]), dy, text: () => sign, fill: PRESENT, fontSize: 10 }),
      ),
      ...tip(table, (row) => row[0], (row) => inside(row[3])),
    ], { marginTop: 30, height: HEIGHT + 16 });
  }

  /** Requests one below the other: the wait for the first token, then the answer with its chunks. */
  function waterfall(table, width) {
    const each = 15, half = 0.36, top = 6, bottom = 42;
    const end = Math.max(...table.rows.map((row) => row[1] + row[4]));
    const x = scaleOf("duration", [end], { log: false, most: width < 420 ? 3 : 6, top: end });
    const rows = table.rows.map((row, index) => ({ row, index, y1: index - half, y2: index + half, due: row[1], first: row[1] + (row[3] ?? row[4]), end: row[1] + row[4] }));
    const chunks = rows.flatMap(({ row, y1, y2, index }) => (table.points[index] ?? []).map((at) => ({ x: row[1] + at, y1, y2 })));
    const heads = rows.filter(({ row }) => plain(row[2])).map(({ row, y1, y2 }) => ({ x: row[1] + row[2], y1, y2 }));
    const words = ({ row }) => wordsOf(table, row);
    const bad = rows.filter(({ row }) => row[6] !== "answered");
    return Plot.plot({
      width,
      height: rows.length * each + top + bottom,
      marginLeft: 8,
      marginRight: 16,
      marginTop: top,
      marginBottom: bottom,
      style: { background: "none", color: "var(--muted)", fontFamily: "inherit", fontSize: "12px", overflow: "visible" },
      x: { domain: x.domain, label: null },
      y: { domain: [-0.5, rows.length - 0.5], reverse: true, axis: null },
      marks: [
        Plot.gridX(x.ticks, { stroke: "var(--grid)", strokeOpacity: 1 }),
        Plot.axisX(x.ticks, { text: x.tickFormat, tickSize: 4, label: "since the first of these was due", labelArrow: "none", labelAnchor: "center", color: "var(--muted)" }),
        Plot.rect(rows, { x1: "due", x2: "first", y1: "y1", y2: "y2", fill: OTHER, fillOpacity: 0.45 }),
        Plot.rect(rows, { x1: "first", x2: "end", y1: "y1", y2: "y2", fill: PRESENT, fillOpacity: 0.25 }),
        Plot.ruleX(chunks, { x: "x", y1: "y1", y2: "y2", stroke: PRESENT, strokeWidth: 1 }),
        Plot.ruleX(heads, { x: "x", y1: "y1", y2: "y2", stroke: "var(--text)", strokeWidth: 1.25 }),
        ...[[bad.filter((one) => one.end < 0.7 * end), "end", "start", 4], [bad.filter((one) => one.end >= 0.7 * end), "due", "end", -4]].map(([some, x, textAnchor, dx]) =>
          Plot.text(some, { x, y: "index", dx, textAnchor, text: ({ row }) => row[6], fill: ({ row }) => (row[6] === "cancelled" ? "var(--muted)" : "var(--failed)"), fontWeight: 600 }),
        ),
        Plot.tip(rows, Plot.pointerY({ x: "first", y: "index", title: words, maxRadius: 60, lineWidth: 30, textPadding: 8, fontSize: 12 })),
      ],
    });
  }

  // --- by name ---------------------------------------------------------------------------------------------------

  /** Rows with the name above its mark and the figure at the right: names are long, and phones narrow. */
  function named(table, width, x, marks, figure, top = 8) {
    const rows = table.rows.map((row, index) => [...row, index]);
    const index = table.columns.length;
    const y = (row) => row[index];
    const bottom = 30;
    const halo = { fill: "var(--text)", stroke: "var(--card)", strokeWidth: 4 };
    return Plot.plot({
      width,
      height: rows.length * ROW_HEIGHT + top + bottom,
      marginLeft: 8,
      marginRight: 16,
      marginTop: top,
      marginBottom: bottom,
      style: { background: "none", color: "var(--muted)", fontFamily: "inherit", fontSize: "12px", overflow: "visible" },
      x: { type: x.type, domain: x.domain, label: null },
      y: { domain: [-0.5, rows.length - 0.5], reverse: true, axis: null },
      marks: [
        Plot.gridX(x.ticks, { stroke: "var(--grid)", strokeOpacity: 1 }),
        Plot.axisX(x.ticks, { text: x.tickFormat, tickSize: 0, label: null }),
        ...marks(rows, y),
        Plot.text(rows, { y, frameAnchor: "left", dx: -8, dy: -11, text: (row) => row[0], ...halo, lineWidth: (width - 130) / 12, textOverflow: "ellipsis", lineAnchor: "middle" }),
        Plot.text(rows, { y, frameAnchor: "right", dx: 16, dy: -11, text: figure, ...halo, fontVariant: "tabular-nums" }),
      ],
    });
  }

  function intervals(table, width) {
    const unit = table.columns[1][1];
    const x = scaleOf(unit, values(table.rows, 1, 2, 3), { most: width < 520 ? 4 : 6 });
    if (x.type === "log") x.domain[0] = Math.min(...values(table.rows, 1, 2, 3).filter((number) => number > 0)) / 1.2;
    const inside = (value) => Math.max(value, x.domain[0]);
    return named(table, width, x, (rows, y) => [
      Plot.link(rows, { x1: (row) => inside(row[2]), x2: (row) => row[3], y1: y, y2: y, dy: 6, stroke: PRESENT, strokeWidth: 6, strokeOpacity: 0.35, strokeLinecap: "round" }),
      Plot.dot(rows, { x: (row) => inside(row[1]), y, dy: 6, r: 4.5, fill: PRESENT }),
    ], (row) => units.format(unit, row[1]));
  }

  const VERDICTS = { passed: "var(--passed)", failed: "var(--failed)", undecided: "var(--undecided)" };

  function changes(table, width) {
    const tolerance = table.marks?.tolerance;
    // One interval up to +2545 % would flatten all others: the axis ends at four times the median reach of a row.
    const reach = table.rows.map((row) => Math.max(...row.slice(1, 4).map(Math.abs)));
    const most = 4 * Math.max(d3.median(reach), tolerance ?? 0);
    const inside = (value) => Math.min(Math.max(value, -most), most);
    const shown = [...values(table.rows, 1, 2, 3).map(inside), 0, tolerance ?? 0], room = 0.06 * (Math.max(...shown) - Math.min(...shown));
    const domain = [Math.min(...shown) - room, Math.max(...shown) + room];
    const x = { domain, ticks: d3.ticks(...domain, width < 520 ? 4 : 6), tickFormat: (value) => units.tick("change", value) };
    const color = (row) => VERDICTS[row[4]];
    return named(table, width, x, (rows, y) => [
      Plot.ruleX([0], { stroke: "var(--muted)" }),
      ...(tolerance === undefined
        ? []
        : [
            Plot.ruleX([tolerance], { stroke: ACCENT, strokeWidth: 1.5, strokeDasharray: "2 3" }),
            Plot.text([tolerance], { x: (at) => at, frameAnchor: "top", dy: -16, text: () => `tolerance ${units.tick("ratio", tolerance)}`, fill: ACCENT, fontWeight: 600 }),
          ]),
      Plot.link(rows, { x1: (row) => inside(row[2]), x2: (row) => inside(row[3]), y1: y, y2: y, dy: 6, stroke: color, strokeWidth: 6, strokeOpacity: 0.4, strokeLinecap: "round" }),
      Plot.dot(rows.filter((row) => inside(row[1]) === row[1]), { x: "1", y, dy: 6, r: 4.5, fill: color }),
      Plot.text(rows.filter((row) => inside(row[3]) < row[3]), { x: most, y, dy: 6, dx: 4, text: () => "▶", fill: color }),
    ], (row) => `${units.format("ratio", Math.abs(row[1]))} ${row[1] < 0 ? "better" : "worse"}, ${row[4]}`, 26);
  }

  function parts(table, width) {
    const x = { domain: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1], tickFormat: (value) => units.tick("ratio", value) };
    return named(table, width, x, (rows, y) => [
      Plot.link(rows, { x1: 0, x2: 1, y1: y, y2: y, dy: 6, stroke: FAINT, strokeWidth: 10 }),
      Plot.link(rows.filter((row) => row[1] > 0), { x1: 0, x2: (row) => row[1], y1: y, y2: y, dy: 6, stroke: PRESENT, strokeWidth: 10 }),
    ], (row) => units.format("ratio", row[1]));
  }

  /** The parts of a latency as one bar for each side, the reference above the present. */
  function stacked(table, width) {
    const each = 62, half = 0.2, bottom = 30, kind = table.columns.length - 1;
    const sides = d3.range(1, kind).reverse().map((column, index) => {
      let end = 0;
      const parts = table.rows.filter((row) => row[column] > 0).map((row, place) => {
        const begin = end;
        end += row[column];
        return { label: row[0], x1: begin, x2: end, y1: index - half, y2: index + half, waits: row[kind] === "waits", opacity: place % 2 ? 0.55 : 0.35 };
      });
      return { name: table.columns[column][0], index, end, parts };
    });
    const longest = Math.max(...sides.map(({ end }) => end)), room = (part) => ((part.x2 - part.x1) / longest) * (width - 24);
    const x = scaleOf("duration", [longest], { log: false, most: width < 420 ? 3 : 6, top: longest });
    const parts = sides.flatMap((side) => side.parts.map((part) => ({ ...part, side })));
    const words = (part) => `${part.side.name}\n${part.label}: ${units.format("duration", part.x2 - part.x1)}`;
    const halo = { fill: "var(--text)", stroke: "var(--card)", strokeWidth: 4 };
    return Plot.plot({
      width,
      height: sides.length * each + bottom,
      marginLeft: 8,
      marginRight: 16,
      marginTop: 8,
      marginBottom: bottom,
      style: { background: "none", color: "var(--muted)", fontFamily: "inherit", fontSize: "12px", overflow: "visible" },
      x: { domain: x.domain, label: null },
      y: { domain: [-0.62, sides.length - 0.5], reverse: true, axis: null },
      marks: [
        Plot.gridX(x.ticks, { stroke: "var(--grid)", strokeOpacity: 1 }),
        Plot.axisX(x.ticks, { text: x.tickFormat, tickSize: 0, label: null }),
        Plot.rect(parts, { x1: "x1", x2: "x2", y1: "y1", y2: "y2", fill: ({ waits }) => (waits ? OTHER : PRESENT), fillOpacity: "opacity", stroke: "var(--card)" }),
        ...parts.filter((part) => room(part) > 64).map((part) =>
          Plot.text([part], { x: ({ x1, x2 }) => (x1 + x2) / 2, y: ({ side }) => side.index, text: "label", fill: "var(--text)", lineWidth: room(part) / 13, textOverflow: "ellipsis" }),
        ),
        Plot.text(sides, { y: ({ index }) => index - 0.36, frameAnchor: "left", text: "name", ...halo, lineWidth: (width - 130) / 12, textOverflow: "ellipsis" }),
        Plot.text(sides, { y: ({ index }) => index - 0.36, frameAnchor: "right", text: ({ end }) => units.format("duration", end), ...halo, fontVariant: "tabular-nums" }),
        Plot.tip(parts, Plot.pointer({ x: ({ x1, x2 }) => (x1 + x2) / 2, y: ({ side }) => side.index, title: words, maxRadius: 200, lineWidth: 30, textPadding: 8, fontSize: 12 })),
      ],
    });
  }

  function sizes(table, width) {
    const y = scaleOf("ratio", values(table.rows, 1), { log: false, most: 4 });
    const all = table.rows.map(([size]) => size);
    const domain = [Math.min(...all) - 0.6, Math.max(...all) + 0.6];
    const ticks = d3.ticks(...domain, width < 420 ? 5 : 8).filter(Number.isInteger);
    const x = { domain, ticks: ticks.length ? ticks : all, tickFormat: d3.format(",d") };
    const half = domain[1] - domain[0] > MOST_BARS * 3 ? 0.5 : 0.38;
    return frame(width, x, y, "inputs in a batch", [
      Plot.rectY(table.rows, { x1: (row) => row[0] - half, x2: (row) => row[0] + half, y: "1", fill: PRESENT, fillOpacity: 0.85 }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      ...tip(table, (row) => row[0], (row) => row[1]),
    ]);
  }

  const kinds = {
    percentiles,
    histogram,
    ladder,
    latencies,
    scaling,
    overload,
    load: (table, width) => overTime(table, width, { unit: "ratio", top: Math.max(1, ...values(table.rows, 1, 2)) }),
    memory: (table, width) => overTime(table, width, { unit: "size" }),
    tokens: (table, width) => overTime(table, width, { unit: "count", curve: "step-before" }),
    growth,
    course_of_latency: courseOfLatency,
    course,
    waterfall,
    goodput,
    depth: (table, width) => overTime(table, width, { unit: "count", curve: "step-after" }),
    changes,
    parts,
    stacked,
    sizes,
    intervals,
  };
  /** The series that a legend names: how they are drawn, which column holds them, and their name if it is another. */
  const legends = {
    percentiles: [["present", 1], ["other dashed", 2]],
    histogram: [["present block", 2], ["other", 3]],
    load: [["present", 1], ["other dashed", 2]],
    growth: [["present", 1], ["accent dashed", 2]],
    course_of_latency: [["present", 1], ["other dashed", 2]],
    course: [["present block", 3], ["other", 6]],
    scaling: [["present", 1], ["other dashed", 4]],
    overload: [["present", 1], ["other dashed", 0]],
    goodput: [["present", 1], ["other dashed", 4]],
    waterfall: [["other block", 3], ["present block", 4, "answer with its chunks"]],
    stacked: [["present block", 1, "worked on"], ["other block", 1, "waits"]],
  };

  return {
    draw: (table, width) => kinds[table.kind](table, width),
    legend: (table) => (legends[table.kind] ?? []).filter(([, column]) => column < table.columns.length).map(([how, column, name]) => [how, name ?? table.columns[column][0]]),
  };
})();
