// The leaderboard page: the ranking, a form to add a score, the state of the nodes.
//
// No framework and no build step: this file is served as it is. Its chapters, in order: words and
// numbers, talking to the service, polling, the ranking, adding a score, finding a player, the
// nodes, the state of the page.
//
// Names that tests and scripts may rely on (all else may change):
//
//   #status[data-state]            loading, live, reconnecting, no-leader, error
//   #player, #score, #submit       the form that adds a score; #form-error says what is wrong with it
//   #receipt[data-state]           the newest receipt: pending, committed, refused, unknown; with
//                                  data-player, and once committed data-total, data-rank, data-index,
//                                  data-term, data-by (the node that answered), data-leader,
//                                  data-replayed
//   #rows > [data-player="alice"]  one player of the ranking, with data-rank and data-score, and
//                                  data-pending while a score of this browser waits
//   #rows > [data-pending-player]  a player who is not in the ranking yet, only waiting
//   #empty                         visible when nobody has a score
//   #find-player, #found           the search and its answer, with data-rank when it found somebody
//   [data-node="1"][data-state]    one node: leader, follower, candidate, learner, seen (only through
//                                  another node), unknown, down; with data-term, data-commit,
//                                  data-applied
//   #disputes > li                 one line for each node that sees the cluster differently
//
// Everything that comes from the service is shown with textContent: names of players are hostile.

const TOP = 50; // rows asked for, and the most that are drawn
const POLL_MS = 1000;
const POLL_MS_MAX = 8000; // after repeated failures
const POLL_TIMEOUT_MS = 6000;
const WRITE_TIMEOUT_MS = 10_000; // one try
const WRITE_PATIENCE_MS = 120_000; // all tries, then a person decides
const KEY_LIFE_MS = 9 * 60_000; // the service remembers a key for ten minutes: never retry later
const PENDING_MAX = 8;
const RECEIPTS_MAX = 5;
const EVENTS_MAX = 8;
const TAPE = 32; // log entries drawn for each node
const NAME_BYTES_MAX = 64;
const STORE = "leaderboard.pending";

const $ = (id) => document.getElementById(id);

// ---------------------------------------------------------------- words and numbers

const count = new Intl.NumberFormat("en");
const signedCount = new Intl.NumberFormat("en", { signDisplay: "exceptZero" });
const number = (n) => (Number.isFinite(n) ? count.format(n) : "–");
const signed = (n) => (n === 0 ? "+0" : signedCount.format(n));
const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;
const points = (n) => plural(n, "point", "points");
const node = (id) => `n${id}`;
const known = (id) => id !== null && id !== undefined && id !== "" && String(id) !== "0";
const seconds = (ms) => {
  const s = Math.max(0, Math.round(ms / 1000));
  return s < 120 ? `${s} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
};
const bytes = (text) => new TextEncoder().encode(text).length;

/** A name as it can be seen: one that draws nothing at all is spelled as its code points. */
function visible(name) {
  if (/[\p{L}\p{N}\p{P}\p{S}]/u.test(name)) return name;
  return [...name].map((c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`).join(" ");
}

/** Sets a text only when it differs, so that a poll without news does not touch the page. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets data attributes; `undefined` and `null` remove one. */
function setData(element, data) {
  for (const [name, value] of Object.entries(data)) {
    if (value === undefined || value === null) delete element.dataset[name];
    else if (element.dataset[name] !== String(value)) element.dataset[name] = value;
  }
}

const fromTemplate = (id) => $(id).content.firstElementChild.cloneNode(true);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// ---------------------------------------------------------------- talking to the service

/** An answer that is not a success, or no answer at all (`status` 0), in the words of RFC 9457. */
class Problem extends Error {
  constructor(status, body, retryAfterMs) {
    super(body.title);
    this.status = status;
    this.title = body.title;
    this.detail = body.detail ?? "";
    this.code = String(body.code ?? "");
    this.retryAfterMs = retryAfterMs;
    // What a reply does not say is assumed in the worst way that its status allows.
    this.outcome = body.outcome ?? (status >= 400 && status < 500 ? "not_applied" : "unknown");
    this.retry = body.retry ?? (status === 429 || status < 400 || status >= 500 ? "same_key_only" : "never");
  }

