// Keeps the figures of a page fresh: fetches the page again and takes over what has changed.
"use strict";

(() => {
  const LIVE = ["live", "made"];
  // Times the usual wait after a failure; a server that restarts is not hammered.
  const PATIENCE = 4;
  let seconds = Number(document.body.dataset.live);
  const button = document.getElementById("pause");
  let paused = false;
  let timer = 0;

  document.documentElement.classList.add("scripted");
  if (!seconds) return;

  // What an element is known by among its siblings: its id, or its kind.
  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.id) || node.nodeName;

  // Makes `old` look like `fresh` and keeps the nodes that stay, so that focus and selection do too.
  function morph(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    morphChildren(old, fresh);
  }

  function morphChildren(old, fresh) {
    const kept = new Map();
    for (const child of old.childNodes) {
      const key = keyOf(child);
      if (!kept.has(key)) kept.set(key, []);
      kept.get(key).push(child);
    }
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const match = kept.get(keyOf(child))?.shift();
      if (!match) {
        old.insertBefore(child, place);
        continue;
      }
      morph(match, child);
      if (match === place) place = place.nextSibling;
      else old.insertBefore(match, place);
    }
    for (const left of kept.values()) left.forEach((node) => node.remove());
  }

  function say(text, link) {
    const made = document.getElementById("made");
    made.textContent = text;
    if (!link) return;
    const anchor = document.createElement("a");
    anchor.href = link;
    anchor.textContent = "Log in again";
    made.append(" ", anchor, ".");
  }

  async function refresh() {
    let wait = seconds;
    try {
      const answer = await fetch(location.href, { headers: { "x-console-refresh": "1" }, cache: "no-store" });
      if (answer.status === 401) {
        say("The session has ended.", location.href);
        return;
      }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (paused) return;
      wait = seconds = Number(page.body.dataset.live) || seconds;
      for (const id of LIVE) {
        const old = document.getElementById(id);
        const fresh = page.getElementById(id);
        if (old && fresh) morph(old, fresh);
      }
    } catch {
      // The next try may find the server again; until then the page says how old it is.
      wait = seconds * PATIENCE;
    }
    plan(wait);
  }

  function plan(wait) {
    clearTimeout(timer);
    if (!paused) timer = setTimeout(() => (document.hidden ? plan(seconds) : refresh()), wait * 1000);
  }

  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    plan(0);
  });
  plan(seconds);
})();
