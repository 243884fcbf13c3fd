// The gateway's HTTP API. The session is a cookie that no script can read.

/** A request that was refused or not answered; the message is for people. */
export class Problem extends Error {
  constructor(status, { title, detail, remedy } = {}) {
    super([detail ?? title, remedy].filter(Boolean).join(" ") || `The gateway answered ${status}.`);
    this.status = status;
  }
}

async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(20_000),
    });
  } catch {
    throw new Problem(0, {
      detail: "The gateway does not answer.",
      remedy: "Try again once the connection is back.",
    });
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  if (answer.status === 401) api.onSignedOut();
  throw new Problem(answer.status, content);
}

const page = (path, parameters) =>
  ask("GET", `${path}?${new URLSearchParams(parameters.filter(([, value]) => value))}`);

export const api = {
  /** Called when the gateway no longer knows who is asking. */
  onSignedOut() {},

  session: () => ask("GET", "/session"),
  signIn: (token) => ask("POST", "/session", { token }),
  signOut: () => ask("DELETE", "/session"),

  batches: ({ limit, after }) => page("/batches", [["limit", limit], ["after", after]]),
  batch: (id) => ask("GET", `/batches/${id}`),
  uploads: (id, { limit, after, outcome }) =>
    page(`/batches/${id}/uploads`, [["limit", limit], ["after", after], ["outcome", outcome]]),
  cancel: (id) => ask("POST", `/batches/${id}/cancel`),
  retryFailed: (id) => ask("POST", `/batches/${id}/retry`, { scope: "failed" }),
};
