"use strict";
// Everything that the page must say stands in it without this script, which adds a filter, windows, plots and export.
(() => {
  const VERDICTS = { p: ["pass", "✓ ok"], r: ["reduced", "≈ reduced"], f: ["fail", "✗ FAIL"], e: ["error", "! ERROR"],
    c: ["crash", "☠ CRASH"], t: ["timeout", "◷ TIMEOUT"], s: ["skip", "– n/a"], u: ["upstream", "↑ upstream"], k: ["known", "◇ known"] };
  const PAGE = 100;
  const FIRST = 33, LOWEST = -50;
  const SVG = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  const make = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const draw = (tag, attributes = {}, ...children) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  // --- the data ----------------------------------------------------------------------------------------------------

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  class Data {
    constructor(columns) {
      Object.assign(this, columns);
      this.places = new Map(this.ids.map((id, place) => [id, place]));
      this.noted = new Map(this.notes.map((note) => [note[0] * this.ids.length + note[1], note]));
    }
    text(number) { return number < 0 ? "" : this.texts[number]; }
    value(field, place) {
      const column = this.fields.indexOf(field);
      return column < 0 ? undefined : this.text(this.configs[column][place]);
    }
    config(place) {
      return this.fields.map((name, column) => [name, this.configs[column][place]])
        .filter(([, number]) => number >= 0).map(([name, number]) => `${name}=${this.texts[number]}`);
    }
    outcome(check, place) {
      const letter = this.verdicts[check][place];
      if (letter === ".") return null;
      const note = this.noted.get(check * this.ids.length + place);
      return {
        case: this.ids[place], place, check: this.checks[check], letter, verdict: VERDICTS[letter][0],
        error: error(this.errors[check][place]),
        where: note ? this.text(note[2]) : "", said: note ? this.text(note[3]) : "",
        fingerprint: note ? this.text(note[4]) : "", measured: note ? this.text(note[5]) : "",
        bound: note ? this.text(note[6]) : "",
      };
    }
    of(place) {
      return this.checks.map((_, check) => this.outcome(check, place)).filter((one) => one !== null);
    }
  }

  // The order of magnitude of error over bound: null where nothing was measured, Infinity where it is no number.
  function error(letter) {
    if (letter === undefined || letter === " ") return null;
    const code = letter.charCodeAt(0) - FIRST;
    return code === 0 ? Infinity : (code - 1 + LOWEST) / 10;
  }
  function spelt(magnitude) {
    if (magnitude === null) return "";
    if (magnitude === Infinity) return "∞";
    if (magnitude <= LOWEST / 10) return "≤ 1e-5";
    return magnitude >= 4 ? "≥ 1e4" : Number((10 ** magnitude).toPrecision(2)).toString();
  }

  // --- filters -----------------------------------------------------------------------------------------------------

  const glob = (pattern) => new RegExp(`^${pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".")}$`, "i");

  // A filter as tests of a case, and tests of an outcome.
  function parsed(text, data) {
    const ofCase = [], ofOutcome = [];
    for (const word of text.trim().split(/\s+/).filter(Boolean)) {
      const field = /^(\w+)(!=|=)(.*)$/.exec(word);
      const key = /^(check|area|verdict|valid):(.+)$/i.exec(word);
      if (field && data.fields.includes(field[1])) {
        const [, name, sign, value] = field;
        ofCase.push((place) => (data.value(name, place) === value) === (sign === "="));
      } else if (key) {
        const pattern = glob(key[2]), name = key[1].toLowerCase();
        if (name === "valid") ofCase.push((place) => /^(y|t|1)/i.test(key[2]) === (data.valid[place] === "v"));
        if (name === "check") ofOutcome.push((one) => pattern.test(one.check));
        if (name === "area") ofOutcome.push((one) => pattern.test(one.check.split(".")[0]));
        if (name === "verdict") ofOutcome.push((one) => pattern.test(one.verdict));
      } else {
        const lower = word.toLowerCase();
        const inCase = (place) => `${data.ids[place]} ${data.text(data.labels[place])} ${data.config(place).join(" ")}`.toLowerCase().includes(lower);
        ofOutcome.push((one) => inCase(one.place)
          || `${one.check} ${one.where} ${one.said} ${one.fingerprint}`.toLowerCase().includes(lower));
      }
    }
    return { ofCase, ofOutcome };
  }

  function matching(text, data) {
    const { ofCase, ofOutcome } = parsed(text, data);
    const found = [];
    data.ids.forEach((_, place) => {
      if (!ofCase.every((test) => test(place))) return;
      for (const one of data.of(place)) if (ofOutcome.every((test) => test(one))) found.push(one);
    });
    return found;
  }

  // --- a record ----------------------------------------------------------------------------------------------------

  class Section {
    constructor(root, data) {
      this.root = root;
      this.data = data;
      this.prefix = root.dataset.prefix;
      this.first = 0;
      this.found = [];
      const table = root.querySelector("[data-table]");
      table.hidden = false;
      for (const button of all("[data-export]", table)) button.addEventListener("click", () => this.save(button.dataset.export));
      for (const button of all("[data-page]", table)) button.addEventListener("click", () => this.turn(Number(button.dataset.page)));
      const matrix = root.querySelector("[data-matrix]");
      if (matrix) this.regroupable(matrix);
      root.addEventListener("click", (event) => this.clicked(event));
    }

    filter(text) {
      this.found = matching(text, this.data);
      this.first = 0;
      const cases = new Set(this.found.map((one) => one.case));
      const bugs = new Set(this.found.map((one) => one.fingerprint));
      const active = text.trim() !== "";
      for (const row of all("tr[data-case]", this.root)) row.hidden = active && !cases.has(row.dataset.case);
      for (const bug of all("[data-fingerprint]", this.root)) bug.hidden = active && !bugs.has(bug.dataset.fingerprint);
      for (const row of all("[data-fingerprints]", this.root)) {
        row.hidden = active && !row.dataset.fingerprints.trim().split(" ").some((one) => bugs.has(one));
      }
      const checks = new Set(this.found.map((one) => one.check));
      for (const row of all("tr[data-check]", this.root)) row.hidden = active && !checks.has(row.dataset.check);
      for (const body of all("[data-matrix] tbody", this.root)) {
        const rows = all("tr[data-case]", body);
        body.hidden = rows.length > 0 && rows.every((row) => row.hidden);
      }
      const matrix = this.root.querySelector("[data-matrix]");
      if (matrix && active) matrix.open = true;
      this.show();
      bugs.delete("");
      return { cases: cases.size, outcomes: this.found.length, bugs: bugs.size };
    }

    turn(step) {
      const next = this.first + step * PAGE;
      if (next >= 0 && next < this.found.length) this.first = next;
      this.show();
    }

    show() {
      const body = this.root.querySelector("[data-table] tbody");
      const shown = this.found.slice(this.first, this.first + PAGE);
      body.replaceChildren(...shown.map((one) => this.row(one, true)));
      const range = this.root.querySelector("[data-range]");
      range.textContent = shown.length
        ? `${this.first + 1} to ${this.first + shown.length} of ${this.found.length.toLocaleString("en")}` : "nothing matches";
    }

    row(one, withCase) {
      const [word, mark] = VERDICTS[one.letter];
      const where = make("td", {}, make("code", {}, one.where));
      const row = make("tr");
      if (withCase) row.append(make("th", { scope: "row" }, make("a", { href: `#${this.prefix}${one.case}` }, one.case)));
      row.append(
        make(withCase ? "td" : "th", withCase ? {} : { scope: "row" }, one.check),
        make("td", { class: `v ${word}` }, mark),
        make("td", { class: "num" }, one.measured && one.bound !== "0" ? `${one.measured} / ${one.bound}` : spelt(one.error)),
        where, make("td", {}, one.said),
      );
      if (one.fingerprint && $(this.prefix + one.fingerprint)) {
        where.append(" ", make("a", { href: `#${this.prefix}${one.fingerprint}` }, one.fingerprint));
      }
      return row;
    }

    save(kind) {
      const rows = this.found.map((one) => ({ case: one.case, check: one.check, verdict: one.verdict,
        error_over_bound: spelt(one.error), measured: one.measured, bound: one.bound, where: one.where, said: one.said,
        fingerprint: one.fingerprint, config: this.data.config(one.place).join(" ") }));
      // A leading sign would be a formula to a spreadsheet.
      const quoted = (value) => `"${String(value).replace(/^([=+\-@\t])/, "'$1").replaceAll('"', '""')}"`;
      const names = ["case", "check", "verdict", "error_over_bound", "measured", "bound", "where", "said", "fingerprint", "config"];
      const text = kind === "json" ? JSON.stringify(rows, null, 1)
        : [names.join(","), ...rows.map((row) => names.map((name) => quoted(row[name])).join(","))].join("\r\n");
      const link = make("a", { download: `outcomes.${kind}`,
        href: `data:${kind === "json" ? "application/json" : "text/csv"};charset=utf-8,${encodeURIComponent(text)}` });
      document.body.append(link);
      link.click();
      link.remove();
    }

    regroupable(matrix) {
      const control = matrix.querySelector(".group"), select = matrix.querySelector("select");
      if (!select || select.options.length < 2) return;
      control.hidden = false;
      const table = matrix.querySelector("table");
      const rows = all("tbody[data-flags] tr[data-case]", table);
      const heads = all("thead th", table);
      select.addEventListener("change", () => {
        const column = Number(select.value), name = column < 0 ? "" : heads[column + 1].textContent;
        const groups = new Map();
        for (const row of rows) {
          const value = column < 0 ? "" : row.cells[column + 1].textContent;
          groups.set(value, [...(groups.get(value) ?? []), row]);
        }
        for (const body of all("tbody[data-flags]", table)) body.remove();
        const rest = table.tBodies[0] ?? null;
        for (const [value, some] of groups) {
          const bad = some.filter((row) => row.querySelector(".fail, .error, .crash, .timeout, .known, .upstream")).length;
          const words = `${name ? `${name} = ${value}: ` : ""}${some.length} combination${some.length === 1 ? "" : "s"}, ${bad} with a finding`;
          const body = make("tbody", { "data-flags": "" },
            make("tr", { class: "grouphead" }, make("th", { scope: "rowgroup", colspan: heads.length }, words)), ...some);
          body.hidden = some.every((row) => row.hidden);
          table.insertBefore(body, rest);
        }
      });
    }

    clicked(event) {
      const plot = event.target.closest("a[data-plot]");
      const cell = event.target.closest("tr[data-case] td[id]");
      if (plot || (cell && !event.target.closest("a"))) {
        event.preventDefault();
        go(plot ? plot.getAttribute("href") : `#${cell.id}`);
      }
    }

    // A window on a case, or on one area of it.
    drill(id, area) {
      const place = this.data.places.get(id);
      if (place === undefined) return false;
      const outcomes = this.data.of(place).filter((one) => !area || one.check.split(".")[0] === area);
      const label = this.data.text(this.data.labels[place]);
      const reason = this.data.text(this.data.reasons[place]);
      const folder = this.data.text(this.data.folders[place]) || this.root.dataset.folder; // each shard has its own
      const command = `verifier repro ${id} ${folder}`;
      const body = make("tbody", {}, ...outcomes.map((one) => this.row(one, false)));
      open(`Case ${id}${label ? `, ${label}` : ""}${area ? `: ${area}` : ""}`,
        make("p", {}, make("code", {}, this.data.config(place).join(" "))),
        ...(reason ? [make("p", { class: "soft" }, `Refused by HF: ${reason}`)] : []),
        make("p", {}, "Reproduce: ", make("code", { class: "command" }, command)),
        make("p", { class: "buttons" }, copier("Copy reproduce line", () => command), copier("Copy link", () => location.href)),
        make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Outcomes" }, make("table", {},
          make("thead", {}, make("tr", {}, ...["check", "verdict", "error / bound", "where", "said"].map((name) => make("th", { scope: "col" }, name)))),
          body)));
      return true;
    }

    // A window on one check: the error of every case, apart by the values of a flag.
    plot(check) {
      const number = this.data.checks.indexOf(check);
      if (number < 0) return false;
      const picture = make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Errors" });
      const select = make("select", { id: "plot-by" }, ...this.data.fields.map((name) => make("option", { value: name }, name)));
      const paint = () => picture.replaceChildren(this.strips(number, select.value));
      select.addEventListener("change", paint);
      paint();
      open(`Errors of ${check}`,
        make("p", {}, make("label", { for: "plot-by" }, "Apart by "), select),
        make("p", { class: "soft" }, "Each mark is a case: its error over the bound, on a log axis; the line is the bound. Cut off at 1e-5 and 1e4."), picture);
      return true;
    }

    strips(number, field) {
      const groups = new Map();
      this.data.ids.forEach((_, place) => {
        const one = this.data.outcome(number, place);
        if (!one || one.error === null) return;
        const value = this.data.value(field, place) || "–";
        groups.set(value, [...(groups.get(value) ?? []), one]);
      });
      const left = 140, width = 640, high = 34;
      const at = (magnitude) => left + width * (Math.min(Math.max(magnitude, -5), 4) + 5) / 9;
      const picture = draw("svg", { width: left + width + 20, height: Math.max(1, groups.size) * high + 20, role: "img",
        "aria-label": [...groups].map(([value, some]) => `${field}=${value}: ${some.length} cases, ${some.filter((one) => one.error > 0).length} over the bound`).join("; ") });
      [...groups].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true })).forEach(([value, some], row) => {
        const y = row * high + 4;
        picture.append(draw("rect", { class: "track", x: left, y: y + high / 2 - 1, width, height: 1 }),
          draw("text", { x: 0, y: y + high / 2 + 3 }, `${value.slice(0, 18)} (${some.length})`));
        some.forEach((one, place) => {
          const mark = draw("rect", { class: one.error > 0 ? "over" : "ok", x: at(one.error) - 1, y: y + 4 + (place * 7) % (high - 12), width: 3, height: 3 });
          mark.append(draw("title", {}, `${one.case}: ${spelt(one.error)} × the bound`));
          picture.append(mark);
        });
      });
      picture.append(draw("rect", { class: "at", x: at(0), y: 0, width: 1, height: groups.size * high }));
      return picture;
    }
  }

  // --- windows, copying, the address -------------------------------------------------------------------------------

  function open(title, ...content) {
    $("drill-title").textContent = title;
    $("drill-body").replaceChildren(...content);
    if (!$("drill").open) $("drill").showModal();
  }

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", { "aria-hidden": "true" });
      area.value = text;
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const before = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1200);
  }
  function copier(label, text) {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => copy(text(), button));
    return button;
  }
  const here = () => location.href.split("#")[0];

  const sections = [];
  let query = "";

  // An address is `#q=words` for a filter, `#id` for a place, or both with `&at=id`.
  function address() {
    const hash = location.hash.slice(1);
    if (!hash.startsWith("q=")) return { q: null, at: decode(hash) };
    const [words, at = ""] = hash.slice(2).split("&at=");
    return { q: decode(words), at: decode(at) };
  }
  function decode(text) {
    try { return decodeURIComponent(text); } catch { return text; }
  }

  function go(hash) {
    const at = decode(hash.replace(/^#/, ""));
    const next = query ? `#q=${encodeURIComponent(query)}${at ? `&at=${encodeURIComponent(at)}` : ""}` : `#${encodeURIComponent(at).replaceAll("%3D", "=")}`;
    if (next === location.hash) arrive(); else location.hash = next;
  }

  function apply(text) {
    query = text;
    const sums = { cases: 0, outcomes: 0, bugs: 0 };
    for (const section of sections) {
      const found = section.filter(text);
      for (const name of Object.keys(sums)) sums[name] += found[name];
    }
    const spell = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
    $("matched").textContent = `${spell(sums.cases, "case")}, ${spell(sums.outcomes, "outcome")}, ${spell(sums.bugs, "finding")}`;
  }

  function arrive() {
    const { q, at } = address();
    if ((q ?? query) !== query || (q === null && query && !at)) {
      $("filter").value = q ?? "";
      apply(q ?? "");
    }
    if (!at) return;
    const element = $(at);
    for (let up = element; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    if (element && element.tagName === "DETAILS") element.open = true;
    if (element) element.scrollIntoView({ block: element.closest("article") ? "start" : "center" });
    if (element && element.matches("article")) element.focus({ preventScroll: true });
    for (const section of sections) {
      if (!at.startsWith(section.prefix)) continue;
      const [id, area = ""] = at.slice(section.prefix.length).split(/-(.*)/);
      const plotted = /^check=(.+)$/.exec(at.slice(section.prefix.length));
      if (plotted ? section.plot(plotted[1]) : section.drill(id, area)) return;
    }
  }

  function step(direction) {
    const findings = all("article.finding").filter((one) => !one.hidden);
    if (!findings.length) return;
    const now = findings.indexOf(document.activeElement?.closest?.("article.finding"));
    const next = now < 0 ? (direction > 0 ? 0 : findings.length - 1) : Math.min(Math.max(now + direction, 0), findings.length - 1);
    go(`#${findings[next].id}`);
  }

  function keys() {
    document.addEventListener("keydown", (event) => {
      const typing = event.target.matches("input, select, textarea");
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (typing) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      if ($("drill").open || $("help").open) return;
      if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
      if (event.key === "j") step(1);
      if (event.key === "k") step(-1);
      if (event.key === "?") $("help").showModal();
    });
  }

  async function start() {
    for (const root of all("section[data-record]")) {
      const packed = root.querySelector("[data-packed]").textContent;
      if (packed.trim()) sections.push(new Section(root, new Data(await inflate(packed))));
    }
    $("tools").hidden = false;
    for (const group of all(".finding .buttons")) group.hidden = false;
    for (const button of all("[data-copy]")) button.addEventListener("click", () => copy($(button.dataset.copy).textContent, button));
    for (const button of all("[data-copy-link]")) button.addEventListener("click", () => copy(`${here()}#${button.dataset.copyLink}`, button));
    $("copy-filter").addEventListener("click", (event) => copy(`${here()}#q=${encodeURIComponent(query)}`, event.currentTarget));
    $("help-button").addEventListener("click", () => $("help").showModal());
    for (const button of all("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
    let waiting = 0;
    $("filter").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        apply($("filter").value);
        history.replaceState(null, "", query ? `#q=${encodeURIComponent(query)}` : here());
      }, 120);
    });
    $("clear").addEventListener("click", () => {
      $("filter").value = "";
      apply("");
      history.replaceState(null, "", here());
      $("filter").focus();
    });
    window.addEventListener("hashchange", arrive);
    keys();
    apply("");
    arrive();
    document.documentElement.dataset.ready = "yes";
  }
  start();
})();
