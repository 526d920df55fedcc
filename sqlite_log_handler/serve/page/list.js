// The list: one line a row, of one height, and at most MOST of them in the page.
//
// What is loaded is one piece of the log without holes, by id: ids only rise, and none is given twice. Near either end
// of it more is loaded, and the other end is let go; the scroll position moves by the lines that were added or removed
// above, so what somebody reads stays where it is. New rows are looked for behind `seen`, the highest id that the
// server has told of. When the list follows, they are appended and shown; when somebody has scrolled up, they are
// counted. Another file in the place of this one gives the same ids again, and is known by its `log_id`.

import { ask } from "./api.js";
import { between, parameters, state } from "./state.js";
import { byPlace, count, element, gapText, level, marked, oneLine, parts, time } from "./format.js";

const MOST = 5000;
const PAGE = 400;
const SPARE = 8;
export const RETRY = 2000;  // milliseconds until a question that has failed is asked again

export class List {
  constructor(box, { onOpen, onSelect, onNew, onEmpty, onFailure }) {
    this.box = box;
    this.canvas = box.firstElementChild;
    this.on = { onOpen, onSelect, onNew, onEmpty, onFailure };
    this.pool = [];
    this.following = true;
    this.expression = null;
    this.opening = 0;  // pieces of the log that are being opened: nobody else may begin another
    this.clear();
    box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    // New rows may move the list under the pointer before it is released: what was pressed is opened.
    const lineOf = (event) => this.lines[event.target.closest(".row")?.dataset.index];
    let pressed = null;
    box.addEventListener("pointerdown", (event) => { pressed = { line: lineOf(event), y: event.clientY }; });
    box.addEventListener("click", (event) => {
      const line = Math.abs(event.clientY - pressed?.y) < this.height / 2 ? pressed.line : lineOf(event);
      if (line) this.select(line, true);
    });
    new ResizeObserver(() => this.measure()).observe(box);
    this.measure();
  }

  measure() {
    this.height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
    this.draw(true);
    if (this.following) this.toEnd();
  }

  clear() {
    this.stopWaiting();
    this.asking?.abort();  // nobody wants the answers any more, and to search may take long
    this.asking = new AbortController();
    this.lines = [];
    this.atStart = this.atEnd = false;
    this.seen = this.fresh = 0;
    this.flooded = false;  // more came at a time than a page has
    this.selected = null;
    this.loading = null;
    this.loaded = false;
    this.generation = (this.generation ?? 0) + 1;
  }

  // Loading ------------------------------------------------------------------------------------------------------

  // Show the rows around the row `at`, or those at one end of the log, of which the last one may be `chosen`.
  async load({ at = null, order = "newest", chosen = false } = {}) {
    this.opening += 1;
    this.box.setAttribute("aria-busy", "true");
    try { await (at == null ? this.openEnd(order, chosen) : this.openAt(at)); } finally {
      this.opening -= 1;
      if (!this.opening) this.box.setAttribute("aria-busy", "false");
    }
  }

  // Ask for pages of the log as it is now; null when another place was asked for meanwhile.
  async pages(...questions) {
    this.clear();
    const mine = this.generation;
    const pages = await Promise.all(questions.map((question) => ask("rows", question, this.asking)));
    return mine === this.generation ? pages : null;
  }

  // The list follows new rows from the end with the newest.
  async openEnd(order, chosen) {
    const pages = await this.pages([...parameters(), ["order", order], ["lines", PAGE]]);
    if (!pages) return;
    const [page] = pages;
    this.following = order === "newest";
    this.place(page, { start: page.complete || !this.following, end: page.complete || this.following });
    if (this.following) this.toEnd();
    else this.box.scrollTop = 0;
    this.opened();
    if (chosen && this.lines.length) this.select(this.lines.at(this.following ? -1 : 0));
  }

  async openAt(at) {
    const half = ["lines", PAGE / 2];
    const pages = await this.pages([...between(null, at), half], [...between(at, null), ["order", "oldest"], half]);
    if (!pages) return;
    const [before, behind] = pages;
    const gaps = new Map([...before.gaps, ...behind.gaps].map((gap) => [JSON.stringify(gap), gap]));
    const both = { rows: [...before.rows, ...behind.rows], gaps: [...gaps.values()], last_id: behind.last_id, log_id: before.log_id };
    this.place(both, { start: before.complete, end: behind.complete });
    this.following = false;
    const wanted = this.lines.find((line) => line.id === at) ?? this.lines.find((line) => line.id > at) ?? this.lines.at(-1);
    if (wanted) this.show(this.lines.indexOf(wanted), "middle");
    this.opened();
    if (wanted?.id === at) this.select(wanted);
  }

  opened() {
    this.loaded = true;
    this.on.onNew(0);
    this.tellEmpty();
  }

