// What check_pages.py sees of the pages in a browser.

const frame = document.querySelector("iframe");

async function check({ home, pages, width, contrast, searches }) {
  const found = [];
  for (const address of pages) {
    const page = await opened(address);
    for (const theme of ["light", "dark"]) {
      page.documentElement.dataset.bsTheme = theme;
      const where = `${address}, in ${theme}:`;
      if (page.documentElement.scrollWidth > width)
        found.push(`${where} ${page.documentElement.scrollWidth} pixels wide`);
      for (const text of pale(page, contrast)) found.push(`${where} hard to read: ${text}`);
    }
  }
  const page = await opened(home);
  for (const [words, answer] of Object.entries(searches)) {
    const first = answered(page, words);
    if (!first.includes(answer)) found.push(`The search for ${words} finds ${first}, not ${answer}`);
  }
  document.querySelector("output").textContent = found.join("\n") || "all fit";
}

async function opened(address) {
  await new Promise((loaded) => {
    frame.onload = loaded;
    frame.src = address;
  });
  // Colors are looked at as soon as the theme has changed.
  const style = frame.contentDocument.createElement("style");
  style.textContent = "* { transition: none !important; }";
  frame.contentDocument.head.append(style);
  return frame.contentDocument;
}

// The address of the first result of a search.
function answered(page, words) {
  const input = page.querySelector("#search-input");
  input.value = words;
  input.dispatchEvent(new Event("input"));
  return page.querySelector("#search-results a")?.href ?? "nothing";
}

// The beginnings of texts that stand out too little; an element of each kind is enough.
function pale(page, least) {
  const found = new Map();
  const texts = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim();
    const element = texts.currentNode.parentElement;
    if (!text || !element.getClientRects().length) continue;
    const ratio = contrast_of(color(element, "color"), background(element));
    if (ratio < least) found.set(element.tagName + element.className, text.slice(0, 40));
  }
  return found.values();
}

function color(element, property) {
  const style = element.ownerDocument.defaultView.getComputedStyle(element);
  return style[property].match(/[\d.]+/g).map(Number);
}

function background(element) {
  for (; element; element = element.parentElement) {
    const [red, green, blue, opacity = 1] = color(element, "backgroundColor");
    if (opacity > 0.5) return [red, green, blue];
  }
  return [255, 255, 255];
}

function contrast_of(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

// As the guidelines define it for sRGB.
function luminance(color) {
  const [red, green, blue] = color.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