  get noLeader() {
    return this.status === 503 && /no.?(leader|quorum)/i.test(`${this.code} ${this.title}`);
  }

  get words() {
    const end = (text) => (text === "" || /[.!?]$/.test(text) ? text : `${text}.`);
    return [this.title, this.detail].filter(Boolean).map(end).join(" ");
  }
}

/** Sends one request: `{ body, headers }` of a success, or throws a `Problem`. */
async function ask(path, { timeout = POLL_TIMEOUT_MS, ...init } = {}) {
  let response, text;
  try {
    response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(timeout), ...init });
    text = await response.text();
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Problem(0, {
      title: late ? "No answer in time" : "The service does not answer",
      detail: late ? "It took too long." : "Is it running, and is this device online?",
    });
  }
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Not JSON, for instance the error page of a proxy: the status says enough.
  }
  if (response.ok && body !== null) return { body, headers: response.headers };
  const told = body !== null && typeof body === "object" ? body : {};
  const title = response.ok ? "The answer could not be understood" : `Error ${response.status}`;
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  throw new Problem(response.status, { title, ...told }, Number.isFinite(wait) ? wait * 1000 : 0);
}

// ---------------------------------------------------------------- polling

/**
 * Runs `task` about every second while the page is visible, never twice at once, and ever less
 * often while it fails. `wake` runs it at once.
 */
function poller(task) {
  let timer = 0;
  let failures = 0;
  let running = false;
  let again = false;

  async function run() {
    clearTimeout(timer);
    if (document.hidden) return;
    if (running) {
      again = true;
      return;
    }
    running = true;
    again = false;
    let done = false;
    try {
      done = await task();
    } finally {
      running = false;
      failures = done ? 0 : failures + 1;
      schedule();
    }
  }

  function schedule() {
    const backoff = Math.min(POLL_MS * 1.6 ** failures, POLL_MS_MAX) * (0.9 + Math.random() * 0.2);
    timer = setTimeout(run, again ? 0 : failures === 0 ? POLL_MS : backoff);
  }

  document.addEventListener("visibilitychange", run);
  return { wake: run };
}

// ---------------------------------------------------------------- the ranking

const rows = new Map(); // player -> row on the page
let ranking = null; // the last one received, kept while the service is away
let rankingIndex = "";

async function pollRanking() {
  try {
    const { body, headers } = await ask(`/top_n_scores?n=${TOP}`);
    if (!Array.isArray(body)) throw new Problem(200, { title: "The ranking could not be understood" });
    ranking = body.slice(0, TOP);
    rankingIndex = headers.get("Raft-Index") ?? "";
    page.good();
    drawRanking();
    drawFreshness(headers.get("Raft-Node"));
    return true;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    page.bad(problem);
    return false;
  }
}

function drawFreshness(by) {
  const size = ranking.length < TOP ? plural(ranking.length, "player", "players") : `Top ${TOP}`;
  const index = rankingIndex ? `, as of log entry ${number(Number(rankingIndex))}` : "";
  setText($("freshness"), `${size}${index}${known(by) ? `, told by ${node(by)}` : ""}`);
}

/** Draws the ranking and what waits; rows that move glide from where they were (FLIP). */
function drawRanking() {
  if (ranking === null) return;
  const list = $("rows");
  const first = list.dataset.state === "loading";
  const before = first ? new Map() : positions();
  if (first) list.replaceChildren();
  setData(list, { state: "live" });
  list.removeAttribute("aria-busy");

  const best = Math.max(1, ...ranking.map((entry) => entry.score));
  const seen = new Set();
  const order = ranking.map((entry) => {
    seen.add(entry.player);
    return drawRow(entry, best, first);
  });
  for (const [player, row] of rows) {
    if (seen.has(player)) continue;
    row.item.remove();
    rows.delete(player);
  }
  order.push(...waitingRows(seen));
  order.forEach((item, at) => {
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
  });
  while (list.children.length > order.length) list.lastElementChild.remove();
  $("empty").hidden = order.length > 0;
  list.hidden = order.length === 0;
  glide(before);
}

