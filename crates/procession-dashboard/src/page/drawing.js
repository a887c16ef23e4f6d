// Draws the swim lanes of a run, and the axis below them: what `Run` has at the moment.

const AXIS = 26;

class LaneDrawing {
  laneHeight() {
    const count = Math.max(this.lanes.length, 1);
    return count <= 24 ? 24 : count <= 100 ? 18 : count <= 250 ? 12 : 7;
  }

  margin() {
    return this.canvas.clientWidth < 560 ? 34 : 118;
  }

  span() {
    const all = Math.max(this.picture.now, 0.001);
    return this.view ?? { from: 0, to: all * 1.01 };
  }

  x(ms) {
    const { from, to } = this.span();
    return this.margin() + (ms - from) / (to - from) * (this.canvas.clientWidth - this.margin());
  }

  ms(x) {
    const { from, to } = this.span();
    return from + (x - this.margin()) / (this.canvas.clientWidth - this.margin()) * (to - from);
  }

  draw() {
    if (this.picture) drawSoon(this);
  }

  drawNow() {
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(name).trim();
    const tall = this.laneHeight();
    const pen = prepare(this.canvas, Math.max(this.lanes.length * tall, tall));
    const [width, margin] = [this.canvas.clientWidth, this.margin()];
    const steps = this.steps();
    pen.strokeStyle = color("--line");
    pen.lineWidth = 1;
    for (const at of steps.all) {
      const x = Math.round(this.x(at)) + 0.5;
      if (x <= margin) continue;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, this.lanes.length * tall);
      pen.stroke();
    }
    const fills = Object.fromEntries(Object.entries(COLORS).map(([fate, name]) => [fate, color(name)]));
    const ink = { bar: color("--on-bar"), text: color("--ink"), soft: color("--soft"), line: color("--line"), focus: color("--focus"), error: color("--error"), paper: color("--paper") };
    // Only what can be seen: a run may have hundreds of lanes.
    const { scrollTop, clientHeight } = byId("scroll");
    const last = Math.ceil((scrollTop + clientHeight) / tall);
    for (let index = Math.floor(scrollTop / tall); index < Math.min(last, this.lanes.length); index++) {
      this.drawLane(pen, this.lanes[index], index * tall, tall, width, margin, fills, ink);
    }
    this.drawAxis(steps, margin, ink);
  }

  drawLane(pen, lane, top, tall, width, margin, fills, ink) {
    const high = tall - (tall > 10 ? 4 : 2);
    pen.save();
    pen.beginPath();
    pen.rect(margin, top, width - margin, tall);
    pen.clip();
    const end = lane.party.end ?? this.picture.now;
    pen.fillStyle = ink.line;
    pen.globalAlpha = 0.45;
    pen.fillRect(this.x(lane.party.begin), top + tall / 2 - 0.5, this.x(end) - this.x(lane.party.begin), 1);
    pen.globalAlpha = 1;
    pen.font = Math.min(high - 4, 12) + "px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    // The scale is computed once: a run may have 50,000 bars, and the width of an element is no plain number.
    const { from, to } = this.span();
    const scale = (width - margin) / (to - from);
    const x = (ms) => margin + (ms - from) * scale;
    const bars = (list, draw) => {
      for (const bar of list) {
        const [left, right] = [x(bar.b), x(this.end(bar))];
        if (left > width) break;
        if (right >= margin) draw(bar, left, right);
      }
    };
    // Narrow bars beside each other are filled as one.
    const pad = tall > 10 ? 2 : 1;
    let row = null;
    const fill = () => {
      if (!row) return;
      pen.fillStyle = fills[row.f];
      pen.globalAlpha = row.u ? 0.6 : 1;
      pen.fillRect(row.left, top + pad, row.right - row.left, tall - 2 * pad);
      pen.globalAlpha = 1;
      row = null;
    };
    bars(lane.good, (bar, left, right) => {
      if (right - left >= 1 || bar.i === this.chosen || bar.i === this.hovered) {
        fill();
        return this.drawBar(pen, bar, left, right, top, tall, margin, fills, ink);
      }
      const pixel = Math.floor(left);
      if (row && row.f === bar.f && row.u === bar.u && pixel <= row.right) {
        row.right = Math.max(row.right, pixel + 1);
      } else {
        fill();
        row = { f: bar.f, u: bar.u, left: pixel, right: pixel + 1 };
      }
    });
    fill();
    // Errors and losses are drawn above the others, and wide enough to be seen.
    bars(lane.bad, (bar, left, right) => this.drawBar(pen, bar, left, right, top, tall, margin, fills, ink));
    for (const death of lane.deaths) this.cross(pen, this.x(death.at), top + tall / 2, Math.min(tall / 2 - 2, 6), ink.error);
    pen.restore();
    this.label(pen, lane, top, tall, margin, ink);
  }

  drawBar(pen, bar, left, right, top, tall, margin, fills, ink) {
    const pad = tall > 10 ? 2 : 1;
    const high = tall - 2 * pad;
    const isBad = bar.f === "error" || bar.f === "lost";
    const wide = Math.max(right - left - (right - left > 4 ? 1 : 0), isBad ? 3 : 1);
    pen.fillStyle = fills[bar.f];
    pen.globalAlpha = bar.u ? 0.6 : 1;
    pen.fillRect(left, top + pad, wide, high);
    pen.globalAlpha = 1;
    // Not by its colour alone.
    if (isBad && wide > 5) this.hatch(pen, left, top + pad, wide, high, ink.paper);
    for (const [at] of bar.t ?? []) {
      const x = this.x(at);
      pen.fillStyle = ink.paper;
      pen.fillRect(x - 1, top + pad, 2, high);
      pen.fillStyle = ink.error;
      pen.fillRect(x - 1, top + pad, 2, high / 2);
    }
    if (high >= 12 && wide > 22) {
      const from = Math.max(left, margin) + 4;
      const fits = (text) => pen.measureText(text).width <= left + wide - from - 2;
      // Of several tasks at least their number.
      const text = [bar.c, bar.m ? String(bar.m[0]) : ""].find(fits);
      pen.fillStyle = ink.bar;
      if (text) pen.fillText(text, from, top + tall / 2 + 0.5);
    }
    const sign = (bar.l ? "!" : "") + (bar.a ? "↻" : "");
    if (sign && wide > 10 * sign.length + 10) {
      pen.textAlign = "right";
      pen.fillStyle = ink.bar;
      pen.fillText(sign, left + wide - 10, top + tall / 2 + 0.5);
      pen.textAlign = "left";
    }
    if (bar.i === this.chosen || bar.i === this.hovered) {
      pen.strokeStyle = bar.i === this.chosen ? ink.focus : ink.text;
      pen.lineWidth = 2;
      pen.strokeRect(left + 1, top + pad, Math.max(wide - 2, 2), high);
      pen.lineWidth = 1;
    }
  }

  label(pen, lane, top, tall, margin, ink) {
    pen.strokeStyle = ink.line;
    if (lane.slot === 0) {
      pen.beginPath();
      pen.moveTo(0, top + 0.5);
      pen.lineTo(this.canvas.clientWidth, top + 0.5);
      pen.stroke();
    }
    const thread = lane.party.name === "coordinator";
    if (tall < 12 && lane.slot > 0 && !(thread && lane.slot % 4 === 0)) return;
    pen.font = Math.max(Math.min(tall - 6, 12), 9) + "px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.fillStyle = lane.slot === 0 || thread ? ink.text : ink.soft;
    const narrow = margin < 60;
    const name = thread ? (narrow ? "t" + lane.slot : "thread " + lane.slot) :
      lane.slot > 0 ? (narrow ? "" : "slot " + lane.slot) :
      lane.party.worker === null ? lane.party.name :
      narrow ? "w" + lane.party.worker : lane.party.name + " · " + lane.party.pid;
    pen.fillText(name, lane.slot > 0 && !thread ? 18 : 6, top + tall / 2 + 0.5, margin - 8);
  }

  hatch(pen, x, y, wide, high, color) {
    pen.save();
    pen.beginPath();
    pen.rect(x, y, wide, high);
    pen.clip();
    pen.strokeStyle = color;
    pen.globalAlpha = 0.35;
    pen.beginPath();
    for (let at = x - high; at < x + wide; at += 6) {
      pen.moveTo(at, y + high);
      pen.lineTo(at + high, y);
    }
    pen.stroke();
    pen.restore();
  }

  cross(pen, x, y, arm, color) {
    pen.strokeStyle = color;
    pen.lineWidth = 2.5;
    pen.beginPath();
    pen.moveTo(x - arm, y - arm);
    pen.lineTo(x + arm, y + arm);
    pen.moveTo(x + arm, y - arm);
    pen.lineTo(x - arm, y + arm);
    pen.stroke();
    pen.lineWidth = 1;
  }

  steps() {
    const { from, to } = this.span();
    const most = Math.max((this.canvas.clientWidth - this.margin()) / 80, 2);
    const raw = (to - from) / most;
    const magnitude = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * magnitude).find((n) => n >= raw);
    const all = [];
    for (let at = Math.ceil(Math.max(from, 0) / step) * step; at <= to; at += step) all.push(at);
    return { all, step };
  }

  drawAxis({ all, step }, margin, ink) {
    const pen = prepare(this.axis, AXIS);
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = ink.soft;
    pen.textBaseline = "middle";
    const inSeconds = step >= 100 || this.span().to >= 2000;
    const unit = inSeconds ? 1000 : 1;
    const decimals = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
    pen.textAlign = "left";
    let free = 0;
    for (const at of all) {
      const x = this.x(at);
      if (x < margin - 1) continue;
      const text = (at / unit).toFixed(decimals) + (inSeconds ? " s" : " ms");
      const wide = pen.measureText(text).width;
      // The last label may have to move to the left. It is left out if it would cover the label before it.
      const left = Math.min(x + 3, this.axis.clientWidth - 2 - wide);
      if (left < free) continue;
      pen.fillText(text, left, AXIS / 2);
      free = left + wide + 6;
    }
  }
}
