// The panel beside the list: one row whole, who logs most, or what is missing.

import { ask } from "./api.js";
import * as state from "./state.js";
import { byPlace, bytes, count, duration, element, gapText, level, marked, moment, oneLine, time, visible } from "./format.js";

function button(text, act, properties = {}) {
  const made = element("button", { type: "button", textContent: text, ...properties });
  made.addEventListener("click", act);
  return made;
}

function copyButton(text, what, say) {
  return button(`Copy ${what}`, async () => {
    try {
      await navigator.clipboard.writeText(text);
      say(`${what} copied`);
    } catch { say("The browser did not let the page copy"); }
  });
}

// "only this" and "without this" beside a value.
function choices(name, value, label) {
  if (value === null || value === undefined || value === "") return null;
  return element("span", {},
    button("+", (event) => state.only(name, value, event.shiftKey), { className: "only", title: `Only ${label} ${value} (with Shift: and no other filter)`, ariaLabel: `Only ${label} ${value}` }),
    button("−", () => state.without(name, value), { className: "only", title: `Without ${label} ${value}`, ariaLabel: `Without ${label} ${value}` }));
}

function fact(label, shown, name, value) {
  if (shown === null || shown === undefined || shown === "") return null;
  return element("tr", {}, element("th", { scope: "row", textContent: label }), element("td", { textContent: shown }),
    element("td", {}, name ? choices(name, value ?? shown, label) : null));
}

// The loggers above one, the nearest first: a filter for one of them is for all below it.
function ancestors(logger) {
  const parts = logger.split(".");
  return parts.slice(1).map((_, at) => parts.slice(0, parts.length - 1 - at).join(".")).slice(0, 4);
}

// A traceback, each frame but the last folded to its first line.
function traceback(text) {
  const box = element("div");
  const frames = text.split(/\n(?= {2}File )/);
  frames.forEach((frame, index) => {
    const [head, ...rest] = frame.split("\n");
    if (!rest.length || index >= frames.length - 1) box.append(element("pre", { textContent: frame }));
    else box.append(element("details", {}, element("summary", {}, element("code", { textContent: head.trim() })), element("pre", { textContent: rest.join("\n") })));
  });
  return box;
}

// A condition cannot name an attribute that has an operator in its name.
function isComparable(key) { return /^[^=!<>~]+$/.test(key); }

