
// ---- an evaluation ------------------------------------------------------------------------------------------------------------------
// Functions alone: page.js calls evaluationPage and evaluationComparison before anything below it has run.

function lowerIsBetter(metric) { return metric.includes('nats_per_'); }
function scoreText(v, error) { return v === null || v === undefined ? '–' : v.toFixed(4) + (error === null || error === undefined ? '' : ` ± ${error.toFixed(4)}`); }
// The metric that stands for a task: the first that is no loss.
function mainMetric(names) { return names.find(m => !lowerIsBetter(m)) || names[0]; }

function mainScore(entry) {
  const name = mainMetric(entry.metrics.map(m => m.name));
  return entry.metrics.find(m => m.name === name);
}

// Bars from zero with what an interval covers. rows: [{name, value, low, high, text, color}]; with `signed`, zero is in the middle and there are no bars.
function intervalBars(parent, rows, signed) {
  const reach = Math.max(...rows.flatMap(r => [Math.abs(r.value), Math.abs(r.low ?? 0), Math.abs(r.high ?? 0)]), 1e-9);
  const at = v => signed ? 50 + 50 * v / reach : 100 * Math.max(0, v) / reach, box = add(parent, 'div', undefined, 'bars');
  for (const r of rows) {
    add(box, 'span', r.name);
    const track = add(box, 'div', undefined, 'track');
    if (signed) add(track, 'u').style.left = '50%';
    else {
      const fill = add(track, 'i');
      fill.style.width = `${at(r.value)}%`;
      fill.style.background = r.color;
    }
    if (r.low !== null && r.low !== undefined) {
      const line = add(track, 's');
      line.style.left = `${at(r.low)}%`;
      line.style.width = `${at(r.high) - at(r.low)}%`;
      if (signed) line.style.color = r.color;
    }
    if (signed) {
      const dot = add(track, 'em');
      dot.style.left = `${at(r.value)}%`;
      dot.style.background = r.color;
    }
    add(box, 'b', r.text);
  }
}

function scoreRow(m, name) {
  const reach = m.error === null ? null : 1.96 * m.error;
  return {name, value: m.value, low: reach === null ? null : m.value - reach, high: reach === null ? null : m.value + reach, text: scoreText(m.value, m.error), color: color(0)};
}

// What all names begin with, to the end of a word.
function sharedStart(names) {
  let n = 0;
  while (names.length > 1 && names.every(x => n < x.length && x[n] === names[0][n])) ++n;
  return names[0].slice(0, n).lastIndexOf('_') + 1;
}

// One card a group, the smallest first, with those of its tasks that have none yet; then the tasks of no group.
function evaluationBars(d) {
  const entries = Object.fromEntries(d.tasks.map(t => [t.name, t])), drawn = new Set();
  const draw = (title, names) => {
    const tasks = names.map(n => entries[n]).filter(t => t && t.metrics.length && !drawn.has(t.name));
    if (!tasks.length) return;
    const main = tasks.map(mainScore), one = main.every(m => m.name === main[0].name), cut = sharedStart(tasks.map(t => t.name));
    const rows = tasks.map((t, i) => scoreRow(main[i], t.name.slice(cut) + (one ? '' : `, ${main[i].name}`)));
    tasks.forEach(t => drawn.add(t.name));
    intervalBars(card(title, `${one ? main[0].name : 'The first score'} of each task; the line is its 95 % interval, 1.96 standard errors to both sides.`, true), rows);
  };
  for (const g of d.groups.filter(x => x.tasks).sort((x, y) => x.tasks.length - y.tasks.length)) draw(g.name, g.tasks);
  draw('Tasks', d.tasks.map(t => t.name));
}

// ---- samples ------------------------------------------------------------------------------------------------------------------------

