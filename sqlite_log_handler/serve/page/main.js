// The page: what the parts do for each other.

import { ask, Refused } from "./api.js";
import * as address from "./state.js";
import { List, newText, Replaced, RETRY } from "./list.js";
import { Histogram } from "./histogram.js";
import { showBrief, showGaps, showRow, showTop, strip } from "./side.js";
import { element, oneLine, typed, visible } from "./format.js";

const { state } = address;
const by = (id) => document.getElementById(id);
// Milliseconds between two looks; more if each brings more than somebody could read. When a log has rested for RESTED
// looks, the server holds the question for PATIENCE seconds or until the log changes: that is sooner on the screen, and
// costs less. Behind a proxy that does not wait, or takes the wish out, a log at rest is looked at every RESTING_TICK.
const TICK = 250;
const RESTING_TICK = 1000;
const FLOODED_TICK = 330;
const RESTED = 8;
const PATIENCE = 10;

const PANELS = ["brief", "top", "gaps"];
let panel = null;            // "row" or one of PANELS
let asking = new AbortController();  // the questions of the panel
let lookedAt = -Infinity;            // when the bars and the strip were asked for, and how long that took
let took = 0;
let stats = null;
let matching = null;         // how many rows match the filters; null: not counted yet
let skew = 0;
let stale = true;

// Words --------------------------------------------------------------------------------------------------------------

const said = by("said");
function say(text) {
  said.textContent = text;
  notice(text, { passing: true });
}

let noticeTimer = null;
function notice(text, { bad = false, passing = false } = {}) {
  clearTimeout(noticeTimer);
  by("notice").hidden = !text;
  by("notice").textContent = visible(text ?? "");
  by("notice").className = bad ? "bad" : "";
  if (passing) noticeTimer = setTimeout(() => notice(stats?.notice), 4000);
}

// Questions that fail are asked again; what failed is said until one succeeds.
let failed = false;
function failure(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Replaced) {
    reload().then(() => notice("The file was replaced by another one, which is shown now.", { passing: true })).catch(failure);
    return;
  }
  if (!(error instanceof Refused)) throw error;
  failed = true;
  const said = error.message.replace(/[^.?!]$/, "$&.");
  notice(error.status === 400 ? error.message : `${said} Trying again.`, { bad: true });
}
// A question that makes no sense, or takes too long, is not asked again until it changes.
let refused = false;
function listFailure(error) {
  refused = error.status === 400;
  failure(error);
}
function recovered() {
  if (!failed) return;
  failed = false;
  notice(stats?.notice);
}

// List ---------------------------------------------------------------------------------------------------------------

const list = new List(by("list"), {
  onOpen: openLine,
  onSelect: (line) => {
    const wanted = line.id ?? null;
    if (panel === "row" && wanted) open("row", wanted, { focus: false });
  },
  onNew: (number) => {
    by("new").hidden = !number || list.following;
    by("new").textContent = `${newText(number)} ↓`;
    by("follow").setAttribute("aria-pressed", String(list.following));
  },
  onEmpty: (empty) => {
    by("empty").hidden = !empty;
    const filtered = state.filters.length > 0;
    by("empty-text").textContent = filtered ? "No row matches." : "The log has no row yet. It is shown as soon as one comes.";
    by("clear").hidden = !filtered;
  },
  onFailure: failure,
});

const histogram = new Histogram(by("histogram"), by("tip"), (since, until) => {
  const range = [["since", `@${since / 1e6}`], ["until", `@${until / 1e6}`]];
  address.change({ filters: [...address.others("since", "until"), ...range], row: null });
});

async function reload() {
  stale = true;
  list.expression = expressionOf();
  const { row } = state;
  await list.load({ at: row });
  if (row && row === state.row) open("row", row, { focus: false });  // and nobody has closed it meanwhile
  recovered();
  by("follow").setAttribute("aria-pressed", String(list.following));
}

