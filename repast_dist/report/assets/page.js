"use strict";
(() => {
  const palette = JSON.parse(document.getElementById("palette").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 760px)");
  let printing = false;

  const theme = () => palette[dark.matches && !printing ? "dark" : "light"];

  // Replace colour tokens ("@forward", "@ink", "@soi/0.2") by the theme's colours, in a copy.
  function coloured(node, colours) {
    if (typeof node === "string") {
      const [, name, alpha] = /^@(\w+)(?:\/([\d.]+))?$/.exec(node) || [];
      if (!(name in colours)) return node;
      const byte = Math.round(255 * Number(alpha)).toString(16).padStart(2, "0");
      return alpha === undefined ? colours[name] : colours[name] + byte;
    }
    if (Array.isArray(node)) {
      return typeof node[0] === "number" ? node : node.map((item) => coloured(item, colours));
    }
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, coloured(v, colours)]));
    }
    return node;
  }

  function merged(base, extra) {
    const result = { ...base };
    for (const [key, value] of Object.entries(extra)) {
      const both = value && typeof value === "object" && !Array.isArray(value) && result[key];
      result[key] = both && typeof both === "object" ? merged(both, value) : value;
    }
    return result;
  }

  function layoutOf(spec) {
    const axis = {
      gridcolor: "@grid", linecolor: "@grid", zerolinecolor: "@grid", automargin: true,
      tickfont: { color: "@muted" }, title: { font: { color: "@muted", size: 13 }, standoff: 8 },
    };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif",
              size: 12, color: "@ink" },
      margin: { l: 48, r: 14, t: 8, b: 40 }, hovermode: "closest", showlegend: false,
      hoverlabel: { bgcolor: "@paper", bordercolor: "@grid", font: { color: "@ink" } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal",
                font: { color: "@ink" } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "@muted", activecolor: "@ink" },
      // On a phone a drag scrolls the page.
      dragmode: narrow.matches ? false : "zoom",
    };
    for (const key of Object.keys(spec.layout)) {
      if (/^[xy]axis\d*$/.test(key)) base[key] = axis;
    }
    base.xaxis = base.yaxis = axis;
    return coloured(merged(base, spec.layout), theme());
  }

  const plots = [...document.querySelectorAll("script.spec")].map((script) => ({
    div: document.getElementById(script.dataset.for),
    spec: JSON.parse(script.textContent),
  }));

  function draw() {
    for (const { div, spec } of plots) {
      const config = {
        responsive: true, displaylogo: false,
        displayModeBar: !narrow.matches, modeBarButtons: [["toImage"]],
      };
      Plotly.react(div, coloured(spec.data, theme()), layoutOf(spec), config);
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

  draw();
  document.querySelectorAll("table.sortable").forEach(sortable);
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
  document.documentElement.dataset.ready = String(plots.length);
})();
