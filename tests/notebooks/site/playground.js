"use strict";
// The script of the playground: first the computations, which do not use elements of the page, then
// the four views. Names are as in mflib.

/* The page's data; see `packed` in playground.py. */

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  let at = 4 + size;
  for (const [name, length] of Object.entries(data.arrays)) {
    const words = new Uint16Array(length);
    for (let n = 0; n < length; n++) words[n] = bytes[at + n] | (bytes[at + length + n] << 8);
    data[name] = words;
    at += 2 * length;
  }
  const signed = (words) => new Int16Array(words.buffer);
  const scaled = (words, scale) =>
    Float64Array.from(signed(words), (word, n) => word * scale[n % scale.length]);
  data.hundredths = signed(data.hundredths);
  data.vectors = scaled(data.vectors, data.vectorScale); // I x F, row by row
  data.plane = scaled(data.plane, data.planeScale); // I x 2
  data.films = data.titles.map(readable);
  return data;
}

/** "Matrix, The (1999)" -> { name: "The Matrix", year: "1999" }. */
function readable(title) {
  const [, whole, year] = title.match(/^(.*?)(?: \((\d{4})\))?$/);
  const articles = "The|A|An|L'|Le|La|Les|Un|Une|Il|Lo|I|El|Los|Las|Das|Der|Die|Den|Det|De|En";
  const moved = whole.match(new RegExp(`^(.*?), (${articles})((?: \\(.*\\))?)$`));
  const space = moved && moved[2].endsWith("'") ? "" : " ";
  return { name: moved ? moved[2] + space + moved[1] + moved[3] : whole, year: year || "" };
}

const NOBODY = 0xffff;
const LISTED = 10;

/** The ten neighbours of a film in a model: [{ id, value }]; empty if its vector is 0. */
function neighbours(data, model, metric, id) {
  const start = ((model * data.metrics.length + metric) * data.titles.length + id) * LISTED;
  const places = Array.from({ length: LISTED }, (_, n) => start + n);
  return places
    .map((place) => ({ id: data.neighbours[place], value: data.hundredths[place] / 100 }))
    .filter((near) => near.id !== NOBODY);
}

/* ALS: the exact solution for a new user's vector, and its recommendations. */

/** Y'Y of the item factors, F x F. */
function gramOf(data) {
  const F = data.vectorScale.length;
  const gram = new Float64Array(F * F);
  for (let at = 0; at < data.vectors.length; at += F)
    for (let f = 0; f < F; f++)
      for (let g = 0; g <= f; g++) gram[f * F + g] += data.vectors[at + f] * data.vectors[at + g];
  for (let f = 0; f < F; f++) for (let g = 0; g < f; g++) gram[g * F + f] = gram[f * F + g];
  return gram;
}

/**
 * The system A x = b of a user with the given votes, [[id, r], …], r = 1 for a like and -1 for a
 * dislike: A = Y'Y + lambda n^nu E + the sum of alpha |r| y y', b = the sum over the likes of
 * (1 + alpha |r|) y. Returns the votes, Cholesky's L of A = L L' and x.
 */
function foldIn(data, votes, alpha, lambda) {
  const F = data.vectorScale.length;
  data.gram ??= gramOf(data);
  const A = data.gram.slice();
  const b = new Float64Array(F);
  const penalty = lambda * Math.max(1, votes.length) ** data.nu;
  for (let f = 0; f < F; f++) A[f * F + f] += penalty;
  for (const [id, r] of votes) {
    const y = data.vectors.subarray(id * F, id * F + F);
    const excess = alpha * Math.abs(r);
    for (let f = 0; f < F; f++) {
      if (r > 0) b[f] += (1 + excess) * y[f];
      for (let g = 0; g < F; g++) A[f * F + g] += excess * y[f] * y[g];
    }
  }
  const L = cholesky(A, F);
  return { votes, alpha, L, x: solve(L, b) };
}

/** The lower triangle L with L L' = A, row by row; an Error if A is singular. */
function cholesky(A, F) {
  const L = new Float64Array(F * F);
  for (let f = 0; f < F; f++)
    for (let g = 0; g <= f; g++) {
      let sum = A[f * F + g];
      for (let k = 0; k < g; k++) sum -= L[f * F + k] * L[g * F + k];
      if (f > g) L[f * F + g] = sum / L[g * F + g];
      else if (sum > 0) L[f * F + f] = Math.sqrt(sum);
      else throw new Error("expected a system of full rank, got a singular one; raise λ");
    }
  return L;
}

/** x with L L' x = b. */
function solve(L, b) {
  const F = b.length;
  const x = Float64Array.from(b);
  for (let f = 0; f < F; f++) {
    for (let g = 0; g < f; g++) x[f] -= L[f * F + g] * x[g];
    x[f] /= L[f * F + f];
  }
  for (let f = F - 1; f >= 0; f--) {
    for (let g = f + 1; g < F; g++) x[f] -= L[g * F + f] * x[g];
    x[f] /= L[f * F + f];
  }
  return x;
}

function product(data, id, x) {
  const F = x.length;
  let sum = 0;
  for (let f = 0; f < F; f++) sum += data.vectors[id * F + f] * x[f];
  return sum;
}

/** The N films with the highest scores without those voted on, best first: [{ id, score }]. */
function recommend(data, user, N = LISTED) {
  const voted = new Set(user.votes.map(([id]) => id));
  return data.titles
    .map((_, id) => ({ id, score: product(data, id, user.x) }))
    .filter(({ id }) => !voted.has(id))
    .sort((one, other) => other.score - one.score || one.id - other.id)
    .slice(0, N);
}

/** The score of a film as a sum over the likes j, of c_j y_i'A^-1 y_j: [{ id, share }], largest first. */
function reasons(data, user, id) {
  const F = user.x.length;
  const turned = solve(user.L, data.vectors.subarray(id * F, id * F + F));
  return user.votes
    .filter(([, r]) => r > 0)
    .map(([j, r]) => ({ id: j, share: (1 + user.alpha * r) * product(data, j, turned) }))
    .sort((one, other) => other.share - one.share);
}

/* The kernels of BPR and WARP, for one triple and with one factor; P, Q and b are changed. */

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

function scoreOf({ P, Q, b }, u, i) {
  return b[i] + P[u] * Q[i];
}

/** The candidate with the highest score; ties go to the first. */
function hardest(toy, u, candidates) {
  return candidates.reduce((best, j) => (scoreOf(toy, u, j) > scoreOf(toy, u, best) ? j : best));
}