function drawRow({ rank, player, score }, best, first) {
  let row = rows.get(player);
  if (row === undefined) {
    row = makeRow(player);
    rows.set(player, row);
    if (!first) row.item.classList.add("fresh");
  } else if (row.value !== score || row.place > rank) {
    showNews(row, score - row.value, row.place - rank);
  }
  row.value = score;
  row.place = rank;
  setText(row.rank, String(rank));
  setText(row.score, number(score));
  row.fill.style.transform = `scaleX(${Math.max(0, score) / best})`;
  const waiting = waitingFor(player);
  if (waiting !== null) setText(row.note, `${signed(waiting)} waiting`);
  else if (!row.news) setText(row.note, "");
  setData(row.item, { rank, score, pending: waiting === null ? null : "true" });
  return row.item;
}

function makeRow(player) {
  const item = fromTemplate("row-template");
  const part = (name) => item.querySelector(`.${name}`);
  const row = { item, rank: part("rank"), note: part("note"), score: part("score"), fill: part("fill") };
  setText(part("name"), visible(player));
  part("name").title = player;
  setData(item, { player });
  return row;
}

/** For a moment a row says what changed: points gained, places climbed. */
function showNews(row, gained, climbed) {
  const words = [];
  if (climbed > 0) words.push(`▲ ${climbed}`);
  if (gained !== 0) words.push(signed(gained));
  if (words.length === 0) return;
  clearTimeout(row.news);
  setText(row.note, words.join("  "));
  setData(row.item, { news: gained < 0 ? "fell" : "rose" });
  row.news = setTimeout(() => {
    row.news = 0;
    setData(row.item, { news: null });
    if (row.item.dataset.pending === undefined) setText(row.note, "");
  }, 2500);
}

/** Rows for players who are not in the ranking and whose score waits. Drawn as waiting. */
function waitingRows(seen) {
  const players = new Set(pending().map((s) => s.player));
  return [...players].filter((player) => !seen.has(player)).map((player) => {
    const { item, rank, note, score } = makeRow(player);
    delete item.dataset.player;
    setData(item, { pendingPlayer: player, pending: "true" });
    setText(rank, "…");
    setText(note, "waiting");
    setText(score, signed(waitingFor(player)));
    return item;
  });
}

function positions() {
  const at = new Map();
  for (const { item } of rows.values()) at.set(item, item.getBoundingClientRect().top);
  return at;
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");

function glide(before) {
  if (calm.matches || before.size === 0) return;
  const moves = [];
  for (const [item, top] of before) {
    if (!item.isConnected) continue;
    for (const running of item.getAnimations()) if (running.id === "glide") running.cancel();
    const by = top - item.getBoundingClientRect().top;
    if (Math.abs(by) > 1) moves.push([item, by]);
  }
  for (const [item, by] of moves) {
    const from = [{ transform: `translateY(${by}px)` }, { transform: "none" }];
    item.animate(from, { id: "glide", duration: 480, easing: "cubic-bezier(.2,.8,.2,1)" });
  }
}

// ---------------------------------------------------------------- adding a score

// Scores sent from this page, newest first. One that waits is kept for this tab with its key, so that
// a reload goes on asking instead of losing it, and never counts it twice.
let submissions = [];

const pending = () => submissions.filter((s) => s.state === "pending");
const expired = (s) => Date.now() - s.at > KEY_LIFE_MS;

/** The points that wait for this player, or `null` when none do. */
function waitingFor(player) {
  const mine = pending().filter((s) => s.player === player);
  return mine.length === 0 ? null : mine.reduce((sum, s) => sum + s.score, 0);
}

function freshKey() {
  // Not `randomUUID`: that needs a secure context, and this page may be opened over plain HTTP.
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...random].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
}

