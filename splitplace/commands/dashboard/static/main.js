import { el } from "./dom.js";
import { T } from "./texts.js";
import { nowPage } from "./now.js";
import { clusterPage } from "./cluster.js";
import { tasksPage, taskPage } from "./tasks.js";
import { decisionsPage } from "./decisions.js";
import { networksPage, sensorsPage, tryPage } from "./others.js";
import { whatIfPage } from "./whatif.js";

const MAX_TASKS = 200, SLOW_PAGE_MS = 5000, KEPT_MEASURES = 1000;
const data = { now: null, cluster: [], tasks: [] };
const main = document.getElementById("page"), light = document.getElementById("light");
const live = { now: () => nowPage(data), cluster: (id) => clusterPage(data, id), tasks: () => tasksPage(data, () => draw(true)) };
const asked = { decisions: decisionsPage, networks: networksPage, sensors: sensorsPage };
const forms = { try: tryPage, whatif: whatIfPage };
let timer = null, updates = 0;

function where() {
  const [page, id] = location.hash.replace(/^#\//, "").split("/");
  return { page: T.pages[page] ? page : "now", id: id ? decodeURIComponent(id) : null };
}

// Only what differs is exchanged: what did not change keeps its layout, the keyboard and the selection.
function patch(parent, children) {
  children.forEach((child, i) => {
    const old = parent.childNodes[i];
    if (!old) parent.append(child);
    else if (old !== child && !old.isEqualNode(child)) old.replaceWith(child);
  });
  while (parent.childNodes.length > children.length) parent.lastChild.remove();
}

// What has the keyboard keeps it when a page is drawn anew.
const keyOf = (element) => element.id || element.getAttribute("href") || element.getAttribute("aria-label");

function show(children, { force = false, scrolled = scrollY, held = document.activeElement } = {}) {
  const inside = held && held !== main && main.contains(held);
  if (!force && inside && ["SELECT", "INPUT"].includes(held.tagName)) return; // not under somebody's hands
  const key = inside ? keyOf(held) : null;
  patch(main, children);
  if (key && !main.contains(document.activeElement)) [...main.querySelectorAll("[id], a, [tabindex], select")].find((each) => keyOf(each) === key)?.focus({ preventScroll: true });
  if (scrolled) scrollTo(0, scrolled);
}

function draw(force = false) {
  const { page, id } = where();
  if (data.now && live[page] && !(page === "tasks" && id)) {
    // Read before anything is written: else the page is laid out twice, and a row that moves loses the keyboard.
    const start = performance.now(), scrolled = scrollY, held = document.activeElement;
    show(live[page](id), { force, scrolled, held });
    if (++updates % KEPT_MEASURES === 0) performance.clearMeasures("update"); // a page may be open for weeks
    performance.measure("update", { start });
  }
}

async function open() {
  clearInterval(timer);
  const { page, id } = where();
  document.title = `${T.pages[page]} – SplitPlace`;
  document.getElementById("pages").replaceChildren(...Object.entries(T.pages).map(([name, text]) =>
    el("a", { href: `#/${name}`, "aria-current": name === page ? "page" : null }, text)));
  const here = location.hash;
  const fill = async () => {
    try {
      const children = page === "tasks" ? await taskPage(id) : forms[page] ? await forms[page]() : await asked[page]();
      if (location.hash === here) show(children);
    } catch (error) { show([el("h1", {}, T.pages[page]), el("p", { class: "broken" }, error.message)]); }
  };
  scrollTo(0, 0);
  if (document.activeElement && main.contains(document.activeElement)) main.focus();
  if (live[page] && !(page === "tasks" && id)) draw();
  else {
    await fill();
    if (asked[page] && location.hash === here) timer = setInterval(fill, SLOW_PAGE_MS);
  }
}

function take(update) {
  data.now = update.now;
  data.cluster = update.cluster;
  const changed = new Map(update.tasks.map((task) => [task.task, task]));
  const kept = data.tasks.map((task) => { const newer = changed.get(task.task); changed.delete(task.task); return newer ?? task; });
  data.tasks = [...changed.values(), ...kept].slice(0, MAX_TASKS);
  say(update.now.health.light, T.light[update.now.health.light]);
  draw();
}

// Written only where it differs: a change here makes the browser lay out the page before it is drawn.
function say(shade, text) {
  if (light.textContent === text) return;
  light.className = `light ${shade}`;
  light.textContent = text;
}

let events = null;

function listen() {
  events?.close();
  const own = events = new EventSource("/api/events");
  events.onmessage = (event) => take(JSON.parse(event.data));
  events.onerror = () => {
    say("broken", T.lost);
    data.tasks = [];
    if (own === events && own.readyState === EventSource.CLOSED && !document.hidden) setTimeout(listen, 2000);
  };
}

document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", open);
// Nothing is computed or sent for a page that nobody sees.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) events?.close();
  else listen();
});
listen();
open();
