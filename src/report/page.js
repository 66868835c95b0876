'use strict';
const data = JSON.parse(document.getElementById('data').textContent), runs = data.runs;
const page = document.getElementById('page');
const color = i => `var(--c${i % 10})`;
const unit = run => run.bytes ? 'nats per byte' : 'nats per token';

// ---- small pieces -----------------------------------------------------------------------------------------------------------------

function add(parent, tag, text, className) {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) e.textContent = text;
  if (className) e.className = className;
  parent.appendChild(e);
  return e;
}
const svgNs = 'http://www.w3.org/2000/svg';
function draw(parent, tag, attributes, text) {
  const e = document.createElementNS(svgNs, tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  parent.appendChild(e);
  return e;
}
function short(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return '–';
  const a = Math.abs(v);
  if (a >= 1e12) return (+v).toExponential(0).replace('e+', 'e');
  if (a >= 1e9) return +(v / 1e9).toPrecision(3) + ' G';
  if (a >= 1e6) return +(v / 1e6).toPrecision(3) + ' M';
  if (a >= 1e4) return +(v / 1e3).toPrecision(3) + ' k';
  if (a !== 0 && a < 1e-3) return (+v).toExponential(1).replace('e-', 'e−');
  return String(+(+v).toPrecision(4));
}
function duration(s) {
  if (s < 120) return short(s) + ' s';
  const m = Math.round(s / 60);
  return m < 120 ? `${m} min` : `${Math.floor(m / 60)} h ${m % 60} min`;
}
function card(title, text, wide) {
  const c = add(cards, 'section', undefined, wide ? 'card wide' : 'card');
  add(c, 'h2', title);
  if (text) add(c, 'p', text);
  return c;
}

// ---- curves -----------------------------------------------------------------------------------------------------------------------

function linearTicks(low, high, most) {
  const raw = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) out.push(+(i * step).toPrecision(12));
  return out;
}
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const mantissas = decades > 4 ? [1] : decades > 1.5 ? [1, 3] : decades > 0.4 ? [1, 1.5, 2, 3, 5, 7] : null;
  if (!mantissas) return linearTicks(low, high, 4);
  const out = [];
  for (let d = Math.floor(Math.log10(low)); d <= Math.log10(high); ++d)
    for (const m of mantissas) if (m * 10 ** d >= low * 0.999 && m * 10 ** d <= high * 1.001) out.push(+(m * 10 ** d).toPrecision(6));
  return out;
}

// At most `most` of the values, evenly.
const spread = (values, most) => { const every = Math.ceil(values.length / Math.max(2, most)); return values.filter((_, i) => i % every === 0); };