function wrongWith(player, score) {
  if (player === "") return ["player", "Say who the points are for."];
  if (/\p{Cc}/u.test(player)) return ["player", "A name cannot hold control characters."];
  if (bytes(player) > NAME_BYTES_MAX) {
    return ["player", `That name takes ${bytes(player)} bytes; at most ${NAME_BYTES_MAX} fit.`];
  }
  if (!Number.isSafeInteger(score)) {
    return ["score", "Points are a whole number, at most 9,007,199,254,740,991 either way."];
  }
  if (pending().length >= PENDING_MAX) {
    return ["player", `${PENDING_MAX} scores still wait. Add more when they are done.`];
  }
  return null;
}

function submit(event) {
  event.preventDefault();
  const player = $("player").value.normalize("NFC").trim();
  const score = $("score").value.trim() === "" ? NaN : Number($("score").value);
  const wrong = wrongWith(player, score);
  for (const id of ["player", "score"]) $(id).setAttribute("aria-invalid", String(wrong?.[0] === id));
  setText($("form-error"), wrong?.[1] ?? "");
  if (wrong !== null) {
    $(wrong[0]).focus();
    return;
  }
  const last = submissions[0];
  const twice = last?.player === player && last.score === score && Date.now() - last.at < 400;
  if (twice) return; // a double click is one wish
  begin({ key: freshKey(), player, score, at: Date.now(), mayHaveCounted: false });
  $("player").select();
}

function begin(submission) {
  const s = { ...submission, state: "pending", tries: 0, problem: null };
  s.item = fromTemplate("receipt-template");
  s.item.querySelector(".again").addEventListener("click", () => resume(s));
  submissions.unshift(s);
  $("receipts").prepend(s.item);
  const done = submissions.filter((other) => other.state !== "pending");
  for (const old of done.slice(Math.max(0, RECEIPTS_MAX - pending().length))) {
    old.item.remove();
    submissions = submissions.filter((other) => other !== old);
  }
  submissions.forEach((other, at) => (at === 0 ? (other.item.id = "receipt") : other.item.removeAttribute("id")));
  deliver(s);
}

function resume(s) {
  s.patienceFrom = Date.now();
  s.state = "pending";
  deliver(s);
}

/** Tries until there is an answer that settles it, always with the same key. */
async function deliver(s) {
  s.patienceFrom ??= Date.now();
  for (let round = 0; ; round += 1) {
    if (expired(s)) {
      settle(s, s.mayHaveCounted ? "unknown" : "refused");
      return;
    }
    s.tries += 1;
    show(s);
    try {
      s.answer = await ask("/add_vote", {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": s.key },
        body: JSON.stringify({ player: s.player, score: s.score }),
        timeout: WRITE_TIMEOUT_MS,
      });
      settle(s, "committed");
      return;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      s.problem = problem;
      // Once an earlier try may have counted, a later "not applied" speaks only for itself.
      s.mayHaveCounted ||= problem.outcome !== "not_applied";
      const over = problem.retry === "never" || Date.now() - s.patienceFrom > WRITE_PATIENCE_MS;
      if (over) {
        const sure = problem.outcome === "not_applied" && (problem.retry === "never" || !s.mayHaveCounted);
        settle(s, sure ? "refused" : "unknown");
        return;
      }
      show(s);
      const backoff = Math.min(300 * 1.7 ** round, 5000) * (0.8 + Math.random() * 0.4);
      await pause(Math.max(backoff, Math.min(problem.retryAfterMs, 10_000)));
    }
  }
}

function settle(s, state) {
  s.state = state;
  show(s);
  setText($("announce"), `${visible(s.player)} ${signed(s.score)}: ${s.item.querySelector(".receipt-line").textContent}`);
  if (state === "committed") rankingPoll.wake();
}

/** Draws a receipt, and keeps what is not settled for a reload. */
function show(s) {
  remember();
  const part = (name) => s.item.querySelector(`.${name}`);
  setData(s.item, { state: s.state, player: s.player });
  setText(part("name"), visible(s.player));
  setText(part("delta"), signed(s.score));
  const { line, proof } = receiptWords(s);
  setText(part("receipt-line"), line);
  setText(part("receipt-proof"), proof);
  part("again").hidden = !["unknown", "refused"].includes(s.state) || s.problem?.retry === "never" || expired(s);
  drawRanking();
}

