// Three ways to a mixture: a slider for each style, a cross-fade between two, a pad over four.

const PAD_KEY_STEP = 0.05;

export class Mixer {
  // changed(mix) is called with {name: share} for every change by hand.
  constructor(styles, changed) {
    this.styles = styles;
    this.changed = changed;
    this.mix = {};
    this.pad = { x: 0.5, y: 0.5 };
    this.#buildGrid();
    this.#buildFade();
    this.#buildPad();
    this.#buildTabs();
  }

  // Other styles to mix from.
  setStyles(styles) {
    this.styles = styles;
    this.#buildGrid();
    for (const select of this.selects) {
      const { value } = select;
      this.#fill(select);
      if (styles.some(({ name }) => name === value)) select.value = value;
    }
  }

  // Shows a mixture that came from elsewhere.
  show(mix) {
    this.mix = mix;
    const total = Object.values(mix).reduce((sum, share) => sum + share, 0);
    for (const { name } of this.styles) {
      const { card, range, badge } = this.cards.get(name);
      const share = mix[name] ?? 0;
      range.value = share;
      fill(range);
      card.classList.toggle("on", share > 0);
      badge.textContent = share > 0 ? `${Math.round((100 * share) / total)} %` : "";
    }
  }

  // The style that leads the mixture alone, or its neighbour.
  step(by) {
    const names = this.styles.map(({ name }) => name);
    const leading = names.reduce((best, name, index) => ((this.mix[name] ?? 0) > (this.mix[names[best]] ?? 0) ? index : best), 0);
    this.#set({ [names[(leading + by + names.length) % names.length]]: 1 });
  }

  #set(mix) {
    this.show(mix);
    this.changed(mix);
  }

  #buildGrid() {
    const list = document.getElementById("styles");
    list.replaceChildren();
    this.cards = new Map();
    for (const style of this.styles) {
      const card = element("li", { className: "card" });
      const button = element("button", { type: "button", title: `${style.title}, ${style.artist}, ${style.year}` });
      button.setAttribute("aria-label", `Only ${style.title} by ${style.artist}`);
      const badge = element("span", { className: "badge" });
      button.append(picture(style), badge);
      button.onclick = () => this.#set({ [style.name]: 1 });
      const range = element("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0 });
      range.setAttribute("aria-label", `Share of ${style.title}`);
      range.dataset.style = style.name;
      range.oninput = () => {
        const mix = { ...this.mix, [style.name]: Number(range.value) };
        if (!mix[style.name]) delete mix[style.name];
        this.#set(mix);
      };
      card.append(button, element("span", { className: "title", textContent: style.title }), range);
      list.append(card);
      this.cards.set(style.name, { card, range, badge });
    }
  }

  #buildFade() {
    const range = document.getElementById("fade");
    const ends = [0, 1].map((index) => document.getElementById(`fade-${index}`));
    const change = () => {
      const share = Number(range.value);
      fill(range);
      ends.forEach((end, index) => (document.getElementById(`fade-image-${index}`).src = this.#style(end.value).thumbnail));
      this.#set(sum([[ends[0].value, 1 - share], [ends[1].value, share]]));
    };
    this.#fillSelects(ends, change);
    range.oninput = change;
    this.startFade = change;
  }

  #buildPad() {
    const pad = document.getElementById("pad");
    const puck = pad.querySelector("b");
    const quarters = pad.querySelectorAll("i");
    const corners = [0, 1, 2, 3].map((index) => document.getElementById(`pad-${index}`));
    const change = () => {
      const { x, y } = this.pad;
      const shares = [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y].map((share) => Math.round(share * 1000) / 1000);
      puck.style.left = `${x * 100}%`;
      puck.style.top = `${y * 100}%`;
      corners.forEach((corner, index) => (quarters[index].style.backgroundImage = `url("${this.#style(corner.value).thumbnail}")`));
      pad.setAttribute("aria-valuenow", Math.round(x * 100));
      pad.setAttribute("aria-valuetext", corners.map((corner, i) => `${Math.round(shares[i] * 100)} % ${this.#style(corner.value).title}`).join(", "));
      this.#set(sum(corners.map((corner, index) => [corner.value, shares[index]])));
    };
    const inside = (value) => Math.round(1000 * Math.min(1, Math.max(0, value))) / 1000;
    const move = (x, y) => {
      this.pad = { x: inside(x), y: inside(y) };
      change();
    };
    const follow = (event) => {
      const box = pad.getBoundingClientRect();
      move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    };
    pad.addEventListener("pointerdown", (event) => {
      pad.setPointerCapture(event.pointerId);
      pad.focus();
      event.preventDefault();
      follow(event);
      pad.addEventListener("pointermove", follow);
    });
    for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => pad.removeEventListener("pointermove", follow));
    pad.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const [x, y] = [inside(this.pad.x + step[0] * PAD_KEY_STEP), inside(this.pad.y + step[1] * PAD_KEY_STEP)];
      if (x !== this.pad.x || y !== this.pad.y) move(x, y); // at the edge nothing changes, and nothing is sent
    });
    this.#fillSelects(corners, change);
    this.startPad = change;
  }

  #buildTabs() {
    const tabs = [...document.querySelectorAll("[role=tab]")];
    const choose = (chosen) => {
      for (const tab of tabs) {
        tab.setAttribute("aria-selected", tab === chosen);
        tab.tabIndex = tab === chosen ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
      }
      if (chosen.id === "tab-fade") this.startFade();
      if (chosen.id === "tab-pad") this.startPad();
    };
    tabs.forEach((tab, index) => {
      tab.onclick = () => choose(tab);
      tab.onkeydown = (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!by) return;
        const next = tabs[(index + by + tabs.length) % tabs.length];
        next.focus();
        choose(next);
      };
    });
  }

  #fillSelects(selects, change) {
    this.selects = [...(this.selects ?? []), ...selects];
    selects.forEach((select, index) => {
      this.#fill(select);
      select.value = this.styles[index % this.styles.length].name;
      select.onchange = change;
    });
  }

  #fill(select) {
    select.replaceChildren(...this.styles.map(({ name, title }) => new Option(title, name)));
  }

  #style(name) {
    return this.styles.find((style) => style.name === name);
  }
}

// The filled part of a range, for the style sheet.
export function fill(range) {
  range.style.setProperty("--fill", `${(100 * (range.value - range.min)) / (range.max - range.min)}%`);
}

function sum(pairs) {
  const mix = {};
  for (const [name, share] of pairs) if (share > 0) mix[name] = Math.min(1, (mix[name] ?? 0) + share);
  return mix;
}

function picture({ thumbnail }) {
  const image = element("img", { alt: "", width: 96, height: 96 });
  if (thumbnail) image.src = thumbnail;
  return image;
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
