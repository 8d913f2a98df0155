// The page: plain HTML that needs no script, and one style sheet.
const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text) => String(text).replace(/[&<>"']/g, (sign) => ENTITIES[sign]);

export const STYLE = `:root { color-scheme: light dark; --back: #f7f5f0; --text: #22252b; --soft: #5c6470; --accent: #7a3e12; }
@media (prefers-color-scheme: dark) { :root { --back: #17191d; --text: #ece9e2; --soft: #a5adb8; --accent: #f0b27a; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem; background: var(--back);
  color: var(--text); font: 1.125rem/1.6 Georgia, "Times New Roman", serif; }
main { width: min(100%, 44rem); }
figure { margin: 0; padding-left: 1.5rem; border-left: .25rem solid var(--accent); }
blockquote, blockquote p { margin: 0; } blockquote { font-size: clamp(1.5rem, 5vw, 2.5rem); line-height: 1.25; overflow-wrap: anywhere; }
figcaption { margin-top: 1rem; color: var(--soft); }
nav { margin-top: 2.5rem; display: flex; flex-wrap: wrap; gap: 1.5rem; font-family: system-ui, sans-serif; font-size: 1rem; }
a { color: var(--accent); text-underline-offset: .2em; }
a:focus-visible { outline: .2rem solid var(--accent); outline-offset: .3rem; border-radius: .2rem; }
h1 { font: 600 1rem/1.4 system-ui, sans-serif; color: var(--soft); margin: 0 0 2rem; }
`;

function layout(title, body) {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<link rel="stylesheet" href="/assets/style.css">
<link rel="icon" href="data:,">
</head>
<body>
<main>
<h1>Quotes</h1>
${body}
</main>
</body>
</html>
`;
}

export function quotePage(quote) {
  if (!quote) return layout('Quotes', '<p>There is no quote yet. Add one with <code>POST /api/quotes</code>.</p>');
  return layout(
    `Quote by ${quote.author}`,
    `<figure>
<blockquote><p>${escape(quote.text)}</p></blockquote>
<figcaption>— ${escape(quote.author)}</figcaption>
</figure>
<nav aria-label="Quotes">
<a href="/">Another quote</a>
<a href="/quotes/${quote.id}">Link to this quote</a>
<a href="/api/quotes">All quotes (JSON)</a>
</nav>`,
  );
}

export function errorPage(title, text) {
  return layout(title, `<p><strong>${escape(title)}.</strong> ${escape(text)}</p>
<nav aria-label="Quotes"><a href="/">Try again</a></nav>`);
}