// series: [{name, color, points: [[x, y]], kind: line | thin | dots | dashed, hidden (not in the legend), band: [[x, low, high]], errors: [[x error, y error]] of the points}];
// options: x, y (axis titles), log, log_x, guide (a level to mark), cut: share of the largest values that may leave the picture
function plot(parent, series, options) {
  series = series.map(s => ({...s, points: s.points.filter(p => p[0] !== null && p[1] !== null && (!options.log || p[1] > 0) && (!options.log_x || p[0] > 0))})).filter(s => s.points.length);
  if (!series.length) return;
  if (series.length > 1 || options.legend) {
    const legend = add(parent, 'div', undefined, 'legend');
    for (const s of series) {
      if (s.hidden) continue;
      const item = add(legend, 'span'), mark = add(item, 'i', undefined, s.kind === 'dots' ? 'dot' : s.kind || '');
      mark.style[s.kind === 'dots' ? 'background' : 'borderTopColor'] = s.color;
      item.appendChild(document.createTextNode(s.name));
    }
  }
  const box = add(parent, 'div', undefined, 'plot'), tip = add(box, 'div', undefined, 'tip');
  let svg = null;
  const reach = s => (s.errors || []).map((e, i) => [s.points[i][0] - e[0], s.points[i][0] + e[0], s.points[i][1] - e[1], s.points[i][1] + e[1]]);
  const xs = series.flatMap(s => [...s.points.map(p => p[0]), ...reach(s).flatMap(r => r.slice(0, 2))]).filter(x => !options.log_x || x > 0);
  const ys = series.flatMap(s => [...s.points.map(p => p[1]), ...(s.band || []).flatMap(b => b.slice(1)), ...reach(s).flatMap(r => r.slice(2))]).filter(y => y !== null && (!options.log || y > 0)).sort((a, b) => a - b);
  let x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1e-9);
  if (options.pad) [x0, x1] = options.log_x ? [x0 / (x1 / x0) ** 0.08, x1 * (x1 / x0) ** 0.08] : [x0 - 0.08 * (x1 - x0), x1 + 0.08 * (x1 - x0)];
  let y0 = ys[0], y1 = ys[Math.min(ys.length - 1, Math.floor(ys.length * (1 - (options.cut || 0))))];
  if (options.guide !== undefined) { y0 = Math.min(y0, options.guide); y1 = Math.max(y1, options.guide); }
  if (options.zero) y0 = Math.min(0, y0);
  if (options.log) {
    if (y1 / y0 < 1.2) { y0 /= 1.1; y1 *= 1.1; } else { const m = (y1 / y0) ** 0.05; y0 /= m; y1 *= m; }
  } else {
    const m = (y1 - y0 || Math.abs(y1) || 1) * 0.05;
    if (!options.zero) y0 -= m;
    y1 += m;
  }
  const render = () => {
    const levels = options.log ? spread(logTicks(y0, y1), 10) : linearTicks(y0, y1, 5), widest = Math.max(...levels.map(t => short(t).length));
    const W = Math.max(260, box.clientWidth), H = options.height || 260, left = Math.max(58, 32 + 7 * widest), right = 14, top = 10, bottom = 44;
    const X = options.log_x ? x => left + (W - left - right) * Math.log(x / x0) / Math.log(x1 / x0) : x => left + (W - left - right) * (x - x0) / (x1 - x0);
    const Y = options.log ? y => top + (H - top - bottom) * Math.log(y1 / y) / Math.log(y1 / y0) : y => top + (H - top - bottom) * (y1 - y) / (y1 - y0);
    if (svg) svg.remove();
    svg = document.createElementNS(svgNs, 'svg');
    svg.setAttribute('viewBox', `0 0 ${W} ${H}`);
    svg.setAttribute('height', H);
    svg.setAttribute('role', 'img');
    svg.setAttribute('aria-label', `${options.y} over ${options.x}`);
    const clip = 'clip' + plot.count++;
    draw(draw(draw(svg, 'defs', {}), 'clipPath', {id: clip}), 'rect', {x: left, y: top, width: W - left - right, height: H - top - bottom});
    for (const t of levels) {
      draw(svg, 'line', {class: 'grid', x1: left, x2: W - right, y1: Y(t), y2: Y(t)});
      draw(svg, 'text', {x: left - 7, y: Y(t) + 4, 'text-anchor': 'end'}, short(t));
    }
    for (const t of options.log_x ? spread(logTicks(x0, x1), W / 60) : options.integers ? linearTicks(x0, x1, Math.min(x1 - x0, W / 60)).filter(Number.isInteger) : linearTicks(x0, x1, W / 90))
      draw(svg, 'text', {x: X(t), y: H - bottom + 17, 'text-anchor': 'middle'}, short(t));
    draw(svg, 'line', {class: 'axis', x1: left, x2: W - right, y1: H - bottom, y2: H - bottom});
    draw(svg, 'text', {x: (left + W - right) / 2, y: H - 6, 'text-anchor': 'middle'}, options.x);
    draw(svg, 'text', {x: 13, y: (top + H - bottom) / 2, 'text-anchor': 'middle', transform: `rotate(-90 13 ${(top + H - bottom) / 2})`}, options.y);
    const inside = draw(svg, 'g', {'clip-path': `url(#${clip})`});
    if (options.guide !== undefined) draw(inside, 'line', {class: 'guide', x1: left, x2: W - right, y1: Y(options.guide), y2: Y(options.guide)});
    for (const s of series) {
      const edge = (s.band || []).filter(b => b[1] !== null && b[2] !== null).map(b => options.log ? [b[0], Math.max(b[1], y0), Math.max(b[2], y0)] : b);
      if (edge.length > 1) {
        const at = (b, k) => `${X(b[0]).toFixed(1)} ${Y(b[k]).toFixed(1)}`;
        draw(inside, 'path', {d: `M${edge.map(b => at(b, 1)).join('L')}L${[...edge].reverse().map(b => at(b, 2)).join('L')}Z`, style: `fill:${s.color};opacity:.18`});
      }
      (s.errors || []).forEach(([ex, ey], i) => {
        const [x, y] = s.points[i], style = `stroke:${s.color};stroke-width:1.5`;
        if (ex) draw(inside, 'line', {x1: X(Math.max(x - ex, x0)), x2: X(x + ex), y1: Y(y), y2: Y(y), style});
        if (ey) draw(inside, 'line', {x1: X(x), x2: X(x), y1: Y(y - ey), y2: Y(y + ey), style});
      });
      if (s.kind === 'dots') {
        for (const p of s.points) draw(inside, 'circle', {cx: X(p[0]), cy: Y(p[1]), r: s.errors ? 4.5 : 3.5, style: `fill:${s.color}`});
        continue;
      }
      const d = s.points.map((p, i) => `${i ? 'L' : 'M'}${X(p[0]).toFixed(1)} ${Y(p[1]).toFixed(1)}`).join('');
      const style = `fill:none;stroke:${s.color};stroke-width:${s.kind === 'thin' ? 1 : 2};stroke-linejoin:round;` + (s.kind === 'thin' ? 'opacity:.45;' : '') + (s.kind === 'dashed' ? 'stroke-dasharray:5 4;' : '');
      draw(inside, 'path', {d, style});
      if (s.marks) for (const p of s.points) draw(inside, 'circle', {cx: X(p[0]), cy: Y(p[1]), r: 2.5, style: `fill:${s.color}`});
    }
    const guide = draw(svg, 'line', {class: 'axis', y1: top, y2: H - bottom, visibility: 'hidden'});
    svg.onmousemove = e => {
      const r = svg.getBoundingClientRect(), share = ((e.clientX - r.left) * W / r.width - left) / (W - left - right), at = options.log_x ? x0 * (x1 / x0) ** share : x0 + share * (x1 - x0);
      if (at < x0 || at > x1) { tip.style.display = 'none'; guide.setAttribute('visibility', 'hidden'); return; }
      tip.replaceChildren();
      let px = 0;
      series.forEach((s, i) => {
        let best = s.points[0];
        for (const p of s.points) if (Math.abs(p[0] - at) < Math.abs(best[0] - at)) best = p;
        if (i === 0) { add(tip, 'div', `${options.x} ${short(options.exact_x ? best[0] : Math.round(best[0]))}`); px = X(best[0]); }
        add(tip, 'div', `${s.name}: ${short(best[1])}`).style.color = s.color;
      });
      guide.setAttribute('x1', px); guide.setAttribute('x2', px); guide.setAttribute('visibility', 'visible');
      tip.style.display = 'block';
      tip.style.top = '14px';
      const x = px * r.width / W;
      tip.style.left = (x + 14 + tip.offsetWidth > r.width ? Math.max(0, x - tip.offsetWidth - 14) : x + 14) + 'px';
    };
    svg.onmouseleave = () => { tip.style.display = 'none'; guide.setAttribute('visibility', 'hidden'); };
    box.insertBefore(svg, tip);
  };
  render();
  new ResizeObserver(render).observe(box);
}
plot.count = 0;
const zip = (x, y) => x.map((v, i) => [v, y[i]]);

