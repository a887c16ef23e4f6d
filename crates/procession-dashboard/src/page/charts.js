// The numbers of a pool: those of now in words, and those of the past as charts. Of a run without such numbers,
// how many tasks ran at a time, and the CPUs that its processes used.

const STRIPS = [
  { title: "running", of: (it) => it.running, color: "--running", text: (n) => n },
  { title: "queue", of: (it) => it.pending, color: "--not-found", text: (n) => n },
  { title: "tasks a second", of: (it) => it.rate, color: "--ok", text: (n) => n < 9.95 ? n.toFixed(1) : n.toFixed(0) },
  { title: "CPUs in use", of: (it) => it.cpu, color: "--lost", text: (n) => n.toFixed(n < 0.95 ? 2 : 1) },
  { title: "memory of workers", of: (it) => it.memory, color: "--error", text: (n) => size(Math.round(n)) },
];
const STRIP = 54;

const AT_A_TIME = { title: "tasks at a time", of: (it) => it.running, color: "--running", text: (n) => n.toFixed(1) };
const CPUS = { ...STRIPS[3], own: "cpus" };
// The number of moments for which the tasks of a run without samples are counted.
const MOMENTS = 400;

class Charts {
  constructor() {
    this.canvas = byId("charts");
    window.addEventListener("resize", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(picture, bars) {
    const { pool, cpus } = picture;
    this.isPool = Boolean(pool);
    const step = picture.now / Math.max(cpus.length, 1);
    this.cpus = cpus.map((cpu, part) => ({ at: (part + 0.5) * step, cpu }));
    [this.strips, this.samples] = pool ? [STRIPS, pool.samples] : [[AT_A_TIME], atATime(bars, picture.now)];
    if (!pool && cpus.length) this.strips = [AT_A_TIME, CPUS];
    byId("pool-section").hidden = this.samples.length === 0;
    byId("pool-title").textContent = !pool ? "Over time" : picture.is_over || picture.report ? "The pool at its end" : "The pool now";
    if (pool) this.tell(pool);
    this.draw();
  }

  tell({ now, samples }) {
    const rate = samples.at(-1)?.rate ?? 0;
    // Durations are counted in whole microseconds.
    const took = (seconds) => seconds > 0 || !now.run.count ? time(seconds * 1000) : "< 1 µs";
    const used = now.slots ? Math.round(now.running / now.slots * 100) + "%" : "–";
    const gauges = [["running", now.running + " of " + now.slots], ["utilisation", used], ["in the queue", now.pending],
      ["tasks a second", STRIPS[2].text(rate)], ["median", took(now.run.median)], ["p99", took(now.run.p99)],
      ["done", now.done], ["failed", now.failed], ["cancelled", now.cancelled], ["retried", now.retried],
      ["workers", now.workers.length], ["workers replaced", now.respawned]];
    if (now.spares || now.promoted) gauges.push(["spares", now.spares], ["spares promoted", now.promoted]);
    byId("gauges").replaceChildren(...gauges.map(([label, number]) => {
      const item = make("li");
      item.append(make("b", number), " " + label);
      return item;
    }));
  }

  draw() {
    if (this.samples?.length) drawSoon(this);
  }

  drawNow() {
    const css = getComputedStyle(document.documentElement);
    const width = this.canvas.clientWidth;
    const columns = width < 560 || !this.isPool ? 1 : 2;
    const rows = Math.ceil(this.strips.length / columns);
    const pen = prepare(this.canvas, rows * STRIP);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "top";
    const wide = (width - 16 * (columns - 1)) / columns;
    this.strips.forEach((strip, index) => {
      const [left, top] = [index % columns * (wide + 16), Math.floor(index / columns) * STRIP];
      this.strip(pen, strip, left, top, wide, css);
    });
  }

  strip(pen, { title, of, color, text, own }, left, top, wide, css) {
    const samples = own ? this[own] : this.samples;
    const values = samples.map(of);
    const most = Math.max(...values, 0);
    const [from, to] = [samples[0]?.at ?? 0, samples.at(-1)?.at ?? 1];
    const base = top + STRIP - 6;
    const x = (at) => left + (at - from) / Math.max(to - from, 1) * wide;
    const y = (value) => base - value / (most || 1) * (STRIP - 26);
    pen.fillStyle = css.getPropertyValue("--soft").trim();
    const now = this.isPool ? ": " + text(values.at(-1) ?? 0) + ", at most " : ": at most ";
    pen.fillText(title + now + text(most), left, top + 2, wide);
    pen.strokeStyle = css.getPropertyValue("--line").trim();
    pen.beginPath();
    pen.moveTo(left, base + 0.5);
    pen.lineTo(left + wide, base + 0.5);
    pen.stroke();
    if (samples.length < 2) return;
    pen.beginPath();
    samples.forEach((sample, index) => pen.lineTo(x(sample.at), y(values[index])));
    pen.strokeStyle = pen.fillStyle = css.getPropertyValue(color).trim();
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.lineTo(x(to), base);
    pen.lineTo(left, base);
    pen.globalAlpha = 0.18;
    pen.fill();
    pen.globalAlpha = 1;
    pen.lineWidth = 1;
  }
}

// The mean number of tasks that ran at each moment.
function atATime(bars, now) {
  const step = now / MOMENTS;
  if (!(step > 0)) return [];
  const sums = new Array(MOMENTS).fill(0);
  for (const bar of bars) {
    if (!bar) continue;
    const end = Math.min(bar.e ?? now, now);
    // A sum of short tasks has pauses.
    const share = bar.m ? Math.min(bar.m[2] / Math.max(end - bar.b, 1e-6), 1) : 1;
    const last = Math.min(Math.floor(end / step), MOMENTS - 1);
    for (let moment = Math.max(Math.floor(bar.b / step), 0); moment <= last; moment++) {
      const [from, to] = [Math.max(bar.b, moment * step), Math.min(end, (moment + 1) * step)];
      sums[moment] += Math.max(to - from, 0) / step * share;
    }
  }
  return sums.map((running, moment) => ({ at: moment * step, running }));
}
