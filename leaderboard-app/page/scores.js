// Adding a score. Each one gets a key when it is made and keeps it for every try, so that asking
// again never counts it twice; and it is drawn as waiting until an answer settles it.

import { ask, Problem } from "./service.js";
import {
  $, fromTemplate, known, node, number, points, setData, setText, signed, typed, visible,
} from "./words.js";

const TRY_MS_MAX = 8000; // one try
const PATIENCE_MS = 120_000; // all tries, then a person decides
const KEY_LIFE_MS = 9 * 60_000; // the service remembers a key for ten minutes: never ask later
const WAITING_MAX = 8;
const RECEIPTS_MAX = 5;
const DOUBLE_CLICK_MS = 400;
const NAME_BYTES_MAX = 64;
const STORE = "leaderboard.open-scores";

let scores = []; // sent from this page, newest first; the settled ones are kept as receipts
let onChange = () => {};
let onCounted = () => {};

/** Starts the form; `changed` runs whenever what waits changes, `counted` when a score is in. */
export function start(changed, counted) {
  onChange = changed;
  onCounted = counted;
  $("add").addEventListener("submit", submit);
  recall();
}

const open = () => scores.filter((s) => s.state === "pending");
const expired = (s) => Date.now() - s.at > KEY_LIFE_MS;

/** The points that wait, by player. */
export function waiting() {
  const sums = new Map();
  for (const { player, score } of open()) sums.set(player, (sums.get(player) ?? 0) + score);
  return sums;
}

function submit(event) {
  event.preventDefault();
  const player = typed($("player"));
  const score = $("score").value === "" ? NaN : Number($("score").value);
  const [field, wrong] = mistake(player, score);
  for (const id of ["player", "score"]) $(id).setAttribute("aria-invalid", String(id === field));
  setText($("form-error"), wrong);
  if (field !== "") {
    $(field).focus();
    return;
  }
  const last = scores[0];
  const same = last?.player === player && last.score === score;
  if (same && Date.now() - last.at < DOUBLE_CLICK_MS) return; // a double click is one wish
  begin({ key: makeKey(), player, score, at: Date.now(), mayHaveCounted: false });
  $("player").select();
}

/** The field that is wrong, and why: the rules of the service, said before asking it. */
function mistake(player, score) {
  const bytes = new TextEncoder().encode(player).length;
  if (player === "") return ["player", "Say who the points are for."];
  if (/\p{Cc}/u.test(player)) return ["player", "A name cannot hold control characters."];
  if (bytes > NAME_BYTES_MAX) {
    return ["player", `That name takes ${bytes} bytes; at most ${NAME_BYTES_MAX} fit.`];
  }
  if (!Number.isSafeInteger(score)) {
    const most = number(Number.MAX_SAFE_INTEGER);
    return ["score", `Points are a whole number from −${most} to ${most}.`];
  }
  if (open().length >= WAITING_MAX) {
    return ["player", `${WAITING_MAX} scores are still waiting. Add more when they are in.`];
  }
  return ["", ""];
}

function makeKey() {
  // Not `randomUUID`: that needs a secure context, and this page may be opened over plain HTTP.
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...random].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
}

function begin(score) {
  const s = { ...score, state: "pending", tries: 0, problem: null, patienceFrom: Date.now() };
  s.item = fromTemplate("receipt-template");
  s.item.querySelector(".again").addEventListener("click", () => {
    Object.assign(s, { state: "pending", patienceFrom: Date.now() });
    deliver(s);
  });
  scores[0]?.item.removeAttribute("id");
  s.item.id = "receipt";
  scores.unshift(s);
  $("receipts").prepend(s.item);
  const settled = scores.filter((other) => other.state !== "pending");
  for (const old of settled.slice(Math.max(0, RECEIPTS_MAX - open().length))) {
    old.item.remove();
    scores = scores.filter((other) => other !== old);
  }
  deliver(s);
}