function bprStep(toy, u, i, j, { rate, lambdaUser = 0, lambdaItem = 0 }) {
  const { P, Q, b } = toy;
  const x = scoreOf(toy, u, i) - scoreOf(toy, u, j);
  const g = sigmoid(-x);
  const [p, qi, qj] = [P[u], Q[i], Q[j]];
  P[u] += rate * (g * (qi - qj) - lambdaUser * p);
  Q[i] += rate * (g * p - lambdaItem * qi);
  Q[j] += rate * (-g * p - lambdaItem * qj);
  b[i] += rate * (g - lambdaItem * b[i]);
  b[j] += rate * (-g - lambdaItem * b[j]);
  return { x, g, loss: -Math.log(sigmoid(x)) };
}

/** L(r) = 1 + 1/2 + … + 1/r. */
function harmonic(r) {
  let sum = 0;
  for (let k = 1; k <= r; k++) sum += 1 / k;
  return sum;
}

/** Whether j, drawn for the like i of u, ends the search: it is not liked and violates the margin. */
function violates(toy, u, i, j, margin) {
  return !toy.likes[u].includes(j) && scoreOf(toy, u, j) > scoreOf(toy, u, i) - margin;
}

/** The number of draws until one violates the margin; 0 if none does. */
function searchIn(toy, u, i, draws, margin) {
  return draws.findIndex((j) => violates(toy, u, i, j, margin)) + 1;
}

function warpStep(toy, u, i, draws, { rate, margin, lambda = 0 }) {
  const { P, Q } = toy;
  const needed = searchIn(toy, u, i, draws, margin);
  if (!needed) return { needed, loss: 0 };
  const j = draws[needed - 1];
  const rank = Math.floor((Q.length - 1) / needed);
  const weight = harmonic(rank);
  const loss = weight * (margin - scoreOf(toy, u, i) + scoreOf(toy, u, j));
  const [p, qi, qj] = [P[u], Q[i], Q[j]];
  P[u] += rate * (weight * (qi - qj) - lambda * p);
  Q[i] += rate * (weight * p - lambda * qi);
  Q[j] += rate * (-weight * p - lambda * qj);
  return { needed, j, rank, weight, loss };
}

/* Elements. */

const $ = (id) => document.getElementById(id);

/** An element with attributes (functions are listeners) and children. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function icon(name, kind) {
  return svg("svg", { class: `icon ${kind}`, "aria-hidden": "true" }, svg("use", { href: `#${name}` }));
}

/** Announce a text to users of screen readers. */
function say(text) {
  $("said").textContent = text;
}

const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−").replace(/^−(0\.?0*)$/, "$1");
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

/* The state that all views share. */

let data;
const state = { film: 0, metric: 0, votes: new Map(), alpha: 0, lambda: 0, starters: [], picked: null };

const nameOf = (id) => data.films[id].name;

function titleOf(id) {
  const { name, year } = data.films[id];
  return [el("span", { class: "name" }, name), year && el("span", { class: "year" }, ` ${year}`)];
}

/** A vector as a band of colours: blue below 0, red above. */
function band(x) {
  const largest = x.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12);
  const stops = Array.from(x, (value, f) => {
    const strength = Math.min(100, Math.round(115 * Math.abs(value / largest)));
    return `rgb(${value > 0 ? "213 94 0" : "0 114 178"}/${strength}%) ${100 * f / x.length}% ${100 * (f + 1) / x.length}%`;
  });
  const strip = el("span", { class: "band", "aria-hidden": "true" });
  strip.style.backgroundImage = `linear-gradient(to right,${stops})`;
  return strip;
}

const vectorOf = (id) => {
  const F = data.vectorScale.length;
  return data.vectors.subarray(id * F, id * F + F);
};

/** A button that likes or dislikes a film, or undoes that. */
function voteButton(id, r, then) {
  const [verb, image] = r > 0 ? ["Like", "heart"] : ["Dislike", "cross"];
  const pressed = state.votes.get(id) === r;
  const attributes = { type: "button", class: `vote ${verb.toLowerCase()}`, "aria-pressed": String(pressed) };
  const click = () => {
    vote(id, pressed ? 0 : r);
    then?.();
  };
  return el("button", { ...attributes, "aria-label": `${verb} ${nameOf(id)}`, title: verb, click }, icon(image, ""));
}

const votesOn = (id, then) => el("span", { class: "votes" }, voteButton(id, 1, then), voteButton(id, -1, then));

function vote(id, r) {
  if (r) state.votes.set(id, r);
  else state.votes.delete(id);
  showUser();
  showFilm();
  drawMap();
}

/* Finding a film by its title: a combobox as WAI-ARIA describes it. */

const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

function matching(text, most = 8) {
  const words = plain(text).split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  data.keys ??= data.films.map(({ name, year }, id) => `${plain(name)} ${year} ${plain(data.titles[id])}`);
  const start = words.join(" ");
  const quality = (key) => (key.startsWith(start) ? 2 : key.includes(` ${start}`) ? 1 : 0);
  return data.keys
    .map((key, id) => ({ key, id }))
    .filter(({ key }) => words.every((word) => key.includes(word)))
    .sort((a, b) => quality(b.key) - quality(a.key) || data.likes[b.id] - data.likes[a.id] || a.id - b.id)
    .slice(0, most)
    .map(({ id }) => id);
}

function combobox(box, name, pick) {
  const list = el("ul", { role: "listbox", id: `${name}-list`, "aria-label": "Films found", hidden: true });
  const input = el("input", {
    id: `${name}-box`, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false",
    "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id,
    placeholder: "a part of a title",
  });
  let found = [];
  let chosen = -1;

  function open(ids) {
    found = ids;
    const nothing = input.value.trim() && !ids.length;
    list.replaceChildren(...ids.map((id, n) => el(
      "li", {
        role: "option", id: `${name}-option-${n}`, "aria-selected": "false",
        pointerdown: (event) => event.preventDefault(), click: () => take(n),
      }, titleOf(id))));
    if (nothing) list.append(el("li", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, "No film has this title."));
    if (nothing) say("No film has this title.");
    list.hidden = !ids.length && !nothing;
    input.setAttribute("aria-expanded", String(!list.hidden));
    choose(ids.length ? 0 : -1);
  }

  function choose(n) {
    chosen = n;
    [...list.children].forEach((option, m) => option.setAttribute("aria-selected", String(m === n)));
    if (n < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", list.children[n].id);
      list.children[n].scrollIntoView({ block: "nearest" });
    }
  }

  function take(n) {
    const id = found[n];
    input.value = "";
    open([]);
    pick(id);
  }

  input.addEventListener("input", () => open(matching(input.value)));
  input.addEventListener("focus", () => open(matching(input.value)));
  input.addEventListener("blur", () => { list.hidden = true; input.setAttribute("aria-expanded", "false"); });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length) choose((chosen + step + found.length) % found.length);
    else if (event.key === "Enter" && chosen >= 0 && !list.hidden) take(chosen);
    else if (event.key === "Escape") { input.value = ""; open([]); }
    else return;
    event.preventDefault();
  });
  box.append(input, list);
}

