import { el, svg, percent, ms, number, table, get } from "./dom.js";
import { otherDeadlines } from "./others.js";
import { T } from "./texts.js";

const SHOWN = 50;
const HEADINGS = [[T.tasks.task], [T.tasks.application], [T.tasks.outcome], [T.tasks.variant], [T.tasks.nodes], [T.tasks.response, true], [T.tasks.deadline, true], [T.tasks.predicted, true]];
let list = null, shown = [];

// The list is kept, and a row whose task is no longer shown is written anew: fifty tasks a second may come.
function taskList(tasks) {
  list ??= table(T.tasks.list, HEADINGS, []);
  const body = list.querySelector("tbody"), wanted = new Set(tasks.map((task) => task.task));
  const rowOf = new Map(shown.filter((row) => wanted.has(row.task)).map((row) => [row.task, row]));
  const free = shown.filter((row) => !wanted.has(row.task) && !row.root.contains(document.activeElement));
  shown = tasks.map((task) => write(rowOf.get(task.task) ?? free.shift() ?? emptyRow(), task));
  shown.forEach(({ root }, i) => { if (body.childNodes[i] !== root) body.insertBefore(root, body.childNodes[i] ?? null); });
  while (body.childNodes.length > shown.length) body.lastChild.remove();
  return list;
}

function emptyRow() {
  const link = el("a"), outcome = el("span"), cells = HEADINGS.map(([, number]) => el("td", { class: number ? "number" : null }));
  cells[0].append(link);
  cells[2].append(outcome);
  return { root: el("tr", {}, cells), fields: [link, cells[1], outcome, ...cells.slice(3)], texts: [] };
}

function write(row, task) {
  if (row.task !== task.task) row.fields[0].href = `#/tasks/${encodeURIComponent(task.task)}`;
  row.task = task.task;
  const texts = [task.name, task.application, task.outcome, task.variant ?? T.none, task.nodes.join(" → "), ms(task.response_ms), ms(task.deadline_ms), ms(task.predicted_ms)];
  texts.forEach((text, i) => { if (row.texts[i] !== text) row.fields[i].textContent = text; });
  if (row.texts[2] !== task.outcome) row.fields[2].className = shade(task.outcome);
  row.texts = texts;
  return row;
}

const filters = { outcome: "", sensor: "", application: "", order: "" };

export function tasksPage({ tasks }, redraw) {
  const values = (key) => [...new Set(tasks.map((task) => task[key]))].sort();
  const select = (key, label, options) => el("label", {}, label, el("select", { id: `filter-${key}`, onchange: (event) => { filters[key] = event.target.value; redraw(); } },
    options.map(([value, text]) => el("option", { value, selected: filters[key] === value }, text))));
  const all = [["", T.tasks.all]];
  let rows = tasks.filter((task) => ["outcome", "sensor", "application"].every((key) => !filters[key] || task[key] === filters[key]));
  if (filters.order) rows = [...rows].sort((a, b) => (b.response_ms ?? 0) - (a.response_ms ?? 0));
  return [
    el("h1", {}, T.pages.tasks),
    el("form", { onsubmit: (event) => event.preventDefault() },
      select("outcome", T.tasks.outcome, all.concat(T.tasks.outcomes.map((each) => [each, each]))),
      select("sensor", T.tasks.sensor, all.concat(values("sensor").map((each) => [each, each]))),
      select("application", T.tasks.application, all.concat(values("application").map((each) => [each, each]))),
      select("order", T.tasks.order, [["", T.tasks.newest], ["slowest", T.tasks.slowest]])),
    rows.length === 0 ? el("p", {}, tasks.length ? T.tasks.noMatch : T.tasks.empty) : taskList(rows.slice(0, SHOWN)),
  ];
}

const shade = (outcome) => (outcome === "on time" ? "well" : outcome === "open" ? "" : outcome === "late" ? "strained" : "broken");

