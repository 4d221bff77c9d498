// One session's details, and what can be done with it.

const events = []; // of all sessions, oldest first
const EVENTS = 1000;
const LINES = 256 * 1024; // characters of a log that are kept
let logging = new AbortController();

const choose = (name) => {
  const opens = chosen !== name;
  chosen = name;
  arrange();
  at("one").hidden = name === null;
  logging.abort();
  if (name === null) return;
  if (opens) {
    at("files").open = false;
    at("log").open = false;
    at("lines").textContent = "";
  }
  drawOne();
  drawPlots();
  drawEvents();
  at("one").focus({preventScroll: false});
};

const facts = ({metadata, spec, status}) => {
  const {container, files, retry} = status;
  const end = container?.lastTermination;
  const override = status.override && Object.entries(status.override).map(([key, value]) => `${key}: ${value}`).join(", ");
  return [
    ["User / case", `${spec.user} / ${spec.case}`],
    ["Class", spec.class],
    ["Source", status.source],
    ["Revision", status.sourceRevision?.slice(0, 12)],
    ["Generation", `${status.observedGeneration} of ${metadata.generation}`],
    ["Container", container && `${container.name} (${container.id}), ${container.state}, started ${ago(container.startedAt)} ago`],
    ["Last end", end && `${end.reason}, exit code ${end.exitCode ?? "unknown"}, ${ago(end.finishedAt)} ago`],
    ["Workspace", status.workspace],
    ["Files", `${files.total}: ${files.local} here, ${files.lazy} fetched when opened, ${files.skipped} skipped, ${files.conflicts} conflicts`],
    ["Unsynced", `${files.unsynced} (${bytes(files.unsyncedBytes)}); last sync ${ago(files.lastSync)} ago`],
    ["Lifetime", ends(status.lifetime)],
    ["Override", override],
    ["Waits", retry.operation && `${retry.operation} failed ${retry.failures}×: ${retry.lastError}`],
  ].filter(([, text]) => text);
};

const ends = (lifetime) => [
  lifetime?.expiresAt && `over at ${new Date(lifetime.expiresAt).toLocaleString()}`,
  lifetime?.idle && `idle at ${new Date(lifetime.idle.endsAt).toLocaleTimeString()} unless used; last used ${ago(lifetime.idle.usedAt)} ago (${lifetime.idle.usedBy})`,
].filter(Boolean).join("; ");

