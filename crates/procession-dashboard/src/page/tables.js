// The counters and tables of a run, in words and numbers.

const FATES = { ok: "ok", not_found: "not found", error: "error", lost: "lost with its worker", running: "runs" };
const COLORS = { ok: "--ok", not_found: "--not-found", error: "--error", lost: "--lost", running: "--running" };
const byId = (id) => document.getElementById(id);

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function time(ms) {
  if (ms < 0.0995) return ms > 0 ? (ms * 1000).toFixed(ms < 0.00995 ? 1 : 0) + " µs" : "0 ms";
  if (ms < 9.995) return ms.toFixed(2) + " ms";
  if (ms < 99.95) return ms.toFixed(1) + " ms";
  if (ms < 999.5) return ms.toFixed(0) + " ms";
  return (ms / 1000).toFixed(ms < 99995 ? 2 : 0) + " s";
}

function size(bytes) {
  if (bytes < 999.5) return bytes + " B";
  if (bytes < 999500) return (bytes / 1e3).toFixed(bytes < 9950 ? 1 : 0) + " kB";
  if (bytes < 999.5e6) return (bytes / 1e6).toFixed(bytes < 9.95e6 ? 1 : 0) + " MB";
  return (bytes / 1e9).toFixed(1) + " GB";
}

// More processes without tasks have no rows.
const IDLE = 8;

class Tables {
  constructor(run) {
    this.run = run;
  }

  tell() {
    const { name, what, total, summary, is_over, report, now, marks, joined, pool } = this.run.picture;
    document.title = name + " · procession";
    byId("name").textContent = name;
    byId("what").textContent = (total ? total + (total === 1 ? " flag " : " flags ") : "") + what;
    const lost = this.run.bars.filter((bar) => bar && bar.f === "lost").length;
    const tries = this.run.bars.reduce((sum, bar) => sum + (bar?.t?.length ?? 0), 0);
    const counts = [["ok", summary.ok], ["errors", summary.error, "error"]];
    if (total || summary.not_found) counts.splice(1, 0, ["not found", summary.not_found]);
    if (summary.unchanged) counts.push(["unchanged", summary.unchanged]);
    if (lost) counts.push(["lost runs", lost, "lost"]);
    if (tries) counts.push(["tries repeated", tries]);
    if (summary.undone) counts.push([is_over ? "not done" : "to do", summary.undone]);
    byId("counts").replaceChildren(...counts.map(([label, number, kind]) => {
      const item = make("li", undefined, number ? kind : "");
      item.append(make("b", number), " " + label);
      return item;
    }));
    const gap = summary.missing ? " " + summary.missing.lines + (summary.missing.lines === 1 ? " line is" : " lines are") +
      " missing from its log: " + summary.missing.why + "." +
      (summary.untold ? " " + summary.untold + " of these ends are not drawn." : "") : "";
    // The last sums of a worker that was killed are in no log. `total` is that of a run of flags.
    const counted = report && !total && (report.ok !== summary.ok || report.error !== summary.error) ?
      " The pool itself counted " + report.ok + " ok and " + report.error + " errors: a worker that was killed has not " +
      "written its last lines." : "";
    const state = (report ? "It took " + time(report.elapsed_s * 1000) + " and ended with exit code " + report.exit_code + "." :
      !is_over ? "It goes on." :
      total ? "It left no report: it was killed, or its log is cut short." : "It has ended.") + gap + counted +
      (joined ? " " + joined + " short tasks are drawn together with others." : "") +
      (pool && !this.run.lanes.length ? " The pool keeps no journal, so there is no timeline." : "");
    if (byId("state").textContent !== state) byId("state").textContent = state;
    const fates = Object.keys(FATES).filter((fate) => this.run.bars.some((bar) => bar?.f === fate));
    const entry = (swatch, text) => {
      const item = make("li");
      item.append(swatch, text);
      return item;
    };
    const legend = fates.map((fate) => {
      const swatch = make("i");
      swatch.style.background = "var(" + COLORS[fate] + ")";
      return entry(swatch, FATES[fate]);
    });
    if (this.run.bars.some((bar) => bar?.l)) legend.push(entry(make("b", "!"), " ran for too long"));
    if (this.run.bars.some((bar) => bar?.a)) legend.push(entry(make("b", "↻"), " run again"));
    if (tries) legend.push(entry(make("i", undefined, "tick"), "tried again"));
    if (marks.some((mark) => mark.kind === "died")) legend.push(entry(make("b", "✕", "bad"), " the worker died"));
    byId("legend").replaceChildren(...legend);
    this.tellSlowest();
    this.tellErrors();
    this.tellProcesses();
    const tasks = this.run.bars.reduce((sum, bar) => sum + (bar?.m?.[0] ?? (bar ? 1 : 0)), 0);
    const label = tasks + " tasks in " + this.run.lanes.length + " lanes, " + time(now);
    this.run.canvas.setAttribute("aria-label", label);
  }