// {metric: value} of a sample, the filter in the name as in the results.
function sampleScores(sample) {
  const scores = {...(sample.metrics || {})};
  for (const [filter, judged] of Object.entries(sample.filters || {}))
    for (const [k, v] of Object.entries(judged)) if (typeof v === 'number' || typeof v === 'boolean') scores[filter === 'none' ? k : `${k},${filter}`] = +v;
  if (typeof sample.gold_nats_per_byte === 'number') scores.gold_nats_per_byte = sample.gold_nats_per_byte;
  return scores;
}
function isRight(sample) {
  const scores = sampleScores(sample), metric = mainMetric(Object.keys(scores));
  return metric !== undefined && !lowerIsBetter(metric) && +scores[metric] === 1;
}
function bestChoice(sample) { return (sample.choices || []).reduce((a, b) => a && a.logprob >= b.logprob ? a : b, null); }
function answerText(sample) { return sample.generated !== undefined ? sample.generated : bestChoice(sample) ? bestChoice(sample).continuation : ''; }
function contextText(sample) { return typeof sample.context === 'string' ? sample.context : JSON.stringify(sample.context, null, 1); }

function lastWords(text) { return (text.length > 160 ? '…' : '') + text.slice(-160).replace(/\s+/g, ' '); }

function sampleDetails(box, sample) {
  add(box, 'pre', contextText(sample));
  if (sample.choices) {
    const best = bestChoice(sample);
    table(box, ['choice', 'log-probability', 'tokens', ''], sample.choices.map(c => [c.continuation, short(c.logprob), Array.isArray(c.tokens) ? c.tokens.length : show(c.tokens), [c === best ? 'chosen' : '', c.is_greedy ? 'greedy' : ''].filter(Boolean).join(', ')]));
  }
  if (sample.generated !== undefined) add(box, 'pre', sample.generated, 'answer');
  const filters = Object.entries(sample.filters || {});
  if (filters.length) table(box, ['filter', 'extracted'], filters.map(([f, j]) => [f, show(j.extracted)]));
  const scores = sampleScores(sample), known = ['doc_id', 'context', 'choices', 'generated', 'filters', 'metrics', 'gold_nats_per_byte'];
  pairs(box, {...Object.fromEntries(Object.entries(scores).map(([k, v]) => [k, short(+v)])), ...Object.fromEntries(Object.entries(sample).filter(([k]) => !known.includes(k)))});
}

// A list that opens its rows. head(row) fills the line, body(box, row) what opens below it.
function openingList(parent, rows, head, body) {
  const list = add(parent, 'div', undefined, 'samples');
  for (const row of rows) {
    const item = add(list, 'details');
    head(add(item, 'summary'), row);
    item.ontoggle = () => { if (item.open && item.children.length === 1) body(add(item, 'div'), row); };
  }
  return list;
}

function option(select, value, text) { const o = add(select, 'option', text); o.value = value; }

