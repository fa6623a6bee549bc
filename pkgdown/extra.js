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
    if (!target || "tocSkip" in heading.dataset) continue;
    const title = heading.textContent.replace(/\s*#?\s*$/, "");
    const link = element("a", { href: "#" + target, className: "nav-link" }, title);
    list.append(element("li", { className: "toc-" + heading.tagName.toLowerCase() }, link));
  }
  if (list.children.length > 1) contents.append(list);
  else contents.remove();
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

// The search: pages and sections that have all the words, titles first.
const input = document.querySelector("#search-input");
if (input && window.searchIndex) {
  const results = element("div", { id: "search-results", hidden: true });
  input.after(results);
  input.setAttribute("aria-label", "Search");
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rank = ({ title, text }) =>
      words.reduce((sum, word) => {
        if (title.toLowerCase().includes(word)) return sum + 10;
        return text.toLowerCase().includes(word) ? sum + 1 : -Infinity;
      }, 0);
    const found = words.length
      ? window.searchIndex
          .map((entry) => ({ entry, score: rank(entry) }))
          .filter(({ score }) => score > 0)
          .sort((a, b) => b.score - a.score)
          .slice(0, 12)
      : [];
    results.replaceChildren(
      ...found.map(({ entry }) =>
        element("a", { href: root + entry.path }, element("b", {}, entry.title), " " + entry.page)
      )
    );
    if (words.length && !found.length) results.append(element("p", {}, "Nothing found."));
    results.hidden = !words.length;
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