export async function taskPage(id) {
  const back = el("p", {}, el("a", { href: "#/tasks" }, T.tasks.back));
  let task;
  try { task = await get(`/api/tasks/${encodeURIComponent(id)}`); } catch (error) { return [el("h1", {}, T.pages.tasks), back, el("p", {}, error.message)]; }
  const { row } = task;
  const others = await get(`/api/tasks/${encodeURIComponent(id)}/other-deadlines`).catch(() => []);
  return [
    el("h1", {}, row.name), back,
    el("p", {}, el("span", { class: shade(row.outcome) }, row.outcome), ` · ${row.application} · ${row.sensor} · `, el("a", { href: `#/cluster/${encodeURIComponent(row.task)}` }, T.tasks.seePath)),
    el("h2", {}, T.tasks.why), el("p", { id: "why" }, task.why),
    task.picture ? [el("h2", {}, T.tasks.picture), el("img", { class: "found", alt: T.tasks.picture, src: `/api/tasks/${encodeURIComponent(row.task)}/picture` })] : [],
    task.bars.length ? [el("h2", {}, T.tasks.timeline), timeline(task), legend()] : [],
    task.attempts.map((attempt) => [
      el("h2", {}, T.tasks.attempt(attempt.number)),
      el("p", {}, [attempt.reason, attempt.placement].filter(Boolean).join(" · ")),
      attempt.stages.length ? el("p", { class: "quiet" }, `${T.tasks.stages}: ${attempt.stages.map(([stage, node]) => `${stage} on ${node}`).join(", ")}`) : null,
      attempt.failures.length ? el("ul", { class: "broken" }, attempt.failures.map((text) => el("li", {}, text))) : null,
      attempt.alternatives.length ? table(T.tasks.alternatives, [[T.tasks.variant], [T.tasks.predicted, true], [T.tasks.accuracy, true], [T.tasks.score, true], [T.tasks.note]],
        attempt.alternatives.map((each) => ({ chosen: each.variant === attempt.variant, cells: [each.variant, ms(each.predicted_ms), percent(each.accuracy), number(each.score, 3), each.note] }))) : null,
    ]),
    others.length ? otherDeadlines(others) : null,
  ].flat(2).filter(Boolean);
}

const legend = () => el("p", { class: "quiet" }, `${T.tasks.bars}.`);

function timeline({ row, bars }) {
  const nodes = [...new Set(bars.map((bar) => bar.node))];
  const last = Math.max(...bars.map((bar) => bar.start_ms + bar.wait_ms + bar.compute_ms));
  const end = Math.max(row.response_ms ?? 0, row.deadline_ms ?? 0, last) * 1.03 || 1;
  const x = (value) => 160 + (620 * value) / end, width = (value) => Math.max((620 * value) / end, value > 0 ? 1 : 0), height = 34 * (nodes.length + 1) + 24;
  const rect = (kind, start, length, y, text) => svg("rect", { class: kind, x: x(start), y, width: width(length), height: 20 }, svg("title", {}, text));
  return svg("svg", { viewBox: `0 0 800 ${height}`, role: "img", "aria-label": T.tasks.bars, id: "timeline" },
    nodes.map((node, i) => svg("text", { x: 0, y: 34 * i + 24 }, node.length > 16 ? `${node.slice(0, 15)}…` : node)),
    bars.map((bar) => {
      const y = 34 * nodes.indexOf(bar.node) + 10;
      return svg("g", {}, rect("wait", bar.start_ms, bar.wait_ms, y, `${bar.stage}: ${T.tasks.wait} ${ms(bar.wait_ms)}`),
        rect("compute", bar.start_ms + bar.wait_ms, bar.compute_ms, y, `${bar.stage}: ${T.tasks.compute} ${ms(bar.compute_ms)}`));
    }),
    row.response_ms > last ? svg("g", {}, svg("text", { x: 0, y: 34 * nodes.length + 24 }, T.tasks.send), rect("send", last, row.response_ms - last, 34 * nodes.length + 10, `${T.tasks.send} ${ms(row.response_ms - last)}`)) : null,
    svg("line", { class: "deadline", x1: x(row.deadline_ms), x2: x(row.deadline_ms), y1: 0, y2: height - 16 }),
    svg("text", { x: x(row.deadline_ms) - 4, y: height - 2, "text-anchor": "end" }, `${T.tasks.deadline} ${ms(row.deadline_ms)}`));
}