function attributes(extra, raw) {
  if (!extra) return raw ? element("pre", { textContent: raw }) : null;
  const rows = Object.entries(extra).map(([key, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const plain = value === null || typeof value !== "object";
    const known = plain && text.length < 200 && isComparable(key);
    return element("tr", {}, element("th", { scope: "row", textContent: oneLine(key) }), element("td", { textContent: text }),
      element("td", {}, known ? choices("where", `${key}=${text}`, "attribute") : null));
  });
  return element("table", { className: "facts" }, element("tbody", {}, ...rows));
}

export async function showRow(body, id, { utc, expression, say, onContext, signal }) {
  const asked = state.ofFile();
  const row = await ask(`rows/${id}`, asked, { signal });
  const source = `${row.pathname}:${row.lineno}`;
  const json = JSON.stringify({ ...row, text: undefined, extra: undefined, attributes: row.extra ?? row.attributes }, null, 2);
  body.replaceChildren(
    element("pre", { className: "message" }, ...marked(visible(row.message), expression)),
    element("div", { className: "actions" }, copyButton(json, "JSON", say), copyButton(row.text, "text", say),
      copyButton(state.commandLine([["after-id", id - 1], ["up-to-id", id]]), "command", say),
      button("Same pattern", () => state.only("pattern-of", id), { title: "Only rows that say the same" }),
      button("Without it", () => state.without("pattern-of", id), { title: "Without rows that say the same" })),
    ...(row.exc_text ? [element("h3", { textContent: "Traceback" }), traceback(row.exc_text)] : []),
    ...(row.stack_info ? [element("h3", { textContent: "Stack" }), traceback(row.stack_info)] : []),
    ...(row.attributes ? [element("h3", { textContent: "Attributes" }), attributes(row.extra, row.attributes)] : []),
    element("h3", { textContent: "Record" }),
    element("table", { className: "facts" }, element("tbody", {}, ...[
      fact("time", moment(row.created_us, utc)),
      fact("level", `${row.level}${row.level.startsWith("Level") ? "" : ` (${row.levelno})`}`, "level", row.levelno),
      fact("logger", row.logger, "logger"),
      ...ancestors(row.logger).map((name) => fact("below", name, "logger")),
      fact("call site", `${source} ${row.func}`, row.pathname && "source", source),
      fact("exception", row.exc_type, "exception"),
      fact("thread", row.thread_name ?? row.thread, "thread"),
      fact("task", row.task_name, "task"),
      fact("process", `${row.process} ${row.process_name}`, "pid", row.process),
      fact("run", row.run === null ? null : runText(row.run), "run", row.run),
      fact("host", row.host),
      fact("id", row.id),
    ].filter(Boolean))),
    element("h3", { textContent: "Around it, without filters" }),
    await near(row, asked, utc, signal, onContext),
  );
  return row;
}

const runText = (run) => (run === 0 ? "the last start of the program" : `${-run} starts before the last`);

async function near(row, asked, utc, signal, onContext) {
  const [before, behind] = await Promise.all([
    ask("rows", [...asked, ["up-to-id", row.id], ["lines", 6]], { signal }),
    ask("rows", [...asked, ["after-id", row.id], ["order", "oldest"], ["lines", 5]], { signal }),
  ]);
  const lines = [...before.rows, ...behind.rows].map((one) => {
    const line = button("", () => onContext(one.id), { className: `row${one.id === row.id ? " here" : ""}`, title: "Show in the list, without filters" });
    line.append(time(one.created_us, utc), level(one), element("span", { className: "m", textContent: oneLine(one.message) }));
    return line;
  });
  return element("div", { className: "near" }, ...lines, element("div", { className: "actions" }, button("Show in the whole log", () => onContext(row.id))));
}

const BY = { logger: "logger", source: "source", level: "level", exception: "exception", thread: "thread", process: "pid" };
let by = "logger";
let key = "";  // of the attribute
const KEYS = 8;

export async function showTop(body, { signal, again, onChosen }) {
  const [{ top, groups }, { keys }] = await Promise.all([
    ask("top", [...state.parameters(), ["by", by], ...(by === "attribute" ? [["key", key]] : []), ["lines", 30]], { signal }),
    ask("keys", state.parameters(), { signal }),
  ]);
  const picker = element("div", { className: "actions", role: "group", "aria-label": "Group by" },
    ...Object.keys(BY).map((name) => button(name === "source" ? "call site" : name, () => { by = name; again(); }, { "aria-pressed": String(name === by) })));
  const attribute = (name) => { key = name; by = key ? "attribute" : "logger"; again(); };
  const attributes = element("div", { className: "actions", role: "group", "aria-label": "Group by the attribute" },
    ...keys.slice(0, KEYS).map((one) => button(oneLine(one), () => attribute(one), { "aria-pressed": String(by === "attribute" && one === key) })));
  const isPlain = (one) => oneLine(one) === one;  // others have buttons only: what is typed is shown as it is
  const name = element("input", { value: isPlain(key) ? key : "", placeholder: "another attribute", ariaLabel: "Group by attribute", autocomplete: "off", spellcheck: false });
  name.setAttribute("list", "keys-known");
  const known = element("datalist", { id: "keys-known" }, ...keys.filter(isPlain).map((one) => element("option", { value: one })));
  const form = element("form", {}, name);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attribute(name.value.trim());
  });
  attributes.append(form, known);
  const most = Math.max(...top.map((one) => one.share), 0.0001);
  const bars = top.map((one) => {
    const dropped = one.dropped ? `, ${count(one.dropped)} dropped` : "";
    const figures = [`${count(one.records)}${dropped}`, bytes(one.bytes), `${(one.share * 100).toFixed(1)} %`];
    const bar = button("", () => { choose(one); onChosen(); }, { className: "meter", title: `${one.name}: ${figures.join(", ")}` });
    bar.disabled = (by === "attribute" && !isComparable(key)) || (by === "source" && / :\d+ \S*$/.test(one.name));  // without a path
    const fill = element("i");
    fill.style.width = `${(one.share / most) * 100}%`;
    bar.append(fill, element("span", {}, element("span", { textContent: oneLine(one.name) }), ...figures.map((text) => element("b", { textContent: text }))));
    return bar;
  });
  const more = groups > top.length ? [element("p", { textContent: `and ${count(groups - top.length)} more` })] : [];
  body.replaceChildren(picker, attributes, ...(bars.length ? bars : [element("p", { textContent: "Nothing matches." })]), ...more);
}