  place(page, { start, end }) {
    this.lines = merge(page);
    this.seen = page.last_id;
    this.logId = page.log_id;
    this.atStart = start;
    this.atEnd = end;
    this.draw(true);
  }

  // Ask for more of the log that is shown; null when it has not changed.
  async more(question, how) {
    const page = await ask("rows", question, how);
    if (page && page.log_id !== this.logId) throw new Replaced();
    return page;
  }

  get firstId() { return this.lines.find((line) => line.id)?.id; }
  get lastId() { return this.lines.findLast((line) => line.id)?.id; }

  async older() {
    if (this.atStart || this.loading || !this.firstId) return;
    await this.alone(async (mine) => {
      const page = await this.more([...between(null, this.firstId - 1), ["lines", PAGE]], this.asking);
      if (mine !== this.generation) return;
      const lines = merge(page);
      this.lines = lines.concat(this.lines);
      this.atStart = page.complete;
      if (this.lines.length > MOST) {
        this.lines.length = MOST;
        this.atEnd = false;
      }
      this.moveBy(lines.length);
    });
  }

  async newer() {
    if (this.atEnd || this.loading || !this.lastId) return;
    await this.alone(async (mine) => {
      const asked = [...between(this.lastId, null), ["order", "oldest"], ["lines", PAGE]];
      const page = await this.more(asked, this.asking);
      if (mine !== this.generation) return;
      this.append(page);
      this.atEnd = page.complete;
      if (page.complete) {
        this.seen = Math.max(this.seen, page.last_id);
        this.fresh = 0;
        this.on.onNew(0);
      }
    });
  }

  append(page) {
    const lines = merge(page);
    const last = this.lines.at(-1);
    // A gap at the end may have grown since.
    if (last?.gaps && lines[0]?.gaps && last.place === lines[0].place) this.lines.pop();
    this.lines = this.lines.concat(lines);
    const surplus = this.lines.length - MOST;
    if (surplus > 0) {
      this.lines.splice(0, surplus);
      this.atStart = false;
      this.moveBy(-surplus);
    } else this.draw(true);
  }

  async alone(load) {
    const mine = this.generation;
    this.box.setAttribute("aria-busy", "true");
    this.loading = load(mine);
    const failed = await this.loading.then(() => null, (error) => error);
    if (mine === this.generation) this.loading = null;
    this.box.setAttribute("aria-busy", "false");
    if (!failed) return this.scrolled();
    // A question that makes no sense, or takes too long, is not asked again until somebody scrolls.
    clearTimeout(this.again);
    if (failed.status !== 400) this.again = setTimeout(() => this.scrolled(), RETRY);
    this.on.onFailure(failed);
  }

  // Look for what was added. Return false when the file has not changed, for `wait` seconds if they are given.
  async poll(wait = 0) {
    if (this.loading) return true;
    const mine = this.generation;
    const appends = this.following && this.atEnd;
    // Of a flood, only what is drawn is asked for; without lines, the new rows are only counted.
    const most = this.flooded ? Math.max(Math.ceil(2 * this.box.clientHeight / this.height), 1) : PAGE;
    const asked = [...between(this.seen, null), ["lines", appends ? most : 0]];
    this.waiting = new AbortController();
    let page;
    try {
      page = await this.more(asked, { once: true, wait, signal: this.waiting.signal });
    } catch (error) {
      if (error.name === "AbortError") return true;
      throw error;
    }
    if (page === null) return false;
    if (mine !== this.generation) return true;
    if (page.last_id < this.seen) throw new Replaced();  // or emptied
    this.seen = page.last_id;
    if (appends) {
      this.flooded = !page.complete;
      if (page.rows.length || page.gaps.length) {
        if (page.complete) this.append(page);
        else this.place(page, { start: false, end: true });  // more than a page: the newest of it
        if (this.following) this.toEnd();
        this.tellEmpty();
      }
    } else if (page.count) {
      this.atEnd = false;
      this.fresh += page.count;
      this.on.onNew(this.fresh);
    }
    return true;
  }

  // What is asked for has changed, or nobody looks.
  stopWaiting() { this.waiting?.abort(); }

  tellEmpty() { this.on.onEmpty(!this.lastId); }

  // Moving -------------------------------------------------------------------------------------------------------

  moveBy(lines) {
    const top = this.box.scrollTop + lines * this.height;
    this.resize();
    this.box.scrollTop = top;
    this.draw(true);
  }

  toEnd() {
    this.resize();
    this.programmed = true;
    this.box.scrollTop = this.box.scrollHeight;
    this.draw(true);
  }

