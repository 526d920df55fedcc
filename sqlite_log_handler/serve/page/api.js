// Questions to the server. Answers are never kept by the browser, because a log holds secrets; a file that has not
// changed is answered by 304, which `ask` turns into null when the caller has seen the answer already.

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const tags = new Map();

export async function ask(name, parameters = [], { signal, once = false, wait = 0 } = {}) {
  const query = new URLSearchParams(parameters).toString();
  const url = `api/${name}${query ? `?${query}` : ""}`;
  const headers = once && tags.get(name)?.url === url ? { "If-None-Match": tags.get(name).tag } : {};
  // The server holds the question until the file changes.
  if (wait) headers.Prefer = `wait=${wait}`;
  let response;
  try {
    response = await fetch(url, { signal, headers, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer: is `sqlite-log serve` still running?");
  }
  if (response.status === 304) return null;
  const text = await response.text();
  if (!response.ok) {
    let said = text;
    try { said = JSON.parse(text).error; } catch { /* a proxy's own page */ }
    throw new Refused(response.status, said.length > 400 ? `The server answers ${response.status}.` : said);
  }
  if (once) tags.set(name, { url, tag: response.headers.get("ETag") });
  return JSON.parse(text);
}
