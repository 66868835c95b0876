
// ---- experts of a model -------------------------------------------------------------------------------------------------------------
// Functions alone: page.js calls expertPage before anything below it has run.

// loads[domain]: load of each expert.
function domainMaps(box, names, loads) {
  loads.forEach((values, d) => {
    const map = heatMap(box, names[d], [values], 18);
    map.previousSibling.title = names[d];
    const best = values.indexOf(Math.max(...values));
    map.title = `${names[d]}: most to expert ${best}, ${short(values[best])} times the even load`;
  });
}

// Keys are experts with the domain that loads them most, values the tokens they are chosen for.
function tellingTokens(names, layer) {
  const rows = {};
  layer.telling.forEach((tokens, e) => {
    const loads = layer.load.map(domain => domain[e]), best = loads.indexOf(Math.max(...loads));
    rows[`${e} · ${names[best]} ${short(+loads[best].toFixed(2))}×`] = tokens.map(t => t.token).join('\u2002') || '–';
  });
  return rows;
}

function expertPage(d) {
  const names = d.domains.map(x => x.name), excess = l => l.information_bits - l.shuffled.mean, o = d.options;
  const name = l => `Layer ${l.layer}${l.hashed ? ' (experts by table)' : ''}`, strongest = d.layers.reduce((a, b) => excess(b) > excess(a) ? b : a);
  add(page, 'h1', `Experts of ${d.model}`);
  add(page, 'p', names.join(' · '), 'lead');
  figures([[short(excess(strongest)), `bits of (expert, domain) above chance, layer ${strongest.layer}`], [short(Math.log2(names.length)), 'bits if every expert served one domain'],
           [d.experts, `experts a layer, ${d.active} a token`], [short(d.domains.reduce((a, x) => a + x.tokens, 0)), o.validation ? 'held-out tokens' : 'tokens'], [o.shuffles, 'shuffles']]);
  cards = add(page, 'div', undefined, 'cards');

  const curve = (label, i, kind, f) => ({name: label, color: color(i), kind, marks: kind === undefined, points: d.layers.map(l => [l.layer, f(l)])});
  plot(card('Mutual information of expert and domain', 'Over the choices of all tokens; every domain weighs the same. Shuffled: the domains of the documents (long ones in parts) are permuted.', true),
       [curve('as it is', 0, undefined, l => l.information_bits), curve('shuffled, 95 %', 1, 'dashed', l => l.shuffled.p95), curve('shuffled, mean', 2, 'dots', l => l.shuffled.mean)],
       {x: 'layer', y: 'bits', zero: true, integers: true, legend: true});
  const bits = v => v.toFixed(4);
  table(card('Bits by layer'), ['layer', 'as it is', 'shuffled: mean', '95 %', 'max', 'above the mean'],
        d.layers.map(l => [l.layer, bits(l.information_bits), bits(l.shuffled.mean), bits(l.shuffled.p95), bits(l.shuffled.max), bits(excess(l))]));
  table(card('Domains'), ['domain', 'tokens', 'documents', 'shuffled as'], d.domains.map(x => [x.name, x.tokens.toLocaleString('en'), x.documents, `${x.units} parts`]));

  const maps = add(card('Load of the experts by domain', 'Share of the domain’s choices over the even share; experts from left to right.', true), 'div', undefined, 'heat domains');
  for (const l of d.layers) {
    add(maps, 'h3', name(l));
    domainMaps(maps, names, l.load);
  }
  heatEnds(maps, 'expert 0', `expert ${d.experts - 1}`);
  heatKey(maps);
  for (const l of d.layers)
    pairs(card(`${name(l)}: most telling tokens`, `Expert, the domain that loads it most and how much, and the tokens with the largest p(token | expert) / p(token), of those that chose it ${o.min_count} times or more.`, true), tellingTokens(names, l));
}