/* Neighbours. */

const METRIC_NOTES = [
  "The cosine compares the directions of two vectors: 1 is the same direction, 0 a right angle.",
  "The distance compares directions and lengths: 0 is the same vector. The lengths differ from model to model, so do not compare distances across models.",
];

function showFilm() {
  const id = state.film;
  const note = data.likes[id] < data.least ? " With so few likes, the models know little about it." : "";
  $("film").replaceChildren(
    el("div", {},
      el("h2", { id: "film-title", tabindex: "-1" }, titleOf(id)),
      el("p", {}, `${data.genres[id].replaceAll("|", " · ")}. Liked by ${data.likes[id].toLocaleString("en")} of ${count(data.users, "user")}.${note}`)),
    el("div", { class: "buttons" }, votesOn(id, () => $("film").querySelector(".vote").focus()),
      el("a", { href: "#map", class: "button", click: () => pickOnMap(id, true) }, "Show on the map")),
    band(vectorOf(id)));
  const lists = data.models.map((_, model) => neighbours(data, model, state.metric, id));
  const holders = (film) => lists.map((list) => list.some((near) => near.id === film));
  $("columns").replaceChildren(...lists.map((list, model) => el(
    "section", { class: `column m${model}`, "aria-labelledby": `model-${model}` },
    el("h3", { id: `model-${model}` }, data.models[model]),
    list.length
      ? el("ol", { class: "films" }, list.map((near) => neighbour(near, model, holders(near.id))))
      : el("p", { class: "note" }, "This model has learned nothing about this film: its vector is 0, so it has no neighbours."),
  )));
  if ($("metric-note").textContent !== METRIC_NOTES[state.metric])
    $("metric-note").textContent = METRIC_NOTES[state.metric]; // which is read aloud
}

function neighbour({ id, value }, model, holders) {
  const others = data.models.filter((_, m) => holders[m] && m !== model);
  const pips = holders.map((held, m) => el("i", { class: `pip ${held ? `m${m}` : ""}` }));
  const also = others.length ? el("span", { class: "hidden" }, `, also in ${others.join(", ")}`) : null;
  return el("li", { "data-id": id },
    el("a", { href: `#find=${id}`, class: "film" }, titleOf(id), also),
    el("span", { class: "pips", "aria-hidden": "true" }, pips),
    el("span", { class: "value" }, number(value)),
    data.models[model] === "ALS" && band(vectorOf(id)));
}

/* Be the user. */

let recommended = [];

/** Very different well-known films: each one is the least similar to those before it. */
function starters(most = 24) {
  const order = data.titles.map((_, id) => id).sort((a, b) => data.likes[b] - data.likes[a] || a - b);
  const known = order.slice(0, 80);
  const unit = (id) => {
    const y = vectorOf(id);
    const length = Math.hypot(...y) || 1;
    return y.map((value) => value / length);
  };
  const units = known.map(unit);
  const near = (n, m) => units[n].reduce((sum, value, f) => sum + value * units[m][f], 0);
  const chosen = [0];
  while (chosen.length < Math.min(most, known.length)) {
    const nearest = known.map((_, n) => (chosen.includes(n) ? 2 : Math.max(...chosen.map((m) => near(n, m)))));
    chosen.push(nearest.indexOf(Math.min(...nearest)));
  }
  return chosen.map((n) => known[n]);
}

/** A number with its significant digits. */
const short = (value) => (value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(2));

function showKnobs() {
  const { alpha, lambda } = state;
  for (const [name, value] of [["alpha", String(alpha)], ["lambda", short(lambda)]]) {
    $(`${name}-value`).textContent = value;
    $(name).setAttribute("aria-valuetext", value);
  }
  $("alpha-note").textContent = alpha
    ? `A like counts ${alpha + 1} times as much as a film you have not rated.`
    : "A like counts as much as a film you have not rated.";
  const times = lambda / data.lambda;
  $("lambda-note").textContent = times > 1.06
    ? "Stronger: all scores shrink towards 0."
    : times < 0.94 ? "Weaker: a few likes have a large effect." : "The value used to learn the films' vectors.";
}

function showUser() {
  showKnobs();
  const votes = [...state.votes].sort(([a], [b]) => a - b);
  const likes = votes.filter(([, r]) => r > 0);
  $("votes").replaceChildren(...[...state.votes.keys()].reverse().map((id) => el(
    "li", {}, el("span", { class: "film" }, titleOf(id)), votesOn(id, () => refocusVotes(id)))));
  if (!votes.length) $("votes").append(el("li", { class: "note" }, "None yet."));
  $("starters").replaceChildren(...state.starters.filter((id) => !state.votes.has(id)).slice(0, 8).map(chip));
  const before = recommended.map(({ id }) => id);
  const user = foldIn(data, votes, state.alpha, state.lambda);
  recommended = likes.length ? recommend(data, user) : [];
  const nothing = votes.length
    ? "So far you have only disliked films. The best vector for that is 0, so all films tie. Like one."
    : "Like a film to see recommendations.";
  $("vector").replaceChildren(...(likes.length
    ? [el("span", {}, `You, in ${user.x.length} numbers`), band(user.x), el("span", {}, `length ${number(Math.hypot(...user.x))}`)]
    : [el("span", {}, nothing)]));
  const largest = Math.max(...recommended.map(({ score }) => score), 1e-9);
  $("recs").replaceChildren(...recommended.map((film, place) => recommendation(film, place, user, largest, before)));
}

/** A button that likes a well-known film. */
function chip(id, place) {
  const click = () => {
    vote(id, 1);
    const chips = $("starters").children;
    (chips[Math.min(place, chips.length - 1)]?.firstChild ?? $("you-box")).focus();
    tell();
  };
  return el("li", {}, el("button", { type: "button", "aria-label": `Like ${nameOf(id)}`, click }, icon("heart", ""), nameOf(id)));
}

