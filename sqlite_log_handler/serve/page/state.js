// All state that a colleague needs to see the same stands in the address: filters, time zone, the open row.

// Filters, in the order in which chips stand; named as the long flags of `sqlite-log show`.
export const FILTERS = {
  level: ["level", "WARNING, or a range such as INFO..WARNING"],
  logger: ["logger", "shop.orders: this logger and those below it"],
  exclude: ["not logger", "shop.cart"],
  grep: ["regex", "a regular expression"],
  text: ["text", "a text as it is"],
  source: ["call site", "orders.py:42"],
  exception: ["exception", "KeyError"],
  where: ["attribute", "customer=c-17"],
  pid: ["process", "a process id"],
  "pattern-of": ["pattern of row", "the id of a row: what says the same"],
  run: ["run", "0 is the last start of the program, -1 the one before"],
  thread: ["thread", "MainThread"],
  task: ["task", "the name of an asyncio task"],
  since: ["since", "-1h, 12:00, 2026-11-28 12:00"],
  until: ["until", "-1h, 12:00, 2026-11-28 12:00"],
  "after-id": ["after row", "the id of a row"],
  "up-to-id": ["up to row", "the id of a row"],
};
const REPEATED = new Set(["logger", "exclude", "where", "without"]);
const KNOWN = new Set([...Object.keys(FILTERS), "without"]);

const listeners = [];
export const state = { filters: [], file: null, utc: false, row: null };

function read() {
  const given = new URLSearchParams(location.search);
  state.filters = [...given].filter(([name]) => KNOWN.has(name));
  state.file = given.get("file");
  state.utc = given.get("tz") === "utc";
  state.row = Number(given.get("row")) || null;
}

export function address() {
  const query = new URLSearchParams(state.filters);
  if (state.file) query.set("file", state.file);
  if (state.utc) query.set("tz", "utc");
  if (state.row) query.set("row", state.row);
  const text = query.toString();
  return text ? `?${text}` : location.pathname;
}

// Filters and file make an entry in the history, so that Back undoes them; the rest only changes the address.
export function change(changes, { quietly = false } = {}) {
  Object.assign(state, changes);
  history[quietly ? "replaceState" : "pushState"](null, "", address());
  if (!quietly) announce();
}

export function onChange(listener) { listeners.push(listener); }
function announce() { for (const listener of listeners) listener(); }

addEventListener("popstate", () => { read(); announce(); });
read();

// The filters that have none of these names.
export function others(...names) { return state.filters.filter(([name]) => !names.includes(name)); }

export function valueOf(name) { return state.filters.find(([known]) => known === name)?.[1] ?? ""; }

// An open row stays open over a change of filters, and the list stays beside it.
export function set(name, value) {
  change({ filters: [...others(name), ...(value === "" || value == null ? [] : [[name, String(value)]])] });
}

export function add(name, value) {
  value = String(value);
  if (!REPEATED.has(name)) return set(name, value);
  if (state.filters.some(([known, other]) => known === name && other === value)) return;
  change({ filters: [...state.filters, [name, value]] });
}

export function remove(index) { change({ filters: state.filters.filter((_, at) => at !== index) }); }

// With `alone`, in the place of all other filters: what somebody wants of a request is all of it.
export function only(name, value, alone = false) {
  forget(name, value);
  value = name === "level" ? `${value}..${value}` : String(value);
  if (alone) change({ filters: [[name, value]] });
  else add(name, value);
}

export function without(name, value) {
  forget(name, value);
  if (name === "logger") add("exclude", value);
  else add("without", `${name}=${name === "level" ? `${value}..${value}` : value}`);
}

// The rows whose patterns are asked for. Retention may delete them, and another file give their ids to other rows, so
// questions name what a pattern shares as soon as it is known. A click means a row of the file as it is now.
const rows = new Map();
const place = (id) => `${state.file}/${id}`;
export function known(id) { return rows.get(place(id)); }
export function know(id, row) { rows.set(place(id), row); }
function forget(name, id) { if (name === "pattern-of") rows.delete(place(id)); }
function lasting([name, value]) {
  const before = name === "without" ? "pattern-of=" : "";
  if ((name !== "pattern-of" && name !== "without") || !value.startsWith(before)) return [name, value];
  return [name, before + (known(value.slice(before.length))?.pattern ?? value.slice(before.length))];
}

// What every question is asked with. Bounds of time do not narrow what is outside of them: `omit` leaves them out.
export function parameters(omit = []) { return [...ofFile(), ...others(...omit).map(lasting)]; }

// What a question is asked with for which filters do not matter.
export function ofFile() { return state.file ? [["file", state.file]] : []; }

// The same, with bounds of ids that narrow those of the filters.
export function between(after, upTo, omit = []) {
  const given = (name) => (valueOf(name) === "" ? [] : [Number(valueOf(name))]);
  const found = parameters(["after-id", "up-to-id", ...omit]);
  const low = Math.max(...given("after-id"), ...(after == null ? [] : [after]));
  const high = Math.min(...given("up-to-id"), ...(upTo == null ? [] : [upTo]));
  if (Number.isFinite(low)) found.push(["after-id", low]);
  if (Number.isFinite(high)) found.push(["up-to-id", high]);
  return found;
}

export function chips() {
  return state.filters
    .map(([name, value], index) => ({ name, value, index }))
    .filter(({ name, value }) => !(name === "level" && isPlainLevel(value)));
}

export function isPlainLevel(value) { return ["INFO", "WARNING", "ERROR", "CRITICAL"].includes(value); }

function quoted(text) { return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`; }

export function commandLine(filters) {
  const flags = filters.map(([name, value]) => ` --${name}=${quoted(value)}`);
  const file = state.file ?? "app-log.db";
  return `sqlite-log show ${quoted(file.startsWith("-") ? `./${file}` : file)}${flags.join("")}`;
}
