"use strict";
// The interactive figure: panels with one x axis and one cross-hair, drawn by BokehJS from the data of the page
// and the state of the form. The state, and nothing else, is in the address.
const figure = (() => {
  const form = document.getElementById("controls");
  const legend = document.getElementById("legend");
  const { Document } = Bokeh.require("document");
  const make = (name, attributes = {}) => new (Bokeh.Models.get(name))(attributes);
  const X = { step: "step", tau: "τ = ηλt", elapsed: "seconds" };
  let data = readData();
  let hidden, opened, range; // keys of hidden runs and groups (r3, g1), of groups shown run by run; [from, to] of x
  let shown = null; // the views on the page

  function readData() {
    return JSON.parse(document.getElementById("data").textContent);
  }

  // ---- state and address ----

  const inputs = () => [...form.elements].filter((input) => input.name);
  const initial = (input) => (input.type === "checkbox" ? input.defaultChecked : input.options ? input.options[0].value : "");
  const get = (input) => (input.type === "checkbox" ? input.checked : input.value);
  const set = (input, value) => (input.type === "checkbox" ? (input.checked = value) : (input.value = value));
  const option = (name) => (form.elements[name] ? get(form.elements[name]) : undefined);

  function readAddress() {
    const query = new URLSearchParams(location.hash.slice(1));
    for (const input of inputs()) {
      const text = query.get(input.name);
      set(input, text === null ? initial(input) : input.type === "checkbox" ? text === "1" : text);
      if (input.options && input.selectedIndex < 0) set(input, initial(input));
    }
    const keys = (name) => new Set((query.get(name) ?? "").split(" ").filter(Boolean));
    [hidden, opened] = [keys("hide"), keys("open")];
    const ends = (query.get("range") ?? "").split(" ").map(Number);
    range = ends.length === 2 && ends.every(Number.isFinite) && ends[0] < ends[1] ? ends : null;
  }

  function writeAddress() {
    const query = new URLSearchParams();
    for (const input of inputs())
      if (get(input) !== initial(input)) query.set(input.name, input.type === "checkbox" ? Number(get(input)) : get(input));
    for (const [name, keys] of [["hide", hidden], ["open", opened]]) if (keys.size) query.set(name, [...keys].join(" "));
    if (range) query.set("range", range.map((x) => Number(x.toPrecision(6))).join(" "));
    try {
      history.replaceState(null, "", `#${query}`);
    } catch { /* a frame without an address, as in a notebook */ }
  }

  // ---- curves ----

  const column = (run, name) => run.columns[name] ?? [];
  const known = (x) => x !== null && x !== undefined;

  // The view of a run in the panel of the sharpness, or of the ratio; empty if the run lacks it.
  function viewOf(run, ratio) {
    const wanted = option("view");
    let view = ratio || wanted === "own" ? run.own : wanted || run.view;
    if (view && (option("batch") || option("midpoint"))) view += option("batch") ? "-batch" : "-midpoint";
    return column(run, `${view}.value`).some(known) ? view : "";
  }

  // The points of a quantity of one run: x, y, the index of the record, and lower and upper end.
  function pointsOf(run, field, scale, errors) {
    const [xs, ys] = [column(run, option("x")), column(run, field)];
    const error = errors ? column(run, field.replace(/ratio$|value$/, "error")) : [];
    const value = errors ? column(run, field.replace(/ratio$/, "value")) : [];
    const points = [];
    for (let i = 0; i < ys.length; i++) {
      if (!known(xs[i]) || !known(ys[i])) continue;
      // The error of a ratio is relative to that of its value; a band that reached 0 would leave a logarithmic axis.
      const wide = known(error[i]) && value[i] ? Math.abs((error[i] / value[i]) * ys[i]) : 0;
      const y = scale * ys[i];
      points.push({ x: xs[i], y, low: y - Math.min(wide, 0.99 * Math.abs(y)), high: y + wide, run, i });
    }
    return points;
  }

  // Median and range over runs at each step that one of them has.
  function bandOf(lists) {
    const at = new Map();
    for (const point of lists.flat()) {
      const step = column(point.run, "step")[point.i];
      at.set(step, [...(at.get(step) ?? []), point]);
    }
    const middle = (values) => {
      const [sorted, half] = [values.sort((a, b) => a - b), values.length >> 1];
      return values.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    };
    return [...at].sort(([a], [b]) => a - b).map(([step, points]) => {
      const ys = points.map((point) => point.y);
      return { x: middle(points.map((p) => p.x)), y: middle(ys), low: Math.min(...ys), high: Math.max(...ys), step, n: ys.length };
    });
  }

  // What the legend shows: a group is one curve for its seeds, or one curve a run if it is open.
  function visibleGroups() {
    return data.groups
      .map((group, g) => ({ ...group, g, key: `${group.arm}; ${group.setting}` }))
      .filter((group) => !option("setting") || group.setting === data.settings[option("setting")])
      .filter((group) => passes(option("filter"), group.key, ""));
  }

  function visibleCurves() {
    const curves = [];
    for (const group of visibleGroups()) {
      if (hidden.has(`g${group.g}`)) continue;
      const runs = group.runs.filter((r) => !hidden.has(`r${r}`)).map((r) => data.runs[r]);
      const style = { color: ink(group.color), dash: group.dash };
      if (group.runs.length === 1 || opened.has(`g${group.g}`))
        curves.push(...runs.map((run) => ({ ...style, runs: [run], name: `${group.key}; ${run.name}` })));
      else if (runs.length) curves.push({ ...style, runs, name: `${group.key}; ${runs.length} runs` });
    }
    return curves;
  }

  function points(curve, fieldOf, scale = 1, errors = false) {
    const lists = curve.runs.map((run) => (fieldOf(run) ? pointsOf(run, fieldOf(run), scale, errors) : []));
    return lists.length === 1 ? lists[0] : bandOf(lists);
  }

  // ---- panels ----

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const ink = (color) => (color === "#000000" ? css("--ink") : color);

  const viewField = (name, ratio = false) => (run) => viewOf(run, ratio) && `${viewOf(run, ratio)}.${name}`;
  const prediction = (name) => ({ field: () => option("predictions") && name, dash: [2, 5], width: 1.6 });
  const PANELS = {
    loss: {
      title: () => "Training loss",
      lines: [
        { field: () => "train_loss", main: true },
        { field: () => "peak_loss", width: 0.8, alpha: 0.5, single: true },
        prediction("mean_loss"),
      ],
    },
    accuracy: {
      title: () => "Test accuracy, %",
      scale: 100,
      linear: true,
      lines: [{ field: () => "test_accuracy", main: true }, { field: () => "train_accuracy", width: 0.9, dash: [4, 3] }],
    },
    sharpness: {
      title: () => sharpnessTitle(),
      lines: [
        { field: viewField("value"), main: true, errors: true },
        { field: viewField("threshold"), dash: [2, 3], width: 1.5, threshold: true, label: "plateau of large batches" },
        { field: viewField("small_batch_threshold"), dash: [6, 3, 1, 3], width: 1.5, label: "plateau of small batches" },
        prediction("drift"),
      ],
    },
    ratio: {
      title: () => `Sharpness / threshold${variant()}`,
      one: true,
      lines: [
        { field: viewField("ratio", true), main: true, errors: true },
        { field: viewField("small_batch_plateau", true), dash: [6, 3, 1, 3], width: 1.5, label: "plateau of small batches" },
      ],
    },
    along: {
      title: () => "Critical sharpness / (2/η), along the last update",
      one: true,
      lines: [{ field: () => "along.critical_ratio", main: true }],
    },
    rotation: {
      title: () => "Rotation per step, radians",
      lines: [
        { field: () => "along.rotation", main: true },
        { field: () => "along.equilibrium_rotation", dash: [2, 3], width: 1.5 },
      ],
    },
  };

  const variant = () => (option("batch") ? ", along mini-batch gradients" : option("midpoint") ? ", midpoint" : "");
  const panels = () => Object.entries(PANELS).filter(([name]) => data.panels.includes(name));

  function sharpnessTitle() {
    const names = new Set(visibleCurves().flatMap((curve) => curve.runs.map((run) => viewOf(run, false))));
    names.delete("");
    if (!names.size) return "Sharpness: no readings";
    const units = new Set([...names].map((name) => data.units[name.replace(/-(midpoint|batch)$/, "")]));
    const views = [...names].map((name) => data.views[name]).join(" or ");
    return `${views[0].toUpperCase()}${views.slice(1)} sharpness${units.size === 1 ? `, ${[...units][0]}` : ""}`;
  }

  const columns = (list) => ({
    x: list.map((p) => p.x), y: list.map((p) => p.y), low: list.map((p) => p.low), high: list.map((p) => p.high),
  });
  const f = (field) => ({ field });

  function renderer(list, glyph, level = "glyph") {
    return make("GlyphRenderer", { data_source: make("ColumnDataSource", { data: columns(list) }), glyph, level });
  }

  function scatter(list, marker, size, color, extra = {}) {
    const glyph = { x: f("x"), y: f("y"), marker, size, fill_color: color, line_color: css("--paper"), ...extra };
    return renderer(list, make("Scatter", glyph), "overlay");
  }

  // Whether the view of a curve has one plateau for small batches and one for large ones.
  function hasPlateaus(curve) {
    return curve.runs.every((run) => column(run, `${viewOf(run, false)}.small_batch_threshold`).some(known));
  }

  function lineLabel(end, text, color) {
    const look = { text_color: color, text_font_size: "11px", text_align: "right", text_baseline: "bottom", y_offset: -3 };
    return renderer([end], make("Text", { x: f("x"), y: f("y"), text: { value: text }, ...look }), "overlay");
  }

  // Marks of a curve on its main line: 100 %, destabilised, not converged, diverged.
  function marks(curve, list, ratio) {
    const at = new Map(list.map((p) => [p.step ?? column(p.run, "step")[p.i], p]));
    const where = (indices) => curve.runs.flatMap((run) => indices(run).map((i) => at.get(column(run, "step")[i])).filter(Boolean));
    const failed = (run) => {
      const converged = column(run, `${viewOf(run, ratio)}.converged`);
      return [...converged.keys()].filter((i) => converged[i] === 0);
    };
    const ended = (run) => (run.status === "diverged" ? [column(run, "step").length - 1] : []);
    return [
      [where((run) => (known(run.fit) ? [run.fit] : [])), "star", 14, {}],
      [where((run) => run.unstable), "dash", 13, { angle: Math.PI / 2, line_color: curve.color, line_width: 2 }],
      [ratio === undefined ? [] : where(failed), "circle", 9, { fill_color: null, line_color: curve.color, line_width: 1.5 }],
      [where(ended), "x", 10, { line_color: curve.color, line_width: 3 }],
    ].filter(([list]) => list.length).map(([list, marker, size, extra]) => scatter(list, marker, size, curve.color, extra));
  }

  // The renderers of a panel, the points of its main lines for the tooltip, and the values of its axis.
  function content(name, panel, curves) {
    const [renderers, hits, values, thresholds] = [[], [], [], []];
    for (const curve of curves) {
      const several = curve.runs.length > 1;
      for (const line of panel.lines) {
        const list = line.single && several ? [] : points(curve, line.field, panel.scale, line.errors);
        if (!list.length) continue;
        const look = { line_color: curve.color, line_dash: line.dash ?? curve.dash, line_width: line.width ?? 1.8 };
        renderers.push(renderer(list, make("Line", { x: f("x"), y: f("y"), line_alpha: line.alpha ?? 1, ...look })));
        if (line.label && hasPlateaus(curve)) renderers.push(lineLabel(list[list.length - 1], line.label, curve.color));
        if (line.threshold) thresholds.push(list.map((p) => p.y));
        values.push(list.map((p) => p.y));
        if (!line.main) continue;
        if (list.length === 1) renderers.push(scatter(list, "circle", 6, curve.color));
        if (several || line.errors) {
          const area = { x: f("x"), y1: f("low"), y2: f("high"), fill_color: curve.color, fill_alpha: several ? 0.16 : 0.22 };
          renderers.push(renderer(list, make("VArea", area), "underlay"));
          if (several) values.push(list.map((p) => p.low), list.map((p) => p.high));
        }
        renderers.push(...marks(curve, list, { sharpness: false, ratio: true }[name]));
        hits.push(...list.map((point) => ({ ...point, curve })));
      }
    }
    return { renderers, hits, values, thresholds };
  }

  // The ends of a y axis. A run that diverges must not flatten the others; the first record only counts if wanted.
  function limits(name, values, thresholds, log) {
    const usual = (list) => {
      const rest = list.slice(1);
      const far = rest.length > 3 && (list[0] > 2 * Math.max(...rest) || list[0] < Math.min(...rest) / 2);
      return far && !option("start") ? rest : list;
    };
    const all = values.flatMap(usual).filter((y) => Number.isFinite(y) && (!log || y > 0)).sort((a, b) => a - b);
    if (!all.length) return log ? [0.1, 10] : [0, 1];
    const at = (share) => all[Math.round(share * (all.length - 1))];
    let [low, high] = [all[0], all[all.length - 1]];
    if (name === "accuracy") [low, high] = [option("start") ? low : Math.max(low, at(0.15) - 8), Math.min(high, 100)];
    else if (log) [low, high] = [Math.max(low, at(0.02) / 10), Math.min(high, 1000 * at(0.5))];
    else high = Math.min(high, 30 * Math.abs(at(0.5)) || high);
    if (PANELS[name].one) [low, high] = [Math.min(low, 0.5), Math.max(Math.min(high, Math.max(10, 3 * at(0.5))), 2)];
    if (name === "sharpness" && option("clip") && thresholds.length) high = Math.min(high, 3 * Math.max(...thresholds.flatMap(usual)));
    if (log) {
      const margin = (high / low) ** 0.06;
      return low < high ? [low / margin, high * margin] : [high / 2, 2 * high];
    }
    const margin = 0.06 * (high - low) || Math.abs(high) || 1;
    return [low - margin, high + margin];
  }

  // ---- tooltip ----

  const short = (x, digits = 6) => {
    if (!known(x)) return "–";
    const magnitude = Math.abs(x);
    if (magnitude && (magnitude < 1e-4 || magnitude >= 1e7)) return x.toExponential(3).replace("e+", "e");
    return String(Number(x.toPrecision(digits)));
  };

  function facts(point, name) {
    if (point.n) {
      const what = { loss: "training loss", accuracy: "test accuracy, %", sharpness: "sharpness", rotation: "radians" }[name] ?? "ratio";
      return [["step", short(point.step)], [`${what}, median of ${point.n}`, short(point.y, 5)],
        ["range", `${short(point.low, 5)} to ${short(point.high, 5)}`]];
    }
    const of = (field) => column(point.run, field)[point.i];
    const view = viewOf(point.run, name === "ratio") || viewOf(point.run, name !== "ratio");
    const percent = (x) => (known(x) ? `${short(100 * x, 4)} %` : "–");
    const reading = view && known(of(`${view}.value`)) ? [
      [data.views[view], `${short(of(`${view}.value`))} ± ${short(of(`${view}.error`), 2)}`],
      ["bound", known(of(`${view}.bound`)) ? `at most ${short(of(`${view}.value`) + of(`${view}.bound`), 5)}` : "–"],
      ["threshold", `${short(of(`${view}.threshold`))}, ratio ${short(of(`${view}.ratio`))}`],
      ["products", short(of(`${view}.products`)) + (of(`${view}.converged`) === 0 ? ", not converged" : "")],
    ] : [];
    if (view && known(of(`${view}.small_batch_threshold`)))
      reading.push(["plateau of small batches", `${short(of(`${view}.small_batch_threshold`))}, ratio ${short(of(`${view}.small_batch_ratio`), 4)}`]);
    if (known(of("along.rotation")))
      reading.push(["critical sharpness", `${short(of("along.critical"), 4)}, over 2/η ${short(of("along.critical_ratio"), 4)}`],
        ["directional smoothness", `${short(of("along.smoothness"), 4)}, over its limit ${short(of("along.smoothness_ratio"), 4)}`],
        ["curvature along the update", short(of("along.curvature"), 4)], ["rotation", `${short(of("along.rotation"), 4)} radians${known(of("along.equilibrium_rotation")) ? `, in equilibrium ${short(of("along.equilibrium_rotation"), 4)}` : ""}`]);
    return [["step", `${short(of("step"))}, τ ${short(of("tau"), 4)}, ${short(of("elapsed"), 4)} s`],
      ["training loss", short(of("train_loss"), 4)],
      ["accuracy", `test ${percent(of("test_accuracy"))}, training ${percent(of("train_accuracy"))}`], ...reading];
  }

  function tooltip(point, name) {
    const rows = facts(point, name).map(([label, text]) => element("div", {}, element("b", {}, `${label} `), text));
    const tip = element("div", { className: "tip" }, element("div", {}, element("b", {}, point.curve.name)), ...rows);
    tip.style.cssText = "max-width: 19rem; font-size: 12px; line-height: 1.35; padding: 2px 0";
    return tip;
  }

  // ---- plots ----

  function axis(log, label, kind = log ? "LogAxis" : "LinearAxis") {
    const faint = css("--faint");
    return make(kind, {
      axis_label: label, axis_label_text_color: faint, axis_label_text_font_style: "normal", axis_label_text_font_size: "12px",
      major_label_text_color: faint, axis_line_color: faint, major_tick_line_color: faint, minor_tick_line_color: null,
      ticker: log ? make("FixedTicker") : make("BasicTicker", { desired_num_ticks: 6 }),
      formatter: make("BasicTickFormatter", { use_scientific: true, power_limit_high: 6, power_limit_low: -4 }),
    });
  }

  // The ticks of a logarithmic axis, the more the shorter it is.
  function logTicks(low, high) {
    const decades = Math.log10(high / low);
    if (decades < 0.4) {
      const step = 10 ** Math.floor(Math.log10((high - low) / 2)); // 2 to 20 of them
      const every = step * ((high - low) / step > 10 ? 5 : (high - low) / step > 5 ? 2 : 1);
      const count = Math.floor(high / every) - Math.ceil(low / every) + 1;
      return Array.from({ length: count }, (_, i) => (Math.ceil(low / every) + i) * every);
    }
    const factors = decades < 0.8 ? [1, 1.5, 2, 3, 5, 7] : decades < 2.5 ? [1, 2, 5] : [1];
    const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const every = Math.max(1, Math.round((to - from) / 8));
    const powers = Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, i) => from + i * every);
    return powers.flatMap((power) => factors.map((factor) => factor * 10 ** power)).filter((y) => low <= y && y <= high);
  }

  const superscript = (text) => [...text].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");

  function tickLabel(y) {
    if (y >= 1e-3 && y < 1e6) return String(Number(y.toPrecision(4)));
    const [factor, power] = y.toExponential(3).split("e");
    const exponent = superscript(String(Number(power)));
    return `${Number(factor) === 1 ? "" : `${Number(factor)} × `}10${exponent}`;
  }

  function followTicks(axis, range) {
    const renew = () => {
      const ticks = logTicks(Math.max(range.start, 1e-300), Math.max(range.end, 1e-300));
      axis.major_label_overrides = new Map(ticks.map((y) => [y, tickLabel(y)]));
      axis.ticker.ticks = ticks;
    };
    renew();
    range.change.connect(renew);
  }

  function span(attributes) {
    return make("Span", { line_color: css("--faint"), ...attributes });
  }

  function plot(name, panel, curves, xRange, hair) {
    const { renderers, hits, values, thresholds } = content(name, panel, curves);
    const log = option("log") && !panel.linear && values.flat().some((y) => y > 0);
    const [start, end] = limits(name, values, thresholds, log);
    const [x, y] = [axis(false, X[option("x")]), axis(log, "")];
    const yRange = make("Range1d", { start, end });
    if (log) followTicks(y, yRange);
    const grid = { grid_line_color: css("--rule"), grid_line_alpha: 0.6 };
    const center = [make("Grid", { dimension: 0, axis: x, ...grid }), make("Grid", { dimension: 1, axis: y, ...grid })];
    if (panel.one) {
      const [bottom, top] = data.edge;
      const band = { bottom, top, fill_color: css("--faint"), fill_alpha: 0.12, line_color: null, level: "underlay" };
      if (name === "ratio") center.push(make("BoxAnnotation", band));
      center.push(span({ dimension: "width", location: 1, line_color: css("--ink"), line_width: 1.2 }));
    }
    const invisible = make("Scatter", { x: f("x"), y: f("y"), size: 14, fill_color: null, line_color: null });
    const target = renderer(hits, invisible);
    const touch = matchMedia("(pointer: coarse)").matches;
    const [zoom, reset] = [make("BoxZoomTool"), make("ResetTool")];
    const tools = [
      make("HoverTool", { renderers: [target], limit: 2, tooltips: (_, { index }) => tooltip(hits[index], name), visible: false }),
      make("CrosshairTool", { overlay: [span({ dimension: "width", line_alpha: 0.4 }), hair], visible: false }),
      zoom, make("PanTool"), make("WheelZoomTool"), reset, make("SaveTool", { filename: name }),
    ];
    const made = make("Plot", {
      x_range: xRange, y_range: yRange, x_scale: make("LinearScale"),
      y_scale: make(log ? "LogScale" : "LinearScale"), below: [x], left: [y], center, renderers: [...renderers, target],
      title: make("Title", { text: panel.title(), text_color: css("--ink"), text_font_size: "14px" }),
      toolbar: make("Toolbar", { tools, logo: null, autohide: true, active_drag: touch ? null : zoom, active_scroll: null }),
      toolbar_location: "above", toolbar_inner: false, sizing_mode: "stretch_width", height: 320, min_border_left: 62, min_border_right: 12,
      background_fill_color: null, border_fill_color: null, outline_line_color: null, name,
    });
    const box = document.getElementById(`panel-${name}`);
    box.ariaLabel = `${panel.title()} against ${X[option("x")]}: ${curves.length} curves. Arrow keys read out the records; the tables below have the numbers.`;
    delete box.dataset.at;
    box.onkeydown = (event) => readOut(name, hits, event);
    return made;
  }

  // Arrow keys go from record to record of a panel and read it out, as the mouse does.
  function readOut(name, hits, event) {
    const to = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!to || !hits.length) return;
    event.preventDefault();
    const xs = [...new Set(hits.map((point) => point.x))].sort((a, b) => a - b);
    const box = event.currentTarget;
    const at = Math.min(Math.max(Number(box.dataset.at ?? (to > 0 ? -1 : xs.length)) + to, 0), xs.length - 1);
    box.dataset.at = at;
    const texts = hits.filter((point) => point.x === xs[at]).map((point) => `${point.curve.name}: ${short(point.y, 4)}`);
    document.getElementById("note").textContent = `${PANELS[name].title()}, ${X[option("x")]} ${short(xs[at])}. ${texts.join("; ")}`;
  }

  // The x axis of all panels: what was chosen, or all records.
  function xRange(curves) {
    const xs = curves.flatMap((curve) => curve.runs.flatMap((run) => column(run, option("x")).filter(known)));
    const [low, high] = [xs.reduce((a, b) => Math.min(a, b), 0), xs.reduce((a, b) => Math.max(a, b), 0) || 1];
    const whole = [low - 0.02 * (high - low), high + 0.02 * (high - low)];
    const made = make("Range1d", { start: (range ?? whole)[0], end: (range ?? whole)[1], reset_start: whole[0], reset_end: whole[1] });
    let timer;
    made.change.connect(() => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        range = Math.abs(made.start - whole[0]) + Math.abs(made.end - whole[1]) < 1e-9 * (high - low) ? null : [made.start, made.end];
        writeAddress();
      }, 200);
    });
    return made;
  }

  // A run without weight decay has no time τ: as a curve it would be a line upwards.
  const hasX = (run) => new Set(column(run, option("x")).filter(known)).size > 1 || column(run, "step").length < 2;

  function note(all, drawn) {
    const without = all.flatMap((curve) => curve.runs).filter((run) => !hasX(run)).length;
    const missing = drawn.flatMap((curve) => curve.runs).filter((run) => !viewOf(run, false)).length;
    const parts = [
      without && `${without} without ${X[option("x")]}${option("x") === "tau" ? " (no weight decay)" : ""} are not drawn`,
      missing && `${missing} without this sharpness${variant()}`,
    ].filter(Boolean);
    document.getElementById("note").textContent = parts.length ? `Of the runs shown, ${parts.join("; ")}.` : "";
  }

  // ---- legend ----

  function swatch(group) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const look = { x1: 0, x2: 32, y1: 5, y2: 5, stroke: ink(group.color), "stroke-width": 3, "stroke-dasharray": group.dash.join(" ") };
    for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
    svg.setAttribute("viewBox", "0 0 32 10");
    svg.ariaHidden = "true";
    svg.append(line);
    return svg;
  }

  function toggle(keys, key, ...content) {
    const button = element("button", { type: "button" }, ...content);
    button.dataset.toggle = key;
    button.addEventListener("click", () => {
      keys.delete(key) || keys.add(key);
      update();
      legend.querySelector(`[data-toggle="${key}"]`)?.focus();
    });
    return button;
  }

  function drawLegend() {
    legend.replaceChildren(...visibleGroups().map((group) => {
      const whole = toggle(hidden, `g${group.g}`, swatch(group), option("setting") ? group.arm : group.key);
      whole.ariaPressed = String(!hidden.has(`g${group.g}`));
      const entry = element("li", {}, whole);
      if (group.runs.length > 1) {
        const isOpen = opened.has(`g${group.g}`);
        const more = toggle(opened, `g${group.g}`, `${group.runs.length} runs`);
        more.dataset.toggle = `o${group.g}`;
        more.ariaExpanded = String(isOpen);
        entry.append(more, ...(isOpen ? group.runs : []).map((r) => {
          const single = toggle(hidden, `r${r}`, data.runs[r].name);
          single.ariaPressed = String(!hidden.has(`r${r}`));
          return single;
        }));
      }
      return entry;
    }));
  }

  // ---- drawing ----

  let drawing = Promise.resolve();

  async function draw() {
    const all = visibleCurves();
    const curves = all.map((curve) => ({ ...curve, runs: curve.runs.filter(hasX) })).filter((curve) => curve.runs.length);
    note(all, curves);
    const hair = span({ dimension: "height", line_alpha: 0.8 });
    const [bokeh, x] = [new Document(), xRange(curves)];
    for (const [name, panel] of panels()) bokeh.add_root(plot(name, panel, curves, x, hair));
    shown?.clear();
    const boxes = panels().map(([name]) => document.getElementById(`panel-${name}`));
    shown = await Bokeh.embed.add_document_standalone(bokeh, document.body, boxes);
  }

  function update() {
    writeAddress();
    filterPage(option("filter"));
    drawLegend();
    drawing = drawing.then(draw).catch((error) => {
      document.documentElement.classList.remove("js"); // the static figures remain
      throw error;
    });
    return drawing;
  }

  function listen() {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      if (event.target.name === "x") range = null;
      update();
    });
    document.getElementById("all").addEventListener("click", () => {
      for (const input of inputs()) set(input, initial(input));
      [hidden, opened, range] = [new Set(), new Set(), null];
      update();
    });
    addEventListener("hashchange", () => { readAddress(); update(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
    document.addEventListener("click", ({ target }) => {
      if (target.dataset.filter === undefined) return;
      set(form.elements.filter, `"${target.dataset.filter}"`);
      if (form.elements.setting) set(form.elements.setting, "");
      update();
      form.scrollIntoView({ block: "start" });
    });
  }

  readAddress();
  listen();
  const reload = () => { data = readData(); return update(); };
  return { ready: update(), reload, drawn: () => drawing, views: () => shown };
})();
