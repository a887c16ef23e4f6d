// The page of a run in progress: it merges the pictures that the server sends.
const run = new Run();
run.merge(JSON.parse(byId("data").textContent));

const source = new EventSource("events");
source.addEventListener("picture", (event) => {
  const picture = JSON.parse(event.data);
  if (picture.anew) run.bars = [];
  // Not so if the connection was lost since then.
  if (picture.name !== run.picture.name) run.forget();
  run.merge(picture);
});
source.addEventListener("end", () => source.close());
source.addEventListener("error", () => {
  if (!run.picture.is_over) byId("state").textContent = "The program that told this has ended, or cannot be reached.";
});
