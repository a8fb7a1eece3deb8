// Talking to the service: one request, what may be wrong with its answer, and polling.

const POLL_MS = 1000;
const POLL_MS_MAX = 8000; // after repeated failures
const REQUEST_MS_MAX = 3000;
// How much longer than the service we wait, so that it can still tell why it was late.
const GRACE_MS = 2000;

/** An answer that is not a success, or no answer at all (`status` 0), in the words of RFC 9457. */
export class Problem extends Error {
  constructor(status, body, retryAfterMs = 0) {
    super(body.title);
    this.status = status;
    this.title = String(body.title);
    this.detail = String(body.detail ?? "");
    this.code = String(body.code ?? "");
    this.retryAfterMs = retryAfterMs;
    // What a reply does not say is assumed as badly as its status allows.
    const mine = status >= 400 && status < 500; // the fault of the request
    this.outcome = body.outcome ?? (mine ? "not_applied" : "unknown");
    this.retry = body.retry ?? (mine && status !== 429 ? "never" : "same_key_only");
  }

  get noLeader() {
    return this.status === 503 && /no.?(leader|quorum)/i.test(`${this.code} ${this.title}`);
  }

  /** Whether it may be gone by itself in a moment. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  get words() {
    return [this.title, this.detail].filter(Boolean).map(sentence).join(" ");
  }
}

function sentence(text) {
  const end = /[.!?]$/.test(text) ? "" : ".";
  return text[0].toUpperCase() + text.slice(1) + end;
}

/**
 * Sends one request, which the service has `timeout` milliseconds for: `{ body, headers }` of a
 * success, or throws a `Problem`.
 */
export async function ask(path, { timeout = REQUEST_MS_MAX, headers, ...init } = {}) {
  const { response, text } = await exchange(path, timeout + GRACE_MS, {
    headers: { ...headers, "Request-Timeout": `${timeout}ms` },
    ...init,
  });
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Not JSON, for instance the error page of a proxy: the status says enough.
  }
  if (response.ok && body !== null) return { body, headers: response.headers };
  const told = body !== null && typeof body === "object" ? body : {};
  const title = response.ok ? "The answer could not be understood" : `Error ${response.status}`;
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "0") * 1000;
  throw new Problem(response.status, { title, ...told }, Number.isFinite(wait) ? wait : 0);
}

async function exchange(path, timeout, init) {
  const signal = AbortSignal.timeout(timeout);
  try {
    const response = await fetch(path, { cache: "no-store", signal, ...init });
    return { response, text: await response.text() };
  } catch {
    throw new Problem(0, signal.aborted
      ? { title: "No answer in time", detail: `It took more than ${timeout / 1000} seconds.` }
      : { title: "The service does not answer", detail: "Is it running, and are you online?" });
  }
}

/**
 * Runs `task` about every second while the page is visible, never twice at once, and ever less
 * often while it answers `false`. The result of `poller` runs it at once.
 */
export function poller(task) {
  let timer = 0;
  let failures = 0;
  let running = false;
  let again = false;

  async function run() {
    clearTimeout(timer);
    again = running;
    if (running || document.hidden) return;
    running = true;
    let done = false;
    try {
      done = await task();
    } finally {
      running = false;
      failures = done ? 0 : failures + 1;
      timer = setTimeout(run, again ? 0 : rest());
    }
  }

  // A little chance keeps many pages from asking at the same moment after an outage.
  function rest() {
    if (failures === 0) return POLL_MS;
    return Math.min(POLL_MS * 1.6 ** failures, POLL_MS_MAX) * (0.85 + Math.random() * 0.3);
  }

  document.addEventListener("visibilitychange", run);
  return run;
}