function recommendation({ id, score }, place, user, largest, before) {
  const why = reasons(data, user, id).filter(({ share }) => share > 0).slice(0, 2);
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--part", `${Math.max(0, 100 * score / Math.max(1, largest))}%`);
  const was = before.indexOf(id);
  const moved = !before.length || was === place ? "" : was < 0 ? "new" : was > place ? "▲" : "▼";
  const because = why.map(({ id: liked, share }, n) => [n ? " and " : "", el("i", {}, nameOf(liked)), ` (${number(share)})`]);
  return el("li", { "data-id": id },
    el("a", { href: `#find=${id}`, class: "film" }, titleOf(id)),
    el("span", { class: "moved", "aria-hidden": "true" }, moved),
    el("span", { class: "value" }, number(score)),
    votesOn(id, () => refocusRecommended(place)),
    bar, el("p", { class: "why" }, why.length ? ["because you like ", because] : "none of your likes speaks for it"));
}

function refocusVotes(id) {
  const button = [...$("votes").querySelectorAll(".vote")];
  (button.find((b) => b.getAttribute("aria-label").endsWith(nameOf(id))) ?? button[0] ?? $("you-box")).focus();
  tell();
}

function refocusRecommended(place) {
  const rows = $("recs").children;
  (rows[Math.min(place, rows.length - 1)]?.querySelector(".vote") ?? $("you-box")).focus();
  tell();
}

function tell() {
  say(recommended.length ? `Recommended first: ${recommended.slice(0, 3).map(({ id }) => nameOf(id)).join(", ")}` : "No recommendations yet.");
}

function startUser() {
  combobox(document.querySelector("[data-search=you]"), "you", (id) => { vote(id, 1); tell(); });
  state.starters = starters();
  // the model's lambda may lie between two steps of the slider
  const own = () => {
    Object.assign(state, { alpha: data.alpha, lambda: data.lambda });
    $("alpha").value = data.alpha;
    $("lambda").value = Math.log10(data.lambda);
  };
  own();
  $("alpha").addEventListener("input", (event) => { state.alpha = Number(event.target.value); showUser(); });
  $("lambda").addEventListener("input", (event) => { state.lambda = 10 ** event.target.value; showUser(); });
  for (const name of ["alpha", "lambda"]) $(name).addEventListener("change", tell);
  $("reset").addEventListener("click", () => { own(); showUser(); tell(); });
}

/* The map. */

const map = { zoom: 1, x: 0, y: 0, extent: [1, 1], labels: [], pointed: null };
const ZOOMS = [0.5, 60];

const planeOf = (id) => [data.plane[2 * id], data.plane[2 * id + 1]];

function startMap() {
  combobox(document.querySelector("[data-search=map]"), "map", (id) => pickOnMap(id, true));
  map.order = data.titles.map((_, id) => id).sort((a, b) => data.ratings[b] - data.ratings[a] || a - b);
  const most = map.order.slice(0, 150);
  map.extent = [0, 1].map((axis) => Math.max(...most.map((id) => Math.abs(planeOf(id)[axis]))) || 1);
  $("zoom-in").addEventListener("click", () => zoomBy(1.6));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.6));
  $("zoom-all").addEventListener("click", () => lookAt([]));
  $("zoom-mine").addEventListener("click", () => lookAt(chosenOnMap()));
  const pane = $("map");
  pane.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (arrows[event.key]) moveBy(...arrows[event.key].map((part) => part * 60));
    else if (event.key === "+" || event.key === "=") zoomBy(1.3);
    else if (event.key === "-") zoomBy(1 / 1.3);
    else if (event.key === "0") lookAt([]);
    else return;
    event.preventDefault();
  });
  pane.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== pane) return; // do not capture scrolling of the page
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), whereIn(pane, event));
  }, { passive: false });
  dragging(pane);
  new ResizeObserver(drawMap).observe(pane);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
}

const whereIn = (pane, event) => {
  const box = pane.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

/** One finger or the mouse moves the map, two fingers zoom it, a click picks the nearest film. */
function dragging(pane) {
  const down = new Map();
  let travelled = 0;
  pane.addEventListener("pointerdown", (event) => {
    if (!down.size) travelled = 0;
    down.set(event.pointerId, whereIn(pane, event));
    pane.setPointerCapture(event.pointerId);
  });
  pane.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    const now = whereIn(pane, event);
    if (!before) return void point(nearestOnMap(now));
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    travelled += Math.abs(dx) + Math.abs(dy);
    const other = [...down].find(([pointer]) => pointer !== event.pointerId)?.[1];
    down.set(event.pointerId, now);
    moveBy(-dx / down.size, dy / down.size);
    if (other) {
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoomBy(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    }
  });
  const up = (event) => {
    if (down.delete(event.pointerId) && !down.size && travelled < 6 && event.type === "pointerup") {
      const id = nearestOnMap(whereIn(pane, event));
      if (id != null) pickOnMap(id, false);
    }
  };
  pane.addEventListener("pointerleave", () => point(null));
  pane.addEventListener("pointerup", up);
  pane.addEventListener("pointercancel", up);
}

/** Name the film under the mouse. */
function point(id) {
  if (id === map.pointed) return;
  map.pointed = id;
  drawMap();
}

/** The size of the pane, and pixels per unit. */
function view() {
  const [width, height] = [$("map").clientWidth, $("map").clientHeight];
  const fit = Math.min(width / map.extent[0], height / map.extent[1]) / 2.25;
  return { width, height, scale: fit * map.zoom };
}

function onScreen(id, { width, height, scale }) {
  const [x, y] = planeOf(id);
  return [width / 2 + (x - map.x) * scale, height / 2 - (y - map.y) * scale];
}

/** Zoom around a point in pixels, by default the middle. */
function zoomBy(factor, [x, y] = [$("map").clientWidth / 2, $("map").clientHeight / 2]) {
  const before = view();
  map.zoom = Math.min(ZOOMS[1], Math.max(ZOOMS[0], map.zoom * factor));
  const after = view();
  const [right, up] = [x - before.width / 2, before.height / 2 - y];
  map.x += right / before.scale - right / after.scale;
  map.y += up / before.scale - up / after.scale;
  drawMap();
}

function moveBy(right, up) {
  const { scale } = view();
  const bound = (value, most) => Math.min(2 * most, Math.max(-2 * most, value));
  map.x = bound(map.x + right / scale, map.extent[0]);
  map.y = bound(map.y + up / scale, map.extent[1]);
  drawMap();
}

