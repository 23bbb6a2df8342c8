// The dashboard. Events come over one stream. Each event makes the page read the present state again; while a build
// runs, the page reads it once a second.

import { askEvents, call, eventsOf, Refused } from "/dashboard-link.js";

const EVENTS_KEPT = 200;
const SWITCHES_KEPT = 60;
const BRANCHES_SHOWN = 50;
const DIFFS_SHOWN = 100;
const QUIET_MS = 600000;
const BUSY_MS = 1000;
const IDLE_MS = 5000;
const SOON_MS = 150;
const SILENCE_MS = 40000; // the server sends at least a comment every 15 s
const RETRY_MS = [500, 1000, 2000, 5000, 10000];
const BUSY = new Set(["PREPARING", "BUILDING", "SWITCHING"]);
const SHOWN = new Set([...BUSY, "BUILT", "FAILED"]);
const BOUND = new Set([...SHOWN, "ACTIVE", "ROLLED_BACK"]); // the members of such a group are switched together only
const TONES = { BUILT: "good", ACTIVE: "good", READY: "good", FAILED: "bad", ERROR: "bad", SWITCHING: "warn", LOCKED_FOR_WRITE: "warn" };

const $ = (id) => document.getElementById(id);
const PAGES_MAX = 5;
const state = { branches: [], indexes: [], shadows: [], groups: [], locks: [], waiters: [], events: [], switches: [], last: null };

// -- the present state --------------------------------------------------------------------------------------------

let refreshing = null;
let again = 0;

function refreshSoon(ms = SOON_MS) {
  clearTimeout(again);
  again = setTimeout(refresh, ms);
}

// Every entry of a list that comes by page, up to PAGES_MAX pages.
async function pages(path, name) {
  const first = await call("GET", path);
  let page = first;
  for (let count = 1; page.next_after && count < PAGES_MAX; count++) {
    page = await call("GET", `${path}?after=${encodeURIComponent(page.next_after)}`);
    first[name].push(...page[name]);
  }
  return first;
}

async function refresh() {
  if (refreshing) return;
  try {
    refreshing = Promise.all([
      pages("/branches", "branches"),
      pages("/indexes", "indexes"),
      pages("/shadow-index/list", "shadows"),
      call("GET", "/branch-locks/locks"),
      call("GET", "/branch-locks/waiters"),
      call("GET", "/upkeep"),
      call("GET", "/groups"),
    ]);
    const [branches, indexes, shadows, locks, waiters, daemon, { groups }] = await refreshing;
    Object.assign(state, { branches: branches.branches, indexes: indexes.indexes, shadows: shadows.shadows, groups, locks, waiters });
    trouble(wrong(daemon));
    drawFolders(daemon.mirrors);
    draw();
  } catch (error) {
    if (error instanceof Refused) trouble(error.message);
    if (error.status === 401) askTokenOnce();
  } finally {
    refreshing = null;
    refreshSoon(state.shadows.some((one) => BUSY.has(one.state)) ? BUSY_MS : IDLE_MS);
  }
}

// -- the stream of events -----------------------------------------------------------------------------------------

let stream = null;

async function follow() {
  for (let failures = 0; ; ) {
    stream = new AbortController();
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stream.abort(), SILENCE_MS);
    };
    try {
      link("connecting", "connecting");
      heard();
      if (state.last === null) await firstEvents();
      const answer = await askEvents(state.last, stream.signal);
      link("live", "live");
      failures = 0;
      refreshSoon(0);
      for await (const event of eventsOf(answer.body, heard)) take(event);
    } catch (error) {
      if (error.status === 401) askTokenOnce();
      if (error.status === 410) Object.assign(state, { events: [], switches: [], last: null }); // another data directory
    }
    clearTimeout(silence);
    const pause = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
    link("lost", "connection lost, trying again");
    await new Promise((done) => setTimeout(done, pause));
  }
}

async function firstEvents() {
  const { newest } = await call("GET", "/events?limit=1");
  let after = Math.max(0, newest - 1000);
  for (;;) {
    const page = await call("GET", `/events?after=${after}&limit=1000`);
    page.events.forEach(keep);
    after = page.next_after;
    if (after >= page.newest || !page.events.length) break;
  }
  state.last = after;
  drawEvents();
  drawSwitches();
}