const drawOne = () => {
  const session = sessions.get(chosen);
  if (!session) return;
  at("one-title").textContent = chosen;
  at("why").textContent = session.status.plan.trim() || "nothing is planned";
  at("facts").replaceChildren(...facts(session).flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  at("conditions").replaceChildren(...session.status.conditions.map((one) => {
    const row = document.createElement("tr");
    const name = make("th", one.type);
    name.scope = "row";
    row.append(name, make("td", one.status), make("td", one.reason), make("td", ago(one.lastTransitionTime)), make("td", one.message));
    return row;
  }));
  drawActions(session);
  drawProgress(session);
};

const verbs = ({status}) => [
  status.override?.state === "Stopped" || status.phase === "Stopped" ? "start" : "stop",
  "restart",
  status.phase === "Suspended" || status.override?.suspend ? "resume" : "suspend",
  "sync",
];

const drawActions = (session) => {
  const wanted = [...verbs(session), "delete"];
  if (at("actions").dataset.was === wanted.join()) return;
  at("actions").dataset.was = wanted.join();
  at("actions").replaceChildren(...wanted.map((verb) => {
    const button = make("button", verb[0].toUpperCase() + verb.slice(1), verb === "delete" ? "grave" : "");
    button.type = "button";
    button.onclick = () => (verb === "delete" ? askDelete(chosen) : act(button, `sessions/${chosen}/${verb}`));
    return button;
  }));
};

const act = async (button, path, method = "POST", body) => {
  button.disabled = true;
  try {
    const done = await get(path, {method, body});
    say(done.message ?? done.map((one) => `${one.object} ${one.outcome}`).join(", "));
  } catch (error) {
    if (error.status === 401) enter("This needs the token.");
    else fail(error);
  } finally {
    button.disabled = false;
  }
};

// Resolves to the answer that was chosen; Escape is null.
const choice = (title, text, answers) => new Promise((done) => {
  const dialog = at("ask");
  at("ask-title").textContent = title;
  at("ask-text").textContent = text;
  at("ask-buttons").replaceChildren(...answers.map(({label, grave, value}) => {
    const button = make("button", label, grave ? "grave" : "");
    button.type = "button";
    button.onclick = () => { dialog.returnValue = ""; dialog.close(); done(value); };
    return button;
  }));
  dialog.onclose = () => done(null);
  dialog.showModal();
});

const askDelete = async (name) => {
  const {status} = sessions.get(name);
  const {unsynced, unsyncedBytes} = status.files;
  const waits = unsynced
    ? `${unsynced} ${unsynced === 1 ? "edit" : "edits"} (${bytes(unsyncedBytes)}) ${unsynced === 1 ? "is" : "are"} not stored yet. `
    : "";
  const answers = [{label: "Cancel", value: null}, {label: "Delete", grave: true, value: ""}];
  if (unsynced) answers.push({label: "Delete and give the edits up", grave: true, value: "?discard=true"});
  const said = await choice(`Delete ${name}?`, `${waits}Its files are stored before anything is removed; then container, workspace and port go.`, answers);
  if (said !== null) await act(at("actions").lastChild, `sessions/${name}${said}`, "DELETE");
};

at("confirm").onclick = async () => {
  const names = held();
  const said = await choice("Confirm ends that are held?", `The files of ${names.join(", ")} are gone. Confirming ends these sessions: their files are stored first.`,
    [{label: "Cancel", value: null}, {label: `End ${names.length}`, grave: true, value: true}]);
  if (!said) return;
  get("confirm-prune", {method: "POST"}).then(({confirmed}) => say(`confirmed: ${confirmed.join(", ") || "nothing was held"}`), fail);
};

const drawPlots = () => {
  const one = usage.get(chosen);
  if (!one) return;
  const plot = (id, values, most, said) => {
    const points = values.map((value, index) => `${120 - 2 * (values.length - 1 - index)},${31 - 30 * Math.min(1, value / (most || 1))}`);
    at(`${id}-plot`).firstElementChild.setAttribute("points", points.join(" "));
    at(`${id}-said`).textContent = said;
  };
  const now = one.now;
  const cpu = one.past.map((point) => point.cpu);
  const memory = one.past.map((point) => point.memory);
  const top = Math.max(5, ...cpu);
  plot("cpu", cpu, top, `CPU: ${now ? now.cpu_percent.toFixed(1) + " %" : "-"} (up to ${top.toFixed(0)} %)`);
  const limit = now?.memory_limit_bytes;
  plot("memory", memory, Math.max(...memory) * 1.25, `Memory: ${now ? bytes(now.memory_bytes) : "-"}${limit ? " of " + bytes(limit) : ""}`);
};

const drawEvents = () => {
  const own = events.filter((one) => one.session === chosen).slice(-100).reverse();
  at("events").replaceChildren(...own.map((one) => {
    const line = make("li");
    const time = make("time", new Date(one.at).toLocaleTimeString());
    time.dateTime = one.at;
    line.append(time, make("span", `${one.reason} `, one.warning ? "bad" : ""), make("span", one.message));
    return line;
  }));
};

const drawProgress = ({status}) => {
  const {progress} = status.files;
  at("progress-label").hidden = !progress;
  if (progress) at("progress").value = progress.bytesTotal ? progress.bytes / progress.bytesTotal : progress.files / (progress.filesTotal || 1);
  at("hydrate").hidden = status.files.lazy === 0;
  if (at("files").open && at("files").dataset.was !== JSON.stringify(status.files)) drawFiles();
};

const FILES = 1000;
const drawFiles = async () => {
  const name = chosen;
  at("files").dataset.was = JSON.stringify(sessions.get(name)?.status.files);
  const files = await get(`sessions/${name}/files`).catch((error) => { fail(error); return []; });
  if (name !== chosen) return;
  at("files-said").textContent = `${files.length} ${files.length === 1 ? "file" : "files"}${files.length > FILES ? `, the first ${FILES} shown; docket files ${name} has all` : ""}`;
  at("file-rows").replaceChildren(...files.slice(0, FILES).map((one) => {
    const row = document.createElement("tr");
    row.append(make("td", one.state), make("td", bytes(one.size), "number"), make("td", one.path), make("td", one.reason));
    return row;
  }));
};
at("files").ontoggle = () => { if (at("files").open) drawFiles(); };
at("hydrate").onclick = () => act(at("hydrate"), `sessions/${chosen}/hydrate`).then(drawFiles);

// Terminal escapes say nothing here.
const ESCAPES = /\u001b\[[0-9;?]*[ -\/]*[@-~]|\u001b\][^\u0007]*\u0007|[\u0000-\u0008\u000b-\u001f\u007f]/g;
const followLog = async (name, signal) => {
  const lines = at("lines");
  lines.textContent = "";
  try {
    for await (const piece of pieces(`sessions/${name}/logs?follow=true&tail=200`, signal, "*/*")) {
      const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 4;
      lines.append(piece.replace(ESCAPES, ""));
      if (lines.textContent.length > LINES) lines.textContent = lines.textContent.slice(-LINES / 2);
      if (atEnd) lines.scrollTop = lines.scrollHeight;
    }
    lines.append("\n(the log ends here)\n");
  } catch (error) {
    if (!signal.aborted) lines.append(`\n(${error.message})\n`);
  }
};
at("log").ontoggle = () => {
  logging.abort();
  logging = new AbortController();
  if (at("log").open && chosen) followLog(chosen, logging.signal);
};
at("close").onclick = () => {
  const before = rows.get(chosen)?.row.querySelector("button");
  choose(null);
  before?.focus();
};
