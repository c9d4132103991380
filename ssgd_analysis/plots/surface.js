"use strict";
const data = JSON.parse(document.getElementById("content").textContent);
const plane = data.beta !== null;
const colourOf = (checkpoint) => data.checkpoints[checkpoint].colour;
const BESIDE = 8; // the most surfaces side by side: a browser has few contexts of WebGL
const SYMBOLS = ["circle", "square", "diamond", "cross", "x"]; // those that 3-D has too
const OVER = "#ff4b1f"; // marks and path: stands out from all colours of the scale
const LINES = 20; // contours over the whole scale
const CONFIG = { responsive: true, displaylogo: false };
const ALL = -1;

// What is shown; "all" only where lines can share one plot.
const state = {
  checkpoint: plane || data.checkpoints.length === 1 ? 0 : ALL,
  repeat: plane || data.repeats.length === 1 ? 0 : ALL,
  layer: plane || data.layers.length === 1 ? 0 : ALL,
  log: data.log,
};

const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(5))));
const transposed = (rows) => rows[0].map((_, j) => rows.map((row) => row[j]));
const chosen = (wanted, index) => wanted === ALL || wanted === index;
const scaled = (value) => {
  if (value === null || value === undefined) return null;
  if (!state.log) return value;
  return value > 0 ? Math.log10(value) : null;
};
const axisTitle = (name, key) => name + (data.units[key] ? ` (${data.units[key]})` : "");
const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

/** Round losses on a logarithmic scale: places (powers of ten) and texts. */
function logTicks([low, high]) {
  let places = [];
  const decades = high - low;
  const leads = decades > 4 ? [1] : decades > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 4, 5, 7];
  const every = Math.max(1, Math.ceil(decades / 8));
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    if (power % every) continue;
    places.push(...leads.map((lead) => power + Math.log10(lead)));
  }
  places = places.filter((place) => place >= low && place <= high);
  if (places.length < 3) places = [0, 1, 2, 3, 4].map((i) => low + ((high - low) * i) / 4);
  return { tickvals: places, ticktext: places.map((place) => String(Number((10 ** place).toPrecision(3)))) };
}

/** Lines of text for one point. */
function pointText(grid, i, j) {
  const at = (rows) => (rows === undefined ? null : plane ? rows[i][j] : rows[i]);
  const lines = [`α ${number(data.alpha[i])}` + (plane ? `, β ${number(data.beta[j])}` : "")];
  for (const layer of data.layers) {
    lines.push(`${layer.name} loss ${number(at(grid.values[layer.loss]))}`);
    const accuracy = at(grid.values[layer.accuracy]);
    if (accuracy !== null) lines.push(`${layer.name} accuracy ${(100 * accuracy).toFixed(2)}%`);
  }
  if (grid.values.measured && !at(grid.values.measured)) lines.push("(interpolated)");
  return lines.join("<br>");
}

function markText(mark) {
  const lines = [`<b>${escaped(mark.name)}</b>`, `loss ${number(mark.loss)}`];
  if (mark.accuracy !== null && mark.accuracy !== undefined) lines.push(`accuracy ${(100 * mark.accuracy).toFixed(2)}%`);
  return lines.join("<br>");
}

const pathText = (path) =>
  path.steps.map((step, k) => {
    const lines = [`step ${step}`];
    if (path.loss) lines.push(`its own loss ${number(path.loss[k])}`);
    if (path.outside) lines.push(`outside by ${number(path.outside[k])}`);
    return lines.join("<br>");
  });

