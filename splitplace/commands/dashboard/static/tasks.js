import { el, svg, percent, ms, number, table, tableRow, taskLink, get } from "./dom.js";
import { T } from "./texts.js";

const SHOWN = 50;
const rowsOf = new WeakMap();

// A row is made once for each state of a task.
function keptRow(task, make) {
  if (!rowsOf.has(task)) rowsOf.set(task, tableRow(make(), [false, false, false, false, false, true, true, true]));
  return rowsOf.get(task);
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
    rows.length === 0 ? el("p", {}, T.tasks.empty) : table(T.tasks.list,
      [[T.tasks.task], [T.tasks.application], [T.tasks.outcome], [T.tasks.variant], [T.tasks.nodes], [T.tasks.response, true], [T.tasks.deadline, true], [T.tasks.predicted, true]],
      rows.slice(0, SHOWN).map((task) => keptRow(task, () => ({ cells: [taskLink(task.task, task.name), task.application, el("span", { class: shade(task.outcome) }, task.outcome), task.variant, task.nodes.join(" → "), ms(task.response_ms), ms(task.deadline_ms), ms(task.predicted_ms)] })))),
  ];
}

const shade = (outcome) => (outcome === "on time" ? "well" : outcome === "open" ? "" : outcome === "late" ? "strained" : "broken");

export async function taskPage(id) {
  const back = el("p", {}, el("a", { href: "#/tasks" }, T.tasks.back));
  let task;
  try { task = await get(`/api/tasks/${encodeURIComponent(id)}`); } catch (error) { return [el("h1", {}, T.pages.tasks), back, el("p", {}, error.message)]; }
  const { row } = task;
  return [
    el("h1", {}, row.name), back,
    el("p", {}, el("span", { class: shade(row.outcome) }, row.outcome), ` · ${row.application} · ${row.sensor} · `, el("a", { href: `#/cluster/${encodeURIComponent(row.task)}` }, T.tasks.seePath)),
    el("h2", {}, T.tasks.why), el("p", { id: "why" }, task.why),
    task.bars.length ? [el("h2", {}, T.tasks.timeline), timeline(task), legend()] : [],
    task.attempts.map((attempt) => [
      el("h2", {}, T.tasks.attempt(attempt.number)),
      el("p", {}, [attempt.reason, attempt.placement].filter(Boolean).join(" · ")),
      attempt.stages.length ? el("p", { class: "quiet" }, `${T.tasks.stages}: ${attempt.stages.map(([stage, node]) => `${stage} on ${node}`).join(", ")}`) : null,
      attempt.failures.length ? el("ul", { class: "broken" }, attempt.failures.map((text) => el("li", {}, text))) : null,
      attempt.alternatives.length ? table(T.tasks.alternatives, [[T.tasks.variant], [T.tasks.predicted, true], [T.tasks.accuracy, true], [T.tasks.score, true], [T.tasks.note]],
        attempt.alternatives.map((each) => ({ chosen: each.variant === attempt.variant, cells: [each.variant, ms(each.predicted_ms), percent(each.accuracy), number(each.score, 3), each.note] }))) : null,
    ]),
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
