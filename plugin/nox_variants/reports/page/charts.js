// What Chart.js is told: sizes per program, and a variant's history. Text goes into the page as text
// only: nothing here makes HTML of strings.
/* global Chart */
/* exported pageCharts */
const pageCharts = (data, open) => {
  "use strict";

  const BAD = new Set(["failed", "xpassed", "error"]);
  const POINTS = {
    passed: "circle", xfailed: "rect", failed: "triangle", xpassed: "star", error: "crossRot", skipped: "dash",
  };

  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // --- numbers as text ---------------------------------------------------------------------------

  const UNITS = ["B", "kB", "MB", "GB", "TB"];

  function scaled(value) {
    let at = 0;
    while (at < UNITS.length - 1 && Math.abs(value) / 1000 ** at >= 999.5) at += 1;
    return [1000 ** at, UNITS[at]];
  }

  function size(value) {
    const [unit, name] = scaled(value);
    return `${Number((value / unit).toPrecision(3))} ${name}`;
  }

  const time = (seconds) => (seconds < 1 ? `${Number((seconds * 1000).toPrecision(3))} ms` : `${Number(seconds.toPrecision(3))} s`);

  // --- charts ------------------------------------------------------------------------------------

  const charts = new Map();
  let drawn = "", printing = false;

  function colours() {
    const probe = document.body.appendChild(document.createElement("span"));
    const found = {};
    for (const name of [...Object.keys(POINTS), "text", "muted", "line", "strong-line", "accent", "surface"]) {
      probe.style.color = `var(--${name})`;
      found[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    return found;
  }

  function draw(canvas, config) {
    charts.get(canvas)?.destroy();
    charts.set(canvas, new Chart(canvas, config));
  }

  function basics(colour) {
    return {
      animation: false, maintainAspectRatio: false, responsive: true, color: colour.muted,
      devicePixelRatio: printing ? 2 : undefined,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12 },
    };
  }

  function drawSizes(shown) {
    const key = `${[...shown]}`;
    if (key === drawn) return;
    drawn = key;
    for (const figure of all(".sizes")) {
      const mine = [...shown].map((number) => ({ number, ...data.entries[number] }))
        .filter((entry) => entry.program === figure.dataset.program);
      figure.hidden = mine.length === 0;
      const sized = mine.filter((entry) => entry.content), canvas = one("canvas", figure);
      canvas.parentElement.hidden = sized.length === 0;
      if (sized.length) drawProgram(canvas, sized);
    }
  }

  function label(entry, narrow) {
    const cut = (text) => (text.length > 30 ? `${text.slice(0, 29)}…` : text);
    const [first, ...rest] = entry.short.split(", ");
    return narrow ? [first, rest.join(", ")].filter(Boolean).map((text) => (text.length > 18 ? `${text.slice(0, 17)}…` : text))
      : cut(entry.short);
  }

  // Chart.js gives the labels of two axes a quarter of the width each, and cuts off what is longer.
  function wide(labels, most) {
    return (scale) => {
      scale.ctx.font = `12px ${getComputedStyle(document.body).fontFamily}`;
      const widths = labels.flat().map((text) => scale.ctx.measureText(text).width);
      scale.width = Math.min(scale.chart.width * most, Math.max(...widths) + 14);
    };
  }

  function drawProgram(canvas, sized) {
    const colour = colours(), narrow = !printing && canvas.parentElement.parentElement.clientWidth < 440;
    const baseline = sized[0].baseline, least = Math.min(...sized.map((entry) => entry.content), baseline ?? Infinity);
    canvas.parentElement.style.height = `${sized.length * (narrow ? 36 : 25) + 44}px`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Sizes of ${sized[0].program}: `
      + sized.map((entry) => [entry.short, entry.shown, entry.factor, entry.outcome].filter(Boolean).join(" ")).join("; "));
    const shades = sized.map((entry) => colour[entry.outcome]);
    const labels = sized.map((entry) => label(entry, narrow));
    const values = sized.map((entry) => (narrow || !entry.factor ? entry.shown : `${entry.shown}  ${entry.factor}`));
    const grid = { color: colour.line, drawTicks: false }, ticks = { color: colour.text, autoSkip: false, padding: 6 };
    draw(canvas, {
      data: {
        labels,
        datasets: [
          {
            type: "line", role: "size", label: "content", data: sized.map((entry) => entry.content), showLine: false,
            pointStyle: sized.map((entry) => POINTS[entry.outcome]), pointRadius: 6, pointHoverRadius: 8,
            pointBackgroundColor: shades, pointBorderColor: shades, pointBorderWidth: 2, order: 1,
          },
          {
            type: "line", label: "baseline", data: sized.map(() => baseline), pointRadius: 0, pointHitRadius: 0,
            borderColor: colour["strong-line"], borderWidth: 1.5, borderDash: [5, 4], hidden: !baseline, order: 2,
          },
          {
            type: "bar", label: "saved", data: sized.map((entry) => (baseline ? [entry.content, baseline] : null)),
            backgroundColor: shades.map((shade) => shade.replace("rgb(", "rgba(").replace(")", ", 0.28)")),
            barThickness: 5, borderRadius: 3, borderSkipped: false, grouped: false, order: 3,
          },
        ],
      },
      options: {
        ...basics(colour), indexAxis: "y", layout: { autoPadding: false },
        interaction: { mode: "index", axis: "y", intersect: false },
        onClick: (event, elements) => { if (elements.length) open(sized[elements[0].index].variant); },
        scales: {
          x: {
            type: "logarithmic", min: 10 ** Math.floor(Math.log10(least * 0.9)), grid, border: { display: false },
            ticks: { color: colour.muted, callback: (value) => (Number.isInteger(Math.log10(value)) ? size(value) : null), maxRotation: 0 },
          },
          y: { offset: true, grid: { display: false }, border: { display: false }, ticks, afterFit: wide(labels, 0.45) },
          y2: {
            type: "category", position: "right", offset: true, grid: { display: false }, border: { display: false }, ticks,
            labels: values, afterFit: wide(values, 0.45),
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            filter: (item) => item.dataset.role === "size",
            callbacks: {
              title: ([item]) => (item ? sized[item.dataIndex].variant : ""),
              label: ({ dataIndex: at }) => [sized[at].shown, sized[at].factor && `${sized[at].factor} smaller than the baseline`,
                sized[at].outcome, sized[at].cause].filter(Boolean).join(" · "),
            },
          },
        },
      },
    });
  }

  // --- history: see packed.py for the form of its columns ----------------------------------------

  const MEASURES = [
    ["content", "Content", 1, size], ["above_base", "Above the base", 1, size],
    ["build", "Build time", 1 / 1000, time], ["startup", "Start-up time", 1 / 1e6, time],
    ["memory", "Peak memory", 1024, size],
  ];

  function unpack(text) {
    const found = [];
    let last = 0;
    for (const token of text ? text.split(" ") : []) {
      const [step, times = 1] = token.split("x");
      for (let each = 0; each < times; each += 1) {
        if (step !== "_") last += Number(step);
        found.push(step === "_" ? null : last);
      }
    }
    return found;
  }

  function past(variant) {
    const [, , ...texts] = data.variants.find(([name]) => name === variant);
    const columns = texts.map(unpack), word = (number) => (number === null ? "" : data.words[number]);
    return columns[0].map((run, at) => {
      const values = Object.fromEntries(data.columns.map((name, column) => [name, columns[column][at]]));
      const [id, started] = data.runs[run];
      for (const [name, , factor] of MEASURES) if (values[name] !== null) values[name] *= factor;
      for (const name of ["outcome", "cause", "source", "engine", "platform"]) values[name] = word(values[name]);
      return { ...values, id, day: started.slice(0, 10), started: started.slice(0, 16).replace("T", " ") };
    });
  }

  function drawHistory() {
    const select = one("#variant");
    if (!select) return;
    const points = past(select.value), counts = Map.groupBy(points, (point) => point.outcome), last = points.at(-1);
    one("#history-said").textContent = `${points.length} ${points.length === 1 ? "run" : "runs"}, ${points[0].day} to ${last.day}: `
      + [...counts].map(([outcome, mine]) => `${mine.length} ${outcome}`).join(", ") + `. Last: ${last.outcome}${last.cause && ` (${last.cause})`}.`;
    for (const canvas of all("#trends canvas")) { charts.get(canvas)?.destroy(); charts.delete(canvas); }
    one("#trends").replaceChildren();
    strip(points);
    const own = points.some((point) => point.above_base !== point.content);
    for (const [name, title, , write] of MEASURES) {
      if (points.every((point) => point[name] === null) || (name === "above_base" && !own)) continue;
      line(points, name, name === "content" && !own ? "Content, all of it above the base" : title, write);
    }
    if (one("#history-data").open) tabulate();
  }

  function figure(title, kind, said) {
    const made = one("#trends").appendChild(document.createElement("figure"));
    made.className = kind;
    made.appendChild(document.createElement("figcaption")).textContent = title;
    const box = made.appendChild(document.createElement("div"));
    box.className = "canvas";
    const canvas = box.appendChild(document.createElement("canvas"));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title} of ${one("#variant").value}: ${said}`);
    return canvas;
  }

  function tooltip(points, text) {
    return {
      callbacks: {
        title: ([item]) => points[item.dataIndex].started,
        label: (item) => text(points[item.dataIndex]),
        footer: ([item]) => {
          const { outcome, cause, source, engine } = points[item.dataIndex];
          return [[outcome, cause].filter(Boolean).join(": "), [engine, source].filter(Boolean).join(", ")];
        },
      },
    };
  }

  function days(colour) {
    return {
      grid: { display: false }, border: { color: colour.line },
      ticks: { color: colour.muted, maxRotation: 0, autoSkip: true, autoSkipPadding: 24, maxTicksLimit: 7 },
    };
  }

  function strip(points) {
    const colour = colours(), said = `${one("#history-said").textContent}`;
    draw(figure("Outcome", "strip", said), {
      type: "bar",
      data: {
        labels: points.map((point) => point.day),
        datasets: [{
          data: points.map((point) => (BAD.has(point.outcome) ? 1 : 0.55)), barPercentage: points.length > 120 ? 1 : 0.85,
          categoryPercentage: 1, backgroundColor: points.map((point) => colour[point.outcome] ?? colour.muted),
        }],
      },
      options: {
        ...basics(colour), interaction: { mode: "index", intersect: false },
        scales: { x: days(colour), y: { display: false, min: 0, max: 1 } },
        plugins: { legend: { display: false }, tooltip: tooltip(points, () => "") },
      },
    });
  }

  function tick(value, _, ticks) {
    const [unit, name] = scaled(Math.max(...ticks.map((each) => Math.abs(each.value))));
    const step = ticks.length > 1 ? Math.abs(ticks[1].value - ticks[0].value) / unit : 1;
    return `${(value / unit).toFixed(Math.min(6, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))))} ${name}`;
  }

  function line(points, name, title, write) {
    const colour = colours(), few = points.length <= 90;
    const same = (a, b) => ["source", "engine", "platform"].every((key) => points[a][key] === points[b][key]);
    const known = points.filter((point) => point[name] !== null);
    const changed = (at) => at > 0 && points[at].outcome !== points[at - 1].outcome;
    const said = `${known.length} values from ${write(Math.min(...known.map((point) => point[name])))}`
      + ` to ${write(Math.max(...known.map((point) => point[name])))}, the last ${write(known.at(-1)[name])}`;
    const shades = points.map((point) => colour[point.outcome] ?? colour.muted);
    draw(figure(title, "trend", said), {
      type: "line",
      data: {
        labels: points.map((point) => point.day),
        datasets: [{
          data: points.map((point) => point[name]), borderColor: colour["strong-line"], borderWidth: 1.5, spanGaps: true,
          pointStyle: points.map((point) => POINTS[point.outcome]),
          pointRadius: points.map((point, at) => {
            if (name === "build" && point.build_cached) return 0;
            return changed(at) || BAD.has(point.outcome) ? 4.5 : few ? 2.5 : at === points.length - 1 ? 3.5 : 0;
          }),
          pointHoverRadius: 6, pointBackgroundColor: shades, pointBorderColor: shades,
          segment: { borderDash: ({ p0DataIndex, p1DataIndex }) => (same(p0DataIndex, p1DataIndex) ? undefined : [3, 4]) },
        }],
      },
      options: {
        ...basics(colour), interaction: { mode: "index", intersect: false },
        scales: {
          x: days(colour),
          y: {
            grace: "12%", grid: { color: colour.line, drawTicks: false }, border: { display: false },
            beginAtZero: write === time,
            ticks: { color: colour.muted, maxTicksLimit: 5, padding: 6, callback: write === size ? tick : (value) => time(value) },
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: tooltip(points, (point) => write(point[name]) + (name === "build" && point.build_cached ? " (from the cache)" : "")),
        },
      },
    });
  }

  function tabulate() {
    if (!one("#history-data").open) return;
    const points = past(one("#variant").value).reverse();
    const used = MEASURES.filter(([name]) => points.some((point) => point[name] !== null));
    const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    const add = (row, text, number, tag = "td") => {
      const cell = row.appendChild(document.createElement(tag));
      cell.textContent = text;
      if (number) cell.className = "number";
      if (tag === "th") cell.scope = "col";
    };
    for (const text of ["started", "outcome", "cause"]) add(head, text, false, "th");
    for (const [, title] of used) add(head, title, true, "th");
    for (const point of points) {
      const row = body.insertRow();
      for (const text of [point.started, point.outcome, point.cause]) add(row, text);
      for (const [name, , , write] of used) add(row, point[name] === null ? "" : write(point[name]), true);
    }
    one("#history-data .scroll").replaceChildren(table);
  }

  return {
    drawSizes, drawHistory, tabulate,
    forget: () => { drawn = ""; },
    print: (on) => { printing = on; },
    resize: (width) => { for (const chart of charts.values()) if (chart.width) chart.resize(width, chart.height); },
  };
};