/** Asks until an answer settles it, or patience or the key runs out. */
async function deliver(s) {
  for (let round = 0; !expired(s); round += 1) {
    s.tries += 1;
    draw(s);
    try {
      s.answer = await send(s);
      settle(s, "committed");
      return;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      s.problem = problem;
      // Once a try may have counted, a later "not applied" only speaks for itself; only a refusal
      // that no retry can change also tells that no earlier try got through.
      s.mayHaveCounted ||= problem.outcome !== "not_applied";
      if (problem.retry === "never") {
        settle(s, problem.outcome === "not_applied" ? "refused" : "unknown");
        return;
      }
      if (Date.now() - s.patienceFrom > PATIENCE_MS) break;
      draw(s);
      await rest(round, problem.retryAfterMs);
    }
  }
  settle(s, s.mayHaveCounted ? "unknown" : "refused");
}

const send = ({ key, player, score }) => ask("/add_vote", {
  method: "POST",
  headers: { "Content-Type": "application/json", "Idempotency-Key": key },
  body: JSON.stringify({ player, score }),
  timeout: TRY_MS_MAX,
});

function rest(round, atLeast) {
  const backoff = Math.min(300 * 1.7 ** round, 5000) * (0.8 + Math.random() * 0.4);
  const ms = Math.max(backoff, Math.min(atLeast, 10_000));
  return new Promise((done) => setTimeout(done, ms));
}

function settle(s, state) {
  s.state = state;
  draw(s);
  const line = s.item.querySelector(".receipt-line").textContent;
  setText($("announce"), `${visible(s.player)} ${signed(s.score)}: ${line}`);
  if (state === "committed") onCounted();
}

/** Draws a receipt, and keeps what is not settled for a reload. */
function draw(s) {
  remember();
  const part = (name) => s.item.querySelector(`.${name}`);
  const { line, proof } = words(s);
  setData(s.item, { state: s.state, player: s.player });
  setText(part("name"), visible(s.player));
  setText(part("delta"), signed(s.score));
  setText(part("receipt-line"), line);
  setText(part("receipt-proof"), proof);
  part("again").hidden = !mayAskAgain(s);
  onChange();
}

const mayAskAgain = (s) =>
  (s.state === "unknown" || s.state === "refused") && s.problem?.retry !== "never" && !expired(s);

function words(s) {
  const why = s.problem?.words ?? "";
  switch (s.state) {
    case "committed":
      return receipt(s);
    case "pending":
      if (s.problem === null) return { line: "Waiting for a majority of the nodes…", proof: "" };
      return {
        line: `${s.problem.title}. Asking again…`,
        proof: `Try ${s.tries}, with the same key: it cannot count twice.`,
      };
    case "refused":
      return { line: `Not counted. ${why}`, proof: "" };
    default:
      return { line: `It may have been counted. ${why}`, proof: advice(s) };
  }
}

function advice(s) {
  if (mayAskAgain(s)) return "To try again is safe: with the same key it cannot count twice.";
  return "Look at the ranking before you add it again.";
}

function receipt({ item, answer: { body, headers } }) {
  const index = body.index ?? headers.get("Raft-Index");
  const term = headers.get("Raft-Term");
  const by = headers.get("Raft-Node");
  const leader = headers.get("Raft-Leader");
  const replayed = headers.get("Idempotency-Replayed") === "true";
  setData(item, { total: body.score, rank: body.rank, index, term, by, leader, replayed });
  const proof = [`entry ${number(Number(index))}`];
  if (term !== null) proof.push(`term ${number(Number(term))}`);
  if (known(by)) proof.push(`told by ${node(by)}`);
  if (known(leader)) proof.push(`leader ${node(leader)}`);
  proof.push(replayed ? "replayed: an earlier try had counted, this one did not" : "first answer");
  return { line: `${points(body.score)}, rank ${number(body.rank)}`, proof: proof.join(" · ") };
}

// A score that is not settled is kept for this tab, so that a reload goes on asking with its key.

function remember() {
  const kept = scores
    .filter((s) => s.state === "pending" || s.state === "unknown")
    .map(({ key, player, score, at }) => ({ key, player, score, at }));
  try {
    sessionStorage.setItem(STORE, JSON.stringify(kept));
  } catch {
    // Storage may be switched off: then a reload forgets, and the receipts are gone with it.
  }
}

function recall() {
  let kept = [];
  try {
    kept = JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
  } catch {
    return;
  }
  // Whether a try was under way when the page was left is not known any more.
  for (const s of kept.slice(0, WAITING_MAX).reverse()) begin({ ...s, mayHaveCounted: true });
}