// ---- heat maps --------------------------------------------------------------------------------------------------------------------

// Even load in the middle: blue below, orange above, the same in both colour schemes.
const stops = [[0, [8, 48, 107]], [0.5, [92, 153, 204]], [1, [240, 240, 236]], [1.75, [236, 140, 66]], [2.5, [127, 39, 4]]];
function heatColor(v) {
  v = Math.max(0, Math.min(2.5, v === null ? 0 : v));
  let i = 0;
  while (i < stops.length - 2 && v > stops[i + 1][0]) ++i;
  const t = (v - stops[i][0]) / (stops[i + 1][0] - stops[i][0]);
  return stops[i][1].map((c, k) => Math.round(c + t * (stops[i + 1][1][k] - c)));
}
// One map: a line of colours a row of values, `height` pixels in all.
function heatMap(box, label, rows, height) {
  const row = add(box, 'div', undefined, 'row');
  add(row, 'span', label);
  const canvas = add(row, 'canvas'), columns = rows[0].length;
  canvas.width = columns;
  canvas.height = rows.length;
  canvas.style.height = height + 'px';
  const c = canvas.getContext('2d'), image = c.createImageData(columns, rows.length);
  rows.forEach((values, y) => values.forEach((v, x) => image.data.set([...heatColor(v), 255], 4 * (y * columns + x))));
  c.putImageData(image, 0, 0);
  return canvas;
}
function heatEnds(box, first, last) {
  const axis = add(box, 'div', undefined, 'scale');
  add(axis, 'span');
  const ends = add(axis, 'div', undefined, 'ends');
  add(ends, 'span', first);
  add(ends, 'span', last);
}
function heatKey(box) {
  const key = add(box, 'div', undefined, 'scale');
  add(key, 'span', 'Load').style.alignSelf = 'center';
  const bar = add(key, 'div'), ramp = add(bar, 'div', undefined, 'ramp');
  ramp.style.background = `linear-gradient(90deg, ${stops.map(s => `rgb(${s[1]}) ${s[0] / 2.5 * 100}%`).join(',')})`;
  const labels = add(bar, 'div', undefined, 'ends');
  for (const t of ['0', '0.5', '1 = even', '1.5', '2', '≥ 2.5']) add(labels, 'span', t);
}
function heatMaps(parent, load) {
  const box = add(parent, 'div', undefined, 'heat');
  load.layers.forEach((experts, l) => {
    heatMap(box, `MoE layer ${load.layer ? load.layer[l] : l + 1}`, experts, Math.max(40, Math.min(160, experts.length * 6))).title = `experts 0 (top) to ${experts.length - 1} (bottom), steps ${load.step[0]} to ${load.step[load.step.length - 1]}`;
  });
  heatEnds(box, `step ${short(load.step[0])}`, `step ${short(load.step[load.step.length - 1])}`);
  heatKey(box);
}