function sampleBrowser(d) {
  const sets = d.samples.filter(s => s.rows.length);
  if (!sets.length) return;
  const box = card('Samples', undefined, true), said = add(box, 'p'), bar = add(box, 'div', undefined, 'controls'), size = 25;
  const task = add(bar, 'select'), which = add(bar, 'select'), search = add(bar, 'input'), back = add(bar, 'button', '‹'), place = add(bar, 'span'), next = add(bar, 'button', '›');
  task.ariaLabel = 'task'; which.ariaLabel = 'which samples'; back.ariaLabel = 'previous page'; next.ariaLabel = 'next page';
  sets.forEach((s, i) => option(task, i, s.task));
  for (const [value, text] of [['all', 'all'], ['right', 'right'], ['wrong', 'wrong']]) option(which, value, text);
  search.type = 'search';
  search.placeholder = 'search';
  let list = null, first = 0;
  const render = () => {
    const set = sets[+task.value], words = search.value.toLowerCase();
    const some = set.total > set.rows.length, cut = set.rows.some(r => contextText(r).startsWith('…'));
    said.textContent = (some ? `${set.rows.length} of the ${set.total.toLocaleString('en')} samples, chosen evenly; all are in samples_${set.task}.jsonl.` : `All ${set.total.toLocaleString('en')} samples.`) + (cut ? ' Long contexts are without their beginning.' : '');
    const rows = set.rows.filter(r => (which.value === 'all' || isRight(r) === (which.value === 'right')) && (!words || JSON.stringify(r).toLowerCase().includes(words) || (contextText(r) + answerText(r)).toLowerCase().includes(words)));
    first = Math.min(first, Math.max(0, Math.floor((rows.length - 1) / size) * size));
    place.textContent = rows.length ? `${first + 1} to ${Math.min(first + size, rows.length)} of ${rows.length}` : 'none';
    back.disabled = first === 0;
    next.disabled = first + size >= rows.length;
    if (list) list.remove();
    list = openingList(box, rows.slice(first, first + size), (line, r) => {
      add(line, 'b', isRight(r) ? '✓' : '✗', isRight(r) ? 'right' : 'wrong');
      add(line, 'span', r.doc_id);
      add(line, 'span', lastWords(contextText(r)), 'cut');
      add(line, 'span', answerText(r).replace(/\s+/g, ' '), 'cut');
    }, sampleDetails);
  };
  const again = () => { first = 0; render(); };
  task.onchange = which.onchange = search.oninput = again;
  back.onclick = () => { first = Math.max(0, first - size); render(); };
  next.onclick = () => { first += size; render(); };
  render();
}

function scoreTable(title, entries) {
  const rows = entries.flatMap(e => e.metrics.map((m, i) => [i ? '' : e.name, i ? '' : show(e.version), i ? '' : show(e.num_fewshot), i ? '' : show(e.n), m.name, m.value.toFixed(4), m.error === null ? '–' : m.error.toFixed(4),
                                                             m.error === null ? '–' : `[${(m.value - 1.96 * m.error).toFixed(4)}, ${(m.value + 1.96 * m.error).toFixed(4)}]`]));
  if (rows.length) table(card(title, undefined, true), ['task', 'version', 'shots', 'documents', 'metric', 'score', 'standard error', '95 % interval'], rows);
}

function evaluationPage(d) {
  add(page, 'h1', `Evaluation of ${d.name}`);
  const documents = d.tasks.reduce((a, t) => a + (t.n || 0), 0);
  add(page, 'p', [`${d.tasks.length} ${d.tasks.length === 1 ? 'task' : 'tasks'}`, `${documents.toLocaleString('en')} documents`, d.settings.protocol && `protocol ${d.settings.protocol}`].filter(Boolean).join(' · '), 'lead');
  const grouped = new Set(d.groups.flatMap(g => g.tasks || []));
  figures([...d.groups, ...d.tasks.filter(t => !grouped.has(t.name))].filter(e => e.metrics.length).slice(0, 12).map(e => {
    const m = mainScore(e);
    return [m.value.toFixed(4), `${e.name}, ${m.name}${m.error === null ? '' : ` ± ${m.error.toFixed(4)}`}`];
  }));
  cards = add(page, 'div', undefined, 'cards');
  evaluationBars(d);
  scoreTable('Groups', d.groups);
  scoreTable('Scores', d.tasks);
  sampleBrowser(d);
  if (d.model && typeof d.model === 'object') pairs(card('Model', undefined, true), d.model);
  pairs(card('Settings', undefined, true), d.settings);
}

// ---- evaluations compared -----------------------------------------------------------------------------------------------------------

function aloneCount(v) { return Array.isArray(v) ? v.length : v; }
function differenceRow(name, f) {
  return {name, value: f.difference, low: f.low, high: f.high, text: differenceText({mean: f.difference, low: f.low, high: f.high}), color: f.better === 'b' ? 'var(--c2)' : f.better === 'a' ? 'var(--c1)' : 'var(--soft)'};
}

