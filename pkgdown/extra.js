// What the pages do in a browser: the list of sections, copying code, and the search.

const root = document.currentScript.dataset.root;

function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

// The sections of this page, beside it.
const contents = document.querySelector("nav#toc");
if (contents) {
  const list = element("ul", { className: "nav flex-column" });
  for (const heading of document.querySelectorAll("main h2, main h3")) {
    const target = heading.id || heading.closest("[id]")?.id;
    const isListed = !("tocSkip" in heading.dataset || heading.classList.contains("unlisted"));
    if (!target || !isListed) continue;
    const title = heading.textContent.replace(/\s*#?\s*$/, "");
    const link = element("a", { href: "#" + target, className: "nav-link" }, title);
    list.append(element("li", { className: "toc-" + heading.tagName.toLowerCase() }, link));
  }
  if (list.children.length > 1) contents.append(list);
  else (contents.closest("aside") ?? contents).remove();
}

// Light or dark: what the reader chose here, or else what the browser prefers; see head.html.
const menu = document.querySelector("#navbar");
if (menu) {
  const title = "Light or dark";
  const button = element("button", { type: "button", className: "theme-switch", title }, "◐");
  button.setAttribute("aria-label", title);
  button.addEventListener("click", () => {
    const page = document.documentElement;
    page.dataset.bsTheme = page.dataset.bsTheme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", page.dataset.bsTheme);
  });
  menu.append(button);
}

// Results keep their lines, as tables need; code is wrapped where a page is narrow.
for (const comment of document.querySelectorAll("pre span.co")) {
  if (comment.textContent.startsWith("#>")) comment.classList.add("output");
}

// Copying code, without the results in it.
if (navigator.clipboard) {
  for (const block of document.querySelectorAll("div.sourceCode")) {
    const button = element("button", { type: "button", className: "btn-copy-ex" }, "Copy");
    button.addEventListener("click", async () => {
      const code = block.querySelector("pre").textContent;
      await navigator.clipboard.writeText(code.replace(/^#>.*\n?/gm, ""));
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.classList.add("hasCopyButton");
    block.prepend(button);
  }
}

// The search: pages, sections and arguments that have all the words, those called so first.
const input = document.querySelector("#search-input");
const words = (text) => text.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);

function score({ title, text }, query) {
  const name = words(title);
  const rest = text.toLowerCase();
  let sum = name.join() === query.join() ? 100 : 0;
  for (const word of query) {
    if (name.includes(word)) sum += 20;
    else if (name.some((part) => part.startsWith(word))) sum += 10;
    else if (rest.includes(word)) sum += 1;
    else return 0;
  }
  return sum;
}

if (input && window.searchIndex) {
  const results = element("div", { id: "search-results", hidden: true });
  input.after(results);
  input.setAttribute("aria-label", "Search");
  input.placeholder = "Search";
  const show = () => {
    const query = words(input.value);
    const found = window.searchIndex
      .map((entry) => ({ entry, score: query.length ? score(entry, query) : 0 }))
      .filter((one) => one.score > 0)
      .sort((a, b) => b.score - a.score)
      .slice(0, 15);
    results.replaceChildren(
      ...found.map(({ entry }) =>
        element("a", { href: root + entry.path }, element("b", {}, entry.title), " ", element("small", {}, entry.page))
      )
    );
    if (query.length && !found.length) results.append(element("p", {}, "Nothing found."));
    results.hidden = !query.length;
  };
  input.addEventListener("input", show);
  input.form?.addEventListener("submit", (event) => {
    event.preventDefault();
    results.querySelector("a")?.click();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") results.hidden = true;
  });
  document.addEventListener("click", (event) => {
    if (!results.contains(event.target) && event.target !== input) results.hidden = true;
  });
}
