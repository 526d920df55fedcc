// Records over time, by level, with drops hatched. Dragging over it zooms in.
//
// One burst must not flatten all else. Drops are no part of the scale: they are hatched on top, up to the line of numbers
// at most. A bar that is far higher than nearly all others is cut, and bears its number. The worst levels stand at the
// bottom, where nothing cuts them, and failures of different times can be compared.

import { ask } from "./api.js";
import { parameters, state } from "./state.js";
import { clock, count, moment } from "./format.js";

const LEVELS = ["debug", "info", "warning", "error", "critical"];
const FOOT = 16;
const HEAD = 15;
const LEAST_HATCH = 5;
// Nine of ten bars stay below some height; the scale ends at this many times that height.
const HIGHEST = 3;
// Milliseconds until all is counted again, at least.
const WHOLE = 10_000;

export class Histogram {
  constructor(canvas, tip, onZoom) {
    Object.assign(this, { canvas, tip, onZoom, buckets: [], from: null, whole: null });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.from = this.to = event.offsetX;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.from !== null) this.to = event.offsetX;
      this.point(event.offsetX);
      this.draw();
    });
    canvas.addEventListener("pointerup", () => this.zoom());
    canvas.addEventListener("pointercancel", () => { this.from = null; this.draw(); });
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
  }

  // What is asked for has changed.
  stop() { this.asking?.abort(); }

  // Ask for the bars. Return the number of records, or null when other filters were chosen meanwhile.
  //
  // To count a large log takes long, so only what has come since is counted, and added. All is counted again when the
  // bars have become too many, and now and then, because rows are pruned, and `-5min` begins later each time.
  async load() {
    const asked = parameters();
    const most = Math.max(24, Math.min(200, Math.floor(this.canvas.clientWidth / 7)));
    const began = performance.now();
    const { whole, buckets: before } = this;
    const adds = whole?.asked === String(asked) && before.length > 0 && before.length < 1.5 * most && began < whole.until;
    const how = adds ? [["bucket", (before[0].until_us - before[0].since_us) / 1e6], ["counted-id", whole.lastId], ["most", 2 * most]] : [["most", most]];
    this.asking?.abort();
    this.asking = new AbortController();
    let found = null;
    try { found = await ask("histogram", [...asked, ...how], this.asking); } catch (error) {
      if (error.name === "AbortError") return null;
      if (!adds || error.status !== 400) throw error;  // too many bars: the log goes on after a long rest
    }
    if (!found || (adds && (found.last_id < whole.lastId || found.log_id !== whole.logId))) {  // or the file is another one
      this.whole = null;
      return this.load();
    }
    const { buckets, last_id: lastId, log_id: logId } = found;
    const now = performance.now();
    this.whole = { asked: String(asked), lastId, logId, until: adds ? whole.until : now + Math.max(WHOLE, (now - began) * 50) };
    const known = new Map(adds ? before.map((bucket) => [bucket.since_us, bucket.counts]) : []);
    this.buckets = buckets.map((bucket) => {
      const levels = known.get(bucket.since_us)?.slice() ?? LEVELS.map(() => 0);
      for (const [levelno, records] of Object.entries(bucket.levels)) {
        levels[Math.min(Math.max(Math.floor(levelno / 10) - 1, 0), 4)] += records;
      }
      return { ...bucket, counts: levels, records: levels.reduce((sum, one) => sum + one, 0) };
    });
    const records = this.buckets.reduce((sum, one) => sum + one.records, 0);
    const dropped = this.buckets.reduce((sum, one) => sum + one.dropped, 0);
    this.canvas.setAttribute("aria-label", this.buckets.length
      ? `${count(records)} records and ${count(dropped)} drops from ${moment(this.buckets[0].since_us, state.utc)} `
        + `to ${moment(this.buckets.at(-1).until_us, state.utc)}`
      : "No records");
    this.draw();
    return records;
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const scale = devicePixelRatio;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    const paint = this.canvas.getContext("2d");
    paint.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const step = width / Math.max(this.buckets.length, 1);
    const all = this.buckets.map((bucket) => bucket.records).filter(Boolean).sort((one, other) => one - other);
    const most = Math.max(1, Math.min(all.at(-1) ?? 0, HIGHEST * all[Math.ceil(0.9 * (all.length - 1))]) || 1);
    const isCut = (bucket) => bucket.records > most;
    const room = height - FOOT - (this.buckets.some((bucket) => bucket.dropped || isCut(bucket)) ? HEAD + LEAST_HATCH : 4);
    const lid = height - FOOT - room;
    this.buckets.forEach((bucket, index) => {
      let y = height - FOOT;
      const bar = (records, fill) => {
        if (!records) return;
        const tall = Math.min(Math.max(1, (records / most) * room), y - lid);
        paint.fillStyle = fill;
        paint.fillRect(index * step, y - tall, Math.max(1, step - 1), tall);
        y -= tall;
      };
      for (let level = LEVELS.length - 1; level >= 0; level -= 1) bar(bucket.counts[level], color(`bar-${LEVELS[level]}`));
      if (isCut(bucket)) paint.clearRect(index * step, lid + 3, step, 2);
      const hatched = Math.max(LEAST_HATCH, (bucket.dropped / most) * room);
      if (bucket.dropped) this.hatch(paint, index * step, step, y, Math.min(hatched, y - HEAD), color("gap"));
    });
    this.foot(paint, width, height, color("soft"));
    this.head(paint, width, color("soft"), isCut);
    if (this.from !== null) {
      paint.fillStyle = color("accent");
      paint.globalAlpha = 0.2;
      paint.fillRect(Math.min(this.from, this.to), 0, Math.abs(this.to - this.from), height);
      paint.globalAlpha = 1;
    }
  }

  hatch(paint, x, step, y, tall, stroke) {
    const wide = Math.max(2, step - 1);
    const top = y - tall;
    paint.save();
    paint.beginPath();
    paint.rect(x, top, wide, y - top);
    paint.clip();
    paint.strokeStyle = stroke;
    paint.lineWidth = 1;
    paint.strokeRect(x + 0.5, top + 0.5, wide - 1, y - top - 1);
    for (let at = x - (y - top); at < x + wide; at += 4) {
      paint.beginPath();
      paint.moveTo(at, y);
      paint.lineTo(at + (y - top), top);
      paint.stroke();
    }
    paint.restore();
  }

  foot(paint, width, height, fill) {
    if (!this.buckets.length) return;
    const from = this.buckets[0].since_us;
    const until = this.buckets.at(-1).until_us;
    paint.fillStyle = fill;
    paint.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const marks = Math.max(2, Math.floor(width / 170));
    const days = until - from > 86_400e6;
    for (let at = 0; at <= marks; at += 1) {
      const us = from + ((until - from) * at) / marks;
      const time = days ? moment(us, state.utc).slice(5, 16) : clock(us, state.utc).slice(0, until - from < 10e6 ? 12 : 8);
      const text = at || width < 700 ? time : `${moment(us, state.utc).slice(0, days ? 5 : 11)}${time}`;  // which day, or year, it is
      paint.textAlign = at === 0 ? "left" : at === marks ? "right" : "center";
      paint.fillText(text, Math.min(Math.max((width * at) / marks, 4), width - 4), height - 4);
    }
  }

  // The numbers of the bars that are cut, and of all drops above the most of them; those for which there is room.
  head(paint, width, fill, isCut) {
    const dropped = this.buckets.reduce((sum, one) => sum + one.dropped, 0);
    const most = Math.max(...this.buckets.map((bucket) => bucket.dropped));
    const texts = this.buckets.map((bucket) => [
      ...(isCut(bucket) ? [`${count(bucket.records)} records`] : []),
      ...(dropped && bucket.dropped === most ? [`${count(dropped)} dropped`] : []),
    ].join(", "));
    const order = [...texts.keys()].filter((index) => texts[index])
      .sort((one, other) => this.buckets[other].dropped - this.buckets[one].dropped || this.buckets[other].records - this.buckets[one].records);
    const taken = [];
    paint.fillStyle = fill;
    paint.textAlign = "center";
    for (const index of order) {
      const half = paint.measureText(texts[index]).width / 2 + 4;
      const middle = Math.min(Math.max(((index + 0.5) * width) / texts.length, half), width - half);
      if (taken.some(([other, wide]) => Math.abs(other - middle) < half + wide)) continue;
      taken.push([middle, half]);
      paint.fillText(texts[index], middle, 11);
    }
  }

  at(x) { return Math.min(Math.max(Math.floor((x / this.canvas.clientWidth) * this.buckets.length), 0), this.buckets.length - 1); }

  point(x) {
    const bucket = this.buckets[this.at(x)];
    this.tip.hidden = !bucket;
    if (!bucket) return;
    const lines = [`${moment(bucket.since_us, state.utc).slice(0, 23)}`];
    bucket.counts.forEach((records, level) => { if (records) lines.push(`${LEVELS[level].toUpperCase().padEnd(9)}${count(records)}`); });
    if (bucket.dropped) lines.push(`dropped  ${count(bucket.dropped)}`);
    this.tip.textContent = lines.join("\n");
    this.tip.style.left = `${Math.min(x + 12, this.canvas.clientWidth - this.tip.offsetWidth - 8)}px`;
  }

  zoom() {
    const [low, high] = [this.from, this.to].sort((one, other) => one - other);
    this.from = null;
    this.tip.hidden = true;
    this.draw();
    if (low === null || !this.buckets.length) return;
    const first = this.buckets[this.at(low)];
    const last = this.buckets[this.at(high)];
    this.onZoom(first.since_us, last.until_us - 1);
  }
}