// ---- tables -----------------------------------------------------------------------------------------------------------------------

const show = v => v === null || v === undefined ? '–' : typeof v === 'object' ? JSON.stringify(v) : String(v);
function pairs(parent, object) {
  const box = add(parent, 'div', undefined, 'pairs');
  for (const [k, v] of Object.entries(object)) {
    const row = add(box, 'div');
    add(row, 'span', k);
    add(row, 'b', show(v));
  }
}
function table(parent, head, rows) {
  const t = add(add(parent, 'div', undefined, 'scroll'), 'table');
  const h = add(t, 'tr');
  for (const c of head) add(h, 'th', c);
  for (const r of rows) {
    const line = add(t, 'tr');
    for (const c of r) add(line, 'td', c);
  }
}

// ---- one run ----------------------------------------------------------------------------------------------------------------------

let cards;
function figures(list) {
  const box = add(page, 'div', undefined, 'figures');
  for (const [value, name] of list) {
    const f = add(box, 'div', undefined, 'figure');
    add(f, 'b', value);
    add(f, 'span', name);
  }
}

function gainPlot(c, g, way) {
  plot(c, [{name: 'largest, mean over tokens', color: color(0), points: zip(g.step, g[way].max_mean)}, {name: 'largest of any token', color: color(1), kind: 'dashed', points: zip(g.step, g[way].max)},
           {name: 'smallest, mean over tokens', color: color(2), points: zip(g.step, g[way].min_mean)}, {name: 'smallest of any token', color: color(3), kind: 'dashed', points: zip(g.step, g[way].min)}],
       {x: 'step', y: 'composite gain', log: true, guide: 1});
}

