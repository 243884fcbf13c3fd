// What batches and uploads are in words; numbers and dates as the browser's language writes them.

const numbers = new Intl.NumberFormat();
const percents = new Intl.NumberFormat(undefined, { style: "percent" });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const unit = (name, unitDisplay = "long") =>
  new Intl.NumberFormat(undefined, { style: "unit", unit: name, unitDisplay, maximumFractionDigits: 1 });
const seconds = unit("second");
const minutes = unit("minute");
const hours = unit("hour");
const sizes = ["byte", "kilobyte", "megabyte", "gigabyte"].map((name) => unit(name, "short"));

export const percent = (share) => percents.format(share / 100);
export const moment = (text) => moments.format(new Date(text));

export function size(bytes) {
  const step = Math.min(sizes.length - 1, Math.floor(Math.log(Math.max(bytes, 1)) / Math.log(1000)));
  return sizes[step].format(bytes / 1000 ** step);
}

function duration(length) {
  if (length < 59.5) return seconds.format(Math.max(1, Math.round(length)));
  if (length < 3570) return minutes.format(Math.round(length / 60));
  return hours.format(length / 3600);
}

/** A batch's state: [kind for the style sheet, words]. */
export function batchState({ status, failed_uploads }) {
  if (status === "completed" && failed_uploads) return ["mixed", "Done, with failures"];
  return {
    pending: ["waiting", "Waiting"],
    processing: ["running", "Running"],
    completed: ["done", "Done"],
    failed: ["failed", "Failed"],
    cancelled: ["cancelled", "Cancelled"],
  }[status] ?? ["waiting", status];
}

export const counters = (batch) =>
  `${numbers.format(batch.successful_uploads)} done, ${numbers.format(batch.failed_uploads)} failed,` +
  ` ${numbers.format(batch.total_uploads)} in all`;

/** How long a batch will take yet, or has taken. */
export function timing({ status, seconds_to_finish, started_at, completed_at }) {
  if (status === "processing") {
    return seconds_to_finish == null ? "Time left not known yet" : `About ${duration(seconds_to_finish)} left`;
  }
  if (!started_at || !completed_at) return "";
  return `Took ${duration((new Date(completed_at) - new Date(started_at)) / 1000)}`;
}

const STAGES = {
  queued: "Waiting for its turn",
  extracting_frames: "Reading the file",
  vision_analysis: "Looking at it",
  description_audit: "Checking the description",
  embedding_generation: "Making it searchable",
  indexing: "Storing the result",
  completed: "Done",
  failed: "Failed",
};

export const stage = (name) => STAGES[name] ?? name;

/** An upload's state: [kind for the style sheet, words]. */
export function uploadState({ stage: name, progress_percent }, batchHasEnded) {
  if (name === "completed") return ["done", STAGES.completed];
  if (name === "failed") return ["failed", STAGES.failed];
  if (batchHasEnded) return ["cancelled", "Not processed"];
  if (name === "queued") return ["waiting", STAGES.queued];
  return ["running", `${stage(name)}, ${percent(progress_percent)}`];
}

export const CONNECTION = {
  connecting: "Connecting …",
  live: "Live",
  reconnecting: "Reconnecting …",
};