function differences(c, a, b) {
  const all = [...Object.entries(c.groups), ...Object.entries(c.tasks)], metrics = [...new Set(all.flatMap(([, e]) => Object.keys(e.metrics)))];
  for (const metric of [...metrics.filter(m => !lowerIsBetter(m)), ...metrics.filter(lowerIsBetter)]) {
    const rows = all.filter(([, e]) => e.metrics[metric] && e.metrics[metric].difference !== null).map(([name, e]) => differenceRow(name, e.metrics[metric]));
    if (rows.length) intervalBars(card(`Difference in ${metric}`, `${b} minus ${a}, the same documents of both; the line is the 95 % interval. Coloured where it does not cover 0${lowerIsBetter(metric) ? '; lower is better' : ''}.`, true), rows, true);
  }
}

function differenceTable(c, a, b) {
  const rows = [...Object.entries(c.groups), ...Object.entries(c.tasks)].flatMap(([name, e]) => Object.entries(e.metrics).map(([metric, f], i) => [
    i ? '' : name, metric, f.n, scoreText(f.a, f.a_stderr), scoreText(f.b, f.b_stderr), differenceText({mean: f.difference, low: f.low, high: f.high}), f.mcnemar === undefined ? '' : f.mcnemar < 1e-4 ? f.mcnemar.toExponential(1) : f.mcnemar.toFixed(4),
    f.mcnemar === undefined ? '' : `${aloneCount(f.a_alone)} : ${aloneCount(f.b_alone)}`, f.better === 'a' ? a : f.better === 'b' ? b : '']));
  table(card('Scores', 'Mean ± standard error. p: exact test of McNemar over the documents that one alone has right.', true), ['task', 'metric', 'documents', a, b, 'difference', 'p', 'alone', 'better'], rows);
}

function differingDocuments(c, a, b) {
  const sets = Object.entries(c.tasks).filter(([, t]) => t.examples.length);
  if (!sets.length) return;
  const box = card('Documents where they differ', 'A few of each task, chosen evenly.', true), task = add(add(box, 'div', undefined, 'controls'), 'select');
  task.ariaLabel = 'task';
  sets.forEach(([name], i) => option(task, i, name));
  let list = null;
  task.onchange = () => {
    if (list) list.remove();
    list = openingList(box, sets[+task.value][1].examples, (line, e) => {
      add(line, 'span', e.doc_id);
      add(line, 'span', lastWords(e.context), 'cut');
      add(line, 'span', `${e.a} | ${e.b}`.replace(/\s+/g, ' '), 'cut');
    }, (inside, e) => {
      add(inside, 'pre', e.context);
      table(inside, ['', 'answer', 'scores'], [[a, e.a, JSON.stringify(e.a_scores)], [b, e.b, JSON.stringify(e.b_scores)]]);
    });
  };
  task.onchange();
}

function evaluationComparison(d) {
  const names = d.evaluations.map(e => e.name);
  add(page, 'h1', `${names.length} evaluations side by side`);
  add(page, 'p', names.join(' · '), 'lead');
  cards = add(page, 'div', undefined, 'cards');
  for (const c of d.comparisons) {
    const a = names[c.a], b = names[c.b];
    if (d.comparisons.length > 1) add(cards, 'h1', `${b} against ${a}`).className = 'part';
    differences(c, a, b);
    differenceTable(c, a, b);
    if (c.notes.length) table(card('What is left out', undefined, true), [''], c.notes.map(n => [n]));
    if (Object.keys(c.settings).length) table(card('Settings that differ', undefined, true), ['setting', a, b], Object.entries(c.settings).map(([k, v]) => [k, ...v.map(show)]));
    differingDocuments(c, a, b);
  }
  for (const e of d.evaluations) pairs(card(e.name, undefined, true), {directory: e.directory, ...(e.model && typeof e.model === 'object' ? e.model : {model: e.model}), ...e.settings});
}