  resize() { this.canvas.style.height = `${this.lines.length * this.height}px`; }

  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.box;
    const atEnd = scrollTop + clientHeight >= scrollHeight - this.height;
    if (this.programmed) this.programmed = false;
    else if (!atEnd && this.following) this.follow(false);
    else if (atEnd && this.atEnd && !this.following) this.follow(true);
    this.draw();
    if (scrollTop < clientHeight * 2 && !this.following) this.older();
    if (scrollTop + clientHeight * 2 > scrollHeight && !this.following) this.newer();
  }

  follow(on) {
    if (on !== this.following) this.stopWaiting();
    this.following = on;
    this.on.onNew(this.fresh);
  }

  show(index, where = "near") {
    this.resize();
    const top = index * this.height;
    const { scrollTop, clientHeight } = this.box;
    if (where === "middle") this.box.scrollTop = top - clientHeight / 2;
    else if (top < scrollTop) this.box.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.box.scrollTop = top + this.height - clientHeight;
    this.draw();
  }

  step(by) {
    const rows = this.lines;
    if (!rows.length) return;
    let index = this.selected ? rows.indexOf(this.selected) : -1;
    if (index < 0) index = by > 0 ? Math.ceil(this.box.scrollTop / this.height) - 1 : Math.floor((this.box.scrollTop + this.box.clientHeight) / this.height);
    index = Math.min(Math.max(index + by, 0), rows.length - 1);
    this.select(rows[index]);
    this.show(index);
  }

  select(line, open = false) {
    this.selected = line;
    this.draw(true);
    this.on.onSelect(line);
    if (open) this.on.onOpen(line);
  }

  // Drawing ------------------------------------------------------------------------------------------------------

  draw(anew = false) {
    if (!this.height) return;
    this.resize();
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - SPARE);
    const number = Math.min(this.lines.length - first, Math.ceil(this.box.clientHeight / this.height) + 2 * SPARE);
    if (!anew && first === this.drawnFirst && number === this.drawnNumber) return;
    this.drawnFirst = first;
    this.drawnNumber = number;
    while (this.pool.length < number) {
      const line = element("div", { role: "option" });
      this.pool.push(line);
      this.canvas.append(line);
    }
    while (this.pool.length > Math.max(number, 0)) this.pool.pop().remove();
    for (let at = 0; at < number; at += 1) this.fill(this.pool[at], first + at);
    const selected = this.selected ? this.lines.indexOf(this.selected) : -1;
    const shown = this.pool[selected - first];
    if (shown) this.box.setAttribute("aria-activedescendant", shown.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  fill(line, index) {
    const item = this.lines[index];
    line.style.top = `${index * this.height}px`;
    line.setAttribute("aria-selected", String(item === this.selected));
    line.dataset.index = index;
    const key = `${this.generation}|${item.key}|${item.gaps?.length}|${state.utc}|${this.expression}|${this.dayBefore(index)}`;
    if (line.dataset.key === key) return;
    line.dataset.key = key;
    line.id = `line-${item.key}`;
    if (item.gaps) {
      const text = gapText(item.gaps, state.utc);
      line.className = "gap row";
      line.replaceChildren(element("span", { textContent: text, title: text }));
      return;
    }
    const { row } = item;
    const day = parts(row.created_us, state.utc)?.day;
    const [message, logger] = [oneLine(row.message), oneLine(row.logger)];
    if (!line.className.startsWith("row")) {
      line.replaceChildren(time(row.created_us), level(row), element("span", { className: "n" }, " "), element("span", { className: "m" }));
    }
    line.className = `row ${this.dayBefore(index) === day ? "" : "newday"}`;
    line.dataset.day = day;
    const [t, l, n, m] = line.children;
    time(row.created_us, state.utc, t);
    level(row, l);
    if (n.title !== logger) n.title = n.firstChild.data = logger;
    m.replaceChildren(...marked(message, this.expression), row.cut ? "…" : "",
      row.exc_type ? element("em", { textContent: `  ${oneLine(row.exc_type)}` }) : "");
  }

  dayBefore(index) {
    const before = this.lines[index - 1]?.row;
    return before ? parts(before.created_us, state.utc)?.day : null;
  }
}

// The file was replaced by another one while it was shown.
export class Replaced extends Error {}

// Rows and gaps in one order: a gap stands behind the row `after_id`, and those of one place are one line.
function merge({ rows, gaps }) {
  const waiting = [...byPlace(gaps)].sort(([one], [other]) => one - other);
  const lines = [];
  const gapsBefore = (id) => {
    while (waiting.length && waiting[0][0] < id) {
      const [place, all] = waiting.shift();
      lines.push({ gaps: all, place, key: `g${place}` });
    }
  };
  for (const row of rows) {
    gapsBefore(row.id);
    lines.push({ row, id: row.id, key: String(row.id) });
  }
  gapsBefore(Infinity);
  return lines;
}

export const newText = (number) => `${count(number)} new`;