function take(event) {
  if (Number(event.sequence) <= state.last) return;
  state.last = Number(event.sequence);
  keep(event);
  drawEvents();
  if (kind(event) === "switch.finished") drawSwitches();
  refreshSoon();
}

function keep(event) {
  state.events.unshift(event);
  state.events.length = Math.min(state.events.length, EVENTS_KEPT);
  if (kind(event) === "switch.finished") {
    state.switches.push({ ...event.data, time: event.time });
    if (state.switches.length > SWITCHES_KEPT) state.switches.shift();
  }
}

const kind = (event) => event.type.replace("com.shadowswitch.", "");

// -- drawing: elements are kept and changed, so that focus and scroll positions stay -------------------------------

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u034f\u115f\u1160\u2800\u3164\uffa0]/gu;

// a name with invisible characters does not look like another one
function visible(text) {
  return String(text ?? "").replace(HIDDEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
}

function write(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}

function list(container, items, keyOf, create, update) {
  const there = new Map([...container.children].map((element) => [element.dataset.key, element]));
  let place = container.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = there.get(key);
    if (element) there.delete(key);
    else {
      element = create(item);
      element.dataset.key = key;
    }
    if (element === place) place = place.nextElementSibling;
    else container.insertBefore(element, place);
    update(element, item);
  }
  there.forEach((element) => element.remove());
  const empty = container.parentElement.querySelector(".empty");
  if (empty) empty.hidden = items.length > 0;
}

const part = (element, name) => element.querySelector(`[data-part="${name}"]`);

function badge(element, text) {
  write(element, text);
  element.dataset.tone = TONES[text] || "";
}

function draw() {
  drawFigures();
  drawBuilds();
  drawIndexes();
  drawGroups();
  drawLocks();
  drawBranches();
}

function drawFigures() {
  const turns = state.switches.filter((one) => one.success).map((one) => one.sealed_ms).sort((a, b) => a - b);
  const figures = [
    ["Branches", whole(state.branches.length)],
    ["Records", whole(state.branches.reduce((sum, one) => sum + one.record_count, 0))],
    ["Live indexes", whole(state.indexes.length)],
    ["Building", whole(state.shadows.filter((one) => BUSY.has(one.state)).length)],
    ["Locks held", whole(state.locks.length)],
    ["Sealed, median", turns.length ? `${milliseconds(turns[turns.length >> 1])}` : "–"],
  ];
  const create = () => make("div", {}, make("dt"), make("dd"));
  list($("figures"), figures, ([name]) => name, create, (element, [name, value]) => {
    write(element.children[0], name);
    write(element.children[1], value);
  });
}

function card(titles) {
  return make(
    "li", { class: "new" },
    make("div", { class: "head" }, make("h3", {}, titles), make("span", { class: "state", "data-part": "state" })),
    make("p", { class: "facts", "data-part": "facts" }),
    make("p", { class: "error", "data-part": "error", hidden: "" }),
    make("p", { class: "buttons", "data-part": "buttons" }),
  );
}

function buttons(element, wanted) {
  const row = part(element, "buttons");
  list(row, wanted, (one) => one.label, (one) => make("button", { type: "button", "aria-label": one.name }, one.label), (button, one) => {
    button.onclick = one.act;
  });
}