// What failed and what changed, in order of time: the first thing in a row of failures is often their cause.
export async function showBrief(body, { utc, signal, onChange }) {
  const asked = state.parameters().filter(([name]) => name === "file" || name === "since");
  const found = await ask("brief", asked, { signal });
  const since = found.since_us === null ? null : `since ${moment(found.since_us, utc).slice(0, 19)}${found.is_last_run ? ", when the last run began" : ""}`;
  const line = (one) => {
    const made = button("", () => onChange(one), { className: "change", title: `Only what says the same: ${one.sample || one.text}` });
    const what = one.times === null ? "new" : one.times >= 1.5 ? `${count(Math.round(one.times))} times as often` : "";
    made.append(time(one.first_us, utc), level(one), element("b", { textContent: count(one.records) }),
      element("span", { className: "m", textContent: oneLine(one.text) }),
      element("span", { className: "n", textContent: `${oneLine(one.logger)}${what && `, ${what}`}` }),
      one.sample && one.sample !== one.text ? element("span", { className: "n sample", textContent: oneLine(one.sample).slice(0, 300) }) : "");
    return made;
  };
  const nothing = found.left_out.length ? "What changed is unknown." : "There is nothing older in the log to compare with.";
  const changes = !found.is_compared ? [element("p", { textContent: nothing })]
    : found.changes.length ? found.changes.map(line) : [element("p", { textContent: "Nothing is new, and no warning is more frequent than before." })];
  const more = found.of > found.changes.length ? [element("p", { textContent: `and ${count(found.of - found.changes.length)} more` })] : [];
  body.replaceChildren(
    element("p", { textContent: `${count(found.records)} records${since === null ? "" : ` ${since}`}${found.is_compared ? ", against all before" : ""}` }),
    element("h3", { textContent: "By when it began" }), ...changes, ...more,
    element("h3", { textContent: "Errors, the most frequent first" }),
    ...(found.errors.length ? found.errors.map(line) : [element("p", { textContent: "None." })]),
    ...found.left_out.map((text) => element("p", { textContent: `Left out: ${text}` })),
  );
}

// The names of groups are written for people; a filter takes the part that it knows.
function choose({ name }) {
  if (by === "source") state.only("source", place(name));
  else if (by === "process") state.only("pid", name.split(" ", 1)[0]);
  else if (by === "attribute") state.only("where", `${key}=${name}`);
  else state.only(BY[by], by === "level" && name.startsWith("Level ") ? name.slice(6) : name);
}

// The path and the line of a call site. Both the path and the logger before it may have blanks: if it is not clear where
// the path begins, its last part has to do.
function place(name) {
  const found = /^\S* (.+:\d+) \S*$/s.exec(name)?.[1] ?? name;
  return /^(\/|\w:)/.test(found) ? found : found.replace(/^.*[/\\]/s, "");
}

export async function showGaps(body, { utc, signal, onPlace }) {
  const { gaps, of } = await ask("gaps", [...state.parameters(), ["lines", 500]], { signal });
  const places = byPlace(gaps);
  const listed = [...places].reverse().slice(0, 200);
  const items = listed.map(([place, all]) => element("div", { className: "item" },
    element("div", { textContent: gapText(all, utc, (us) => moment(us, utc).slice(0, 23)) }),
    button(`Show it behind row ${place}`, () => onPlace(place))));
  const total = gaps.reduce((sum, gap) => sum + gap.count, 0);
  const older = of - listed.reduce((sum, [, all]) => sum + all.length, 0);
  const none = state.state.filters.length ? "No gap: none of the records that you asked for is missing." : "Nothing is missing: no record was dropped.";
  body.replaceChildren(element("p", { textContent: gaps.length
    ? `${of > gaps.length ? `Of the latest ${count(gaps.length)} gaps: ` : ""}${count(total)} records are missing at ${count(places.size)} place${places.size > 1 ? "s" : ""}.`
    : none }), ...items, older ? element("p", { textContent: `and ${count(older)} older: sqlite-log gaps lists all` }) : "");
}

// `matching` is the number of rows that match the filters; null without filters.
export function strip(box, stats, skew, matching) {
  const age = stats.last_us === null ? null : (Date.now() * 1000 + skew - stats.last_us) / 1e6;
  const item = (value, text, className = "", title = "") => element("span", { className, title }, element("b", { textContent: value }), ` ${text}`);
  const parts = [
    matching === null ? item(count(stats.rows), "rows")
      : item(matching === "…" ? matching : count(matching), `of ${count(stats.rows)} rows match`),
    item(count(stats.dropped), "dropped", stats.dropped ? "bad" : "", Object.entries(stats.dropped_by_cause).map(([cause, number]) => `${cause} ${count(number)}`).join(", ")),
    item(bytes(stats.file_bytes + stats.wal_bytes), "on disk", "wide", `file ${bytes(stats.file_bytes)}, WAL ${bytes(stats.wal_bytes)}`),
    item(age === null ? "no row" : duration(age), age === null ? "yet" : "since the last row", "wide"),
    ...stats.cursors.map((cursor) => item(count(cursor.lag_rows), `behind (${oneLine(cursor.name)})`, "wide", "rows not forwarded yet")),
  ];
  // Drawing costs a tab that rests more than all else that it does.
  const text = parts.map((part) => part.textContent).join();
  if (text === box.dataset.text) return;
  box.dataset.text = text;
  box.replaceChildren(...parts);
}

