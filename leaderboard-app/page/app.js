// The leaderboard page: the ranking, a form to add a score, the state of the nodes.
//
// No framework and no build step: these modules are served as they are. This one decides the state
// of the page and wires the others: ranking.js, scores.js (the form and its receipts), cluster.js
// (the nodes), service.js (requests and polling), words.js.
//
// Names that tests and scripts may rely on (all else may change):
//
//   #status[data-state]            loading, live, reconnecting, no-leader, error
//   #player, #score, #submit       the form that adds a score; #form-error says what is wrong
//   #receipt[data-state]           the newest receipt: pending, committed, refused, unknown; with
//                                  data-player, and once committed data-total, data-rank,
//                                  data-index, data-term, data-by (the node that answered),
//                                  data-leader, data-replayed
//   #rows > [data-player="alice"]  a player of the ranking, with data-rank and data-score, and
//                                  data-pending while a score of this page waits
//   #rows > [data-pending-player]  a player who is not in the ranking yet, only waiting
//   #empty                         visible when nobody has a score
//   #find-player, #found           the search and its answer, with data-rank when it found one
//   [data-node="1"][data-state]    a node: leader, follower, candidate, learner, down, and when it
//                                  is only seen through another node seen, unknown; with
//                                  data-term, data-commit, data-applied
//   #disputes > li                 a line for each node that sees the cluster differently
//
// Everything that comes from the service is shown as text, never as markup.

import { cluster, pollCluster } from "./cluster.js";
import { drawRanking, find, setRanking, TOP } from "./ranking.js";
import * as scores from "./scores.js";
import { ask, poller, Problem } from "./service.js";
import { $, duration, setData, setText } from "./words.js";

const BANNER_AFTER_MS = 1500; // an election is over before anybody can read about it

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
    const leaderless = cluster.current && cluster.view.leader === null;
    if (problem.noLeader || (problem.passing && leaderless)) this.state = "no-leader";
    else this.state = problem.passing && this.fresh > 0 ? "reconnecting" : "error";
    this.draw();
  },

  draw() {
    const age = this.fresh > 0 ? ` · ${duration(Date.now() - this.fresh)} old` : "";
    const votes = cluster.current ? cluster.view.votes : null;
    const words = {
      loading: "Connecting…",
      live: votes === null ? "Live" : `Live · ${votes.answer} of ${votes.size} nodes`,
      reconnecting: `Reconnecting${age.replace(" old", "")}`,
      "no-leader": `No leader${age}`,
      error: `Error${age}`,
    };
    setText($("status-text"), words[this.state]);
    const partial = votes !== null && votes.answer < votes.size;
    setData($("status"), { state: this.state, partial: partial ? "true" : null });
    setData(document.body, { page: this.state });
    this.drawBanner();
  },

  drawBanner() {
    const words = {
      "no-leader": "The nodes have no leader at the moment. Scores are safe; new ones will wait.",
      reconnecting: `${this.problem?.title}. What you see is from before.`,
      error: this.problem?.words,
    }[this.state];
    const patience = this.state === "error" ? 0 : BANNER_AFTER_MS;
    const shown = words !== undefined && Date.now() - this.failing >= patience;
    if (shown) setText($("banner"), words);
    $("banner").hidden = !shown;
  },
};

const draw = () => drawRanking(scores.waiting());

const wakeRanking = poller(async () => {
  try {
    const { body, headers } = await ask(`/top_n_scores?n=${TOP}`);
    if (!Array.isArray(body)) throw new Problem(200, { title: "This is not a ranking" });
    setRanking(body, headers);
    page.good();
    draw();
    // Somebody has confirmed this reading: the picture without a leader is old.
    if (cluster.current && cluster.view.leader === null) wakeCluster();
    return true;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    page.bad(problem);
    return false;
  }
});

const wakeCluster = poller(async () => {
  const told = await pollCluster();
  page.draw();
  // A new leader is the moment to go on: do not sit out the back-off.
  if (told && cluster.view.leader !== null && page.state !== "live") wakeRanking();
  return told;
});

$("find").addEventListener("submit", find);
// Clearing the field, also with its cross, takes the answer away.
$("find-player").addEventListener("input", (event) => {
  if ($("find-player").value === "") find(event);
});
$("be-first").addEventListener("click", () => $("player").focus());
window.addEventListener("online", () => {
  wakeRanking();
  wakeCluster();
});
setInterval(() => page.draw(), 1000); // the age of what is shown

scores.start(draw, wakeRanking);
wakeRanking();
wakeCluster();
