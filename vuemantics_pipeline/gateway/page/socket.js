// The WebSocket that tells what moves. It comes back by itself, whoever went away.

const INVALID_TOKEN = 4003;
const SHORTEST_WAIT = 500; // milliseconds, all of these
const LONGEST_WAIT = 30_000;
const SIGN_IN = 10_000;
const SILENCE = 75_000; // the gateway pings every 30 s
const STEADY = 10_000;

export class LiveSocket {
  #socket = null;
  #isWanted = false;
  #tries = 0;
  #wait = 0;
  #watch = 0;
  #handlers;

  /**
   * @param handlers onState("connecting" | "live" | "reconnecting"), onMessage(message), and
   *   onRefused() when the session does not hold any more.
   */
  constructor(handlers) {
    this.#handlers = handlers;
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  open() {
    this.#isWanted = true;
    this.#tries = 0;
    this.#handlers.onState("connecting");
    this.#connect();
  }

  close() {
    this.#isWanted = false;
    this.#drop();
  }

  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #connect() {
    this.#drop();
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws/uploads`);
    this.#socket = socket;
    this.#expect(SIGN_IN);
    socket.onopen = () => this.send({ type: "auth" });
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => this.#lost(code);
  }

  #drop() {
    clearTimeout(this.#wait);
    clearTimeout(this.#watch);
    if (this.#socket === null) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #hear(message) {
    this.#expect(SILENCE);
    if (message.action === "ping") this.send({ action: "pong" });
    else if (message.action === "auth_success") {
      this.#wait = setTimeout(() => (this.#tries = 0), STEADY);
      this.#handlers.onState("live");
    } else this.#handlers.onMessage(message);
  }

  /** A connection that says nothing for so long is dead, even if nobody has closed it. */
  #expect(milliseconds) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#lost(), milliseconds);
  }

  #lost(code) {
    this.#drop();
    if (code === INVALID_TOKEN) {
      this.#isWanted = false;
      this.#handlers.onRefused();
      return;
    }
    this.#handlers.onState("reconnecting");
    const wait = Math.min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** this.#tries);
    this.#tries += 1;
    // Jitter: a gateway that comes back is not asked by everybody at once.
    this.#wait = setTimeout(() => this.#connect(), wait * (0.5 + Math.random() / 2));
  }

  /** The machine woke up or is online again: no need to wait any longer. */
  #hurry() {
    if (this.#isWanted && this.#socket?.readyState !== WebSocket.OPEN) this.#connect();
  }
}
