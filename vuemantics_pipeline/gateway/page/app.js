// Where the page begins: who is signed in, and what connects the socket with the list.

import { api } from "./api.js";
import { Batches } from "./batches.js";
import { say } from "./dom.js";
import { LiveSocket } from "./socket.js";
import { CONNECTION } from "./words.js";

const RETRY = 5000; // milliseconds
const BATCH_ID = /^#([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;
// What the gateway leads on to after a link that did not sign in.
const REFUSED_LINKS = {
  "#refused": "The link's token has expired or is not valid. Paste another one.",
  "#unavailable": "The gateway could not check the link's token. Follow the link again.",
};

const $ = (id) => document.getElementById(id);
const [problemText, dismiss] = $("problem").children;

const batches = new Batches({
  send: (message) => socket.send(message),
  fail,
  announce: (text) => ($("news").textContent = text),
  confirmCancel,
});
const socket = new LiveSocket({
  onState(state) {
    say($("connection"), CONNECTION[state]);
    $("connection").dataset.state = state;
    if (state === "live") batches.catchUp().catch(() => {});
  },
  onMessage: (message) => batches.hear(message),
  onRefused: () => leave("Your session has ended."),
});
let isSignedIn = false;

api.onSignedOut = () => isSignedIn && leave("Your session has ended.");
$("sign-in").addEventListener("submit", signIn);
$("sign-out").addEventListener("click", signOut);
dismiss.addEventListener("click", () => tell(null));
addEventListener("hashchange", openLinked);
start();

async function start() {
  const refused = REFUSED_LINKS[location.hash];
  if (refused) history.replaceState(null, "", "/");
  try {
    await api.session();
  } catch (problem) {
    if (problem.status === 401) {
      leave(refused);
    } else {
      fail(problem);
      setTimeout(start, RETRY);
    }
    return;
  }
  await enter();
}

async function signIn(event) {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  const button = event.submitter;
  button.disabled = true;
  try {
    await api.signIn(token);
    await enter();
  } catch (problem) {
    tell(problem.message);
  }
  button.disabled = false;
}

async function signOut() {
  try {
    await api.signOut();
    history.replaceState(null, "", "/");
    leave();
  } catch (problem) {
    fail(problem);
  }
}

async function enter() {
  isSignedIn = true;
  tell(null);
  show();
  try {
    await batches.load();
    await openLinked();
  } catch (problem) {
    fail(problem);
  }
  if (isSignedIn) socket.open();
}

/** Show nothing of whoever was signed in. */
function leave(why) {
  isSignedIn = false;
  socket.close();
  batches.clear();
  $("news").textContent = "";
  say($("connection"), "");
  tell(why);
  show();
  $("token").focus();
}

function show() {
  $("sign-in").hidden = isSignedIn;
  $("batches").hidden = $("sign-out").hidden = !isSignedIn;
}

async function openLinked() {
  const [, batchId] = BATCH_ID.exec(location.hash) ?? [];
  if (isSignedIn && batchId) await batches.open(batchId).catch(fail);
}

/** Tell what went wrong; an end of the session tells itself. */
function fail(problem) {
  if (problem.status !== 401) tell(problem.message);
}

function tell(text) {
  say(problemText, text);
  $("problem").hidden = !text;
}

/** Ask whether a batch is really to be cancelled. */
function confirmCancel() {
  const dialog = $("cancel-dialog");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "cancel");
  });
}

$("keep-running").addEventListener("click", () => $("cancel-dialog").close());
$("confirm-cancel").addEventListener("click", () => $("cancel-dialog").close("cancel"));
