// The swim lanes of a run, from a picture. A later picture replaces bars by their numbers, and
// everything else as a whole.

class Run extends LaneDrawing {
  constructor() {
    super();
    this.bars = [];
    this.picture = null;
    this.lanes = [];
    this.view = null; // from, to in ms; null: all
    this.chosen = null; // the number of a bar
    this.hovered = null;
    this.canvas = byId("lanes");
    this.hint = byId("details").textContent;
    this.tables = new Tables(this);
    this.axis = byId("axis");
    this.pointers = new Map();
    this.listen();
  }

  // What was looked at, which another run does not have.
  forget() {
    [this.view, this.chosen, this.hovered] = [null, null, null];
    byId("details").textContent = this.hint;
    byId("tip").hidden = true;
  }

  // Takes a whole picture, or the changes since the last one.
  merge(picture) {
    this.picture = picture;
    for (const bar of picture.bars) this.bars[bar.i] = bar;
    this.arrange();
    this.tables.tell();
    this.charts ??= new Charts();
    this.charts.show(picture, this.bars);
    this.draw();
  }

  arrange() {
    const { parties, marks } = this.picture;
    const order = parties.map((party, index) => ({ party, index }));
    order.sort((a, b) => (a.party.worker ?? -1) - (b.party.worker ?? -1) || a.party.begin - b.party.begin);
    this.lanes = [];
    const first = new Map();
    for (const { party, index } of order) {
      first.set(index, this.lanes.length);
      const slots = Math.max(party.slots, party.worker === null ? 0 : 1);
      for (let slot = 0; slot < slots; slot++) this.lanes.push({ party, index, slot, bars: [] });
    }
    for (const bar of this.bars) {
      if (!bar) continue;
      bar.lane = first.get(bar.p) + bar.s;
      this.lanes[bar.lane]?.bars.push(bar);
    }
    for (const lane of this.lanes) {
      lane.bars.sort((a, b) => a.b - b.b);
      lane.bad = lane.bars.filter((bar) => bar.f === "error" || bar.f === "lost");
      lane.good = lane.bad.length ? lane.bars.filter((bar) => bar.f !== "error" && bar.f !== "lost") : lane.bars;
      lane.deaths = marks.filter((mark) => mark.kind === "died" && mark.party === lane.index);
    }
  }

  end(bar) { return bar.e ?? this.picture.now; }

  place(bar) {
    const party = this.picture.parties[bar.p];
    const slots = Math.max(party.slots, 1);
    const where = party.name === "coordinator" ? "thread " + bar.s : party.name + (slots > 1 ? ", slot " + bar.s : "");
    return where + " (pid " + party.pid + ")";
  }

  describe(bar) {
    if (bar.m) {
      const [count, failed, busy] = bar.m;
      return bar.c + ": short tasks, one after the other" + (failed ? ", " + failed + " of them failed" : "") + "\n" +
        time(busy) + " of work in " + time(this.end(bar) - bar.b) + ", " + time(busy / count) + " each\n" +
        "from " + time(bar.b) + " to " + time(this.end(bar)) + ", " + this.place(bar);
    }
    const lines = [bar.c + ": " + (bar.u ? "unchanged" : FATES[bar.f]) + ", " + time(this.end(bar) - bar.b) + (bar.z ? ", " + size(bar.z) : "")];
    lines.push("from " + time(bar.b) + (bar.e === undefined ? "" : " to " + time(bar.e)) + ", " + this.place(bar));
    if (bar.r > 1) lines.push("begun for time " + bar.r);
    for (const [at, why] of bar.t ?? []) lines.push("after " + time(at - bar.b) + " tried again: " + why);
    if (bar.x) lines.push(bar.x);
    if (bar.l) lines.push("it ran for too long");
    if (bar.a) lines.push("it is run again");
    return lines.join("\n");
  }

  // Looking around.

  zoom(factor, around) {
    const { from, to } = this.span();
    const all = this.picture.now * 1.01;
    const middle = around ?? this.middle();
    const length = Math.min(Math.max((to - from) * factor, 0.05), all);
    const share = (middle - from) / (to - from);
    this.look(middle - length * share, length);
  }

  middle() {
    const bar = this.bars[this.chosen];
    const { from, to } = this.span();
    const at = bar ? (bar.b + this.end(bar)) / 2 : (from + to) / 2;
    return at >= from && at <= to ? at : (from + to) / 2;
  }

  look(from, length) {
    const all = this.picture.now * 1.01;
    const start = Math.min(Math.max(from, 0), Math.max(all - length, 0));
    this.view = length >= all ? null : { from: start, to: start + length };
    this.draw();
  }

  pan(ms) {
    const { from, to } = this.span();
    if (this.view) this.look(from + ms, to - from);
  }

  choose(bar, quietly) {
    this.chosen = bar ? bar.i : null;
    if (bar) byId("details").textContent = this.describe(bar);
    if (bar && !quietly) this.reveal(bar);
    this.draw();
  }