function expressionOf() {
  const [text, regex] = [address.valueOf("text"), address.valueOf("grep")];
  // With groups or repetition, it may take for ever to find all matches in a text of strangers, and the tab freezes.
  if (!text && (!regex || /[(*+?{]/.test(regex))) return null;
  const source = text ? text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") : regex;
  try {
    return new RegExp(source, /[A-Z]/.test(source) ? "gu" : "giu");
  } catch { return null; }  // Python knows it, the browser does not: found, and not marked
}

// Polling ------------------------------------------------------------------------------------------------------------

let resting = 0;
let patience = PATIENCE;
async function tick() {
  let pause = TICK;
  const began = performance.now();
  const wait = resting > RESTED && !stale ? patience : 0;
  try {
    if (!document.hidden && !refused) {
      if (!list.loaded && !list.opening) await reload();
      const changed = list.loaded && await list.poll(wait);
      recovered();
      resting = changed ? 0 : resting + 1;
      if (wait && !changed && performance.now() - began < 1000) patience = 0;
      if (changed) stale = true;
      // Not beside the question for the rows: a search that takes long would take twice as long.
      if (stale && list.loaded && performance.now() - lookedAt > Math.max(2000, took * 10)) await look();
      if (list.flooded) pause = FLOODED_TICK;
      if (resting > RESTED) pause = patience && !stale ? 0 : RESTING_TICK;
    }
  } catch (error) {
    if (wait && [502, 504].includes(error.status)) patience = 0;
    listFailure(error);
    if (error.name !== "AbortError") pause = RETRY;
  }
  setTimeout(tick, pause);
}

async function look() {
  stale = false;
  const began = performance.now();
  const bars = histogram.load().catch((error) => {
    if (error.status !== 400) throw error;
    lookedAt = Infinity;  // the same question would be refused again
    notice(error.message, { bad: true });
  });
  const [found, records] = await Promise.all([ask("stats", [...address.ofFile(), ["levels", 0]]), bars]);
  if (records === null) {
    stale = true;
    return;
  }
  matching = records;
  stats = found;
  skew = found.now_us - Date.now() * 1000;
  if (found.notice && !failed) notice(found.notice);
  if (lookedAt < Infinity) lookedAt = performance.now();
  took = performance.now() - began;
  showStrip();
}

function showStrip() {
  if (stats) strip(by("strip"), stats, skew, state.filters.length ? matching ?? "…" : null);
}

// Panel --------------------------------------------------------------------------------------------------------------

function openLine(line) { return line.gaps ? open("gaps") : open("row", line.id); }

async function open(kind, id = null, { focus = true } = {}) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  panel = kind;
  by("side").hidden = false;
  by("side-title").textContent = { row: "Record", brief: "What changed", top: "Who logs most", gaps: "What is missing" }[kind];
  for (const name of PANELS) by(`show-${name}`).setAttribute("aria-expanded", String(kind === name));
  const body = by("side-body");
  const shared = { utc: state.utc, expression: list.expression, say, signal };
  address.change({ row: id }, { quietly: true });
  try {
    if (kind === "row") {
      await showRow(body, id, { ...shared, onContext: (at) => address.change({ filters: [], row: at }) });
    } else if (kind === "brief") await showBrief(body, { ...shared, onChange: showChange });
    else if (kind === "top") await showTop(body, { ...shared, again: () => open("top"), onChosen: uncover });
    else await showGaps(body, { ...shared, onPlace: (at) => { uncover(); list.load({ at }).catch(failure); } });
    if (focus) body.focus({ preventScroll: true });
    body.scrollTop = 0;
  } catch (error) {
    // What stands there answers another question.
    if (error instanceof Refused) body.replaceChildren(element("p", { textContent: error.message }));
    else failure(error);
  }
}

// Show the rows of a change, from the first one on.
async function showChange({ last_id: last, first_us: first }) {
  address.only("pattern-of", last);
  uncover();
  try {
    const asked = [...address.parameters(["since"]), ["since", `@${(first - 1) / 1e6}`], ["order", "oldest"], ["lines", 1]];
    const { rows } = await ask("rows", asked);
    if (rows.length && address.valueOf("pattern-of") === String(last)) await list.load({ at: rows[0].id });
  } catch (error) { failure(error); }
}

// On a phone, the panel covers the list.
function uncover() { if (matchMedia("(max-width: 720px)").matches) close(); }

function close() {
  asking.abort();
  panel = null;
  by("side").hidden = true;
  for (const name of PANELS) by(`show-${name}`).setAttribute("aria-expanded", "false");
  address.change({ row: null }, { quietly: true });
  by("list").focus({ preventScroll: true });
}

// Filters ------------------------------------------------------------------------------------------------------------

function showFilters() {
  const regex = address.valueOf("grep");
  by("file").value = state.file;
  by("query").value = regex || address.valueOf("text");
  by("regex").setAttribute("aria-pressed", String(Boolean(regex) || (regexWanted && !address.valueOf("text"))));
  by("level").value = address.isPlainLevel(address.valueOf("level")) ? address.valueOf("level") : "";
  by("zone").textContent = state.utc ? "UTC" : "Local";
  document.title = `${oneLine(state.file ?? "log")} · sqlite-log`;
  const since = address.valueOf("until") ? null : address.valueOf("since");
  for (const choice of by("ranges").children) {
    const on = choice.dataset.run ? address.valueOf("run") === choice.dataset.run && !since
      : choice.dataset.since ? since === choice.dataset.since : !since && !address.valueOf("until") && !address.valueOf("run");
    choice.classList.toggle("on", on);
    choice.setAttribute("aria-pressed", String(on));
  }
  by("chips").replaceChildren(...address.chips().map(({ name, value, index }) => {
    const negative = name === "without" || name === "exclude";
    const [flag, shown] = name === "without" ? [value.split("=", 1)[0], value.slice(value.indexOf("=") + 1)] : [name, value];
    const kind = `${name === "without" ? "not " : ""}${address.FILTERS[flag]?.[0] ?? flag}`;
    const remove = element("button", { type: "button", textContent: "✕", ariaLabel: `Remove ${kind} ${shown}` });
    remove.addEventListener("click", () => address.remove(index));
    const chip = element("span", { className: `chip${negative ? " not" : ""}`, title: `${kind} ${shown}` }, element("b", { textContent: oneLine(kind) }), element("span", { textContent: oneLine(pretty(name, shown)) }), remove);
    if (flag === "pattern-of") namePattern(chip, shown).catch(failure);
    return chip;
  }));
}

// A number tells nobody which pattern it is: the chip shows what its row says.
async function namePattern(chip, id) {
  if (!address.known(id)) {
    try {
      address.know(id, await ask(`rows/${id}`, address.ofFile()));
    } catch (error) {
      if (error instanceof Refused && error.status !== 0) return;  // there is no such row: its number has to do
      throw error;
    }
  }
  const said = oneLine(address.known(id).message);
  chip.title = `rows that say the same as row ${id}: ${said}`;
  chip.querySelector("span").textContent = `${id}: ${said.slice(0, 200)}`;
}

function pretty(name, value) {
  if (!["since", "until"].includes(name) || !value.startsWith("@")) return value;
  const date = new Date(Number(value.slice(1)) * 1000);
  return Number.isNaN(date.getTime()) ? value : date.toLocaleString("sv-SE", state.utc ? { timeZone: "UTC" } : {});
}

let regexWanted = false;
let typing = null;
function search() {
  clearTimeout(typing);
  const text = by("query").value;
  const wanted = by("regex").getAttribute("aria-pressed") === "true" ? "grep" : "text";
  if (text === address.valueOf(wanted)) return;
  address.change({ filters: [...address.others("text", "grep"), ...(text ? [[wanted, text]] : [])] });
}
by("query").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, 300); });
by("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
by("regex").addEventListener("click", () => {
  regexWanted = by("regex").getAttribute("aria-pressed") !== "true";
  by("regex").setAttribute("aria-pressed", String(regexWanted));
  const text = by("query").value;
  if (text) address.change({ filters: [...address.others("text", "grep"), [regexWanted ? "grep" : "text", text]] });
});
by("level").addEventListener("change", () => address.set("level", by("level").value));
by("zone").addEventListener("click", () => {
  address.change({ utc: !state.utc }, { quietly: true });
  showFilters();
  list.draw(true);
  histogram.draw();
  if (panel === "row" && state.row) open("row", state.row, { focus: false });
});
by("ranges").addEventListener("click", (event) => {
  const { since, run } = event.target.dataset;
  if (since === undefined && run === undefined) return;
  const range = [...(since ? [["since", since]] : []), ...(run ? [["run", run]] : [])];
  address.change({ filters: [...address.others("since", "until", "run"), ...range], row: null });
});
by("file").addEventListener("change", () => address.change({ file: by("file").value, row: null }));

for (const [name, [label]] of Object.entries(address.FILTERS)) {
  if (name !== "exclude") by("adder-name").append(element("option", { value: name, textContent: label }));
}
function hint() { by("adder-hint").textContent = address.FILTERS[by("adder-name").value][1]; }
by("adder-name").addEventListener("change", hint);
by("add").addEventListener("click", () => { hint(); by("adder-value").value = ""; by("adder").showModal(); });
by("adder").addEventListener("close", () => {
  const [name, given] = [by("adder-name").value, by("adder-value").value.trim()];
  if (by("adder").returnValue !== "ok" || !given) return;
  const value = ["since", "until"].includes(name) ? typed(given, state.utc) : given;
  if (by("adder-not").checked && !["since", "until"].includes(name)) address.without(name, value);
  else address.add(name, value);
});

// Buttons and keys ---------------------------------------------------------------------------------------------------

function newest() { return list.load().catch(failure); }
function end(order) { return list.load({ order, chosen: true }).catch(failure); }
function focusQuery() { by("query").focus(); by("query").select(); }
by("new").addEventListener("click", newest);
by("follow").addEventListener("click", () => (list.following ? list.follow(false) : newest()));
for (const name of PANELS) by(`show-${name}`).addEventListener("click", () => (panel === name ? close() : open(name)));
by("close").addEventListener("click", close);
by("clear").addEventListener("click", () => address.change({ filters: [] }));
by("help").addEventListener("click", () => by("keys").showModal());

addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f") {
    event.preventDefault();
    focusQuery();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (document.activeElement === by("query") && by("query").value) { by("query").value = ""; search(); }
    else if (panel) close();
    else by("list").focus();
    return;
  }
  if (event.target.closest("input, select, textarea")) return;
  const inButton = event.target.closest("button, summary, a");
  const act = {
    j: () => list.step(1), k: () => list.step(-1), ArrowDown: () => list.step(1), ArrowUp: () => list.step(-1),
    "/": focusQuery,
    g: () => end("oldest"), G: () => end("newest"), Home: () => end("oldest"), End: () => end("newest"),
    f: () => by("follow").click(), "?": () => by("keys").showModal(),
    Enter: () => list.selected && openLine(list.selected),
  }[event.key];
  if (!act || (inButton && ["Enter", "ArrowDown", "ArrowUp", "Home", "End"].includes(event.key))) return;
  if (by("side-body").contains(document.activeElement) && ["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) return;
  event.preventDefault();
  act();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) list.stopWaiting();
  else stale = true;
});
setInterval(() => { if (!document.hidden) showStrip(); }, 5000);

// Begin --------------------------------------------------------------------------------------------------------------

address.onChange(() => {
  showFilters();
  by("empty").hidden = true;
  matching = null;
  histogram.stop();
  showStrip();
  if (panel === "row" && !state.row) close();
  refused = false;
  notice(stats?.notice);
  list.clear();
  reload().catch(listFailure);
  lookedAt = -Infinity;
  if (PANELS.includes(panel) && !state.row) open(panel, null, { focus: false });
});

async function begin() {
  try {
    const { files } = await ask("files");
    by("file").replaceChildren(...files.map((name) => element("option", { value: name, textContent: oneLine(name) })));
    // In the address of the first entry of the history too, which Back reads. A log that is not served is not another.
    if (!state.file) address.change({ file: files[0] ?? null }, { quietly: true });
    by("file").disabled = files.length < 2 && files[0] === state.file;
    showFilters();
    tick();
  } catch (error) {
    setTimeout(begin, RETRY);
    failure(error);
  }
}
begin();