function receiptWords(s) {
  if (s.state === "committed") return committedWords(s);
  if (s.state === "pending") {
    const why = s.problem === null ? "Waiting for a majority of the nodes…" : `${s.problem.title}. Asking again…`;
    return { line: why, proof: s.tries > 1 ? `Try ${s.tries}, same key: it cannot count twice.` : "" };
  }
  const why = s.problem?.words ?? "";
  if (s.state === "refused") return { line: `Not counted. ${why}`, proof: "" };
  const next = expired(s)
    ? "Its key is too old to ask again safely: look at the ranking."
    : "To ask again is safe: the same key cannot count twice.";
  return { line: `It may have been counted. ${why}`, proof: next };
}

function committedWords(s) {
  const { body, headers } = s.answer;
  const index = body.index ?? headers.get("Raft-Index");
  const term = headers.get("Raft-Term");
  const by = headers.get("Raft-Node");
  const leader = headers.get("Raft-Leader");
  const replayed = headers.get("Idempotency-Replayed") === "true";
  setData(s.item, { total: body.score, rank: body.rank, index, term, by, leader, replayed });
  const proof = [`entry ${number(Number(index))}`];
  if (term !== null) proof.push(`term ${number(Number(term))}`);
  if (known(by)) proof.push(`told by ${node(by)}`);
  if (known(leader)) proof.push(`leader ${node(leader)}`);
  proof.push(replayed ? "replayed: counted once, by an earlier try" : "first answer");
  return { line: `${points(body.score)}, rank ${number(body.rank)}.`, proof: proof.join(" · ") };
}

function remember() {
  const open = submissions.filter((s) => s.state === "pending" || s.state === "unknown");
  const kept = open.map(({ key, player, score, at }) => ({ key, player, score, at }));
  try {
    sessionStorage.setItem(STORE, JSON.stringify(kept));
  } catch {
    // Storage may be switched off: then a reload forgets, which is what the person asked for.
  }
}

function recall() {
  let kept = [];
  try {
    kept = JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
  } catch {
    return;
  }
  for (const s of kept.slice(0, PENDING_MAX).reverse()) begin({ ...s, mayHaveCounted: true });
}

// ---------------------------------------------------------------- finding a player

async function find(event) {
  event.preventDefault();
  const player = $("find-player").value.normalize("NFC").trim();
  if (player === "") {
    $("found").hidden = true;
    return;
  }
  const name = document.createElement("bdi");
  name.textContent = visible(player);
  try {
    const { body } = await ask(`/player_rankings?player=${encodeURIComponent(player)}`);
    const rank = `Rank ${number(body.rank)} of ${number(body.of)}: `;
    answerFind(body.rank, rank, name, `, ${points(body.score)}.`);
    reveal(player);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 404) answerFind(null, "Nobody called ", name, " has a score.");
    else answerFind(null, problem.words);
  }
}

function answerFind(rank, ...parts) {
  $("found").replaceChildren(...parts);
  setData($("found"), { rank });
  $("found").hidden = false;
}

function reveal(player) {
  const item = rows.get(player)?.item;
  if (item === undefined) return;
  item.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
  item.classList.remove("spot");
  requestAnimationFrame(() => item.classList.add("spot"));
}

// ---------------------------------------------------------------- the nodes

const idOf = new Map(); // address -> node id, learnt from every answer
const lastSeen = new Map(); // node id -> its last document, for when it does not answer
let behindBalancer = true;
let view = null; // the last picture of the cluster

async function pollCluster() {
  try {
    const before = view;
    view = picture(await askCluster());
    if (before !== null) tellChanges(before, view);
    drawCluster(view);
    setData($("cluster"), { stale: null });
    page.draw();
    // A new leader is the moment to go on: do not sit out the back-off.
    if (view.leader !== null && page.state !== "live") rankingPoll.wake();
    return true;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    setData($("cluster"), { stale: "true" });
    const as = view === null ? "" : ` This is how they were ${seconds(Date.now() - view.at)} ago.`;
    setText($("cluster-summary"), `The nodes cannot be asked.${as}`);
    return false;
  }
}

