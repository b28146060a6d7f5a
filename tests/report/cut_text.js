// The texts of a page that cannot be read whole: one line each.
(() => {
  const found = [];
  const tell = (why, node) => {
    const text = node.textContent.replace(/\s+/g, " ").trim().slice(0, 60);
    const near = node.closest("figure, .card, header, section")?.querySelector("h3, summary, h2, h1");
    found.push(`${why}: "${text}" in "${near?.textContent.slice(0, 60) ?? ""}"`);
  };
  const scrolls = (value) => value === "auto" || value === "scroll";
  const clips = (value) => value === "hidden" || value === "clip";
  const shown = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  if (document.documentElement.scrollWidth > window.innerWidth) {
    found.push(`the page scrolls sideways: ${document.documentElement.scrollWidth} px`);
  }
  for (const node of document.querySelectorAll("body *:not(svg, svg *)")) {
    if (!shown(node) || !node.textContent.trim() || node.matches("script, style")) continue;
    const style = getComputedStyle(node);
    const wide = node.scrollWidth > node.clientWidth + 1 && style.display !== "inline";
    const high = node.scrollHeight > node.clientHeight + 1 && style.display !== "inline";
    if (wide && clips(style.overflowX)) tell("cut at the right", node);
    if (high && clips(style.overflowY)) tell("cut at the bottom", node);
    const sign = style.backgroundImage !== "none" || style.boxShadow !== "none";
    if ((wide && scrolls(style.overflowX)) || (high && scrolls(style.overflowY))) {
      if (!sign) tell("nothing says that it scrolls", node);
    } else if (wide && !node.closest(".scroll, pre, .plot") && node.clientWidth > 0) {
      tell("wider than its box", node);
    }
  }
  const legendOf = (text) => text.closest(".legend");
  for (const plot of document.querySelectorAll(".plot")) {
    if (!shown(plot)) continue;
    const box = plot.getBoundingClientRect();
    for (const bar of plot.querySelectorAll(".legend .scrollbar")) {
      if (bar.getBoundingClientRect().height > 0) tell("a legend scrolls", bar.closest(".legend"));
    }
    for (const text of plot.querySelectorAll(".main-svg text")) {
      if (!text.textContent.trim() || !shown(text) || text.closest("[display=none], defs")) continue;
      // What a mark has no room for is in its hover text.
      if (text.closest(".trace.treemap, .treemaplayer, .icicle")) continue;
      const own = text.getBoundingClientRect();
      if (!own.width || (legendOf(text) && getComputedStyle(text).opacity === "0")) continue;
      const beyond = Math.max(
        box.left - own.left, own.right - box.right, box.top - own.top, own.bottom - box.bottom);
      if (beyond > 1.5) tell(`beyond its figure by ${Math.round(beyond)} px`, text);
    }
  }
  return found;
})()
