"use strict";
// The sphere: dark where the loss is high, the valley of minimisers, gradient descent and the flow up to a step.
const sphere = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("sphere");
  const form = document.getElementById("sphere-controls");
  const context = canvas.getContext("2d");
  const [size, radius] = [canvas.width, 0.48 * canvas.width];
  const last = data.path.length - 1;
  let [longitude, elevation] = data.camera;
  let timer = null;

  // Right, up and towards the viewer.
  function camera() {
    const [ca, sa, ce, se] = [Math.cos(longitude), Math.sin(longitude), Math.cos(elevation), Math.sin(elevation)];
    return [[-sa, ca, 0], [-se * ca, -se * sa, ce], [ce * ca, ce * sa, se]];
  }

  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const seen = (axes, point) => ({
    x: size / 2 + radius * dot(axes[0], point), y: size / 2 - radius * dot(axes[1], point), front: dot(axes[2], point) > 0,
  });

  // L = ½ a (z − b x y)², a = exp(m ⟨θ, e⟩).
  function loss(x, y, z) {
    const { bend, steepness, sharpEnd } = data.toy;
    const a = Math.exp(steepness * (Math.cos(sharpEnd) * x + Math.sin(sharpEnd) * y));
    return 0.5 * a * (z - bend * x * y) ** 2;
  }

  function shade(axes) {
    const image = context.createImageData(size, size);
    const [right, up, toward] = axes;
    for (let row = 0; row < size; row++)
      for (let column = 0; column < size; column++) {
        const [u, v] = [(column + 0.5 - size / 2) / radius, (size / 2 - row - 0.5) / radius];
        const depth = Math.sqrt(1 - u * u - v * v);
        if (!(depth > 0)) continue;
        const [x, y, z] = [0, 1, 2].map((i) => u * right[i] + v * up[i] + depth * toward[i]);
        const dark = 0.55 * Math.sqrt(Math.min(loss(x, y, z) / data.highest, 1));
        const light = 0.84 + 0.16 * depth;
        image.data.set([255 - 210 * dark, 255 - 190 * dark, 255 - 150 * dark].map((c) => c * light).concat(255), 4 * (row * size + column));
      }
    context.putImageData(image, 0, 0);
  }

  function line(axes, points, color, width) {
    context.lineWidth = width;
    context.lineCap = context.lineJoin = "round";
    for (let i = 1; i < points.length; i++) {
      const [a, b] = [seen(axes, points[i - 1]), seen(axes, points[i])];
      if (!a.front || !b.front) continue;
      context.strokeStyle = typeof color === "string" ? color : color[i];
      context.beginPath();
      context.moveTo(a.x, a.y);
      context.lineTo(b.x, b.y);
      context.stroke();
    }
  }

  function draw() {
    const [axes, step] = [camera(), Number(form.elements.step.value)];
    context.clearRect(0, 0, size, size);
    shade(axes);
    if (form.elements.valley.checked) line(axes, data.valley, data.colors, 11);
    if (form.elements.path.checked) line(axes, data.path.slice(0, step + 1), "#00305c", 1.2);
    const flow = data.flow.slice(0, Math.max(0, step + 1 - data.settled));
    if (form.elements.flow.checked) {
      line(axes, flow, "#000", 4);
      line(axes, flow, "#fff", 2);
    }
    const now = seen(axes, data.path[step]);
    if (now.front) {
      context.fillStyle = "#00305c";
      context.beginPath();
      context.arc(now.x, now.y, 6, 0, 7);
      context.fill();
    }
    readOut(step);
  }

  function readOut(step) {
    const number = (x) => (x === null || x === undefined ? "–" : Number(x.toPrecision(4)));
    const parts = [`step ${step}, τ ${number(data.tau[step])}`, `loss ${number(data.loss[step])}`,
      `sharpness ${number(data.sharpness[step])}`, `threshold 2/ℓ ${number(data.threshold[step])}`,
      `sharpness of the flow ${number(data.flowSharpness[step - data.settled])}`];
    document.getElementById("readout").textContent = parts.join(" · ");
  }

  function turn(dx, dy) {
    longitude -= dx;
    elevation = Math.min(Math.max(elevation + dy, -1.5), 1.5);
    draw();
  }

  function play() {
    const button = document.getElementById("play");
    if (timer) {
      clearInterval(timer);
      timer = null;
      button.textContent = "play";
      return;
    }
    if (Number(form.elements.step.value) === last) form.elements.step.value = 0;
    button.textContent = "pause";
    timer = setInterval(() => {
      form.elements.step.value = Number(form.elements.step.value) + 1;
      draw();
      if (Number(form.elements.step.value) === last) play();
    }, 60);
  }

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) turn((2 * event.movementX) / canvas.clientWidth, (2 * event.movementY) / canvas.clientWidth);
  });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    if (!by) return;
    event.preventDefault();
    turn(...by);
  });
  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("play").addEventListener("click", play);
  document.getElementById("front").addEventListener("click", () => {
    [longitude, elevation] = data.camera;
    draw();
  });
  draw();
  return { loss, view: () => [longitude, elevation] };
})();