function oneRun(run) {
  const s = run.summary, c = run.curves;
  add(page, 'h1', run.name);
  add(page, 'p', [run.machine.time, run.machine.cpu, run.machine.isa, run.machine.threads && `${run.machine.threads} threads`].filter(Boolean).join(' · '), 'lead');
  const list = [[short(s.loss), `training loss, ${unit(run)}`]];
  if (s.val_loss !== undefined) list.push([s.val_loss === null ? '–' : s.val_loss.toFixed(4), `validation loss, ${unit(run)}`]);
  list.push([short(s.steps), 'steps'], [short(s.tokens), 'tokens'], [duration(s.seconds), 'training time'], [short(s.tokens_per_s), 'tokens per second (median)']);
  if (s.parameters) list.push([short(s.parameters), s.active_parameters ? `parameters, ${short(s.active_parameters)} active` : 'parameters']);
  if (s.rss_mib) list.push([short(s.rss_mib), 'MiB of memory']);
  figures(list);
  cards = add(page, 'div', undefined, 'cards');

  plot(card('Loss', 'Cross-entropy of the next token. Validation is a fixed sample of held-out windows.', true),
       [{name: 'each step', color: color(0), kind: 'thin', points: zip(c.step, c.loss)}, {name: 'smoothed', color: color(0), points: zip(c.step, c.smooth)},
        {name: 'validation', color: color(1), kind: 'dots', points: run.validation}],
       {x: 'step', y: unit(run), height: 320, cut: 0.01, legend: true});
  plot(card('Gradient norm', 'Over all parameters, before clipping.'), [{name: 'gradient norm', color: color(0), points: zip(c.step, c.grad_norm)}], {x: 'step', y: 'gradient norm', log: true});
  plot(card('Learning rate'), [{name: 'learning rate', color: color(0), points: zip(c.step, c.lr)}], {x: 'step', y: 'learning rate', zero: true});
  if (run.gains) {
    const g = run.gains;
    plot(card('Gain of each site', 'Largest row sum (forward) and column sum (backward) of H_res, mean over tokens, last measurement. Doubly stochastic: 1.', true),
         [{name: 'forward', color: color(0), marks: true, points: g.forward.site.map((v, i) => [i + 1, v])}, {name: 'backward', color: color(1), marks: true, points: g.backward.site.map((v, i) => [i + 1, v])}],
         {x: 'site (attention and feed-forward of each layer)', y: 'gain', log: true, guide: 1, integers: true});
    gainPlot(card('Composite gain, forward', 'Row sums of the product of H_res over all sites.'), g, 'forward');
    gainPlot(card('Composite gain, backward', 'Column sums of the same product: what a gradient meets.'), g, 'backward');
  }
  if (run.maxvio) {
    const m = run.maxvio;
    plot(card('Load violation', 'MaxVio: largest load of an expert over the mean load, minus 1, of each step’s tokens.', !run.load),
         [{name: 'mean of layers', color: color(0), points: zip(m.step, m.mean)}, ...m.layers.slice(0, 6).map((l, i) => ({name: `MoE layer ${i + 1}`, color: color(i + 1), kind: 'thin', points: zip(m.step, l)}))],
         {x: 'step', y: 'MaxVio', zero: true, cut: 0.01});
  }
  if (run.phases) {
    const p = card('Time of a step', `Mean of the second half of the run; ${Math.round(100 * run.phases.gemm_share)} % of a step in matrix products.`), total = Object.values(run.phases.ms).reduce((a, b) => a + b, 0);
    const order = ['forward', 'backward', 'optimizer'].filter(k => k in run.phases.ms), bar = add(p, 'div', undefined, 'bar');
    order.forEach((k, i) => { const part = add(bar, 'div'); part.style.cssText = `width:${100 * run.phases.ms[k] / total}%;background:${color(i)}`; part.title = k; });
    const legend = add(p, 'div', undefined, 'legend');
    order.forEach((k, i) => { const e = add(legend, 'span'), mark = add(e, 'i', undefined, 'dot'); mark.style.background = color(i); e.append(`${k} ${short(run.phases.ms[k])} ms (${Math.round(100 * run.phases.ms[k] / total)} %)`); });
    plot(p, [{name: 'tokens per second', color: color(0), points: zip(c.step, c.tokens_per_s)}], {x: 'step', y: 'tokens per second', zero: true, height: 180, cut: 0.01});
  }
  if (run.load) heatMaps(card('Load of the experts', 'Tokens of each expert over the mean of its layer; one line an expert, time to the right.', true), run.load);
  if (run.sample) add(card('What it writes', 'Sampled at temperature 0.8 after training.', true), 'pre', run.sample);
  pairs(card('Training settings', undefined, true), run.training);
  pairs(card('Model settings', undefined, true), run.config);
  pairs(card('Machine', undefined, true), run.machine);
}

