// What the views need of the document.

/** A copy of a template of index.html: its root, and its parts by the names in data-part. */
export function copy(id) {
  const root = document.getElementById(id).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return { root, ...parts };
}

/** Set an element's text, never as HTML; without text the element is hidden. */
export function say(element, text) {
  if (element.textContent !== (text ?? "")) element.textContent = text ?? "";
  element.hidden = !text;
}

const waiting = new Set();

/** Have a view rendered with the next frame, once, however often it is asked for. */
export function renderSoon(view) {
  if (waiting.size === 0) requestAnimationFrame(renderAll);
  waiting.add(view);
}

function renderAll() {
  const views = [...waiting];
  waiting.clear();
  for (const view of views) view.render();
}
