// The table of sessions: one row each, changed only where a session changed.

const sessions = new Map();
const usage = new Map(); // name: {now, past: [{cpu, memory}]}
const rows = new Map();
const PAST = 60;
let chosen = null;

const condition = (session, type) => session.status.conditions.find((one) => one.type === type);
const bytes = (count) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
};
const ago = (time) => {
  if (!time) return "-";
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
};
const mood = (phase) => {
  if (phase === "Running") return "good";
  if (["Failed", "CrashLoop", "Rejected", "Degraded"].includes(phase)) return "bad";
  if (["Stopped", "Suspended"].includes(phase)) return "";
  return "wait";
};

const fresh = (name) => {
  const row = document.createElement("tr");
  const head = make("th");
  head.scope = "row";
  const open = make("button", name);
  open.type = "button";
  open.onclick = () => choose(name);
  head.append(open, make("small"));
  row.append(head);
  const cells = {};
  for (const title of ["Phase", "Ready", "Address", "CPU", "Memory", "Restarts", "Unsynced"]) {
    const cell = make("td");
    cell.dataset.name = title;
    if (["Restarts", "Unsynced"].includes(title)) cell.className = "number";
    cells[title] = cell;
    row.append(cell);
  }
  return {row, cells, whose: head.lastChild};
};

const put = (cell, ...content) => {
  const text = content.map((one) => one.textContent).join("|");
  if (cell.dataset.was !== text) {
    cell.replaceChildren(...content);
    cell.dataset.was = text;
  }
};

const link = (address) => {
  const one = make("a", address);
  one.href = `http://${address}`;
  one.target = "_blank";
  one.rel = "noopener noreferrer";
  return one;
};

const draw = (session) => {
  const {name} = session.metadata;
  const {status, spec} = session;
  if (!rows.has(name)) rows.set(name, fresh(name));
  const {cells, whose} = rows.get(name);
  whose.textContent = `${spec.user} / ${spec.case}`;
  const place = status.queuePosition ? ` (number ${status.queuePosition} in the queue)` : "";
  put(cells.Phase, make("span", status.phase + place, mood(status.phase)));
  const ready = condition(session, "Ready") ?? {status: "Unknown", reason: "", message: ""};
  put(cells.Ready, make("span", ready.status === "True" ? "yes" : ready.reason));
  put(cells.Address, status.address ? link(status.address) : make("span", "-"));
  put(cells.Restarts, make("span", status.container?.restarts ?? 0));
  const {unsynced, unsyncedBytes} = status.files;
  put(cells.Unsynced, make("span", unsynced ? `${unsynced} (${bytes(unsyncedBytes)})` : "0"));
};

const drawUse = (name) => {
  const cells = rows.get(name)?.cells;
  if (!cells) return;
  const use = usage.get(name)?.now;
  const bar = (cell, text, part) => {
    let one = cell.firstChild;
    if (!one) {
      one = make("span", "", "use");
      one.append(make("span"), make("i"));
      cell.append(one);
    }
    one.firstChild.textContent = text;
    one.lastChild.hidden = part === null;
    one.lastChild.style.setProperty("--part", `${Math.min(100, part ?? 0)}%`);
  };
  bar(cells.CPU, use ? `${use.cpu_percent.toFixed(1)} %` : "-", use ? use.cpu_percent : null);
  const part = use && use.memory_limit_bytes ? (100 * use.memory_bytes) / use.memory_limit_bytes : null;
  bar(cells.Memory, use ? bytes(use.memory_bytes) : "-", part);
};

const shown = (session) => {
  const wanted = at("filter").value.trim().toLowerCase();
  const {metadata, spec, status} = session;
  return `${metadata.name} ${spec.user} ${spec.case} ${status.phase}`.toLowerCase().includes(wanted);
};

// Puts rows where they belong, and only those that moved.
const arrange = () => {
  const names = [...sessions.keys()].sort();
  let before = null;
  const phases = new Map();
  for (const name of names) {
    const session = sessions.get(name);
    const {row} = rows.get(name);
    row.hidden = !shown(session);
    if (name === chosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
    const next = before ? before.nextSibling : at("rows").firstChild;
    if (next !== row) at("rows").insertBefore(row, next);
    before = row;
    phases.set(session.status.phase, (phases.get(session.status.phase) ?? 0) + 1);
  }
  const counts = [...phases].sort().map(([phase, count]) => `${count} ${phase}`);
  at("sum").textContent = `${names.length} ${names.length === 1 ? "session" : "sessions"}${counts.length ? ": " : ""}${counts.join(", ")}`;
  at("empty").hidden = names.length > 0;
  at("confirm").hidden = held().length === 0;
};

const held = () => [...sessions.values()].filter((one) => condition(one, "PruneHeld")?.status === "True")
  .map((one) => one.metadata.name);

const remove = (name) => {
  sessions.delete(name);
  usage.delete(name);
  rows.get(name)?.row.remove();
  rows.delete(name);
};

// Many changes at once are drawn once.
const changed = new Set();
const later = (name) => {
  if (changed.size === 0) requestAnimationFrame(paint);
  changed.add(name);
};
const paint = () => {
  for (const name of changed) {
    const session = sessions.get(name);
    if (session) draw(session);
  }
  const details = changed.has(chosen);
  changed.clear();
  arrange();
  if (details) drawOne();
};

const measure = async () => {
  for (const {name, usage: now} of await get("top")) {
    const one = usage.get(name) ?? {now: null, past: []};
    one.now = now;
    one.past.push({cpu: now?.cpu_percent ?? 0, memory: now?.memory_bytes ?? 0});
    if (one.past.length > PAST) one.past.shift();
    usage.set(name, one);
    drawUse(name);
  }
  drawPlots();
};
