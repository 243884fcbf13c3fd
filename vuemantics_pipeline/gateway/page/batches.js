// The list of batches, the newest first.

import { api } from "./api.js";
import { Batch } from "./batch.js";

const PAGE = 20;
const LARGEST_PAGE = 200;

export class Batches {
  #batches = new Map();
  #asked = new Set();
  #next; // where the next page begins, null after the last; undefined until one is read
  #list = document.getElementById("batch-list");
  #none = document.getElementById("no-batches");
  #more = document.getElementById("more-batches");
  #context;

  /** @param context what batches need of the page: send, fail, announce, confirmCancel. */
  constructor(context) {
    this.#context = context;
    this.#more.addEventListener("click", () => this.#showMore());
  }

  /** Read as much of the list as is shown, or its first page. */
  async load() {
    const limit = Math.min(LARGEST_PAGE, Math.max(PAGE, this.#batches.size));
    const next = await this.#read({ limit });
    if (this.#next === undefined) this.#offerMore(next);
    this.#none.hidden = this.#batches.size > 0;
  }

  /** What the gateway tells of any of the user's batches. */
  hear({ action, payload }) {
    if (action !== "batch_progress" && action !== "file_progress") return;
    if (payload.batch_id === null) return; // a file that is in none
    const batch = this.#batches.get(payload.batch_id);
    if (batch === undefined) this.#fetch(payload.batch_id).catch(() => {});
    else if (action === "batch_progress") batch.hear(payload);
    else batch.hearFile(payload);
  }

  /** The connection is back: ask for what was missed. */
  async catchUp() {
    for (const batch of this.#batches.values()) batch.catchUp();
    await this.load();
  }

  /** Open a batch and bring it into view. */
  async open(batchId) {
    if (!this.#batches.has(batchId)) await this.#fetch(batchId);
    const batch = this.#batches.get(batchId);
    await batch?.open();
    batch?.root.scrollIntoView();
  }

  clear() {
    for (const batch of this.#batches.values()) batch.leave();
    this.#batches.clear();
    this.#next = undefined;
    this.#list.replaceChildren();
    this.#none.hidden = this.#more.hidden = true;
  }

  async #showMore() {
    this.#more.disabled = true;
    const last = this.#list.lastElementChild;
    try {
      this.#offerMore(await this.#read({ limit: PAGE, after: this.#next }));
      if (this.#more.hidden) last?.nextElementSibling?.querySelector("button").focus();
    } catch (problem) {
      this.#context.fail(problem);
    }
    this.#more.disabled = false;
  }

  #offerMore(next) {
    this.#next = next;
    this.#more.hidden = next === null;
  }

  async #read(page) {
    const askedAt = performance.now();
    const { batches, next } = await api.batches(page);
    for (const facts of batches) this.#learn(facts, askedAt);
    return next;
  }

  async #fetch(batchId) {
    if (this.#asked.has(batchId)) return;
    this.#asked.add(batchId);
    const askedAt = performance.now();
    try {
      this.#learn(await api.batch(batchId), askedAt);
    } finally {
      this.#asked.delete(batchId);
    }
  }

  #learn(facts, askedAt) {
    const known = this.#batches.get(facts.batch_id);
    if (known) {
      known.learn(facts, askedAt);
      return;
    }
    const batch = new Batch(facts, this.#context);
    const older = [...this.#batches.values()].filter((other) => other.created < batch.created);
    const next = older.sort((one, other) => other.created - one.created)[0];
    this.#list.insertBefore(batch.root, next?.root ?? null);
    this.#batches.set(facts.batch_id, batch);
    this.#none.hidden = true;
  }
}