function drawBuilds() {
  const shown = state.shadows.filter((one) => SHOWN.has(one.state)).sort((a, b) => b.created_at.localeCompare(a.created_at));
  const create = (one) => {
    const element = card(`${one.branch_name} · ${one.index_type}`);
    const bar = make("progress", { max: 100, "data-part": "bar", "aria-label": `progress of ${one.index_type} of ${one.branch_name}` });
    element.insertBefore(bar, part(element, "facts"));
    return element;
  };
  list($("builds"), shown, (one) => one.shadow_index_id, create, (element, one) => {
    badge(part(element, "state"), one.state);
    const busy = BUSY.has(one.state);
    part(element, "bar").hidden = !busy;
    part(element, "bar").value = one.build_progress_percent;
    const eta = one.estimated_completion_seconds;
    const facts = [
      one.phase && one.phase.replace("_", " "),
      busy && `${Math.floor(one.build_progress_percent)} %`,
      busy && eta !== null && eta !== undefined && `about ${duration(eta)} left`,
      one.record_count && `${whole(one.record_count)} records`,
      one.seeded_from && `began with generation ${one.seeded_from}`,
      one.lag_changes && `${whole(one.lag_changes)} changes behind`,
      busy && one.priority && `priority ${one.priority}`,
      busy && one.share && one.share < 1 && `${Math.round(one.share * 100)} % of the time`,
      busy && (one.stands_still || one.gives_way),
      one.scheduled_switch && `switch after ${duration(one.scheduled_switch.quiet_for_s)} of quiet, at the latest ${clock(one.scheduled_switch.latest_at)}`,
      one.scheduled_switch && one.scheduled_switch.error && `refused: ${one.scheduled_switch.error}`,
    ];
    write(part(element, "facts"), facts.filter(Boolean).join(" · "));
    const error = one.error ? (one.error.message ?? String(one.error)) : "";
    part(element, "error").hidden = !error;
    write(part(element, "error"), error);
    buttons(element, actionsOf(one));
  });
}

function actionsOf(one) {
  const named = `${one.index_type} of ${one.branch_name}`;
  const path = `/shadow-index/${encodeURIComponent(one.shadow_index_id)}`;
  const found = [];
  if (one.switch_ready) {
    found.push({ label: "Switch", name: `Switch ${named}`, act: () => act("Switch", `Make the new ${named} the live index. The present one is kept for a rollback.`, () => call("POST", `${path}/switch`, {})) });
  }
  if (one.state === "BUILT" && state.indexes.some((live) => live.branch_name === one.branch_name && live.index_type === one.index_type)) {
    found.push({ label: "Compare", name: `Compare the new ${named}`, act: () => compareBoth(named, path) });
  }
  const operate = (label, text, what, body) =>
    found.push({ label, name: `${label} the build of ${named}`, act: () => act(label, text, () => call("POST", `${path}/${what}`, body)) });
  if (!one.external && (one.state === "PREPARING" || one.state === "BUILDING")) {
    if (one.paused_by) operate("Resume", `The build of ${named} goes on as soon as it has a place.`, "resume");
    else operate("Pause", `The build of ${named} stands still until it is resumed, and another one may work meanwhile.`, "pause");
    if (one.share && one.share < 1) operate("Full speed", `The build of ${named} works all the time.`, "throttle", { share: 1 });
    else operate("Slow down", `The build of ${named} works a quarter of the time.`, "throttle", { share: 0.25 });
    const highest = Math.max(0, ...state.shadows.filter((other) => other.queue_position).map((other) => other.priority));
    if (one.queue_position > 1) operate("Put first", `The build of ${named} is the next one to begin.`, "priority", { priority: highest + 1 });
  }
  if (one.scheduled_switch) found.push({ label: "Unschedule", name: `Unschedule the switch of ${named}`, act: () => act("Unschedule", `The switch of ${named} is by hand again.`, () => call("DELETE", `${path}/schedule`)) });
  else if (one.switch_ready || one.state === "PREPARING" || one.state === "BUILDING") operate("Switch when quiet", `The new ${named} becomes the live index after 15 minutes without a change of the branch, at the latest in a day.`, "schedule", {});
  if (one.state === "FAILED") operate("Retry", `The build of ${named} goes on from what it has stored.`, "retry");
  if (one.state !== "SWITCHING") {
    const gone = one.state === "BUILT" || one.state === "FAILED" ? "Discard" : "Cancel";
    found.push({ label: gone, name: `${gone} the build of ${named}`, act: () => act(gone, `End the build of ${named} and remove its files. The live index stays.`, () => call("DELETE", `${path}?reason=dashboard`)) });
  }
  return found;
}

