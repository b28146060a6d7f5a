"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const partners = new Map(Object.entries(read("palette")));
  const template = read("template");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 760px)");
  let printing = false;

  // The partner of a light page's colour; anything else stays as it is.
  function darkened(text) {
    const faded = /^rgba\((\d+),(\d+),(\d+),([\d.]+)\)$/.exec(text);
    if (!faded) return partners.get(text) ?? text;
    const hex = (number) => Math.round(Number(number)).toString(16).padStart(2, "0");
    const partner = partners.get("#" + faded.slice(1, 4).map(hex).join(""));
    return partner === undefined ? text : partner + hex(255 * faded[4]);
  }

  function repainted(node) {
    if (typeof node === "string") return darkened(node);
    if (Array.isArray(node)) return typeof node[0] === "number" ? node : node.map(repainted);
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, repainted(v)]));
    }
    return node;
  }

  // A copy, which Plotly may write into: as it is on a light page and in print.
  const coloured = (node) =>
    dark.matches && !printing ? repainted(node) : structuredClone(node);

  function layoutOf(spec) {
    // On a phone a drag scrolls the page.
    const dragmode = narrow.matches ? false : "zoom";
    const layout = coloured(spec.layout);
    if (narrow.matches) {
      for (const [name, axis] of Object.entries(layout)) {
        // Beside long labels there is little room below the bars.
        if (name.startsWith("xaxis") && axis.title?.text) axis.title.text = lines(axis.title.text, 22);
      }
    }
    return { ...layout, template: coloured(template), dragmode };
  }

  function lines(text, longest) {
    const broken = [""];
    for (const word of text.split(" ")) {
      if (broken.at(-1) && broken.at(-1).length + word.length >= longest) broken.push("");
      broken.push(`${broken.pop()} ${word}`.trim());
    }
    return broken.join("<br>");
  }

  const plots = [...document.querySelectorAll("script.spec")].map((script) => ({
    div: document.getElementById(script.dataset.for),
    spec: JSON.parse(script.textContent),
    height: parseFloat(document.getElementById(script.dataset.for).style.height),
  }));
  // What figures have room for without getting higher: a legend of two lines.
  const LEGEND_PX = 44;
  const LINE_PX = 20;

  if (typeof Plotly === "undefined") {
    const library = document.querySelector("script[src]")?.getAttribute("src");
    for (const { div } of plots.splice(0)) {
      div.textContent =
        `Figures need the file ${library}, which lies beside all runs: copy it to where this page ` +
        "was moved to. The page of a training run is also written anew by repast-dist " +
        "study=report study.run=RUN_DIR, with study.standalone=true so that it can be sent.";
    }
  }

  // Of labels that would lie on each other along an axis, its ends stay, and what then has room.
  function spaced(div, spec) {
    const axes = new Map();
    (spec.layout.annotations ?? []).forEach(({ name, x, y }, number) => {
      const node = div.querySelector(`.annotation[data-index="${number}"]`);
      if (name === "tick" && node) axes.set(y, [...(axes.get(y) ?? []), { x, node }]);
    });
    for (const ticks of axes.values()) {
      ticks.sort((a, b) => a.x - b.x);
      const kept = [];
      for (const { node } of new Set([ticks[0], ticks.at(-1), ...ticks])) {
        node.style.display = "";
        const { left, right } = node.getBoundingClientRect();
        const free = kept.every((other) => right < other.left || left > other.right);
        if (free) kept.push({ left, right });
        else node.style.display = "none";
      }
    }
  }

  function draw() {
    for (const { div, spec, height } of plots) {
      const config = {
        responsive: true, displaylogo: false,
        displayModeBar: !narrow.matches, modeBarButtons: [["toImage"]],
      };
      // High enough for a name in each line: Plotly refuses a figure that is all legend.
      const names = spec.layout.showlegend ? spec.data.length : 0;
      div.style.height = `${height + (names > 2 ? LINE_PX * names : 0)}px`;
      Plotly.react(div, coloured(spec.data), layoutOf(spec), config);
      const legend = div.querySelector(".legend .bg")?.getBoundingClientRect().height ?? 0;
      const wanted = `${height + Math.max(0, legend - LEGEND_PX)}px`;
      if (div.style.height !== wanted) {
        div.style.height = wanted;
        Plotly.relayout(div, { autosize: true });
      }
    }
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("n");
      const key = (row) => {
        const cell = row.cells[column];
        return numeric ? parseFloat(cell.dataset.v) : cell.textContent;
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (!numeric) return x.localeCompare(y, undefined, { numeric: true }) * (down ? -1 : 1);
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return (x - y) * (down ? -1 : 1);
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    }));
  }

  // A field above a long table keeps the rows that hold all words typed into it.
  function searchable(table) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 12) return;
    const field = Object.assign(document.createElement("input"), {
      type: "search", placeholder: "Search", className: "search",
    });
    field.setAttribute("aria-label", "Search the table");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      });
    });
    table.closest(".scroll").before(field);
  }

  // A click on a mark that stands for a row of a table shows the row below the plot.
  function chosen(div, row) {
    if (!row) return;
    const figure = div.closest("figure");
    figure.querySelector(".chosen")?.remove();
    const list = document.createElement("dl");
    list.className = "chosen";
    const heads = row.closest("table").tHead.rows[0].cells;
    [...row.cells].forEach((cell, column) => {
      const pair = document.createElement("div");
      for (const [tag, text] of [["dt", heads[column].textContent], ["dd", cell.textContent]]) {
        pair.append(Object.assign(document.createElement(tag), { textContent: text }));
      }
      list.append(pair);
    });
    div.after(list);
  }

  draw();
  plots.forEach(({ div, spec }) => {
    spaced(div, spec);
    div.on("plotly_afterplot", () => spaced(div, spec));
  });
  plots.forEach(({ div }) => div.on("plotly_click", ({ points }) => {
    const name = points[0].customdata;
    if (typeof name === "string") chosen(div, document.getElementById(name));
  }));
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("table.sortable").forEach(searchable);
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  let opened = [];
  window.addEventListener("beforeprint", () => {
    printing = true;
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => { details.open = true; });
    draw();
    plots.forEach(({ div }) => Plotly.Plots.resize(div));
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    opened.forEach((details) => { details.open = false; });
    draw();
    plots.forEach(({ div }) => Plotly.Plots.resize(div));
  });
  // What goes on is read anew, but not while somebody searches or sorts it.
  const refresh = Number(document.documentElement.dataset.refresh ?? 0);
  if (refresh) {
    const busy = () => document.querySelector("[aria-sort]") ||
      [...document.querySelectorAll("input")].some((field) => field.value);
    setInterval(() => { if (!busy()) location.reload(); }, 1000 * refresh);
  }
  document.documentElement.dataset.ready = String(plots.length);
})();
