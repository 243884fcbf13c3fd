// One batch: its state, its counters, and what may be done with it. Opened, it shows its files.

import { api } from "./api.js";
import { copy, renderSoon, say } from "./dom.js";
import { Uploads } from "./uploads.js";
import * as words from "./words.js";

const hasEnded = ({ status }) => ["completed", "failed", "cancelled"].includes(status);

export class Batch {
  #facts;
  #heardAt = -Infinity; // when the gateway last told of this batch
  #heardSeq; // the change up to which it has told everything
  #inHand = null; // what it last told of a file that is being processed
  #isBusy = false;
  #parts = copy("batch");
  #uploads;
  #context;

  constructor(facts, context) {
    this.#facts = facts;
    this.#context = context;
    this.#uploads = new Uploads(facts.batch_id, this.#parts, context.fail);
    const { root, toggle, created, bar, files, cancel, retry } = this.#parts;
    const title = `batch-title-${facts.batch_id}`;
    created.id = title;
    created.dateTime = facts.created_at;
    created.textContent = words.moment(facts.created_at);
    files.id = `batch-files-${facts.batch_id}`;
    toggle.setAttribute("aria-controls", files.id);
    root.setAttribute("aria-labelledby", title);
    bar.setAttribute("aria-label", "Progress of this batch");
    for (const button of [cancel, retry]) button.setAttribute("aria-describedby", title);
    toggle.addEventListener("click", () => (this.#isOpen ? this.close() : this.open()));
    cancel.addEventListener("click", () => this.#cancel());
    retry.addEventListener("click", () => this.#act(() => api.retryFailed(facts.batch_id)));
    this.#become(facts);
  }

  get root() {
    return this.#parts.root;
  }

  /** When it was added, in milliseconds. */
  get created() {
    return Date.parse(this.#facts.created_at);
  }

  /** What the API answered to a question of that time, unless it is older than what is known. */
  learn(facts, askedAt) {
    const isOlder = facts.seq < this.#facts.seq;
    const isOvertaken = facts.seq === this.#facts.seq && this.#heardAt > askedAt;
    if (!isOlder && !isOvertaken) this.#become(facts);
  }

  /** `batch_progress` */
  hear({ total, processed, successful, failed, ...rest }) {
    if (rest.seq < this.#facts.seq) return;
    this.#heardAt = performance.now();
    this.#heardSeq = rest.seq;
    const before = this.#facts;
    this.#become({
      ...before,
      ...rest,
      total_uploads: total,
      processed_uploads: processed,
      successful_uploads: successful,
      failed_uploads: failed,
    });
    if (hasEnded(this.#facts) && !hasEnded(before)) this.#ended();
  }

  /** `file_progress` */
  hearFile(payload) {
    if (payload.status === "processing" && payload.stage !== "queued") this.#inHand = payload;
    else if (this.#inHand?.upload_id === payload.upload_id) this.#inHand = null;
    this.#uploads.hear(payload);
    renderSoon(this);
  }

  /** Ask for what was missed, if anybody looks at the files. */
  catchUp() {
    this.#inHand = null;
    if (!this.#isOpen) return;
    const { batch_id } = this.#facts;
    this.#context.send({ action: "subscribe_batch", batch_id, after: this.#heardSeq });
    this.#uploads.rereadAll();
  }

  /** Show its files; resolves when the first of them are there. */
  open() {
    const { toggle, files } = this.#parts;
    history.replaceState(null, "", `#${this.#facts.batch_id}`);
    toggle.setAttribute("aria-expanded", "true");
    files.hidden = false;
    return this.#uploads.show();
  }

  close() {
    const { toggle, files } = this.#parts;
    if (location.hash === `#${this.#facts.batch_id}`) history.replaceState(null, "", "/");
    toggle.setAttribute("aria-expanded", "false");
    files.hidden = true;
    this.#uploads.hide();
  }

  /** Show nothing of it any more. */
  leave() {
    this.#uploads.hide();
  }

  render() {
    const { root, state, bar, counters, timing, now, nowStage, nowFile, message, cancel, retry } =
      this.#parts;
    const facts = this.#facts;
    const [kind, inWords] = words.batchState(facts);
    root.dataset.state = kind;
    say(state, inWords);
    bar.value = facts.progress_percentage;
    say(counters, words.counters(facts));
    say(timing, words.timing(facts));
    say(message, facts.error_message);
    now.hidden = this.#inHand === null || facts.status !== "processing";
    if (!now.hidden) {
      nowStage.textContent = `${words.stage(this.#inHand.stage)}:`;
      nowFile.textContent = this.#inHand.file_name;
    }
    cancel.hidden = hasEnded(facts);
    retry.hidden = !hasEnded(facts) || facts.failed_uploads === 0;
    cancel.disabled = retry.disabled = this.#isBusy;
  }

  get #isOpen() {
    return !this.#parts.files.hidden;
  }

  #become(facts) {
    this.#facts = facts;
    this.#uploads.batchIs(facts, hasEnded(facts));
    renderSoon(this);
  }

  #ended() {
    const { created_at, batch_id } = this.#facts;
    const [, state] = words.batchState(this.#facts);
    this.#context.announce(
      `Batch of ${words.moment(created_at)}: ${state}. ${words.counters(this.#facts)}.`,
    );
    // Messages do not say when it ended.
    const askedAt = performance.now();
    api.batch(batch_id).then((facts) => this.learn(facts, askedAt), () => {});
  }

  async #cancel() {
    if (!(await this.#context.confirmCancel())) return;
    await this.#act(async () => {
      const askedAt = performance.now();
      this.learn(await api.cancel(this.#facts.batch_id), askedAt);
    });
  }

  async #act(action) {
    this.#isBusy = true;
    this.render();
    try {
      await action();
    } catch (problem) {
      this.#context.fail(problem);
    }
    this.#isBusy = false;
    this.render();
    const focused = document.activeElement;
    // The button may be gone: whoever works by keyboard stays at this batch.
    if (focused === document.body || !focused.checkVisibility()) this.#parts.toggle.focus();
  }
}