function drawIndexes() {
  list($("indexes"), state.indexes, (one) => `${one.branch_name}/${one.index_type}`, (one) => card(`${one.branch_name} · ${one.index_type}`), (element, one) => {
    badge(part(element, "state"), `generation ${one.generation}`);
    const facts = [
      `${whole(one.record_count)} records`,
      one.lag_changes ? `${whole(one.lag_changes)} changes behind` : "up to date",
      one.pins && `${whole(one.pins)} readers`,
      `since ${clock(one.switched_at)}`,
    ];
    write(part(element, "facts"), facts.filter(Boolean).join(" · "));
    part(element, "error").hidden = !one.error;
    write(part(element, "error"), one.error || "");
    const named = `${one.index_type} of ${one.branch_name}`;
    const text = `Go back to generation ${one.previous_generation} of ${named}. No write since then is lost, and a second rollback goes forward again.`;
    const back = () => act("Roll back", text, () => call("POST", "/indexes/rollback", { branch_name: one.branch_name, index_type: one.index_type }));
    const where = `branch_name=${encodeURIComponent(one.branch_name)}&index_type=${encodeURIComponent(one.index_type)}`;
    const gone = `Remove ${named}, which has ${whole(one.record_count)} records. Searches of it fail from now on. The records stay, and it can be built again.`;
    const drop = () => act("Drop", gone, () => call("DELETE", `/indexes?${where}&reason=dashboard`));
    buttons(element, [
      one.previous_generation && { label: "Roll back", name: `Roll back ${named}`, act: back },
      { label: "Drop", name: `Drop ${named}`, act: drop },
    ].filter(Boolean));
  });
}

function drawGroups() {
  const shown = state.groups.filter((one) => BOUND.has(one.state)).reverse();
  $("group-section").hidden = !shown.length;
  list($("groups"), shown, (one) => one.id, (one) => card(one.name), (element, one) => {
    badge(part(element, "state"), one.state.replace("_", " "));
    write(part(element, "facts"), one.members.map((of) => `${of.branch_name} · ${of.index_type}: ${(of.state ?? "gone").toLowerCase()}`).join(", "));
    part(element, "error").hidden = !one.message;
    write(part(element, "error"), one.message);
    buttons(element, groupActionsOf(one));
  });
}

function groupActionsOf(one) {
  const path = `/groups/${encodeURIComponent(one.id)}`;
  const all = `all ${one.members.length} indexes of group ${one.name}`;
  const found = [];
  const add = (label, text, what) => found.push({ label, name: `${label} group ${one.name}`, act: () => act(label, text, () => call("POST", `${path}/${what}`, {})) });
  if (one.state === "BUILT") add("Switch all", `Make ${all} live in one step, or none of them. The present ones are kept for a rollback.`, "switch");
  if (one.state === "ACTIVE") add("Roll back all", `Go back to the generations before of ${all}, in one step. No write since then is lost.`, "rollback");
  if (one.state === "ROLLED_BACK") add("Go forward again", `Make ${all} live again, in one step. No write since then is lost.`, "rollback");
  if (one.state !== "SWITCHING") add("Dissolve", `Each index of group ${one.name} is switched and rolled back by itself from now on. Nothing else changes.`, "dissolve");
  return found;
}

function row(...names) {
  return make("li", {}, ...names.map((name) => make("span", { "data-part": name, class: name })));
}

function drawLocks() {
  const waiting = state.waiters.map((one) => ({ ...one, waits: true }));
  const keyOf = (one) => (one.waits ? `waits ${one.branch_name} ${one.owner} ${one.since}` : one.id);
  list($("locks"), [...state.locks, ...waiting], keyOf, () => row("name", "what", "soft", "soft end"), (element, one) => {
    const what = one.waits ? one.wants.join(", ") : [one.resource_type, one.resource_id].filter(Boolean).join(" ");
    write(element.children[0], one.branch_name);
    write(element.children[1], one.waits ? `${one.owner} waits` : `${one.lock_type} by ${one.locked_by}`);
    const done = one.metadata && one.metadata.progress_percent;
    write(element.children[2], [what || "the whole branch", one.reason, done !== undefined && done !== null && `${Math.floor(done)} %`].filter(Boolean).join(" · "));
    write(element.children[3], one.waits ? `until ${clock(one.deadline)}` : one.expires_at ? `until ${clock(one.expires_at)}` : "");
  });
}

