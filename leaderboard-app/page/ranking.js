// The ranking: draws it with what waits, and finds a player.
//
// Names come from strangers. They are set as text, never as markup, and each stands in its own
// `bdi`, so that no direction mark leaves its line.

import { ask, Problem } from "./service.js";
import {
  $, calm, fromTemplate, known, node, number, plural, points, setData, setText, signed, typed,
  visible,
} from "./words.js";

/** Rows asked for, and the most that are drawn. */
export const TOP = 50;
const NEWS_MS = 2500;

const rows = new Map(); // player -> row on the page
let ranking = null; // the last one received, kept while the service is away
let asOf = null; // the log index that it reflects
let sought = ""; // the player whose rank is shown
let searches = 0; // an answer that a later search has overtaken is dropped

/** Takes a ranking as it was received. */
export function setRanking(entries, headers) {
  if (headers.get("Raft-Index") !== asOf && sought !== "") drawFound();
  asOf = headers.get("Raft-Index");
  ranking = entries.slice(0, TOP);
  const size = ranking.length < TOP ? plural(ranking.length, "player", "players") : `Top ${TOP}`;
  const by = headers.get("Raft-Node");
  const entry = asOf === null ? "" : `, as of log entry ${number(Number(asOf))}`;
  setText($("freshness"), `${size}${entry}${known(by) ? `, told by ${node(by)}` : ""}`);
}

/**
 * Draws the last ranking, and marks what waits (`waiting`: player -> points). Rows that move glide
 * from where they were: measure, change, measure again, play the difference back (FLIP).
 */
export function drawRanking(waiting) {
  if (ranking === null) return;
  const list = $("rows");
  const first = list.dataset.state === "loading";
  const before = first ? new Map() : positions();
  if (first) {
    list.replaceChildren();
    list.removeAttribute("aria-busy");
    setData(list, { state: "live" });
  }
  const best = Math.max(1, ...ranking.map((entry) => entry.score));
  const items = ranking.map((entry) => drawRow(entry, best, waiting.get(entry.player), first));
  const ranked = new Set(ranking.map((entry) => entry.player));
  forget(ranked);
  for (const [player, points] of waiting) {
    if (!ranked.has(player)) items.push(waitingRow(player, points));
  }
  place(list, items);
  list.hidden = items.length === 0;
  $("empty").hidden = items.length > 0;
  glide(before);
}

function drawRow({ rank, player, score }, best, waits, first) {
  let row = rows.get(player);
  if (row === undefined) {
    row = makeRow(player);
    rows.set(player, row);
    setData(row.item, { player });
    if (!first) row.item.classList.add("fresh");
  } else if (row.value !== score || row.place > rank) {
    showNews(row, score - row.value, row.place - rank);
  }
  Object.assign(row, { value: score, place: rank });
  setText(row.rank, String(rank));
  setText(row.score, number(score));
  row.fill.style.transform = `scaleX(${Math.max(0, score) / best})`;
  if (waits !== undefined) setText(row.note, `${signed(waits)} waiting`);
  else if (!row.news) setText(row.note, "");
  setData(row.item, { rank, score, pending: waits === undefined ? null : "true" });
  return row.item;
}

function makeRow(player) {
  const item = fromTemplate("row-template");
  const part = (name) => item.querySelector(`.${name}`);
  setText(part("name"), visible(player));
  part("name").title = player;
  return { item, rank: part("rank"), note: part("note"), score: part("score"), fill: part("fill") };
}

/** For a moment a row says what changed: places climbed, points gained. */
function showNews(row, gained, climbed) {
  const words = [climbed > 0 ? `▲ ${climbed}` : "", gained === 0 ? "" : signed(gained)];
  setText(row.note, words.filter(Boolean).join("  "));
  setData(row.item, { news: gained < 0 ? "fell" : "rose" });
  clearTimeout(row.news);
  row.news = setTimeout(() => {
    row.news = 0;
    setData(row.item, { news: null });
    if (row.item.dataset.pending === undefined) setText(row.note, "");
  }, NEWS_MS);
}

/** A player who is not in the ranking, and whose points wait. Drawn as waiting. */
function waitingRow(player, points) {
  const { item, rank, note, score } = makeRow(player);
  setData(item, { pendingPlayer: player, pending: "true" });
  setText(rank, "…");
  setText(note, "waiting");
  setText(score, signed(points));
  return item;
}

function forget(ranked) {
  for (const [player, row] of rows) {
    if (!ranked.has(player)) rows.delete(player);
    if (!ranked.has(player)) row.item.remove();
  }
}

function place(list, items) {
  items.forEach((item, at) => {
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
  });
  while (list.children.length > items.length) list.lastElementChild.remove();
}

function positions() {
  return new Map([...rows.values()].map(({ item }) => [item, item.getBoundingClientRect().top]));
}

function glide(before) {
  if (calm.matches) return;
  const moves = [];
  for (const [item, top] of before) {
    if (!item.isConnected) continue;
    for (const running of item.getAnimations()) if (running.id === "glide") running.cancel();
    const by = top - item.getBoundingClientRect().top;
    if (Math.abs(by) > 1) moves.push([item, by]);
  }
  for (const [item, by] of moves) {
    const frames = [{ transform: `translateY(${by}px)` }, { transform: "none" }];
    item.animate(frames, { id: "glide", duration: 480, easing: "cubic-bezier(.2,.8,.2,1)" });
  }
}

/** Answers the search form, and brings the row into sight. */
export async function find(event) {
  event.preventDefault();
  sought = typed($("find-player"));
  await drawFound();
  reveal(sought);
}

/** Says the rank of the player who was asked for; again whenever it may have changed. */
async function drawFound() {
  const search = (searches += 1);
  const player = sought;
  $("found").hidden = player === "";
  if (player === "") return;
  const name = document.createElement("bdi");
  name.textContent = visible(player);
  const say = (rank, ...words) => {
    if (search === searches) answer(player, rank, words);
  };
  try {
    const { body } = await ask(`/player_rankings?player=${encodeURIComponent(player)}`);
    const place = `rank ${number(body.rank)} of ${number(body.of)}`;
    say(body.rank, name, `: ${points(body.score)}, ${place}.`);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 404) say(null, "Nobody called ", name, " has a score.");
    // An answer that is there stays while the service is away: its age is that of the ranking.
    else if ($("found").dataset.player !== player) say(null, problem.words);
  }
}

function answer(player, rank, words) {
  const found = $("found");
  setData(found, { rank, player });
  const text = words.map((word) => word.textContent ?? word).join("");
  // Read aloud when it changes, so it is only touched when it does.
  if (found.textContent !== text) found.replaceChildren(...words);
  found.hidden = false;
}

function reveal(player) {
  const item = rows.get(player)?.item;
  if (item === undefined) return;
  item.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
  item.classList.remove("spot");
  requestAnimationFrame(() => item.classList.add("spot"));
}
