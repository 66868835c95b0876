
// ---- a study ----------------------------------------------------------------------------------------------------------------------

// Functions alone: page.js calls studyPage before anything below it has run.

// What axes of a study may name.
function figureTitle(key) {
  return {
    val_loss: 'validation loss', train_loss: 'training loss', step_ms: 'ms per step', tokens_per_s: 'tokens per second', seconds: 'training time (s)', rss_mib: 'memory (MiB)', planned_mib: 'planned memory (MiB)',
    parameters: 'parameters', active_parameters: 'active parameters', kv_bytes: 'cache (bytes per token)', combinations: 'combinations of experts', maxvio: 'MaxVio', gain_max: 'largest gain, mean over tokens',
    gain_min: 'smallest gain, mean over tokens', gain_max_token: 'largest gain of a token', gain_min_token: 'smallest gain of a token', lr: 'learning rate',
  }[key] || key;
}
function signed(v) { return (v < 0 ? '−' : '+') + Math.abs(v).toFixed(4); }
function plusMinus(m) { return !m ? '–' : m.mean.toFixed(4) + (m.error === null ? '' : ` ± ${m.error.toFixed(4)}`); }
function differenceText(d) { return !d || d.mean === null ? '–' : signed(d.mean) + (d.low === null ? '' : ` [${signed(d.low)}, ${signed(d.high)}]`); }
function rough(v) { return Math.abs(v) >= 1e6 ? (+v).toExponential(1).replace('e+', 'e') : String(+(+v).toPrecision(3)); }
function meanText(m) { return m ? short(m.mean) : '–'; }

function bandSeries(name, c, b, more) {
  return b && {name, color: color(c), points: zip(b.step, b.mean), band: b.low && b.step.map((x, i) => [x, b.low[i], b.high[i]]), ...more};
}

// Horizontal bars with their values, all from zero.
function bars(parent, rows) {
  const most = Math.max(...rows.map(r => r.value)), box = add(parent, 'div', undefined, 'bars');
  for (const r of rows) {
    add(box, 'span', r.name);
    const track = add(box, 'div'), fill = add(track, 'i');
    fill.style.width = `${100 * r.value / most}%`;
    fill.style.background = r.color;
    add(box, 'b', r.text);
  }
}

// One point a variant with its standard errors; variants of a group are joined in the order of x.
function studyPicture(study, points) {
  const list = points.points, named = [...new Set(list.map(p => p.group))], y = points.y_title || figureTitle(points.y);
  const box = card(points.title || `${y} against ${points.x_title || figureTitle(points.x)}`, 'One point a variant: mean over seeds, bars of one standard error.', true);
  const series = [];
  named.forEach((group, g) => {
    const own = list.filter(p => p.group === group).sort((a, b) => a.x.mean - b.x.mean);
    if (group && own.length > 1) series.push({name: group, color: color(g), kind: 'thin', points: own.map(p => [p.x.mean, p.y.mean])});
  });
  for (const p of list) series.push({name: study.variants[p.variant].name, color: color(p.variant), kind: 'dots', points: [[p.x.mean, p.y.mean]], errors: [[p.x.error || 0, p.y.error || 0]]});
  plot(box, series, {x: points.x_title || figureTitle(points.x), y: points.y.endsWith('loss') ? `${y} (${study.unit})` : y, log: points.log_y, log_x: points.log_x, pad: true, exact_x: true, height: 340, legend: true});
}

function studyTable(study, gains, experts) {
  const rows = study.summary.variants, first = study.variants[0].name, loss = `validation loss (${study.unit})`;
  const box = card('Result', `Loss over all held-out windows at the end, mean ± standard error over seeds. Difference to ${first} seed by seed (same data order), mean and 95 % interval (Student t).`, true);
  table(box, ['variant', 'seeds', loss, 'difference', 'ms per step', 'memory (MiB)', ...(gains ? ['composite gain', 'of any token'] : []), ...(experts ? ['MaxVio'] : []), 'parameters', 'active'],
        rows.map((r, i) => [r.name, r.failed ? `${r.seeds} (${r.failed} failed)` : r.seeds, plusMinus(r.val_loss), i ? differenceText(r.difference) : '', meanText(r.step_ms), meanText(r.rss_mib),
                            ...(gains ? [r.gain_max ? `${rough(r.gain_min.mean)} to ${rough(r.gain_max.mean)}` : '–', r.gain_max ? `${rough(r.gain_min_token)} to ${rough(r.gain_max_token)}` : '–'] : []), ...(experts ? [meanText(r.maxvio)] : []), meanText(r.parameters), meanText(r.active_parameters)]));
  if (!study.summary.best) return;
  add(box, 'p', 'The variant of each group with the lowest mean loss, chosen by that loss:').style.marginTop = '12px';
  table(box, ['group', 'best variant', loss, 'difference'], study.summary.best.map((b, i) => [b.group, b.variant, plusMinus(b.val_loss), i ? differenceText(b.difference) : '']));
}

// f(variant, its number): series or lists of series.
function eachVariant(study, f) { return study.variants.map(f).flat().filter(Boolean); }