// each branch with its depth, behind the one that it was forked from
function tree(branches) {
  const names = new Set(branches.map((one) => one.name));
  const below = new Map();
  for (const one of branches) {
    const of = names.has(one.parent) ? one.parent : null;
    below.set(of, [...(below.get(of) ?? []), one]);
  }
  const walk = (name, depth) => (below.get(name) ?? []).flatMap((one) => [{ ...one, depth }, ...walk(one.name, depth + 1)]);
  return walk(null, 0);
}

async function showChanges(name) {
  try {
    const { against, diffs, cursor } = await call("GET", `/branches/${encodeURIComponent(name)}/diff?limit=${DIFFS_SHOWN}`);
    write($("changes-title"), `What ${name} changed`);
    list($("changed"), diffs, (one) => `${one.resource_type} ${one.id}`, () => row("name", "what"), (element, one) => {
      write(element.children[0], one.kind);
      write(element.children[1], `${one.resource_type} ${one.id}${one.theirs_lsn === one.base_lsn ? "" : `, which ${against} changed, too`}`);
    });
    write($("changes-more"), cursor ? `and more: shadowswitch diff ${name}` : diffs.length ? "" : `It shows what ${against} has.`);
    if (!document.querySelector("dialog[open]")) await asked($("changes"));
  } catch (error) {
    say(error instanceof Refused ? error.message : "the server cannot be reached");
  }
}

// -- a shadow beside the live index: the same queries of both, in two columns --------------------------------------

const keyOf = (hit) => `${hit.resource_type} ${hit.id}`;

function column(title, hits, remark) {
  const items = hits.map((hit, rank) => make("li", {}, [visible(keyOf(hit)), remark(keyOf(hit), rank)].filter(Boolean).join(" · ")));
  return make("div", {}, make("h4", {}, title), items.length ? make("ol", {}, ...items) : make("p", { class: "soft" }, "no hits"));
}

function drawPair(element, { query, live, shadow, overlap, rbo, ndcg, live_ms, shadow_ms, stopped }) {
  const before = new Map(live.map((hit, rank) => [keyOf(hit), rank]));
  const after = new Set(shadow.map(keyOf));
  const moved = (key, rank) => (!before.has(key) ? "new" : before.get(key) !== rank ? `was ${before.get(key) + 1}` : "");
  const figures = [
    `overlap ${Math.round(overlap * 100)} %`, `rbo ${rbo.toFixed(2)}`,
    ndcg && `nDCG ${ndcg.live.toFixed(2)} → ${ndcg.shadow.toFixed(2)}`, `${milliseconds(live_ms)} → ${milliseconds(shadow_ms)}`, stopped,
  ];
  element.replaceChildren(
    make("h3", {}, visible(query)), make("p", { class: "facts" }, figures.filter(Boolean).join(" · ")),
    make("div", { class: "pair" }, column("live", live, (key) => (after.has(key) ? "" : "vanished")), column("shadow", shadow, moved)),
  );
}

async function drawComparison(path, query) {
  write($("compare-verdict"), "asking both…");
  try {
    const found = await call("GET", `${path}/compare${query ? `?q=${encodeURIComponent(query)}` : ""}`);
    const { summary } = found;
    write($("compare-verdict"), summary.verdict.message);
    const from = { caller: "given", judgments: "judged", readers: "last asked" }[summary.asked_from];
    const zero = summary.zero_results;
    write($("compare-figures"), `${whole(summary.queries)} ${from} · overlap ${Math.round(summary.overlap * 100)} % · without hits: ${zero.live} live, ${zero.shadow} in the shadow`);
    list($("compared"), found.rows, (one) => one.query, () => make("li"), drawPair);
  } catch (error) {
    write($("compare-verdict"), error instanceof Refused ? error.message : "the server cannot be reached");
    write($("compare-figures"), "");
    list($("compared"), [], String, () => make("li"), () => {});
  }
}