/** The loss of a surface anywhere in its plane, between grid points bilinear. */
function heightAt(rows, x, y) {
  const cell = (axis, value) => {
    const last = axis.length - 2;
    let k = axis.findIndex((edge, index) => index > 0 && value <= edge) - 1;
    if (k < 0) k = value <= axis[0] ? 0 : last;
    return [k, (value - axis[k]) / (axis[k + 1] - axis[k])];
  };
  const [i, s] = cell(data.alpha, x);
  const [j, t] = cell(data.beta, y);
  const corners = [rows[i][j], rows[i + 1][j], rows[i][j + 1], rows[i + 1][j + 1]];
  const weights = [(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t];
  return corners.includes(null) ? null : corners.reduce((sum, corner, k) => sum + corner * weights[k], 0);
}

function planeTraces(grid) {
  const layer = data.layers[state.layer];
  const range = data.ranges[state.log ? "log" : "linear"];
  const ticks = state.log ? logTicks(range) : {};
  const rows = grid.values[layer.loss];
  const z = transposed(rows.map((row) => row.map(scaled)));
  const text = transposed(rows.map((row, i) => row.map((_, j) => pointText(grid, i, j))));
  const common = { x: data.alpha, y: data.beta, z, colorscale: "Viridis", hoverinfo: "text" };
  const size = (range[1] - range[0]) / LINES;
  const surface = [
    { ...common, type: "surface", hovertext: text, cmin: range[0], cmax: range[1], showscale: false,
      lighting: { ambient: 0.75, diffuse: 0.5, specular: 0.05 },
      contours: { z: { show: true, start: range[0], end: range[1], size, color: "rgba(255,255,255,0.35)", width: 1 } } },
  ];
  const contour = [
    { ...common, type: "contour", text, zmin: range[0], zmax: range[1], hoverongaps: false,
      contours: { start: range[0] + size, end: range[1] - size / 2, size }, line: { color: "rgba(255,255,255,0.45)", width: 0.6 },
      colorbar: { title: { text: `${layer.name} loss`, side: "right" }, thickness: 12, outlinewidth: 0, ...ticks } },
  ];
  // A place's own loss belongs to the first layer; on another one it lies on the surface.
  const lift = (x, y, own) => scaled(state.layer === 0 && own !== null && own !== undefined ? own : heightAt(rows, x, y));
  if (grid.path) {
    const { alpha, beta, loss } = grid.path;
    const look = { x: alpha, y: beta, name: "path", mode: "lines+markers", hoverinfo: "text", hovertext: pathText(grid.path) };
    surface.push({ ...look, type: "scatter3d", z: alpha.map((a, k) => lift(a, beta[k], loss ? loss[k] : null)),
      line: { color: OVER, width: 5 }, marker: { color: OVER, size: 2.5 }, showlegend: false });
    contour.push({ ...look, type: "scatter", line: { color: OVER, width: 2 }, marker: { color: OVER, size: 4 } });
  }
  grid.marks.forEach((mark, k) => {
    const look = { x: [mark.alpha], y: [mark.beta], name: mark.name, mode: "markers", hoverinfo: "text", hovertext: [markText(mark)] };
    const marker = { symbol: SYMBOLS[k % SYMBOLS.length], color: OVER, line: { color: "#000000", width: 1.5 } };
    surface.push({ ...look, type: "scatter3d", z: [lift(mark.alpha, mark.beta, mark.loss)], marker: { ...marker, size: 5 }, showlegend: false });
    contour.push({ ...look, type: "scatter", marker: { ...marker, size: 10 }, cliponaxis: false });
  });
  return { surface, contour };
}

/** Where the k-th of several surfaces is drawn, in shares of the plot; rows count from the top. */
function sceneDomain(k, count) {
  const wide = Math.max(1, Math.min(count, Math.floor(document.getElementById("main").clientWidth / 300)));
  const rows = Math.ceil(count / wide);
  const [row, column] = [Math.floor(k / wide), k % wide];
  return { x: [column / wide, (column + 1) / wide], y: [1 - (row + 1) / rows, 1 - row / rows - 0.06 / rows], rows };
}

/** Surfaces side by side turn together. */
function turnTogether(event) {
  const turned = Object.keys(event).find((key) => key.endsWith(".camera"));
  const scenes = Object.keys(main.layout).filter((key) => key.startsWith("scene"));
  if (!turned || scenes.length < 2 || state.turning) return;
  state.turning = true;
  const others = scenes.filter((scene) => !turned.startsWith(scene + "."));
  Plotly.relayout("main", Object.fromEntries(others.map((scene) => [`${scene}.camera`, event[turned]]))).then(() => (state.turning = false));
}

function drawPlane() {
  const shown = data.grids.filter((g) => chosen(state.checkpoint, g.checkpoint) && g.repeat === state.repeat);
  const layer = data.layers[state.layer];
  const range = data.ranges[state.log ? "log" : "linear"];
  const ticks = state.log ? logTicks(range) : {};
  const several = shown.length > 1;
  document.getElementById("side").parentElement.style.display = several ? "none" : "";
  const bare = { autosize: true, uirevision: "kept", font: { size: 12 }, paper_bgcolor: "#ffffff" };
  const spread = (axis) => axis[axis.length - 1] - axis[0];
  const ratio = spread(data.alpha) / spread(data.beta);
  const equal = ratio > 0.4 && ratio < 2.5 ? { scaleanchor: "x", constrain: "domain" } : {};
  const far = several ? 2.15 : document.getElementById("main").clientWidth < 700 ? 1.8 : 1.6; // so that no label is cut
  const grey = { gridcolor: "#dddddd", zeroline: false, showspikes: false };
  const scene = {
      xaxis: { title: { text: "α" }, ...grey },
      yaxis: { title: { text: "β" }, ...grey },
      zaxis: { title: { text: `${layer.name} loss` }, range, ...grey, ...ticks },
      aspectmode: "manual", aspectratio: { x: 1, y: 1, z: 0.7 }, camera: { eye: { x: far, y: far, z: 0.95 }, center: { x: 0, y: 0, z: -0.15 } },
  };
  const domains = shown.map((_, k) => sceneDomain(k, shown.length));
  const scenes = shown.map((_, k) => [k ? `scene${k + 1}` : "scene", several ? { ...scene, domain: { x: domains[k].x, y: domains[k].y } } : scene]);
  const titles = domains.map(({ x, y }, k) => ({ text: escaped(data.checkpoints[shown[k].checkpoint].name), showarrow: false,
    xref: "paper", yref: "paper", x: (x[0] + x[1]) / 2, y: y[1], yanchor: "bottom", font: { size: 13 } }));
  const surfaces = shown.flatMap((grid, k) => planeTraces(grid).surface.map((trace) => ({ ...trace, scene: scenes[k][0] })));
  document.getElementById("main").parentElement.style.minHeight = several ? `${330 * domains[0].rows}px` : "";
  Plotly.react("main", surfaces, { ...bare, margin: { l: 0, r: 0, t: 0, b: 0 }, annotations: several ? titles : [],
    ...Object.fromEntries(scenes) }, CONFIG);
  main.removeAllListeners("plotly_relayout");
  main.on("plotly_relayout", turnTogether);
  if (several) return;
  const { contour } = planeTraces(shown[0]);
  Plotly.react("side", contour, { ...bare, margin: { l: 60, r: 10, t: 10, b: 50 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" }, showlegend: contour.length > 1,
    xaxis: { title: { text: axisTitle("α", "alpha") }, constrain: "domain", zeroline: false, range: [data.alpha[0], data.alpha.at(-1)] },
    yaxis: { title: { text: axisTitle("β", "beta") }, zeroline: false, range: [data.beta[0], data.beta.at(-1)], ...equal } }, CONFIG);
}

const mean = (rows) => rows[0].map((_, i) => (rows.some((row) => row[i] === null) ? null : rows.reduce((sum, row) => sum + row[i], 0) / rows.length));

/** Lines of one quantity: each draw thin, the mean of several thick, test dashed. */
function lineTraces(grids, key) {
  const traces = [];
  for (const [l, layer] of data.layers.entries()) {
    if (!chosen(state.layer, l)) continue;
    for (const [c, checkpoint] of data.checkpoints.entries()) {
      const own = grids.filter((grid) => grid.checkpoint === c && grid.values[layer[key]].some((value) => value !== null));
      const line = { color: colourOf(c), dash: l ? "dash" : "solid" };
      const look = { x: data.alpha, type: "scatter", mode: "lines", name: checkpoint.name };
      const several = own.length > 1;
      for (const grid of own) {
        const text = data.alpha.map((_, i) => `<b>${escaped(checkpoint.name)}</b><br>${pointText(grid, i)}`);
        traces.push({ ...look, y: grid.values[layer[key]], hoverinfo: "text", hovertext: text,
          line: { ...line, width: several ? 1 : 2 }, opacity: several ? 0.35 : 1 });
      }
      if (several) traces.push({ ...look, y: mean(own.map((grid) => grid.values[layer[key]])), hoverinfo: "skip", line: { ...line, width: 2.5 } });
    }
  }
  return traces;
}

const centreOf = (grid) => grid.marks.find((mark) => mark.alpha === 0);
const predicted = ([grid, ...others]) =>
  !plane && !others.length && state.layer <= 0 && Boolean(centreOf(grid)) && Boolean(grid.curvatures) && grid.curvatures[0] !== null;

function drawLines() {
  const grids = data.grids.filter((g) => chosen(state.checkpoint, g.checkpoint) && chosen(state.repeat, g.repeat));
  const loss = lineTraces(grids, "loss");
  const accuracy = lineTraces(grids, "accuracy");
  for (const grid of grids) {
    const colour = colourOf(grid.checkpoint);
    if (predicted(grids)) {
      const slope = grid.slopes ? grid.slopes[0] || 0 : 0;
      const [first, last] = [data.alpha[0], data.alpha.at(-1)];
      const even = Array.from({ length: 201 }, (_, k) => first + ((last - first) * k) / 200); // smooth however few points
      loss.push({ x: even, y: even.map((a) => centreOf(grid).loss + slope * a + (grid.curvatures[0] * a * a) / 2),
        type: "scatter", mode: "lines", name: "prediction", line: { color: "#777777", width: 1.5, dash: "dot" }, hoverinfo: "skip" });
    }
    if (state.layer > 0) continue; // a place's own loss belongs to the first layer
    const look = { type: "scatter", mode: "markers", hoverinfo: "text", cliponaxis: false };
    if (grid.path) {
      const at = grid.path;
      loss.push({ ...look, x: at.alpha, y: at.loss || at.alpha.map(() => null), hovertext: pathText(at), marker: { color: OVER, size: 5 } });
    }
    loss.push({ ...look, x: grid.marks.map((m) => m.alpha), y: grid.marks.map((m) => m.loss), hovertext: grid.marks.map(markText),
      marker: { color: "#ffffff", size: 8, line: { color: colour, width: 1.5 } } });
  }
  const linear = data.ranges.linear;
  const [low, high] = state.log ? data.ranges.log : linear;
  const room = 0.04 * (high - low);
  const layout = (title, axis) => ({
    autosize: true, uirevision: "kept", margin: { l: 65, r: 12, t: 10, b: 50 }, hovermode: "closest",
    xaxis: { title: { text: axisTitle("α", "alpha") }, zeroline: false }, yaxis: { title: { text: title }, zeroline: false, ...axis },
    showlegend: false, // the buttons have the lines' colours
  });
  const what = data.layers.length === 1 ? `${data.layers[0].name} loss` : "loss";
  document.getElementById("side").parentElement.style.display = accuracy.length ? "" : "none";
  Plotly.react("main", loss, layout(what, { type: state.log ? "log" : "linear", range: [low - room, high + room] }), CONFIG);
  if (accuracy.length) Plotly.react("side", accuracy, layout(what.replace("loss", "accuracy"), { tickformat: ".0%" }), CONFIG);
}

function drawFacts() {
  const shown = data.grids.filter((g) => chosen(state.checkpoint, g.checkpoint) && chosen(state.repeat, g.repeat));
  const facts = shown.length === 1 ? shown[0].facts.slice() : [];
  if (!plane && shown.some((g, k) => shown.some((h, m) => m < k && h.checkpoint === g.checkpoint))) facts.push("thin: each draw, thick: their mean");
  if (!plane && data.layers.length > 1) facts.push("solid: train, dashed: test");
  if (!plane && shown.some((grid) => grid.path)) facts.push("dots: checkpoints of the run, with their own loss");
  if (predicted(shown)) facts.push("dotted: the quadratic prediction");
  if (state.log) {
    const count = shown.reduce((sum, grid) => sum + grid.values.loss.flat().filter((v) => v !== null && v <= 0).length, 0);
    if (count) facts.push(`${count} points without a logarithm are left out`);
  }
  document.getElementById("facts").textContent = facts.join(" · ");
}

function draw() {
  for (const button of document.querySelectorAll("#controls button")) {
    button.setAttribute("aria-pressed", String(state[button.dataset.key] === JSON.parse(button.dataset.value)));
  }
  drawFacts();
  if (plane) drawPlane();
  else drawLines();
}

/** One row of buttons that set one thing; none where there is no choice. */
function addGroup(title, key, choices) {
  if (choices.length < 2) return;
  const group = document.createElement("div");
  group.className = "group";
  group.append(Object.assign(document.createElement("span"), { textContent: title }));
  for (const { name, value, full, disabled } of choices) {
    const button = Object.assign(document.createElement("button"), { textContent: name, title: full || "", disabled: Boolean(disabled) });
    if (key === "checkpoint" && !plane && value !== ALL) button.style.borderLeft = `8px solid ${colourOf(value)}`;
    Object.assign(button.dataset, { key, value: JSON.stringify(value) });
    button.addEventListener("click", () => {
      state[key] = value;
      draw();
    });
    group.append(button);
  }
  document.getElementById("controls").append(group);
}

const withAll = (choices, most = 0) => (choices.length < 2 || (plane && choices.length > most) ? choices : [{ name: "all", value: ALL }, ...choices]);
addGroup("checkpoint", "checkpoint", withAll(data.checkpoints.map((c, value) => ({ name: c.name, full: c.full, value })), BESIDE));
addGroup("draw", "repeat", withAll(data.repeats.map((repeat, value) => ({ name: String(repeat), value }))));
addGroup("split", "layer", withAll(data.layers.map((layer, value) => ({ name: layer.name, value }))));
addGroup("scale", "log", [
  { name: "linear", value: false },
  { name: "log", value: true, disabled: data.ranges.log === null, full: data.ranges.log === null ? "no loss is positive" : "" },
]);
document.getElementById("settings").textContent = data.settings;
document.getElementById("command").textContent = data.command;
draw();
