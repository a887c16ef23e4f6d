// What all drawings of a page share.

// An empty canvas of this height, in CSS pixels, and sharp on any screen.
function prepare(canvas, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = canvas.clientWidth;
  canvas.style.height = height + "px";
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

// Draws once before the next frame, however often it is asked to.
function drawSoon(drawing) {
  if (drawing.isDue) return;
  drawing.isDue = true;
  requestAnimationFrame(() => {
    drawing.isDue = false;
    drawing.drawNow();
  });
}