// ---- several runs -----------------------------------------------------------------------------------------------------------------

function compare() {
  add(page, 'h1', `${runs.length} runs side by side`);
  add(page, 'p', runs.map(r => r.name).join(' · '), 'lead');
  cards = add(page, 'div', undefined, 'cards');
  const curve = (f, kind) => runs.map((r, i) => ({name: r.name, color: color(i), kind, points: f(r)}));
  const y = runs.every(r => r.bytes) ? 'nats per byte' : 'nats per token';
  table(card('Final figures', undefined, true), ['run', `validation loss (${y})`, 'training loss, smoothed', 'steps', 'tokens per second', 'training time', 'memory (MiB)', 'parameters', 'MaxVio', 'largest backward gain'],
        runs.map(r => [r.name, r.summary.val_loss === undefined || r.summary.val_loss === null ? '–' : r.summary.val_loss.toFixed(4), short(r.summary.loss), short(r.summary.steps), short(r.summary.tokens_per_s),
                       duration(r.summary.seconds), short(r.summary.rss_mib), short(r.summary.parameters), r.maxvio ? short(r.maxvio.mean[r.maxvio.mean.length - 1]) : '–',
                       r.gains ? short(r.gains.backward.max_mean[r.gains.backward.max_mean.length - 1]) : '–']));
  const settings = runs.map(r => ({...r.config, ...r.training}));
  const differing = [...new Set(settings.flatMap(Object.keys))].filter(k => new Set(settings.map(s => JSON.stringify(s[k]))).size > 1).sort();
  if (differing.length) table(card('Settings that differ', undefined, true), ['setting', ...runs.map(r => r.name)], differing.map(k => [k, ...settings.map(s => show(s[k]))]));
  plot(card('Training loss, smoothed', undefined, true), curve(r => zip(r.curves.step, r.curves.smooth)), {x: 'step', y, height: 320, cut: 0.01, legend: true});
  plot(card('Validation loss'), curve(r => r.validation).map(s => ({...s, marks: true})), {x: 'step', y, legend: true});
  plot(card('Gradient norm'), curve(r => zip(r.curves.step, r.curves.grad_norm)), {x: 'step', y: 'gradient norm', log: true, legend: true});
  if (runs.some(r => r.gains)) {
    for (const way of ['forward', 'backward'])
      plot(card(`Composite gain, ${way}`, 'Largest line sum of the product of H_res over all sites, mean over tokens.'), curve(r => r.gains ? zip(r.gains.step, r.gains[way].max_mean) : []), {x: 'step', y: 'composite gain', log: true, guide: 1, legend: true});
  }
  if (runs.some(r => r.maxvio)) plot(card('Load violation', 'MaxVio, mean of the layers.'), curve(r => r.maxvio ? zip(r.maxvio.step, r.maxvio.mean) : []), {x: 'step', y: 'MaxVio', zero: true, cut: 0.01, legend: true});
  plot(card('Speed'), curve(r => zip(r.curves.step, r.curves.tokens_per_s)), {x: 'step', y: 'tokens per second', zero: true, cut: 0.01, legend: true});
}

data.study ? studyPage(data.study) : data.experts ? expertPage(data.experts) : data.evaluation ? evaluationPage(data.evaluation) : data.comparison ? evaluationComparison(data.comparison) : runs.length === 1 ? oneRun(runs[0]) : compare();