/** Every node's own view through the balancer; without one, the view of the node that serves us. */
async function askCluster() {
  if (behindBalancer) {
    try {
      return (await ask("/lb/cluster")).body;
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      behindBalancer = false;
    }
  }
  const { body } = await ask("/v1/cluster");
  return { nodes: [{ address: location.host, reachable: true, cluster: body }] };
}

/** What is known of the cluster, from all answers together. */
function picture(answer) {
  const told = Array.isArray(answer?.nodes) ? answer.nodes : [];
  const answering = told.filter((n) => n.reachable && n.cluster);
  for (const { address, cluster } of answering) {
    idOf.set(address, String(cluster.node));
    lastSeen.set(String(cluster.node), cluster);
    for (const m of cluster.members ?? []) if (m.http) idOf.set(m.http.replace(/^\w+:\/\//, ""), String(m.id));
  }
  const docs = answering.map((n) => n.cluster);
  const newest = docs.reduce((a, b) => (a === null || b.term > a.term ? b : a), null);
  // Of two that claim to lead, the one of the higher term does: the other has not heard yet.
  const leader = docs.filter((d) => d.role === "leader").reduce((a, b) => (a === null || b.term > a.term ? b : a), null);
  const members = (leader ?? newest)?.members ?? [];
  const last = Math.max(0, ...docs.map((d) => d.last_index));
  const commit = Math.max(0, ...docs.map((d) => d.commit_index));

  const nodes = new Map();
  for (const { address, cluster } of answering) nodes.set(String(cluster.node), fromItself(address, cluster, commit));
  for (const n of told.filter((each) => !(each.reachable && each.cluster))) {
    const id = idOf.get(n.address) ?? leftOver(members, nodes, told) ?? n.address;
    nodes.set(id, fromSilence(id, n));
  }
  for (const m of members) if (!nodes.has(String(m.id))) nodes.set(String(m.id), fromLeader(m, newest));
  const sorted = [...nodes.values()].sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
  return { at: Date.now(), nodes: sorted, docs, leader, newest, last, commit, voters: voters(members, sorted) };
}

const voters = (members, nodes) => {
  const all = members.filter((m) => m.kind !== "learner").map((m) => String(m.id));
  const size = all.length || nodes.length;
  const silent = nodes.filter((n) => n.state === "down" && (all.length === 0 || all.includes(n.id)));
  return { size, answer: size - silent.length };
};

/** A silent address whose id nobody named: the one member that is missing, if there is only one. */
function leftOver(members, nodes, told) {
  const missing = members.map((m) => String(m.id)).filter((id) => !nodes.has(id));
  const unnamed = told.filter((n) => !(n.reachable && n.cluster) && !idOf.has(n.address));
  return missing.length === 1 && unnamed.length === 1 ? missing[0] : undefined;
}

function fromItself(address, doc, commit) {
  const id = String(doc.node);
  const learner = (doc.members ?? []).some((m) => String(m.id) === id && m.kind === "learner");
  const role = learner ? "learner" : doc.role;
  const lag = Math.max(0, commit - doc.applied_index);
  const state = role === "pre-candidate" ? "candidate" : role;
  return { id, address, state, role, lag, term: doc.term, commit: doc.commit_index,
    applied: doc.applied_index, last: doc.last_index, note: "" };
}

function fromSilence(id, { address, error, since_ms: since }) {
  const doc = lastSeen.get(id);
  const time = Number.isFinite(since) ? ` for ${seconds(since)}` : "";
  return { id, address, state: "down", role: "not reachable", lag: null, term: doc?.term,
    commit: doc?.commit_index, applied: doc?.applied_index, last: doc?.last_index,
    note: `No answer${time}${error ? `: ${error}` : ""}.${doc ? " The numbers are its last ones." : ""}` };
}

/** A member that we cannot ask ourselves: what the others say about it. */
function fromLeader({ id, http, raft, kind, match_index: match, lag_entries: lag, healthy }, by) {
  const state = healthy === true ? "seen" : healthy === false ? "down" : "unknown";
  const role = healthy === false ? "not reachable" : kind === "learner" ? "learner" : "member";
  return { id: String(id), address: http ?? raft ?? "", state, role, lag: lag ?? null, term: undefined,
    commit: undefined, applied: undefined, last: match ?? undefined, note: `As ${node(by.node)} sees it.` };
}

function drawCluster({ nodes, last, leader, voters: { size, answer } }) {
  const list = $("nodes");
  nodes.forEach((n, at) => {
    if (list.children[at] === undefined) list.append(fromTemplate("node-template"));
    drawNode(list.children[at], n, last);
  });
  while (list.children.length > nodes.length) list.lastElementChild.remove();
  $("legend").hidden = last === 0;
  const lead = leader === null ? "No leader" : `${node(leader.node)} leads in term ${number(leader.term)}`;
  const majority = answer * 2 > size ? "" : ": no majority";
  setText($("cluster-summary"), `${lead} · ${answer} of ${size} answer${majority}`);
  const lines = disputes();
  setList($("disputes"), lines);
  $("disputes").hidden = lines.length === 0;
  drawDigest();
}

function drawNode(item, n, end) {
  setData(item, { node: n.id, state: n.state, term: n.term, commit: n.commit, applied: n.applied });
  const part = (name) => item.querySelector(`.${name}`);
  setText(part("node-name"), /^\d+$/.test(n.id) ? node(n.id) : n.id);
  setText(part("role"), n.role);
  setText(part("address"), n.address === n.id ? "" : n.address);
  setText(part("node-note"), n.note);
  const facts = { term: n.term, commit: n.commit, applied: n.applied };
  for (const [name, value] of Object.entries(facts)) {
    setText(item.querySelector(`[data-fact="${name}"]`), number(value));
  }
  const lag = item.querySelector('[data-fact="lag"]');
  setText(lag, number(n.lag ?? NaN));
  setData(lag, { behind: n.lag > 0 ? "true" : null });
  drawTape(part("tape"), n, end);
}

/** The end of the log, one cell for each entry, so that a node that lags is seen to lag. */
function drawTape(tape, n, end) {
  while (tape.children.length < TAPE) tape.append(document.createElement("span"));
  const from = end - TAPE + 1;
  [...tape.children].forEach((cell, at) => {
    const index = from + at;
    const kind = index < 1 ? "void" : index <= n.applied ? "applied" : index <= n.commit ? "committed"
      : index <= n.last ? "appended" : "missing";
    const name = `cell ${kind}${index % 10 === 0 ? " tenth" : ""}`;
    if (cell.className !== name) cell.className = name;
  });
}

/** One line for each node that sees the cluster differently from the leader of the highest term. */
function disputes() {
  const { docs, leader } = view;
  const lines = [];
  for (const d of docs) {
    if (leader === null || d.node === leader.node) continue;
    const me = node(d.node);
    const term = `term ${number(d.term)}`;
    if (d.role === "leader") lines.push(`${me} still thinks it leads, ${term}`);
    else if (!known(d.leader)) lines.push(`${me} knows no leader yet, ${term}`);
    else if (String(d.leader) !== String(leader.node)) lines.push(`${me} still thinks ${node(d.leader)} leads, ${term}`);
    else if (d.term !== leader.term) lines.push(`${me} is in ${term}, the leader in term ${number(leader.term)}`);
  }
  return lines;
}

/** Nodes that have applied the same entry must hold the same data: say so, and shout if not. */
function drawDigest() {
  const at = new Map();
  for (const d of view.docs) {
    if (!d.digest || !d.applied_index) continue;
    at.set(d.applied_index, [...(at.get(d.applied_index) ?? []), d]);
  }
  const groups = [...at.entries()].filter(([, same]) => same.length > 1);
  if (groups.length === 0) {
    if (view.docs.length < 2) $("digest").hidden = true;
    return;
  }
  const [index, same] = groups.reduce((a, b) => (b[1].length > a[1].length ? b : a));
  const wrong = groups.find(([, docs]) => docs.some((d) => d.digest !== docs[0].digest));
  const names = (docs) => docs.map((d) => node(d.node)).sort().join(", ");
  setText($("digest"), wrong
    ? `${names(wrong[1])} hold different data at entry ${number(wrong[0])}. This must never happen: stop writing and keep their logs.`
    : `${names(same)} hold the same data at entry ${number(index)} (${String(same[0].digest).slice(0, 8)}).`);
  setData($("digest"), { state: wrong ? "differ" : "same" });
  $("digest").hidden = false;
}

function tellChanges(before, now) {
  const was = new Map(before.nodes.map((n) => [n.id, n]));
  for (const n of now.nodes) {
    const old = was.get(n.id);
    if (old === undefined) continue;
    if (n.state === "down" && old.state !== "down") tell("down", `${node(n.id)} does not answer any more`);
    if (n.state !== "down" && old.state === "down") {
      tell("up", `${node(n.id)} is back${n.lag > 0 ? `, ${plural(n.lag, "entry", "entries")} behind` : ""}`);
    }
  }
  const led = before.leader;
  const leads = now.leader;
  if (leads !== null && (led === null || led.node !== leads.node || led.term !== leads.term)) {
    tell("leader", `${node(leads.node)} leads, in term ${number(leads.term)}`);
  } else if (leads === null && led !== null) {
    tell("vote", `No leader since ${node(led.node)}: the nodes vote`);
  }
}

function tell(kind, words) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString("en-GB");
  item.append(time, words);
  setData(item, { kind });
  $("events").prepend(item);
  while ($("events").children.length > EVENTS_MAX) $("events").lastElementChild.remove();
  $("timeline").hidden = false;
}

function setList(list, lines) {
  while (list.children.length > lines.length) list.lastElementChild.remove();
  lines.forEach((line, at) => {
    if (list.children[at] === undefined) list.append(document.createElement("li"));
    setText(list.children[at], line);
  });
}

// ---------------------------------------------------------------- the state of the page

// Decided by the ranking, which is what people come for; the nodes only add who answers.
const page = {
  state: "loading",
  fresh: 0, // when the ranking was last received
  failing: 0, // since when it fails
  problem: null,

  good() {
    Object.assign(this, { state: "live", fresh: Date.now(), failing: 0, problem: null });
    this.draw();
  },

  bad(problem) {
    this.failing ||= Date.now();
    this.problem = problem;
    const passing = problem.status === 0 || problem.status === 429 || problem.status >= 500;
    this.state = problem.noLeader ? "no-leader" : passing && this.fresh > 0 ? "reconnecting" : "error";
    this.draw();
  },

  draw() {
    const age = this.fresh > 0 ? ` · data ${seconds(Date.now() - this.fresh)} old` : "";
    const { answer, size } = view?.voters ?? {};
    const answering = $("cluster").dataset.stale || !size ? "" : ` · ${answer} of ${size} nodes`;
    const words = {
      loading: "Connecting…",
      live: `Live${answering}`,
      reconnecting: `Reconnecting${age}`,
      "no-leader": `No leader${age}`,
      error: `Error${age}`,
    };
    setText($("status-text"), words[this.state]);
    const whole = this.state !== "live" || !size || answer === size;
    setData($("status"), { state: this.state, partial: whole ? null : "true" });
    setData(document.body, { page: this.state });
    this.drawBanner();
  },

  drawBanner() {
    const words = {
      "no-leader": "The nodes have no leader at the moment. Scores are safe; new ones will wait.",
      reconnecting: "The service does not answer. What you see is the last that it said.",
      error: this.problem?.words ?? "",
    }[this.state];
    // An election or a lost packet is over before anybody can read about it.
    const worth = words !== undefined && Date.now() - this.failing > (this.state === "error" ? 0 : 1500);
    $("banner").hidden = !worth;
    if (worth) setText($("banner"), words);
  },
};

const rankingPoll = poller(pollRanking);
const clusterPoll = poller(pollCluster);

$("add").addEventListener("submit", submit);
$("find").addEventListener("submit", find);
$("find-player").addEventListener("input", (event) => {
  if (event.target.value === "") $("found").hidden = true;
});
$("be-first").addEventListener("click", () => $("player").focus());
window.addEventListener("online", () => [rankingPoll, clusterPoll].forEach((poll) => poll.wake()));
setInterval(() => page.draw(), 1000); // ages

recall();
rankingPoll.wake();
clusterPoll.wake();