  reveal(bar) {
    const { from, to } = this.span();
    if (this.end(bar) < from || bar.b > to) this.look(bar.b - (to - from) / 2, to - from);
    const tall = this.laneHeight();
    const box = byId("scroll");
    const top = bar.lane * tall;
    if (top < box.scrollTop || top + tall > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  }

  show(bar) {
    this.choose(bar);
    const length = Math.max((this.end(bar) - bar.b) * 3, 0.1);
    this.look((bar.b + this.end(bar)) / 2 - length / 2, length);
    this.reveal(bar);
    this.canvas.focus({ preventScroll: true });
    byId("view").scrollIntoView({ block: "nearest" });
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const lane = this.lanes[Math.floor((event.clientY - box.top) / this.laneHeight())];
    const x = event.clientX - box.left;
    if (!lane || x < this.margin()) return null;
    const slack = (this.ms(1) - this.ms(0)) * 2;
    const at = this.ms(x);
    // The last one that begins before, or one so small that it can hardly be hit.
    let [low, high] = [0, lane.bars.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lane.bars[middle].b <= at + slack) low = middle + 1;
      else high = middle;
    }
    for (const bar of [lane.bars[low - 1], lane.bars[low - 2]]) {
      if (bar && bar.b <= at + slack && this.end(bar) >= at - slack) return bar;
    }
    return null;
  }

  hover(event) {
    const bar = this.at(event);
    const tip = byId("tip");
    if ((bar?.i ?? null) !== this.hovered) {
      this.hovered = bar?.i ?? null;
      this.draw();
    }
    tip.hidden = !bar;
    if (!bar) return;
    tip.textContent = this.describe(bar);
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18 + tip.offsetHeight < window.innerHeight;
    tip.style.left = Math.max(left, 4) + "px";
    tip.style.top = (below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12) + "px";
  }

  key(event) {
    const { from, to } = this.span();
    const bar = this.bars[this.chosen];
    const step = (direction) => {
      if (!bar) return this.choose(this.lanes.find((lane) => lane.bars.length)?.bars[0]);
      const bars = this.lanes[bar.lane].bars;
      this.choose(bars[Math.min(Math.max(bars.indexOf(bar) + direction, 0), bars.length - 1)]);
    };
    const hop = (direction) => {
      if (!bar) return step(1);
      for (let lane = bar.lane + direction; this.lanes[lane]; lane += direction) {
        const middle = (bar.b + this.end(bar)) / 2;
        const distance = (other) => Math.max(other.b - middle, middle - this.end(other), 0);
        const nearest = this.lanes[lane].bars.reduce((best, other) => !best || distance(other) < distance(best) ? other : best, null);
        if (nearest) return this.choose(nearest);
      }
    };
    const keys = {
      ArrowLeft: () => event.shiftKey ? this.pan((from - to) / 4) : step(-1),
      ArrowRight: () => event.shiftKey ? this.pan((to - from) / 4) : step(1),
      ArrowUp: () => hop(-1),
      ArrowDown: () => hop(1),
      Home: () => bar ? this.choose(this.lanes[bar.lane].bars[0]) : step(1),
      End: () => bar ? this.choose(this.lanes[bar.lane].bars.at(-1)) : step(1),
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      0: () => this.look(0, Infinity),
      Enter: () => bar && this.show(bar),
      Escape: () => this.choose(null),
    };
    const act = !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  listen() {
    const canvas = this.canvas;
    byId("in").addEventListener("click", () => this.zoom(0.5));
    byId("out").addEventListener("click", () => this.zoom(2));
    byId("fit").addEventListener("click", () => this.look(0, Infinity));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("dblclick", (event) => this.zoom(0.4, this.ms(event.offsetX)));
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(Math.exp(event.deltaY / 250), this.ms(event.offsetX));
      } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        this.pan(this.ms(event.deltaX) - this.ms(0));
      }
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, moved: false });
    });
    canvas.addEventListener("pointermove", (event) => this.move(event));
    const up = (event) => {
      const pointer = this.pointers.get(event.pointerId);
      this.pointers.delete(event.pointerId);
      if (pointer && !pointer.moved && event.type === "pointerup") this.choose(this.at(event), true);
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => {
      this.hovered = null;
      byId("tip").hidden = true;
      this.draw();
    });
    byId("scroll").addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(byId("view"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  move(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return event.pointerType === "touch" ? undefined : this.hover(event);
    const others = [...this.pointers.values()].filter((other) => other !== pointer);
    const box = this.canvas.getBoundingClientRect();
    if (others.length === 1) {
      const before = Math.abs(pointer.x - others[0].x);
      const now = Math.abs(event.clientX - others[0].x);
      if (before > 10 && now > 10) this.zoom(before / now, this.ms((event.clientX + others[0].x) / 2 - box.left));
      pointer.moved = others[0].moved = true;
    } else if (Math.abs(event.clientX - pointer.x) > 3 || pointer.moved) {
      this.pan(this.ms(pointer.x) - this.ms(event.clientX));
      pointer.moved = true;
      byId("tip").hidden = true;
    } else {
      return;
    }
    [pointer.x, pointer.y] = [event.clientX, event.clientY];
  }
}
