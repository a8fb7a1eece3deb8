// The nodes: what each of them says, drawn side by side, and where they do not agree.

import { ask, Problem } from "./service.js";
import {
  $, duration, fromTemplate, known, node, number, plural, setData, setLines, setText,
} from "./words.js";

const EVENTS_MAX = 8;
const TAPE = 32; // log entries drawn for each node: the columns of .tape

const idOf = new Map(); // address -> node id, learnt from every answer
const lastSeen = new Map(); // node id -> its last document, for when it does not answer
let lastCompared = []; // ids of the nodes whose data was last compared
let behindBalancer = true;

/** The last picture of the cluster, or `null`; `current` is false when it could not be renewed. */
export const cluster = { view: null, current: false };

/** Asks for the cluster and draws it; `false` when nobody told. */
export async function pollCluster() {
  try {
    const before = cluster.view;
    cluster.view = picture(await askCluster());
    cluster.current = true;
    if (before !== null) tellChanges(before, cluster.view);
    drawCluster(cluster.view);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    cluster.current = false;
    const at = cluster.view?.at;
    const old = at === undefined ? "" : ` This is how they were ${duration(Date.now() - at)} ago.`;
    setText($("cluster-summary"), `The nodes cannot be asked.${old}`);
  }
  setData($("cluster"), { stale: cluster.current ? null : "true" });
  return cluster.current;
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
  const silent = told.filter((n) => !(n.reachable && n.cluster));
  learnIds(answering);
  const docs = answering.map((n) => n.cluster);
  const newest = highestTerm(docs);
  const leader = findLeader(docs, newest);
  const teller = docs.find((d) => d.node === leader?.node) ?? newest;
  const members = teller?.members ?? [];
  const last = Math.max(0, ...docs.map((d) => d.last_index));
  const commit = Math.max(0, ...docs.map((d) => d.commit_index));

  const nodes = new Map();
  for (const n of answering) nodes.set(String(n.cluster.node), fromItself(n, commit));
  for (const n of silent) {
    const id = idOf.get(n.address) ?? leftOver(members, nodes, silent) ?? n.address;
    nodes.set(id, fromSilence(id, n));
  }
  for (const m of members) {
    if (!nodes.has(String(m.id))) nodes.set(String(m.id), fromOthers(m, teller));
  }
  const byId = (a, b) => a.id.localeCompare(b.id, "en", { numeric: true });
  const sorted = [...nodes.values()].sort(byId);
  const all = votes(members, sorted);
  return { at: Date.now(), nodes: sorted, docs, leader, last, commit, votes: all };
}