  fill(id, head, rows, texts) {
    const table = byId(id);
    const row = make("tr");
    row.append(...head.map((title) => make("th", title, texts.includes(title) ? "text" : "")));
    const thead = make("thead");
    thead.append(row);
    const body = make("tbody");
    body.append(...rows);
    // A button in it may have the focus.
    const kept = table.contains(document.activeElement) ? document.activeElement.dataset.bar : undefined;
    table.replaceChildren(thead, body);
    if (kept !== undefined) table.querySelector('[data-bar="' + kept + '"]')?.focus();
  }

  tellSlowest() {
    const slowest = this.run.bars.filter((bar) => bar && !bar.m).sort((a, b) => this.run.end(b) - b.b - (this.run.end(a) - a.b)).slice(0, 10);
    this.fill("slow", ["task", "time", "what", "where", "tries"], slowest.map((bar) => {
      const row = make("tr");
      const code = make("td");
      const button = make("button", bar.c);
      button.type = "button";
      button.dataset.bar = bar.i;
      button.title = "Show it in its lane";
      button.addEventListener("click", () => this.run.show(bar));
      code.append(button);
      const fate = make("td", bar.u ? "unchanged" : FATES[bar.f], "text" + (bar.f === "error" || bar.f === "lost" ? " bad" : ""));
      row.append(code, make("td", time(this.run.end(bar) - bar.b)), fate, make("td", this.run.place(bar), "text"), make("td", bar.n || ""));
      return row;
    }), ["what", "where"]);
  }

  tellErrors() {
    const { errors } = this.run.picture.summary;
    byId("errors-section").hidden = errors.length === 0;
    this.fill("errors", ["cause", "how often", "which"], errors.map(({ cause, codes }) => {
      const row = make("tr");
      const shown = codes.slice(0, 40).join(", ") + (codes.length > 40 ? ", …" : "");
      row.append(make("td", cause, "wide"), make("td", codes.length), make("td", shown, "text wide"));
      return row;
    }), ["which"]);
  }

  tellProcesses() {
    const head = ["process", "pid", "tasks", "ok", "not found", "errors", "lost", "busy", "median", "p95", "data", "CPU", "memory", "ended"];
    const dash = (number) => number || "–";
    const live = new Map((this.run.picture.pool?.now.workers ?? []).map((worker) => [worker.pid, worker]));
    const seconds = (cpu) => cpu == null ? "–" : cpu.toFixed(2) + " s";
    const bytes = (memory) => memory == null ? "–" : size(memory);
    const all = this.run.picture.summary.processes;
    // Columns in which no process has a number are left out, and so are most processes that ran no task.
    const busy = all.filter((it) => it.runs || it.name === "coordinator" || !it.is_regular);
    const shown = all.length - busy.length > IDLE ? busy : all;
    const isUsed = { "not found": (it) => it.not_found, errors: (it) => it.error, lost: (it) => it.lost, data: (it) => it.bytes };
    const without = new Set(head.filter((title) => isUsed[title] && !shown.some(isUsed[title])));
    const rows = shown.map((it) => {
      const row = make("tr");
      const runs = it.runs > 0;
      const cells = [it.name, it.pid, dash(it.runs), dash(it.ok), dash(it.not_found), dash(it.error), dash(it.lost),
        runs ? Math.round(it.busy * 100) + "%" : "–", runs ? time(it.median_ms) : "–", runs ? time(it.p95_ms) : "–",
        it.bytes ? size(it.bytes) : "–", seconds(it.cpu_s ?? live.get(it.pid)?.cpu_s), bytes(it.peak_memory ?? live.get(it.pid)?.memory)];
      row.append(...cells.filter((_, index) => !without.has(head[index])).map((cell) => make("td", cell)));
      const how = it.how ?? (!this.run.picture.is_over ? "lives" : this.run.picture.summary.missing ? "not known" : "killed");
      const bad = it.how !== null ? !it.is_regular : this.run.picture.is_over;
      row.append(make("td", how, "text" + (bad ? " bad" : "")));
      return row;
    });
    if (shown !== all) {
      const cell = make("td", "and " + (all.length - busy.length) + " more processes, which ran no task");
      cell.colSpan = head.length;
      rows.push(make("tr"));
      rows.at(-1).append(cell);
    }
    this.fill("workers", head.filter((title) => !without.has(title)), rows, ["ended"]);
  }
}
