// Questions to the server. Answers are never kept by the browser, because a log holds secrets; a file that has not
// changed is answered by 304, which `ask` turns into null when the caller has seen the answer already.

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const tags = new Map();
// What each answer has, by its question, and an answer of a proxy has not; the others have their own name.
const MARKS = { rows: "last_id", histogram: "last_id", brief: "changes", stats: "now_us" };

export async function ask(name, parameters = [], { signal, once = false, wait = 0 } = {}) {
  const query = new URLSearchParams(parameters).toString();
  const url = `api/${name}${query ? `?${query}` : ""}`;
  const headers = once && tags.get(name)?.url === url ? { "If-None-Match": tags.get(name).tag } : {};
  // The server holds the question until the file changes.
  if (wait) headers.Prefer = `wait=${wait}`;
  let response;
  let text;
  try {
    response = await fetch(url, { signal, headers, cache: "no-store", credentials: "same-origin" });
    if (response.status === 304) return null;
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer: is `sqlite-log serve` still running?");
  }
  let answer = null;
  try { answer = JSON.parse(text); } catch { /* a proxy's own page */ }
  if (!response.ok) {
    const said = typeof answer?.error === "string" ? answer.error : text;  // a proxy's own JSON
    throw new Refused(response.status, !said || said.length > 400 ? `The server answers ${response.status}.` : said);
  }
  const mark = MARKS[name] ?? (name.includes("/") ? "id" : name);
  if (!(mark in Object(answer))) throw new Refused(0, "What answers is not `sqlite-log serve`: is it a proxy that wants you to log in?");
  if (once) tags.set(name, { url, tag: response.headers.get("ETag") });
  return answer;
}
