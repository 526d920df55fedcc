// Numbers, times and texts as people read them. Text of a log reaches the page through `textContent` alone.

const two = (number) => String(number).padStart(2, "0");

export function parts(us, utc) {
  const date = new Date(Math.floor(us / 1000));
  if (Number.isNaN(date.getTime())) return null;
  const get = (name) => date[`get${utc ? "UTC" : ""}${name}`]();
  return {
    day: `${get("FullYear")}-${two(get("Month") + 1)}-${two(get("Date"))}`,
    clock: `${two(get("Hours"))}:${two(get("Minutes"))}:${two(get("Seconds"))}`,
    micros: String(((us % 1e6) + 1e6) % 1e6).padStart(6, "0"),
  };
}

export function clock(us, utc) {
  const found = parts(us, utc);
  return found ? `${found.clock}.${found.micros.slice(0, 3)}` : `@${us}`;
}

// A date and a time as somebody types them, in the zone that is shown; the server reads what else a time may be.
export function typed(text, utc) {
  const found = /^(?:(\d{4})-(\d\d)-(\d\d)(?:[T ]|$))?(?:(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)?)?$/.exec(text);
  if (!found) return text;
  const zone = utc ? "UTC" : "";
  const today = ["FullYear", "Month", "Date"].map((name) => new Date()[`get${zone}${name}`]());
  const date = found[1] ? [Number(found[1]), found[2] - 1, Number(found[3])] : today;
  const numbers = [...date, ...found.slice(4, 7).map((number) => Number(number ?? 0))];
  const at = utc ? Date.UTC(...numbers) : new Date(...numbers).getTime();
  const names = ["FullYear", "Month", "Date", "Hours", "Minutes", "Seconds"];
  const is = names.every((name, index) => new Date(at)[`get${zone}${name}`]() === numbers[index]);
  return is ? `@${at / 1000}${found[7] ? `.${found[7]}` : ""}` : text;  // not on the 31st of a shorter month, which the server refuses
}

export function moment(us, utc) {
  const found = parts(us, utc);
  return found ? `${found.day} ${found.clock}.${found.micros}${utc ? " UTC" : ""}` : `@${us} µs`;
}

const thousands = new Intl.NumberFormat("en-US");
export const count = (number) => thousands.format(Number(number));

export function bytes(number) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (number < 1000 || unit === "GB") return `${number < 10 && unit !== "B" ? number.toFixed(1) : Math.round(number)} ${unit}`;
    number /= 1000;
  }
}

export function duration(seconds) {
  seconds = Math.max(0, seconds);
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// What has no shape, or changes the order of what stands around it: shown as its code, so nothing hides.
// The joiners U+200C and U+200D stay: without them Persian and Hindi are misspelt, and emoji fall apart. So does a single
// variation selector, which says how the character before it is drawn: several in a row are a text of their own.
const INVISIBLE = /(?![\t\n\u200c\u200d\p{VS}])[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{DI}\ufff9-\ufffb\u{13430}-\u{1343f}]|\p{VS}{2,}/gu;
const code = (characters) => Array.from(characters, (one) => {
  const hex = one.codePointAt(0).toString(16);
  return hex.length > 4 ? `\\U${hex.padStart(8, "0")}` : `\\u${hex.padStart(4, "0")}`;
}).join("");
export const visible = (text) => String(text).replace(INVISIBLE, code);
export const oneLine = (text) => visible(String(text).replaceAll("\t", " ")).replaceAll("\n", " ⏎ ");

function levelClass(levelno) { return `l${Math.min(Math.max(Math.floor(levelno / 10), 1), 5) * 10}`; }

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "role") made.setAttribute(name, value);
    else made[name] = ["title", "ariaLabel", "textContent"].includes(name) ? visible(value) : value;
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// The parts of `text` that `expression` finds, marked.
export function marked(text, expression) {
  if (!expression) return [text];
  const found = [];
  let end = 0;
  for (const match of text.matchAll(expression)) {
    if (!match[0] || found.length > 40) break;
    found.push(text.slice(end, match.index), element("mark", { textContent: match[0] }));
    end = match.index + match[0].length;
  }
  return [...found, text.slice(end)];
}

// The gaps by the row after which they are.
export function byPlace(gaps) {
  const places = new Map();
  for (const gap of gaps) places.set(gap.after_id, [...(places.get(gap.after_id) ?? []), gap]);
  return places;
}

// One sentence for all that is missing at one place.
export function gapText(gaps, utc, when = clock) {
  const total = gaps.reduce((sum, gap) => sum + gap.count, 0);
  const since = Math.min(...gaps.map((gap) => gap.since_us));
  const until = Math.max(...gaps.map((gap) => gap.until_us));
  const causes = [...new Set(gaps.map((gap) => gap.cause))].join(", ");
  const whose = gaps.filter((gap) => gap.logger).sort((one, other) => other.count - one.count);
  const named = whose.slice(0, 3).map((gap) => `${oneLine(gap.logger)} ${oneLine(gap.level)} ${count(gap.count)}`);
  if (whose.length > 3) named.push(`${whose.length - 3} more`);
  const verb = whose.length ? "dropped" : "deleted before they were forwarded";
  return `${count(total)} ${total === 1 ? "record" : "records"} ${verb} (${oneLine(causes)}) from ${when(since, utc)}, `
    + `within ${duration((until - since) / 1e6)}${named.length ? `: ${named.join(", ")}` : ""}`;
}

// A time and a level, of which a narrow screen shows the seconds and the first letter; in an element that there is
// already, because the browser takes longer to make one than to change it.
export function time(us, utc, made = inTwo()) {
  const text = clock(us, utc);
  return split(made, "t", text, 8, moment(us, utc));
}

export function level({ level: name, levelno }, made = inTwo()) {
  const text = oneLine(name);
  return split(made, `l ${levelClass(levelno)}`, text, 1, text);
}

const inTwo = () => element("span", {}, "", element("i", { textContent: " " }));

function split(made, className, text, at, title) {
  if (made.className !== className) made.className = className;
  if (made.title !== title) made.title = title;
  made.firstChild.data = text.slice(0, at);
  made.lastChild.firstChild.data = text.slice(at);
  return made;
}
