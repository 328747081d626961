"use strict";
// The figures take the page's colours, and change with them.
const figures = JSON.parse(document.getElementById("figures").textContent);
const narrow = matchMedia("(max-width: 600px)").matches;

function coloured(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const changes = {
    "font.color": colour("--ink"),
    "hoverlabel.bgcolor": colour("--card"),
    "hoverlabel.bordercolor": colour("--line"),
    "hoverlabel.font.color": colour("--ink"),
  };
  for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    changes[axis + ".gridcolor"] = changes[axis + ".linecolor"] = colour("--grid");
  }
  return changes;
}

const drawn = [];
for (const place of document.querySelectorAll("[data-figure]")) {
  const { data, layout } = figures[place.dataset.figure];
  if (narrow) {
    layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 48), r: 12 };
    layout.font.size = 11;
    layout.height = Math.min(layout.height, 340);
  }
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  drawn.push(
    Plotly.newPlot(place, data, layout, options)
      .then(() => Plotly.relayout(place, coloured(layout)))
  );
}
Promise.all(drawn).then(() => document.documentElement.setAttribute("data-drawn", ""));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const place of document.querySelectorAll("[data-figure]")) {
    Plotly.relayout(place, coloured(figures[place.dataset.figure].layout));
  }
});
