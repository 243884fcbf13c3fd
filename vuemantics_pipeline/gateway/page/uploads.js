// The files of an open batch, a page at a time, each with its thumbnail, state and reason.

import { api } from "./api.js";
import { copy, renderSoon, say } from "./dom.js";
import * as words from "./words.js";

const PAGE = 50;
const PAUSE = 1000; // milliseconds between two readings of what has changed

/** One file. Messages move it on; what they do not tell comes with its page from the API. */
class Row {
  #parts = copy("upload");
  #facts;
  #heardAt = -Infinity;
  #batchHasEnded;
  #picture = null;

  constructor(facts, page, batchHasEnded) {
    this.#facts = facts;
    this.page = page;
    this.#batchHasEnded = batchHasEnded;
  }

  get root() {
    return this.#parts.root;
  }

  learn(facts, askedAt) {
    const { stage, progress_percent, error_message } = this.#facts;
    const isOvertaken = this.#heardAt > askedAt;
    this.#facts = isOvertaken ? { ...facts, stage, progress_percent, error_message } : facts;
    renderSoon(this);
  }

  /** Take up a message; return whether there may be more to know than it says. */
  hear({ stage, progress_percentage, error_message }) {
    const hasTurned = stage !== this.#facts.stage && ["completed", "failed", "queued"].includes(stage);
    this.#heardAt = performance.now();
    this.#facts = { ...this.#facts, stage, progress_percent: progress_percentage, error_message };
    renderSoon(this);
    return hasTurned;
  }

  batchIs(hasEnded) {
    if (hasEnded !== this.#batchHasEnded) renderSoon(this);
    this.#batchHasEnded = hasEnded;
  }

  render() {
    const { root, thumbnail, name, size, state, bar, reason, description } = this.#parts;
    const facts = this.#facts;
    const [kind, inWords] = words.uploadState(facts, this.#batchHasEnded);
    root.dataset.state = kind;
    thumbnail.dataset.type = facts.file_type;
    say(name, facts.filename);
    say(size, words.size(facts.file_size));
    say(state, inWords);
    bar.hidden = kind !== "running";
    bar.value = facts.progress_percent;
    say(reason, facts.error_message);
    say(description, kind === "done" ? facts.description : "");
    if (facts.thumbnail_url && facts.thumbnail_url !== this.#picture) this.#show(facts.thumbnail_url);
  }

  #show(url) {
    this.#picture = url;
    const image = new Image();
    image.loading = "lazy";
    image.alt = "";
    image.addEventListener("error", () => image.remove());
    image.src = url;
    this.#parts.thumbnail.replaceChildren(image);
  }
}

export class Uploads {
  #batchId;
  #parts;
  #fail;
  #rows = new Map();
  #cursors = []; // where each page that is shown begins
  #next = null; // where the page after them begins, null while that is not known
  #stale = new Set(); // pages to be read again
  #timer = 0;
  #isShown = false;
  #generation = 0; // of the list: answers for an earlier one come too late
  #total = 0;
  #batchHasEnded = false;

  constructor(batchId, parts, fail) {
    this.#batchId = batchId;
    this.#parts = parts;
    this.#fail = fail;
    parts.failedOnly.addEventListener("change", () => this.show());
    parts.more.addEventListener("click", () => this.#showMore());
  }

  /** Read the first page and show it. */
  show() {
    this.hide();
    this.#isShown = true;
    return this.#append(null);
  }

  hide() {
    this.#isShown = false;
    this.#generation += 1;
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#rows.clear();
    this.#stale.clear();
    this.#cursors = [];
    this.#parts.uploads.replaceChildren();
    this.#parts.more.hidden = this.#parts.none.hidden = true;
  }

  batchIs({ total_uploads, failed_uploads }, hasEnded) {
    this.#total = total_uploads;
    this.#batchHasEnded = hasEnded;
    this.#parts.filter.hidden = failed_uploads === 0 && !this.#parts.failedOnly.checked;
    for (const row of this.#rows.values()) row.batchIs(hasEnded);
  }

  hear(payload) {
    if (!this.#isShown) return;
    const row = this.#rows.get(payload.upload_id);
    if (row) {
      if (row.hear(payload)) this.#reread(row.page);
    } else if (this.#parts.failedOnly.checked) {
      if (payload.status === "failed") this.rereadAll();
    } else if (this.#next === null) {
      this.#reread(this.#cursors.length - 1); // the file is new, or its page is being read
    }
  }

  rereadAll() {
    for (const page of this.#cursors.keys()) this.#reread(page);
  }

  get #isComplete() {
    return this.#parts.failedOnly.checked || this.#rows.size >= this.#total;
  }

  /** Read a page again, soon, and not more often than every second. */
  #reread(page) {
    if (!this.#isShown || page < 0) return;
    this.#stale.add(page);
    this.#timer ||= setTimeout(() => this.#readStale(), PAUSE);
  }

  async #readStale() {
    const pages = [...this.#stale].sort((one, other) => one - other);
    this.#stale.clear();
    try {
      for (const page of pages) await this.#read(page);
    } catch {
      // The connection is away; once it is back, everything is read again.
    }
    this.#timer = 0;
    if (this.#stale.size) this.#reread([...this.#stale][0]);
  }

  async #append(cursor) {
    this.#parts.more.disabled = true;
    this.#cursors.push(cursor);
    this.#next = null;
    try {
      await this.#read(this.#cursors.length - 1);
    } catch (problem) {
      this.#cursors.pop();
      this.#next = cursor;
      this.#fail(problem);
    }
    this.#parts.more.disabled = false;
  }

  async #showMore() {
    const last = this.#parts.uploads.lastElementChild;
    await this.#append(this.#next);
    if (this.#parts.more.hidden && last?.nextElementSibling) {
      last.nextElementSibling.tabIndex = -1;
      last.nextElementSibling.focus();
    }
  }

  async #read(page) {
    const generation = this.#generation;
    const askedAt = performance.now();
    const { uploads, next } = await api.uploads(this.#batchId, {
      limit: PAGE,
      after: this.#cursors[page],
      outcome: this.#parts.failedOnly.checked ? "failed" : null,
    });
    if (generation !== this.#generation) return;
    let before = [...this.#rows.values()].findLast((row) => row.page < page)?.root ?? null;
    for (const facts of uploads) {
      const row = this.#rows.get(facts.upload_id) ?? this.#add(facts, page, before);
      row.learn(facts, askedAt);
      before = row.root;
    }
    if (page === this.#cursors.length - 1) {
      this.#next = next;
      this.#parts.more.hidden = next === null;
      // Nobody tells of files that have not begun.
      if (next === null && !this.#batchHasEnded && !this.#isComplete) this.#reread(page);
    }
    say(this.#parts.none, this.#rows.size ? "" : "There are no files here.");
  }

  #add(facts, page, before) {
    const row = new Row(facts, page, this.#batchHasEnded);
    if (before) before.after(row.root);
    else this.#parts.uploads.prepend(row.root);
    this.#rows.set(facts.upload_id, row);
    return row;
  }
}
