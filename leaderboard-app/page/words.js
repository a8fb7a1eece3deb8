// Words and numbers, and small changes to the page that cost nothing when nothing changed.

export const $ = (id) => document.getElementById(id);
export const fromTemplate = (id) => $(id).content.firstElementChild.cloneNode(true);
export const calm = matchMedia("(prefers-reduced-motion: reduce)");

const plain = new Intl.NumberFormat("en");
const withSign = new Intl.NumberFormat("en", { signDisplay: "always" });

export const number = (n) => (Number.isFinite(n) ? plain.format(n) : "–");
export const signed = (n) => withSign.format(n);
export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;
export const points = (n) => plural(n, "point", "points");
export const node = (id) => `n${id}`;
/** Whether an id of a node was given: an unknown leader is null, empty or 0. */
export const known = (id) => id !== null && id !== undefined && id !== "" && String(id) !== "0";

export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return `${s} s`;
  return s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}

/** A name as it is sent: one spelling of each accent, no stray spaces around it. */
export const typed = (input) => input.value.normalize("NFC").trim();

/** A name as it can be seen: one that draws nothing at all is spelled as its code points. */
export function visible(name) {
  if (/[\p{L}\p{N}\p{P}\p{S}]/u.test(name)) return name;
  const hex = (c) => c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return [...name].map((c) => `U+${hex(c)}`).join(" ");
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets data attributes; `undefined` and `null` remove one. */
export function setData(element, data) {
  for (const [name, value] of Object.entries(data)) {
    if (value === undefined || value === null) delete element.dataset[name];
    else if (element.dataset[name] !== String(value)) element.dataset[name] = value;
  }
}

/** Makes a list hold exactly these lines. */
export function setLines(list, lines) {
  while (list.children.length > lines.length) list.lastElementChild.remove();
  lines.forEach((line, at) => {
    if (list.children[at] === undefined) list.append(document.createElement("li"));
    setText(list.children[at], line);
  });
}
