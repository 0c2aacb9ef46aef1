import { el, percent, ms, table, get } from "./dom.js";
import { T } from "./texts.js";

export async function whatIfPage() {
  const cluster = await get("/api/cluster");
  const select = (id, label, options) => el("label", {}, label, el("select", { id, name: id }, options.map(([value, text]) => el("option", { value }, text))));
  const result = el("div", { id: "result", role: "status" });
  const ask = async (event) => {
    event.preventDefault();
    const given = new URLSearchParams([...new FormData(event.target)].filter(([, value]) => value));
    result.replaceChildren(T.whatif.asking);
    try { result.replaceChildren(...shown(await get(`/api/what-if?${given}`))); }
    catch (error) { result.replaceChildren(el("p", { class: "strained" }, error.message)); }
  };
  const online = cluster.filter((node) => node.online).map((node) => [node.node, node.node]);
  return [el("h1", {}, T.pages.whatif), el("p", { class: "quiet" }, T.whatif.intro),
    el("form", { onsubmit: ask },
      select("remove", T.whatif.remove, [["", T.whatif.none], ...online]),
      select("add", T.whatif.add, [["", T.whatif.none], ...T.whatif.kinds.map((kind) => [kind, kind])]),
      select("policy", T.whatif.policy, [["", T.whatif.same], ...T.whatif.policies.map((name) => [name, name])]),
      el("label", {}, T.whatif.deadline, el("input", { type: "number", id: "deadline_ms", name: "deadline_ms", min: 1, placeholder: T.whatif.same })),
      el("button", {}, T.whatif.ask)), result];
}

const span = (figure, say) => (figure === null ? T.none : `${say(figure.value)} (${say(figure.low)} – ${say(figure.high)})`);
const shares = (decisions) => decisions.map(([name, share]) => `${name} ${percent(share)}`).join(", ");

function shown(found) {
  const { unchanged: before, changed: after } = found;
  return [el("h2", {}, T.whatif.result), el("p", { class: "big", id: "verdict" }, found.sentence),
    table(T.whatif.result, [[T.whatif.figure], [T.whatif.before], [T.whatif.after]], [
      { cells: [T.whatif.hit, span(before.hit_rate, percent), span(after.hit_rate, percent)] },
      { cells: [T.whatif.p50, span(before.p50_ms, ms), span(after.p50_ms, ms)] },
      { cells: [T.whatif.p95, span(before.p95_ms, ms), span(after.p95_ms, ms)] },
      { cells: [T.whatif.decisions, shares(before.decisions), shares(after.decisions)] },
      { cells: [T.whatif.nodes, before.nodes, after.nodes] }]),
    el("p", { class: "quiet" }, T.whatif.basis(found))];
}
