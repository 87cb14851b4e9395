// Shows GET /api/v1/status and keeps it fresh by asking again every second.
// Text reaches the page only as text nodes, so no name can become markup.

const EVERY_MS = 1000;
const STALE_MS = 3500;
let lastAnswer = 0;

const element = (name, text, children = []) => {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
};
const percent = (share) => share === null ? "–" : `${(share * 100).toFixed(2)} %`;
const count = (number) => number.toLocaleString("en");
const millis = (number) => number === null ? "–" : `${number.toFixed(number < 10 ? 2 : 1)} ms`;
const odds = (number) => `${number < 100 ? number.toFixed(1) : count(Math.round(number))} : 1`;

function facts(rollout) {
  const stage = rollout.stages === 0 ? "no plan" : `${rollout.stage} of ${rollout.stages}`;
  const rows = {
    "Phase": rollout.phase.replace("_", " "),
    "Stage": stage,
    "Weight set": percent(rollout.weight),
    "Weight, last 60 s": percent(rollout.weight_actual),
    "Verdict": rollout.verdict,
    "Evidence against it": odds(rollout.evidence),
    "Since": new Date(rollout.since).toLocaleString(),
  };
  return element("dl", null, Object.entries(rows).map(([name, text]) =>
    element("div", null, [element("dt", name), element("dd", text)])));
}

function table(route) {
  const names = ["arm", "requests", "errors", "p50", "p95", "p99", "p99.9"];
  const heads = names.map((name) => Object.assign(element("th", name), { scope: "col" }));
  const rows = route.arms.map((arm) => element("tr", null, [
    Object.assign(element("th", arm.arm), { scope: "row" }),
    element("td", count(arm.requests)),
    element("td", count(arm.errors)),
    ...[arm.p50_ms, arm.p95_ms, arm.p99_ms, arm.p999_ms].map((ms) => element("td", millis(ms))),
  ]));
  const made = element("table", null, [
    element("caption", `Route ${route.route}: counts since the rollout began, latency of the last 60 s`),
    element("thead", null, [element("tr", null, heads)]),
    element("tbody", null, rows),
  ]);
  return Object.assign(element("div", null, [made]), { className: "scroll" });
}

function card(rollout) {
  const title = `${rollout.service} / ${rollout.canary} ${rollout.version}`;
  return element("article", null, [
    element("h2", title),
    element("p", rollout.reason),
    facts(rollout),
    ...rollout.routes.map(table),
  ]);
}

function show(status) {
  const cards = status.rollouts.map(card);
  const empty = element("p", "No service has a canary: all traffic goes to the baselines.");
  document.getElementById("rollouts").replaceChildren(...(cards.length ? cards : [empty]));
}

function say(text, stale) {
  const live = document.getElementById("live");
  if (live.textContent !== text) live.textContent = text;
  live.className = stale ? "stale" : "";
  document.body.classList.toggle("stale", stale);
}

async function refresh() {
  try {
    const answer = await fetch("/api/v1/status", { signal: AbortSignal.timeout(STALE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    lastAnswer = Date.now();
    say("live", false);
  } catch {
    const since = lastAnswer === 0 ? "" : `, numbers are from ${new Date(lastAnswer).toLocaleTimeString()}`;
    say(`The proxy does not answer${since}. Trying again.`, true);
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