async function compareBoth(named, path) {
  if (document.querySelector("dialog[open]")) return;
  write($("compare-title"), `The new ${named} beside the live one`);
  $("compare-query").value = "";
  $("compare-ask").onsubmit = (event) => {
    event.preventDefault();
    drawComparison(path, $("compare-query").value.trim());
  };
  const closed = asked($("compare"));
  drawComparison(path, "");
  await closed;
}

function branchRow(one) {
  const element = row("name", "state", "soft", "soft end");
  if (one.fork_lsn !== null) {
    const name = `Show what ${one.name} changed`;
    element.append(make("button", { type: "button", "aria-label": name, click: () => showChanges(one.name) }, "Changes"));
  }
  return element;
}

function drawBranches() {
  const wanted = $("filter").value.trim().toLowerCase();
  const found = tree(state.branches).filter((one) => one.name.toLowerCase().includes(wanted));
  list($("branches"), found.slice(0, BRANCHES_SHOWN), (one) => `${one.fork_lsn === null ? "branch" : "fork"} ${one.name}`, branchRow, (element, one) => {
    element.dataset.depth = Math.min(one.depth, 6);
    write(element.children[0], one.name);
    badge(element.children[1], one.state);
    const when = one.mode === "following" ? "" : ` as of LSN ${one.fork_lsn}`;
    const of = one.fork_lsn === null ? "" : `${when ? "fork" : "following fork"}${one.parent ? ` of ${one.parent}` : ""}${when} · `;
    write(element.children[2], `${of}${whole(one.record_count)} records`);
    write(element.children[3], `LSN ${one.head_lsn}`);
  });
  const more = found.length - BRANCHES_SHOWN;
  $("more").hidden = more <= 0 && found.length > 0;
  write($("more"), more > 0 ? `and ${whole(more)} more` : wanted ? "No branch name contains this." : "There is no branch yet.");
  drawQuiet(found.length === 1 ? found[0].name : "");
}

const quiet = { branch: "", at: 0 };

async function drawQuiet(branch) {
  // when to switch, of the one branch that is shown; a busy past takes the server up to a second, so seldom
  if (branch === quiet.branch && Date.now() - quiet.at < QUIET_MS) return;
  Object.assign(quiet, { branch, at: Date.now() });
  $("quiet").hidden = !branch;
  if (!branch) return;
  try {
    const found = await call("GET", `/branches/${encodeURIComponent(branch)}/quiet-hours`);
    const at = found.switch_at ? `Switch at ${new Date(found.switch_at).toLocaleString()}: ` : "When to switch: ";
    if (quiet.branch === branch) write($("quiet"), `${at}${found.message}.`);
  } catch (error) {
    $("quiet").hidden = true;
  }
}

function drawFolders(mirrors) {
  $("folders").hidden = !mirrors.length;
  write($("folders"), mirrors.map(({ folder, branch, files, skipped }) => {
    const left = Object.entries(skipped).map(([reason, count]) => `${whole(count)} ${reason}`).join(", ");
    return `${branch} follows ${folder}: ${whole(files)} files${left ? `, left out: ${left}` : ""}.`;
  }).join(" "));
}

function wrong({ error, not_started, mirrors, indexes }) {
  return [
    error && `The settings stay as they were: ${error}`,
    ...Object.entries(not_started).map(([name, why]) => `${name} cannot be started: ${why}`),
    ...mirrors.filter((one) => one.error).map((one) => `${one.folder} is not followed for now: ${one.error}`),
    ...indexes.filter((one) => one.error).map((one) => `${one.index_type} of ${one.branch}: ${one.error}`),
  ].filter(Boolean).join(". ");
}

function drawEvents() {
  list($("events"), state.events, (one) => one.sequence, () => row("soft", "name", "what"), (element, one) => {
    write(element.children[0], clock(one.time));
    write(element.children[1], kind(one));
    write(element.children[2], describe(one));
  });
}

function describe({ data, subject }) {
  const where = [data.branch_name ?? data.branch, data.index_type].filter(Boolean).join(" · ") || subject;
  const more = [
    data.sealed_ms !== undefined && `sealed ${milliseconds(data.sealed_ms)}`,
    data.generation && `generation ${data.generation}`,
    data.reason || (data.error && (data.error.message ?? String(data.error))),
  ];
  return [where, ...more].filter(Boolean).join(" · ");
}