function learnIds(answering) {
  for (const { address, cluster: doc } of answering) {
    idOf.set(address, String(doc.node));
    lastSeen.set(String(doc.node), doc);
    for (const m of doc.members ?? []) {
      if (m.http) idOf.set(m.http.replace(/^\w+:\/\//, ""), String(m.id));
    }
  }
}

const highestTerm = (docs) =>
  docs.reduce((best, d) => (best === null || d.term > best.term ? d : best), null);

/**
 * Of two that claim to lead, the one of the higher term does: the other has not heard yet. Only
 * when a single node can be asked, its word is taken for who leads.
 */
function findLeader(docs, newest) {
  const claims = highestTerm(docs.filter((d) => d.role === "leader"));
  if (claims !== null || behindBalancer || !known(newest?.leader)) return claims;
  return { node: newest.leader, term: newest.term };
}

/** How many voters there are, and how many answer. */
function votes(members, nodes) {
  const voters = members.filter((m) => m.kind !== "learner").map((m) => String(m.id));
  const down = nodes.filter((n) => n.state === "down");
  if (voters.length === 0) return { size: nodes.length, answer: nodes.length - down.length };
  const silent = down.filter((n) => voters.includes(n.id)).length;
  return { size: voters.length, answer: voters.length - silent };
}

/** A silent address whose id nobody named: the one member that is missing, if there is only one. */
function leftOver(members, nodes, silent) {
  const missing = members.map((m) => String(m.id)).filter((id) => !nodes.has(id));
  const unnamed = silent.filter((n) => !idOf.has(n.address));
  return missing.length === 1 && unnamed.length === 1 ? missing[0] : undefined;
}

function fromItself({ address, healthy, cluster: doc }, commit) {
  const id = String(doc.node);
  const learner = (doc.members ?? []).some((m) => String(m.id) === id && m.kind === "learner");
  const role = learner ? "learner" : doc.role;
  const lag = Math.max(0, commit - doc.applied_index);
  const state = role === "pre-candidate" ? "candidate" : role;
  const note = healthy === false ? "Not ready yet: the balancer passes it over." : "";
  return { id, address, state, role, lag, note, ...numbers(doc) };
}

const numbers = (doc) => ({
  term: doc?.term,
  commit: doc?.commit_index,
  applied: doc?.applied_index,
  last: doc?.last_index,
});

function fromSilence(id, { address, error, healthy, since_ms: since }) {
  const doc = lastSeen.get(id);
  const time = healthy === false && since >= 1000 ? ` for ${duration(since)}` : "";
  // Of a chain of causes the last one says it: "Connection refused".
  const why = error ? `: ${String(error).split(": ").pop()}` : "";
  const note = `No answer${time}${why}.${doc ? " The numbers are its last ones." : ""}`;
  return { id, address, state: "down", role: "not reachable", lag: null, note, ...numbers(doc) };
}

/** A member that we cannot ask ourselves: what another one says about it. */
function fromOthers(member, teller) {
  const { id, http, raft, kind, match_index: last, lag_entries: lag, healthy } = member;
  const state = { true: "seen", false: "down" }[healthy] ?? "unknown";
  let role = kind === "learner" ? "learner" : "member";
  if (known(teller.leader) && String(teller.leader) === String(id)) role = "leader";
  if (state === "down") role = "not reachable";
  const behind = lag > 0 ? `, ${plural(lag, "entry", "entries")} behind` : "";
  const note = `As ${node(teller.node)} sees it${behind}.`;
  return { id: String(id), address: http ?? raft ?? "", state, role, last, note };
}

function drawCluster(picture) {
  const { nodes, last, commit, leader, votes: { size, answer } } = picture;
  const list = $("nodes");
  nodes.forEach((n, at) => {
    if (list.children[at] === undefined) list.append(fromTemplate("node-template"));
    drawNode(list.children[at], n, last, commit);
  });
  while (list.children.length > nodes.length) list.lastElementChild.remove();
  $("legend").hidden = last === 0;
  const leads = leader && `${node(leader.node)} leads in term ${number(leader.term)}`;
  const majority = answer * 2 > size ? "" : ": no majority";
  setText($("cluster-summary"), `${leads ?? "No leader"} · ${answer} of ${size} answer${majority}`);
  const lines = disputes(picture);
  setLines($("disputes"), lines);
  $("disputes").hidden = lines.length === 0;
  drawDigest(picture);
}

function drawNode(item, n, end, commit) {
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
  setText(lag, number(n.lag));
  setData(lag, { behind: n.lag > 0 ? "true" : null });
  // Of a member that we cannot ask we know what it holds, so at most what is committed there.
  drawTape(part("tape"), { commit, ...n }, end);
  part("tape").hidden = n.last === undefined || n.last === null;
  part("facts").hidden = n.term === undefined;
}

/** The end of the log, one cell for each entry, so that a node that lags is seen to lag. */
function drawTape(tape, n, end) {
  while (tape.children.length < TAPE) tape.append(document.createElement("span"));
  // A short log starts at the left, and grows to the right until the tape is full.
  const first = Math.max(1, end - TAPE + 1);
  [...tape.children].forEach((cell, at) => {
    const index = first + at;
    const name = `cell ${cellKind(n, index, end)}${index % 10 === 0 ? " tenth" : ""}`;
    if (cell.className !== name) cell.className = name;
  });
}

function cellKind({ applied, commit, last }, index, end) {
  if (index > end) return "void";
  if (!(index <= last)) return "missing";
  if (index <= applied) return "applied";
  return index <= commit ? "committed" : "appended";
}

/** One line for each node that sees the cluster differently from the leader of the highest term. */
function disputes({ docs, leader }) {
  return docs.filter((d) => d.node !== leader?.node).map((d) => {
    const term = `term ${number(d.term)}`;
    if (d.role === "leader") return `${node(d.node)} still thinks it leads, ${term}`;
    if (!known(d.leader)) return leader && `${node(d.node)} knows no leader yet, ${term}`;
    if (String(d.leader) !== String(leader?.node)) {
      return `${node(d.node)} still thinks ${node(d.leader)} leads, ${term}`;
    }
    if (d.term === leader.term) return "";
    return `${node(d.node)} is in ${term}, the leader in term ${number(leader.term)}`;
  }).filter(Boolean);
}

/** Nodes that have applied the same entries must hold the same data: say so, and shout if not. */
function drawDigest({ docs }) {
  const groups = new Map();
  for (const d of docs) {
    const same = groups.get(d.applied_index) ?? [];
    if (d.digest && d.applied_index > 0) groups.set(d.applied_index, [...same, d]);
  }
  const compared = [...groups.values()].filter((same) => same.length > 1);
  const wrong = compared.find((same) => same.some((d) => d.digest !== same[0].digest));
  const shown = wrong ?? compared.sort((a, b) => b.length - a.length)[0];
  if (shown === undefined) {
    // While writes stream in, hardly two nodes are caught at one entry: keep the last comparison,
    // unless one of them is gone.
    if (lastCompared.some((id) => !docs.some((d) => d.node === id))) $("digest").hidden = true;
    return;
  }
  lastCompared = shown.map((d) => d.node).sort();
  const who = lastCompared.map(node).join(", ");
  const entry = `entry ${number(shown[0].applied_index)}`;
  setText($("digest"), wrong
    ? `${who} hold different data at ${entry}. This must never happen: stop writing, keep the logs.`
    : `${who} hold the same data at ${entry} (${String(shown[0].digest).slice(0, 8)}).`);
  setData($("digest"), { state: wrong ? "differ" : "same" });
  $("digest").hidden = false;
}

/** Says in words what became different between two pictures. */
function tellChanges(before, now) {
  const earlier = new Map(before.nodes.map((n) => [n.id, n]));
  for (const n of now.nodes) {
    const old = earlier.get(n.id);
    if (old === undefined) continue;
    const lag = n.lag > 0 ? `, ${plural(n.lag, "entry", "entries")} behind` : "";
    const [was, is] = [old.state === "down", n.state === "down"];
    if (is && !was) tell("down", `${node(n.id)} does not answer any more`);
    if (was && !is) tell("up", `${node(n.id)} is back${lag}`);
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