/** Show these films, or the whole map if there are none. */
function lookAt(ids) {
  const points = ids.map(planeOf);
  if (!points.length) Object.assign(map, { zoom: 1, x: 0, y: 0 });
  else {
    const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((axis) => end(...points.map((p) => p[axis]))));
    const fits = [0, 1].map((axis) => (2 * map.extent[axis]) / (high[axis] - low[axis] + 0.25 * map.extent[axis]));
    map.zoom = Math.min(6, Math.max(1, 0.8 * Math.min(...fits)));
    [map.x, map.y] = [0, 1].map((axis) => (low[axis] + high[axis]) / 2);
  }
  drawMap();
}

const chosenOnMap = () => [...new Set([...state.votes.keys(), ...(state.picked == null ? [] : [state.picked])])];

/** The film whose label or dot is at a point in pixels; labels come first; or null. */
function nearestOnMap(point) {
  const now = view();
  const named = map.labels.find(({ box }) => box &&
    point[0] > box[0] && point[0] < box[2] && point[1] > box[1] && point[1] < box[3]);
  if (named) return named.id;
  let best = null;
  let least = 18;
  for (const id of map.order) {
    const [x, y] = onScreen(id, now);
    const away = Math.hypot(x - point[0], y - point[1]);
    if (away < least) [best, least] = [id, away];
  }
  return best;
}

function pickOnMap(id, move) {
  state.picked = id;
  showPicked();
  if (!move) drawMap();
  else {
    [map.x, map.y] = planeOf(id);
    map.zoom = Math.max(map.zoom, 2.5);
    drawMap();
  }
  say(`${nameOf(id)}: factor 0 is ${number(planeOf(id)[0])}, factor 1 ${number(planeOf(id)[1])}.`);
}

function showPicked() {
  const id = state.picked;
  const [x, y] = planeOf(id);
  $("picked").replaceChildren(
    el("h2", {}, titleOf(id)),
    el("p", {}, data.genres[id].replaceAll("|", " · ")),
    el("p", {}, `Its two numbers are ${number(x)} and ${number(y)}, from ${count(data.ratings[id], "rating")}.`),
    el("div", { class: "buttons" },
      votesOn(id, () => { showPicked(); $("picked").querySelector(".vote").focus(); }),
      el("a", { href: `#find=${id}`, class: "button" }, "See its neighbours")));
}

function drawMap() {
  const pane = $("map");
  const now = view();
  if (!now.width || $("map-view").hidden) return;
  drawDots(pane.querySelector("canvas"), now);
  map.labels = placeLabels(now);
  const marks = map.labels.map(({ x, y, kind }) =>
    kind === "heart" || kind === "cross"
      ? svg("use", { class: `mark ${kind}`, href: `#${kind}`, x: x - 9, y: y - 9, width: 18, height: 18 })
      : svg("circle", { class: `mark ${kind}`, cx: x, cy: y, r: kind === "picked" ? 6 : 3.5 }));
  const texts = map.labels.map(({ id, left, base, text, kind }) =>
    svg("text", { class: `label ${kind}`, x: left, y: base, "data-id": id }, text));
  pane.querySelector("svg").replaceChildren(...axes(now), ...marks, ...texts, ...tip(now));
  $("labelled").querySelector("ul").replaceChildren(...map.labels.map(({ id }) =>
    el("li", {}, el("a", { href: `#find=${id}`, class: "film" }, titleOf(id)))));
}

/** Highlight the film under the mouse with a ring and, if it has no label, its title. */
function tip(now) {
  const id = map.pointed;
  if (id == null) return [];
  const [x, y] = onScreen(id, now);
  const ring = svg("circle", { class: "ring", cx: x, cy: y, r: 8 });
  if (map.labels.some((label) => label.id === id && label.text)) return [ring];
  const size = parseFloat(getComputedStyle($("map")).fontSize);
  map.pen.font = `bold ${size}px ${getComputedStyle($("map")).fontFamily}`;
  const width = map.pen.measureText(nameOf(id)).width + 12;
  const left = Math.max(2, Math.min(now.width - width - 2, x - width / 2));
  const top = y > 40 ? y - size * 1.7 - 12 : y + 12;
  return [ring,
    svg("rect", { class: "tip", x: left, y: top, width, height: size * 1.7, rx: 4 }),
    svg("text", { class: "tip-name", x: left + 6, y: top + size * 1.2 }, nameOf(id))];
}

/** The positions of the axes and of their names, in pixels. */
function axesOf({ width, height, scale }) {
  const [x, y] = [width / 2 - map.x * scale, height / 2 + map.y * scale];
  const within = (value, low, high) => Math.min(high, Math.max(low, value));
  return { x, y, names: [[width - 72, within(y - 6, 32, height - 6)], [within(x + 6, 6, width - 70), 16]] };
}

function axes(now) {
  const { x, y, names } = axesOf(now);
  const name = (n, text) => svg("text", { class: "axis-name", x: names[n][0], y: names[n][1] }, text);
  return [svg("path", { class: "axis", d: `M0 ${y}H${now.width}M${x} 0V${now.height}` }), name(0, "factor 0 →"), name(1, "↑ factor 1")];
}

function drawDots(canvas, now) {
  const ratio = devicePixelRatio || 1;
  canvas.width = now.width * ratio;
  canvas.height = now.height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = getComputedStyle(canvas).color;
  for (const [rank, id] of map.order.entries()) {
    const [x, y] = onScreen(id, now);
    if (x < -5 || y < -5 || x > now.width + 5 || y > now.height + 5) continue;
    const share = 1 - rank / map.order.length;
    pen.globalAlpha = 0.25 + 0.5 * share ** 3;
    pen.beginPath();
    pen.arc(x, y, 1 + 2.2 * share ** 3, 0, 7);
    pen.fill();
  }
}