const drawWidth = () => $("plot").parentElement.clientWidth - 22;
window.addEventListener("resize", () => drawSwitches());

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) write(element, text);
  return element;
}

function drawSwitches() {
  const bars = state.switches;
  $("switches-title").parentElement.querySelector(".empty").hidden = bars.length > 0;
  if (!bars.length) return;
  const [width, height, left, foot] = [Math.max(280, Math.floor(drawWidth())), 140, 52, 12];
  const top = Math.max(1, ...bars.map((one) => one.sealed_ms)) * 1.1;
  const y = (ms) => height - foot - (ms / top) * (height - foot - 8);
  const step = (width - left) / Math.max(bars.length, 12);
  const summary = `sealed milliseconds of the last ${bars.length} switches, the longest ${milliseconds(Math.max(...bars.map((one) => one.sealed_ms)))}`;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary, preserveAspectRatio: "xMinYMid meet" });
  for (const share of [0, 0.5, 1]) {
    const ms = (top / 1.1) * share;
    svg.append(shape("line", { x1: left, x2: width, y1: y(ms), y2: y(ms) }), shape("text", { x: left - 6, y: y(ms) + 4, "text-anchor": "end" }, milliseconds(ms)));
  }
  bars.forEach((one, place) => {
    const bar = shape("rect", {
      class: "bar",
      "data-kind": one.success ? (one.rollback ? "rollback" : "switch") : "refused",
      x: left + place * step + step * 0.15, width: Math.min(step * 0.7, 26), rx: 2,
      y: Math.min(y(one.sealed_ms), height - foot - 2), height: Math.max(2, height - foot - y(one.sealed_ms)),
    });
    const word = one.success ? (one.rollback ? "rolled back" : "switched") : "not switched";
    bar.append(shape("title", {}, `${clock(one.time)} ${one.branch_name} ${one.index_type}: ${word}, sealed ${milliseconds(one.sealed_ms)}`));
    svg.append(bar);
  });
  $("plot").replaceChildren(svg);
  drawFigures();
}

// -- words ---------------------------------------------------------------------------------------------------------

const whole = (n) => n.toLocaleString("en");
const milliseconds = (ms) => `${ms >= 100 ? Math.round(ms) : ms.toFixed(1)} ms`;
const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const duration = (s) => (s < 90 ? `${Math.ceil(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);

function link(name, text) {
  $("link").dataset.state = name;
  write($("link"), text);
}

function trouble(text) {
  $("trouble").hidden = !text;
  write($("trouble"), text);
}

let saying = 0;

function say(text) {
  write($("said"), text);
  clearTimeout(saying);
  saying = setTimeout(() => write($("said"), ""), 8000);
}

// -- doing something -----------------------------------------------------------------------------------------------

function asked(dialog) {
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
}

async function act(word, text, work) {
  if (document.querySelector("dialog[open]")) return;
  write($("confirm-title"), `${word}?`);
  write($("confirm-text"), text);
  write($("confirm-yes"), word);
  if (!(await asked($("confirm")))) return;
  say(`${word}: under way`);
  try {
    const answer = await work();
    say(answer.message || `${word}: done`);
  } catch (error) {
    say(error instanceof Refused ? error.message : `${word}: the server cannot be reached`);
  }
  refreshSoon(0);
}

let wasAsked = false;

function askTokenOnce() {
  if (!wasAsked) askToken();
  wasAsked = true;
}

async function askToken() {
  if (document.querySelector("dialog[open]")) return;
  $("token-value").value = "";
  if (!(await asked($("token")))) return;
  const token = $("token-value").value.trim();
  if (token) sessionStorage.setItem("token", token);
  else sessionStorage.removeItem("token");
  stream?.abort();
  refreshSoon(0);
}

$("token-button").addEventListener("click", askToken);
$("filter").addEventListener("input", drawBranches);
window.addEventListener("online", () => stream?.abort());
refresh();
follow();
