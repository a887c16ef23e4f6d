// The page of a run in a file: its picture does not change.
const run = new Run();
run.merge(JSON.parse(byId("data").textContent));

// page.html#BR shows a task at once.
const chosen = decodeURIComponent(location.hash.slice(1)).toUpperCase();
const bar = chosen && run.bars.findLast((bar) => bar?.c === chosen);
if (bar) run.show(bar);