/** Labels without overlaps: chosen films first, then films by number of ratings. */
function placeLabels(now) {
  const pen = (map.pen ??= document.createElement("canvas").getContext("2d"));
  const size = parseFloat(getComputedStyle($("map")).fontSize);
  const chosen = chosenOnMap();
  const kindOf = (id) => (id === state.picked ? "picked" : { 1: "heart", "-1": "cross" }[state.votes.get(id)] ?? "");
  const taken = axesOf(now).names.map(([x, y]) => [x, y - 12, x + 70, y + 4]);
  const labels = [];
  const room = Math.min(60, (now.width * now.height) / 9000);
  const shown = [];
  for (const id of [...chosen, ...map.order.filter((film) => !chosen.includes(film))]) {
    const [x, y] = onScreen(id, now);
    if (x < 4 || y < 4 || x > now.width - 4 || y > now.height - 4) continue;
    shown.push({ id, x, y, kind: kindOf(id) });
    if (shown.length > 400) break;
  }
  const free = (box) =>
    box[0] > 2 && box[1] > 2 && box[2] < now.width - 2 && box[3] < now.height - 2 &&
    taken.every((other) => box[0] > other[2] || other[0] > box[2] || box[1] > other[3] || other[1] > box[3]);
  for (const { kind, x, y } of shown) if (kind) taken.push([x - 8, y - 8, x + 8, y + 8]);
  for (const film of shown) {
    if (labels.length >= room && !film.kind) break;
    const { x, y, kind } = film;
    pen.font = `${kind ? "bold " : ""}${size}px ${getComputedStyle($("map")).fontFamily}`;
    const text = shortened(nameOf(film.id));
    const width = pen.measureText(text).width + 4;
    const away = kind ? 10 : 7;
    const corners = [[x + away, y - size * 0.65], [x - away - width, y - size * 0.65],
      [x - width / 2, y - away - size * 1.3], [x - width / 2, y + away]];
    const boxes = corners.map(([left, top]) => [left, top, left + width, top + size * 1.3]);
    const dot = [x - 4, y - 4, x + 4, y + 4];
    const box = (kind || free(dot)) && boxes.find(free);
    if (!box) {
      if (kind) labels.push({ ...film, left: 0, base: 0, text: "" }); // at least its mark
      continue;
    }
    taken.push(box);
    if (!kind) taken.push(dot);
    labels.push({ ...film, left: box[0] + 2, base: box[1] + size, text, box });
  }
  return labels;
}

