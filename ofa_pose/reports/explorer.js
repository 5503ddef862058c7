"use strict";
{
  const { axes, nets, budget, chosen } = JSON.parse(document.getElementById("explorer-data").textContent);
  const [svg, axisInput, limitInput, winnerText, about, rows, more] = ["plot", "axis", "budget", "winner", "about",
    "nets", "more"].map((name) => document.getElementById(name));
  const SHORT = 12; // rows of the table at first
  let axis = axes[0], shown = nets[chosen] ?? null, all = false;

  const cost = (net) => net.costs[axis.key];
  const nameOf = (net) => net.file ? net.file.replace(".yaml", "") : `${net.uniform ? "uniform, " : ""}no. ${net.order}`;
  const apOf = (net) => net.AP.toFixed(3) + (net.error === null ? "" : " ± " + net.error.toFixed(3));
  const limit = () => (+limitInput.value >= +limitInput.max ? Infinity : +limitInput.value);
  const within = () => nets.filter((net) => cost(net) <= limit()).sort((a, b) => b.AP - a.AP || cost(a) - cost(b));

  function count(value, unit) { // as the commands write it: three digits
    if (unit === "ms") return value.toPrecision(3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "") + " ms";
    const [scale, letter] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "K"], [1, ""]].find(([one]) => value >= one) ??
      [1, ""];
    return Number((value / scale).toPrecision(3)) + letter;
  }
  const costText = (net, one = axis) => `${count(net.costs[one.key], one.unit)} ${one.name}`;

  function make(parent, kind, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return parent.appendChild(made);
  }

  function frontOf() { // nothing is as cheap and better; AP 0 only where all are 0
    const front = new Set();
    let best = nets.some((net) => net.AP > 0) ? 0 : -Infinity;
    for (const net of [...nets].sort((a, b) => cost(a) - cost(b) || b.AP - a.AP)) {
      if (net.AP > best) { front.add(net); best = net.AP; }
    }
    return front;
  }

  function ticks(low, high, about_) {
    const rough = (high - low) / about_ || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(value);
    return [found, step];
  }

  let place; // of a cost and an AP on the plot, and back
  function draw() {
    const focused = svg.contains(document.activeElement);
    const width = Math.max(280, svg.clientWidth), height = width < 500 ? 300 : 380;
    const [left, right, top, bottom] = [52, 14, 14, 46];
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    const costs = nets.map(cost), aps = nets.map((net) => net.AP);
    let [low, high, least, most] = [Math.min(...costs), Math.max(...costs), Math.min(...aps), Math.max(...aps)];
    const [wide, tall] = [(high - low || high || 1) * 0.04, (most - least || 0.1) * 0.06];
    [low, high, least, most] = [low - wide, high + wide, least - tall, most + tall];
    place = {
      x: (value) => left + ((value - low) / (high - low)) * (width - left - right),
      y: (value) => height - bottom - ((value - least) / (most - least)) * (height - top - bottom),
      cost: (x) => low + ((x * width / svg.clientWidth - left) / (width - left - right)) * (high - low),
    };
    make(svg, "rect", { x: 0, y: 0, width, height, fill: "transparent" });
    for (const value of ticks(low, high, width / 110)[0]) {
      make(svg, "line", { class: "grid", x1: place.x(value), x2: place.x(value), y1: top, y2: height - bottom });
      const text = { x: place.x(value), y: height - bottom + 17, "text-anchor": "middle", "font-size": 12 };
      make(svg, "text", text, count(value, axis.unit));
    }
    const [marks, step] = ticks(least, most, height / 60);
    for (const value of marks) {
      make(svg, "line", { class: "grid", x1: left, x2: width - right, y1: place.y(value), y2: place.y(value) });
      const text = { x: left - 6, y: place.y(value) + 4, "text-anchor": "end", "font-size": 12 };
      make(svg, "text", text, value.toFixed(Math.max(2, Math.ceil(-Math.log10(step)))));
    }
    make(svg, "path", { class: "axis", fill: "none", d: `M${left} ${top}V${height - bottom}H${width - right}` });
    const middle = (left + width - right) / 2;
    make(svg, "text", { x: middle, y: height - 8, "text-anchor": "middle", "font-size": 12 }, axis.name);
    const turned = `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`;
    make(svg, "text", { transform: turned, "text-anchor": "middle", "font-size": 12 }, "AP on the search images");
    const at = Math.min(limit(), high);
    make(svg, "line", { class: "budget", x1: place.x(at), x2: place.x(at), y1: top, y2: height - bottom });

    const front = frontOf(), winner = within()[0];
    const group = make(svg, "g", { role: "listbox", "aria-label": "subnets, by cost; arrow keys go through them" });
    const stop = shown ?? winner ?? nets[0];
    const rank = (net) => (net === shown ? 3 : net === winner ? 2 : front.has(net) ? 1 : 0);
    const labels = []; // boxes of those that are drawn
    for (const net of [...nets].sort((a, b) => rank(a) - rank(b) || cost(a) - cost(b))) {
      const kinds = ["dot"];
      if (net.uniform) kinds.push("uniform");
      if (front.has(net)) kinds.push("front");
      if (net === winner) kinds.push("winner");
      if (net === shown) kinds.push("shown");
      if (cost(net) > limit()) kinds.push("over");
      const dot = make(group, "circle", {
        class: kinds.join(" "), cx: place.x(cost(net)), cy: place.y(net.AP),
        r: net === winner ? 8 : front.has(net) || net.uniform ? 6 : 4.5, role: "option",
        "aria-selected": net === shown, tabindex: net === stop ? 0 : -1,
        "aria-label": `${nameOf(net)}: AP ${apOf(net)}, ${costText(net)}`,
      });
      dot.net = net;
      if (net.file) label(net, labels, width);
    }
    if (focused) group.querySelector("[tabindex='0']")?.focus();
  }

  function label(net, others, width) { // beside its dot, where it hides no other: nothing stands above the front
    const [x, y, wide, high] = [place.x(cost(net)), place.y(net.AP), 54, 12];
    const places = [[x - 8 - wide, y - 6], [x - 8 - wide, y + 16], [x + 8, y + 16], [x + 8, y - 6], [x - 8 - wide, y - 18]];
    const free = places.find(([left, base]) => left > 40 && left + wide < width && base > high &&
      !others.some(([l, b]) => Math.abs(l - left) < wide && Math.abs(b - base) < high));
    if (!free) return;
    others.push(free);
    make(svg, "text", { x: free[0] + wide / 2, y: free[1], "font-size": 11, "text-anchor": "middle", "aria-hidden": true },
      nameOf(net));
  }

  function tell() {
    const winner = within()[0];
    const bound = limit() === Infinity ? "of all" : `within ${count(limit(), axis.unit)} ${axis.name}`;
    winnerText.textContent = winner ? `best ${bound}: ${nameOf(winner)}, AP ${apOf(winner)}` : `none ${bound}`;
    limitInput.setAttribute("aria-valuetext", bound);
    about.replaceChildren();
    const line = (kind, text) => about.appendChild(document.createElement(kind)).append(text);
    if (!shown) return line("p", "Choose a dot, or a row of the table.");
    line("strong", `${nameOf(shown)}: AP ${apOf(shown)}` + (shown === nets[chosen] ? " (chosen)" : ""));
    line("p", axes.map((one) => costText(shown, one)).join(", "));
    const from = shown.generation === null ? "" : `generation ${shown.generation}, `;
    const kept = shown.file ? `, file ${shown.file}` : "";
    line("p", `${from}evaluation ${shown.order}${kept}; genome ${shown.genome}: ${Object.entries(shown.values).map((pair) => pair.join(" ")).join(", ")}`);
  }

  function list() {
    const members = within(); // at first the best, all of the front, and what is shown
    const cut = members.filter((net, number) => all || number < SHORT || net.file || net === shown);
    document.getElementById("cost-column").textContent = axis.name;
    rows.replaceChildren(...cut.map((net) => {
      const row = document.createElement("tr");
      if (net === shown) row.className = "chosen";
      const cells = [nameOf(net), apOf(net), count(cost(net), axis.unit), net.resolution, net.generation ?? ""];
      cells.forEach((text, number) => {
        const cell = row.appendChild(document.createElement(number ? "td" : "th"));
        if (number) return cell.append(text);
        cell.scope = "row";
        const button = cell.appendChild(document.createElement("button"));
        button.type = "button";
        button.append(text);
        button.setAttribute("aria-pressed", net === shown);
        button.addEventListener("click", () => {
          show(net);
          rows.querySelector("[aria-pressed='true']")?.focus();
        });
      });
      return row;
    }));
    more.hidden = !all && cut.length === members.length;
    more.textContent = all ? "show fewer" : `show all ${members.length}`;
  }

  function update() { draw(); tell(); list(); }
  function show(net) { if (net !== shown) { shown = net; update(); } }

  function scale(value) { // the slider over the costs on this axis
    const costs = nets.map(cost), [low, high] = [Math.min(...costs), Math.max(...costs)];
    Object.assign(limitInput, { min: low, max: high, step: (high - low) / 500 || 1 });
    limitInput.value = value ?? high;
  }

  axisInput.addEventListener("change", () => { axis = axes[axisInput.selectedIndex]; scale(); update(); });
  limitInput.addEventListener("input", update);
  more.addEventListener("click", () => { all = !all; list(); });
  svg.addEventListener("pointerover", (event) => event.target.net && event.pointerType === "mouse" &&
    !event.buttons && show(event.target.net));
  let dragging = false;
  svg.addEventListener("pointerdown", (event) => {
    if (event.target.net) return show(event.target.net);
    dragging = true;
    svg.setPointerCapture(event.pointerId);
    drag(event);
  });
  function drag(event) {
    if (!dragging) return;
    limitInput.value = place.cost(event.clientX - svg.getBoundingClientRect().left);
    update();
  }
  svg.addEventListener("pointermove", drag);
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { dragging = false; });
  svg.addEventListener("focusin", (event) => event.target.net && show(event.target.net));
  svg.addEventListener("keydown", (event) => {
    const sorted = [...nets].sort((a, b) => cost(a) - cost(b) || a.AP - b.AP), here = sorted.indexOf(event.target.net);
    const there = { ArrowRight: here + 1, ArrowUp: here + 1, ArrowLeft: here - 1, ArrowDown: here - 1, Home: 0,
      End: sorted.length - 1 }[event.key];
    if (there === undefined || here < 0) return;
    event.preventDefault();
    show(sorted[Math.min(Math.max(there, 0), sorted.length - 1)]);
  });
  new ResizeObserver(() => draw()).observe(svg.parentNode);
  document.getElementById("explorer").hidden = false;
  scale(budget);
  update();
}