function studyLosses(study) {
  const first = study.variants[0].name, y = study.unit, difference = `difference (${y})`;
  const failed = (v, i) => (v.failed || []).map(f => ({name: `${v.name}, seed ${f.seed} (failed)`, color: color(i), kind: 'dashed', points: f.loss}));
  plot(card('Training loss', 'Mean over seeds of the mean loss of consecutive steps; band: one standard error.', true), eachVariant(study, (v, i) => [bandSeries(v.name, i, v.loss), ...failed(v, i)]),
       {x: 'step', y, height: 340, cut: 0.02, legend: true});
  const late = b => b && Object.fromEntries(Object.entries(b).map(([k, values]) => [k, values.slice(Math.floor(values.length / 10))]));
  plot(card(`Training loss minus that of ${first}`, 'Paired by seed: the same batches in the same order. Band: 95 % interval of the mean. The first tenth is left out.', true), eachVariant(study, (v, i) => bandSeries(v.name, i, late(v.difference))),
       {x: 'step', y: difference, guide: 0, height: 300, legend: true});
  plot(card('Validation loss', 'A fixed sample of held-out windows.'), eachVariant(study, (v, i) => bandSeries(v.name, i, v.validation, {marks: true})), {x: 'step', y, legend: true});
  plot(card(`Validation loss minus that of ${first}`, 'Paired by seed, 95 % interval.'), eachVariant(study, (v, i) => bandSeries(v.name, i, v.validation_difference, {marks: true})), {x: 'step', y: difference, guide: 0, legend: true});
}

function studyGains(study) {
  for (const [way, lines] of [['forward', 'Row sums'], ['backward', 'Column sums']]) {
    const curves = (v, i) => {
      const g = v.gains && v.gains[way];
      return g && [['', 'max_mean'], [', smallest', 'min_mean'], [', largest of any token', 'max'], [', smallest of any token', 'min']].map(([name, key]) => ({name: v.name + name, color: color(i), hidden: name !== '', kind: key.includes('mean') ? undefined : 'dashed', points: zip(g.step, g[key])}));
    };
    plot(card(`Composite gain, ${way}`, `${lines} of the product of H_res over all sites, largest and smallest: mean over tokens (lines) and extreme of any token and seed (dashed).`, true), eachVariant(study, curves),
         {x: 'step', y: 'composite gain', log: true, guide: 1, height: 300, legend: true});
  }
  for (const way of ['forward', 'backward'])
    plot(card(`Gain of each site, ${way}`, 'At the end, mean over tokens and seeds.'), eachVariant(study, (v, i) => v.sites && v.sites[way] && {name: v.name, color: color(i), points: v.sites[way].map((g, k) => [k + 1, g])}),
         {x: 'site (attention and feed-forward of each layer)', y: 'gain', log: true, guide: 1, integers: true, legend: true});
}

function studyExperts(study) {
  plot(card('Load violation', 'MaxVio: largest load of an expert over the mean load, minus 1, of each step’s tokens; mean of layers and seeds, band: one standard error.', true), eachVariant(study, (v, i) => bandSeries(v.name, i, v.maxvio)),
       {x: 'step', y: 'MaxVio', zero: true, cut: 0.02, legend: true});
  for (const v of study.variants) if (v.load) heatMaps(card(`Load of the experts: ${v.name}`, 'Tokens of each expert over the mean of its layer, seed 1; one line an expert, time to the right.'), v.load);
}

function studyCosts(study) {
  const threads = study.machine.threads, beside = study.machine.side_by_side;
  const rows = (key, text) => study.summary.variants.map((r, i) => r[key] && {name: r.name, value: r[key].mean, text: text(r[key].mean), color: color(i)}).filter(Boolean);
  bars(card('Time of a step (ms)', `Median step of each run, mean over seeds; ${threads} ${threads === 1 ? 'thread' : 'threads'} a run, ${beside} ${beside === 1 ? 'run' : 'runs'} at a time.`), rows('step_ms', v => `${short(v)} ms`));
  bars(card('Memory (MiB)', 'Largest resident set of a run’s process.'), rows('rss_mib', v => `${Math.round(v)} MiB`));
}

function studyPage(study) {
  const s = study.study, variants = study.variants, gains = study.summary.variants.some(r => r.gain_max), experts = study.summary.variants.some(r => r.maxvio);
  add(page, 'h1', `Study: ${s.name}`);
  if (s.claim) add(page, 'p', `${s.claim}.`, 'claim');
  add(page, 'p', [s.source && `The claim is from: ${s.source}`, `${variants.length} variants, ${s.seeds} ${s.seeds === 1 ? 'seed' : 'seeds'}`, study.settings.steps && `${short(study.settings.steps)} steps of ${short(study.settings.batch_size * study.settings.seq_len)} tokens`,
                  study.machine.cpu, study.time].filter(Boolean).join(' · '), 'lead');
  cards = add(page, 'div', undefined, 'cards');
  studyTable(study, gains, experts);
  if (study.points) studyPicture(study, study.points);
  studyLosses(study);
  if (gains) studyGains(study);
  if (experts) studyExperts(study);
  studyCosts(study);
  const differing = [...new Set(variants.flatMap(v => Object.keys(v.differing)))].sort();
  if (differing.length) table(card('Settings that differ', undefined, true), ['setting', ...variants.map(v => v.name)], differing.map(k => [k, ...variants.map(v => show(v.differing[k]))]));
  const failures = variants.flatMap(v => (v.failed || []).map(f => [v.name, f.seed, f.message]));
  if (failures.length) table(card('Runs that failed', undefined, true), ['variant', 'seed', 'message'], failures);
  pairs(card('Settings of all variants', undefined, true), study.settings);
  pairs(card('Machine and command', undefined, true), {...study.machine, time: study.time, command: study.command});
}