const shortened = (name) => {
  const first = name.replace(/ \(.*$/, "");
  return first.length > 28 ? `${first.slice(0, 26).trimEnd()}…` : first;
};

/* One step by hand. */

const TOY = { likes: [[0, 1], [1, 2], [2, 3]], rate: 0.1, margin: 1, draws: 12, searches: 100 };
// The example of the lesson: its numbers and first draws.
const BY_HAND = {
  warp: { P: [1, 1, 1], Q: [0.5, 0.8, 0.2, -1], draws: [1, 3, 2] },
  bpr: { P: [1, 1, 1], Q: [0.5, 0, 1, 0], draws: [2] },
};
const FILM = ["A", "B", "C", "D"];
const USER = ["1", "2", "3"];
let toy;

function startToy(method = "warp") {
  const { P, Q, draws } = BY_HAND[method];
  toy = {
    method, likes: TOY.likes, P: [...P], Q: [...Q], b: [0, 0, 0, 0],
    ahead: [...draws], // the first draws; later ones are random
    u: 0, i: 0, drawn: [], log: [], changed: {}, steps: 0,
  };
  $("found").replaceChildren();
}

const random = (n) => Math.floor(Math.random() * n);
const unliked = (u) => FILM.map((_, j) => j).filter((j) => !toy.likes[u].includes(j));
const perTriple = () => Number(document.querySelector("[name=draws]:checked").value);

/** The next draw: any film for WARP, a film that the user has not liked for BPR. */
function nextDraw() {
  if (toy.ahead.length) return toy.ahead.shift();
  return toy.method === "warp" ? random(FILM.length) : unliked(toy.u)[random(unliked(toy.u).length)];
}

/** Whether the step needs no further draws. */
function readyToy() {
  if (toy.method === "bpr") return toy.drawn.length >= perTriple();
  return toy.drawn.length >= TOY.draws || searchIn(toy, toy.u, toy.i, toy.drawn, TOY.margin) > 0;
}

function drawOne() {
  if (readyToy()) toy.drawn = [];
  if (!toy.drawn.length) toy.log = [];
  toy.changed = {};
  toy.drawn.push(nextDraw());
  toy.log.push(said(toy.drawn.at(-1)));
  if (readyToy()) toy.log.push(...(toy.method === "warp" ? concluded() : chosenOf()));
}

const s = (u, i) => number(scoreOf(toy, u, i));

function said(j) {
  const { u, i } = toy;
  const draw = `Draw ${toy.drawn.length}: film ${FILM[j]}`;
  if (toy.method === "bpr") return `${draw}, not liked by user ${USER[u]}, scores ${s(u, j)}.`;
  const limit = number(scoreOf(toy, u, i) - TOY.margin);
  if (toy.likes[u].includes(j)) return `${draw} is liked itself. It does not count.`;
  if (!violates(toy, u, i, j, TOY.margin)) return `${draw} scores ${s(u, j)}, no more than ${limit}. Go on.`;
  return `${draw} scores ${s(u, j)}, more than ${limit}: too near to ${FILM[i]}, or above it. Found!`;
}

/** A sentence on the draw that BPR uses. */
function chosenOf() {
  const j = hardest(toy, toy.u, toy.drawn);
  return toy.drawn.length > 1 ? [`The highest of these is ${FILM[j]}.`] : [];
}

/** Sentences on the result of WARP's search. */
function concluded() {
  const truth = `The true rank is ${rankOf(toy.u, toy.i)}.`;
  const needed = searchIn(toy, toy.u, toy.i, toy.drawn, TOY.margin);
  if (!needed) return [`Nothing found in ${TOY.draws} draws: WARP skips this like. ${truth}`];
  const rank = Math.floor((FILM.length - 1) / needed);
  const weighs = rank
    ? `and the step weighs L(${rank}) = ${number(harmonic(rank))}`
    : "and L(0) = 0: after such a long search, WARP assumes that the like is at the top and changes nothing";
  return [`Draw ${needed} violates the margin, so the estimated rank is ⌊3 / ${needed}⌋ = ${rank}, ${weighs}. ${truth}`];
}

const parenthesised = (value) => (value < 0 ? `(${number(value, 3)})` : number(value, 3));

const rankOf = (u, i) => FILM.filter((_, j) => violates(toy, u, i, j, TOY.margin)).length;

function takeStep() {
  while (!readyToy()) drawOne();
  const { u, i, drawn } = toy;
  const before = { P: [...toy.P], Q: [...toy.Q], b: [...toy.b] };
  const to = (i) => `${FILM[i]} goes from ${number(before.Q[i], 3)} to ${number(toy.Q[i], 3)}`;
  const both = (j, push) => {
    const sum = `${number(before.P[u], 3)} + 0.1 · ${number(push, 3)} · (${number(before.Q[i], 3)} − ${parenthesised(before.Q[j])})`;
    return `p = ${sum} = ${number(toy.P[u], 3)}. ${to(i)}, ${to(j)}.`;
  };
  let told = ["Nothing moves."];
  if (toy.method === "bpr") {
    const j = hardest(toy, u, drawn);
    const { x, g } = bprStep(toy, u, i, j, TOY);
    const push = x < 0 ? "the wrong order, a strong push" : g > 0.4 ? "hardly ahead, still a push" : "ahead, a faint push";
    told = [`${FILM[i]} is ahead of ${FILM[j]} by x = ${number(x, 3)}, so g = σ(−x) = ${number(g, 3)}: ${push}.`, both(j, g)];
  } else {
    const { j, weight } = warpStep(toy, u, i, drawn, TOY);
    if (weight) told = [both(j, weight)];
  }
  toy.log.push(...told);
  toy.changed = Object.fromEntries(["P", "Q", "b"].map((name) => [name, toy[name].map((value, n) => value !== before[name][n])]));
  toy.steps++;
  $("found").replaceChildren(); // these searches used the old scores
  toy.drawn = [];
}

/** Draw the next like at random, as in training. */
function nextLike() {
  const all = toy.likes.flatMap((liked, u) => liked.map((i) => [u, i]));
  [toy.u, toy.i] = all[random(all.length)];
}

/** The number of pairs of a liked and another film in the wrong order. */
function wrongPairs() {
  const pairs = toy.likes.flatMap((liked, u) => liked.flatMap((i) => unliked(u).map((j) => [u, i, j])));
  return [pairs.filter(([u, i, j]) => scoreOf(toy, u, i) <= scoreOf(toy, u, j)).length, pairs.length];
}

function showToy() {
  const is = (name, n) => (toy.changed[name]?.[n] ? "changed" : null);
  const bpr = toy.method === "bpr";
  const head = el("tr", {}, el("td", {}), FILM.map((film) => el("th", { scope: "col" }, el("span", { class: "wide-only" }, "film "), film)));
  const numbers = el("tr", { class: "numbers" }, el("th", { scope: "row" }, el("i", {}, "q")),
    toy.Q.map((q, i) => el("td", { class: is("Q", i) }, number(q, 3))));
  const biases = el("tr", { class: "numbers" }, el("th", { scope: "row" }, el("i", {}, "b")),
    toy.b.map((b, i) => el("td", { class: is("b", i) }, number(b, 3))));
  const rows = USER.map((user, u) => el("tr", {},
    el("th", { scope: "row" }, `user ${user} `, el("span", { class: `numbers ${is("P", u) ?? ""}` }, el("i", {}, "p"), ` ${number(toy.P[u], 3)}`)),
    FILM.map((film, i) => cell(u, i))));
  $("toy").replaceChildren(el("caption", { class: "hidden" }, "Scores of three users for four films"), el("thead", {}, head), el("tbody", {}, numbers, bpr ? biases : [], rows));
  const [wrong, all] = wrongPairs();
  $("wrong").textContent = `Pairs in the wrong order: ${wrong} of ${all}, after ${count(toy.steps, "step")}.`;
  showLog();
  $("draws-choice").hidden = !bpr;
  $("search-tells").hidden = bpr;
  const ready = toy.drawn.length > 0 && readyToy();
  $("draw").textContent = ready ? "Draw again" : "Draw a film";
  $("draw").classList.toggle("main", !ready);
  $("take").classList.toggle("main", ready);
  $("line").replaceChildren(numberLine());
}

/** Add only new lines, because screen readers read them aloud. */
function showLog() {
  const shown = [...$("log").children].map((line) => line.textContent);
  const goesOn = shown.every((line, n) => line === toy.log[n]);
  if (!goesOn) $("log").replaceChildren();
  $("log").append(...toy.log.slice(goesOn ? shown.length : 0).map((line) => el("li", {}, line)));
}

function cell(u, i) {
  const liked = toy.likes[u].includes(i);
  const now = u === toy.u && i === toy.i;
  const drawn = u === toy.u && toy.drawn.includes(i);
  const kind = `${now ? "now" : ""} ${drawn ? "drawn" : ""}`;
  if (!liked) return el("td", { class: kind }, s(u, i));
  const click = () => {
    Object.assign(toy, { u, i, drawn: [], log: [], changed: {}, ahead: [] });
    showToy();
    $("toy").querySelector(".now button").focus();
  };
  const label = `user ${USER[u]} likes film ${FILM[i]}, score ${s(u, i)}`;
  return el("td", { class: kind }, el("button", { type: "button", "aria-pressed": String(now), "aria-label": label, click }, icon("heart", "like"), s(u, i)));
}

/** The user's films on a line by their scores, with the violating range shaded. */
function numberLine() {
  const { u, i } = toy;
  const scores = FILM.map((_, j) => scoreOf(toy, u, j));
  const limit = scores[i] - TOY.margin;
  const [low, high] = [Math.min(-1.2, limit, ...scores) - 0.2, Math.max(1.2, ...scores) + 0.2];
  const unit = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16; // pixels
  const wide = Math.max(280, Math.min(760, $("line").clientWidth / unit));
  const place = (value) => 20 + ((wide - 40) * (value - low)) / (high - low);
  const list = FILM.map((film, j) => `${film} ${s(u, j)}${toy.likes[u].includes(j) ? ", liked" : ""}`).join("; ");
  const placed = [];
  const marks = [];
  for (const j of FILM.map((_, n) => n).sort((a, b) => scores[a] - scores[b])) {
    const x = place(scores[j]);
    // the first levels for the ball and for its number without a close neighbour
    const level = [0, 1, 2, 3].find((n) => placed.every((other) => other.level !== n || x - other.x > 28));
    const row = [0, 1, 2].find((n) => n === 2 || placed.every((other) => other.row !== n || x - other.x > 42));
    placed.push({ x, level, row });
    const kind = `${j === i ? "now" : ""} ${toy.drawn.includes(j) ? "drawn" : ""}`;
    const y = 107 - 27 * level;
    marks.push(
      svg("circle", { class: `ball ${kind}`, cx: x, cy: y, r: 12 }),
      svg("text", { class: `ball-name ${kind}`, x, y: y + 5, "text-anchor": "middle" }, FILM[j]),
      svg("text", { class: "tick", x, y: 139 + 15 * row, "text-anchor": "middle" }, number(scores[j])));
    if (toy.likes[u].includes(j)) marks.push(svg("use", { class: "ball-heart", href: "#heart", x: x + 4, y: y - 20, width: 15, height: 15 }));
  }
  const top = 60 - 27 * Math.max(...placed.map(({ level }) => level));
  const zone = [
    svg("rect", { class: "zone", x: place(limit), y: top, width: wide - place(limit), height: 122 - top }),
    svg("text", { class: "zone-name", x: wide - 8, y: top + 17, "text-anchor": "end" }, `too near to ${FILM[i]}, or above it: more than ${number(limit)}`),
  ];
  const label = `The scores of user ${USER[u]} on a line: ${list}.`;
  return svg("svg", { viewBox: `0 ${top} ${wide} ${172 - top}`, width: wide * unit, role: "img", "aria-label": label },
    ...(toy.method === "warp" ? zone : []), svg("path", { class: "axis", d: `M0 122H${wide}` }), ...marks);
}

/** Run searches for every like with the current scores, without changing them. */
function manySearches() {
  const likes = toy.likes.flatMap((liked, u) => liked.map((i) => [u, i]));
  return likes.map(([u, i]) => {
    const draws = () => Array.from({ length: TOY.draws }, () => random(FILM.length));
    const needed = Array.from({ length: TOY.searches }, () => searchIn(toy, u, i, draws(), TOY.margin));
    return { u, i, rank: rankOf(u, i), needed };
  });
}

function showSearches() {
  const results = manySearches().sort((one, other) => other.rank - one.rank);
  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const rows = results.map(({ u, i, rank, needed }) => {
    const found = needed.filter((n) => n > 0);
    const counts = Array.from({ length: TOY.draws }, (_, n) => needed.filter((d) => d === n + 1).length);
    const lost = needed.length - found.length;
    return el("tr", {},
      el("th", { scope: "row" }, `user ${USER[u]}, film ${FILM[i]}`),
      el("td", { class: "number" }, String(rank)),
      el("td", {}, histogram([...counts, lost])),
      el("td", { class: "number" }, found.length ? number(mean(found), 1) : "never found"),
      el("td", { class: "number" }, rank ? number(expectedDraws(rank), 1) : "–"));
  });
  const heads = ["like", "true rank", `draws until found: 1 … ${TOY.draws}, none`, "mean", "expected"];
  $("found").replaceChildren(el("caption", { class: "hidden" }, "A hundred searches for each like"),
    el("thead", {}, el("tr", {}, heads.map((name, n) => el("th", { scope: "col", class: [1, 3, 4].includes(n) ? "number" : null }, name)))), el("tbody", {}, rows));
  say("A hundred searches for each like: the table shows how many draws they took.");
}

/** The mean number of draws of a successful search among `rank` violating films. */
function expectedDraws(rank) {
  const found = rank / FILM.length;
  const chances = Array.from({ length: TOY.draws }, (_, n) => found * (1 - found) ** n);
  const all = chances.reduce((sum, chance) => sum + chance, 0);
  return chances.reduce((sum, chance, n) => sum + (n + 1) * chance, 0) / all;
}

function histogram(counts) {
  const most = Math.max(...counts, 1);
  const words = counts.map((n, d) => (n ? `${d < TOY.draws ? d + 1 : "none"}: ${n}` : "")).filter(Boolean).join(", ");
  const drawing = svg("svg", { class: "histogram", viewBox: `0 0 ${counts.length * 10 + 6} 34`, role: "img", "aria-label": words });
  counts.forEach((n, d) => {
    const tall = n ? Math.max(1.5, (32 * n) / most) : 0;
    drawing.append(svg("rect", { class: d < TOY.draws ? "" : "none", x: d * 10 + (d < TOY.draws ? 0 : 6), y: 34 - tall, width: 8, height: tall }));
  });
  return drawing;
}

function startSteps() {
  startToy();
  const then = (action) => () => { action(); showToy(); };
  $("draw").addEventListener("click", then(drawOne));
  $("take").addEventListener("click", then(() => { takeStep(); toy.ahead = []; }));
  $("many").addEventListener("click", then(() => {
    for (let n = 0; n < 50; n++) { nextLike(); toy.drawn = []; toy.ahead = []; takeStep(); }
    toy.log = [`50 steps, each for a like drawn at random. This was the last:`, ...toy.log];
  }));
  $("again").addEventListener("click", then(() => startToy(toy.method)));
  $("searches").addEventListener("click", showSearches);
  for (const input of document.querySelectorAll("[name=method]"))
    input.addEventListener("change", then(() => startToy(input.value)));
  for (const input of document.querySelectorAll("[name=draws]"))
    input.addEventListener("change", then(() => Object.assign(toy, { drawn: [], log: [] })));
  new ResizeObserver(() => $("line").replaceChildren(numberLine())).observe($("step-view"));
  showToy();
}

/* The views: the address selects one, so that Back and links to views work. */

const VIEWS = ["find", "you", "map", "step"];

function route(moved) {
  const [name, id] = location.hash.slice(1).split("=");
  if (name && !VIEWS.includes(name)) return; // the link that skips the header
  const shown = name || VIEWS[0];
  if (shown === "find" && data.films[Number(id)] && id) state.film = Number(id);
  for (const view of VIEWS) $(`${view}-view`).hidden = view !== shown;
  for (const link of document.querySelectorAll("header nav a"))
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  showFilm();
  if (shown === "map" && state.picked == null) pickOnMap(state.film, false);
  drawMap();
  document.title = `${shown === "find" ? nameOf(state.film) : $(`${shown}-title`).textContent} · Playground`;
  if (moved) {
    scrollTo(0, 0);
    $(shown === "find" && id ? "film-title" : `${shown}-title`).focus({ preventScroll: true });
  }
}

function start() {
  state.film = Math.max(0, data.titles.findIndex((title) => title.startsWith("Star Wars")));
  for (const [name, value] of [["least", data.least], ["factors", data.vectorScale.length]])
    for (const place of document.querySelectorAll(`.${name}`)) place.textContent = value;
  combobox(document.querySelector("[data-search=find]"), "find", (id) => { location.hash = `#find=${id}`; });
  for (const input of document.querySelectorAll("[name=metric]"))
    input.addEventListener("change", () => { state.metric = data.metrics.indexOf(input.value); showFilm(); });
  startUser();
  startMap();
  startSteps();
  showUser();
  addEventListener("hashchange", () => route(true));
  route(false);
  document.documentElement.dataset.ready = "true";
}

async function main() {
  try {
    data = await unpack($("data").textContent);
    start();
  } catch (error) {
    $("trouble").textContent = `The page could not start: ${error.message}. It needs a browser of 2023 or later.`;
    $("trouble").hidden = false;
  }
}

main();
