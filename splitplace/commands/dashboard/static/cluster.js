import { el, svg, percent, ms, number, megabytes, taskLink } from "./dom.js";
import { T } from "./texts.js";

export function clusterPage({ cluster, tasks }, chosen) {
  const placed = tasks.filter((task) => task.nodes.length);
  const task = placed.find((each) => each.task === chosen) ?? placed[0];
  return [
    el("h1", {}, T.pages.cluster),
    cluster.length === 0 ? el("p", {}, T.cluster.none) : keptMap(cluster, task),
    task ? el("p", {}, T.cluster.path(""), taskLink(task.task, task.name), `: ${task.nodes.join(" → ")}`) : null,
    placed.length ? choice([...new Set([...placed.slice(0, 50), task])], task) : null,
    nodeList(cluster),
  ].filter(Boolean);
}

// Cards and the map are kept, and only texts that differ are written: a hundred nodes change every second.
const cards = new Map();

function nodeCard(node) {
  const shape = `${node.online} ${Boolean(node.trouble)}`;
  let card = cards.get(node.node);
  if (card?.shape !== shape) {
    const bar = el("progress", { max: 1, value: 0, "aria-label": `${T.cluster.memory}, ${node.node}` });
    const fields = [el("div", { class: node.online ? "well" : "broken" }), el("div", { class: "strained" }), ...Array.from({ length: 6 }, () => el("div", { class: "quiet" }))];
    const root = el("article", { class: `card${node.online ? "" : " gone"}`, "data-node": node.node }, el("h2", {}, node.node), fields.slice(0, 3), bar, fields.slice(3));
    card = { shape, root, bar, fields, texts: [] };
    cards.set(node.node, card);
  }
  const used = node.memory_budget_bytes ? Math.min((node.loaded_bytes ?? 0) / node.memory_budget_bytes, 1) : 0;
  if (card.used !== used) card.bar.value = card.used = used;
  texts(node).forEach((text, i) => {
    if (card.texts[i] !== text) card.fields[i].textContent = card.texts[i] = text;
  });
  return card.root;
}

function texts(node) {
  const link = node.up_megabytes_per_second === null && node.down_megabytes_per_second === null ? T.none
    : `${number(node.up_megabytes_per_second, 1)} / ${number(node.down_megabytes_per_second, 1)} MB/s, ${ms(node.round_trip_ms)}`;
  return [
    node.online ? T.cluster.online : T.cluster.gone(node.gone_s),
    node.trouble,
    `${T.cluster.memory}: ${megabytes(node.loaded_bytes)} / ${megabytes(node.memory_budget_bytes)}`,
    `${T.cluster.cpu} ${percent(node.cpu_ratio)}${node.temperature_celsius === null ? "" : `, ${number(node.temperature_celsius)} °C`}${node.throttled ? `, ${T.cluster.throttled}` : ""}`,
    `${T.cluster.speed} ${number(node.score, 1)} GFLOP/s × ${node.threads ?? "–"}`,
    `${T.cluster.queue} ${node.queue_length ?? "–"} (${ms(node.queue_ms)})`,
    `${T.cluster.link} ${link}`,
    `${T.cluster.holds}: ${node.holds.join(", ") || T.cluster.nothing}${node.loading ? `; ${T.cluster.loading(node.loading)}` : ""}`,
  ];
}

let list = null, listed = "", drawn = null, drawnOf = "", choose = null;

function choice(placed, task) {
  choose ??= el("select", { id: "path-of", onchange: (event) => { location.hash = `#/cluster/${encodeURIComponent(event.target.value)}`; } });
  if (document.activeElement !== choose) { // not under somebody's hands
    placed.forEach((each, i) => {
      const option = choose.options[i] ?? choose.appendChild(el("option")), text = `${each.name} (${each.outcome})`;
      if (option.value !== each.task) option.value = each.task;
      if (option.text !== text) option.text = text;
    });
    choose.length = placed.length;
    choose.value = task.task;
  }
  return choose.parentElement ?? el("label", {}, T.cluster.choose, choose);
}

function nodeList(cluster) {
  const names = JSON.stringify(cluster.map((node) => node.node)), roots = cluster.map(nodeCard);
  if (!list || listed !== names) {
    for (const name of cards.keys()) if (!cluster.some((node) => node.node === name)) cards.delete(name);
    list = el("div", { class: "cards", id: "nodes" });
    listed = names;
  }
  roots.forEach((root, i) => { if (list.childNodes[i] !== root) list.insertBefore(root, list.childNodes[i] ?? null); });
  while (list.childNodes.length > roots.length) list.lastChild.remove();
  return list;
}

function keptMap(cluster, task) {
  const of = JSON.stringify(cluster.map((node) => [node.node, node.online]));
  if (drawnOf !== of) [drawn, drawnOf] = [map(cluster), of];
  follow(drawn, task ? task.nodes.filter((name) => drawn.places.has(name)) : []);
  return drawn.root;
}

// The map is kept; only the path through it is drawn anew.
function follow({ path, places, rects, middle }, stops) {
  path.setAttribute("d", stops.length ? `M${[middle, ...stops.map((name) => places.get(name)), middle].join("L")}` : "");
  for (const [name, rect] of rects) rect.classList.toggle("part", stops.includes(name));
}

function map(cluster) {
  const height = Math.min(600, 220 + 12 * cluster.length), cx = 400, cy = height / 2, places = new Map();
  cluster.forEach((node, i) => {
    const angle = (2 * Math.PI * i) / cluster.length - Math.PI / 2;
    places.set(node.node, [cx + 300 * Math.cos(angle), cy + (cy - 40) * Math.sin(angle)]);
  });
  const path = svg("path", { class: "path" }), rects = new Map();
  const root = svg("svg", { viewBox: `0 0 800 ${height}`, role: "img", "aria-label": T.cluster.map, id: "map" }, path,
    svg("circle", { class: "node", cx, cy, r: 24 }), svg("text", { x: cx, y: cy + 4, "text-anchor": "middle" }, T.cluster.broker),
    cluster.map((node) => {
      const [x, y] = places.get(node.node);
      rects.set(node.node, svg("rect", { class: `node${node.online ? "" : " gone"}`, x: x - 55, y: y - 16, width: 110, height: 32, rx: 6 }));
      return svg("g", {}, rects.get(node.node),
        svg("text", { x, y: y + 4, "text-anchor": "middle" }, node.node.length > 15 ? `${node.node.slice(0, 14)}…` : node.node), svg("title", {}, node.node));
    }));
  return { root, path, places, rects, middle: [cx, cy] };
}
