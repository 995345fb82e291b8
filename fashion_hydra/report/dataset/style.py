"""Style and script of the page of a data set."""

STYLE = """
:root{color-scheme:light dark;--bg:#f4f6f8;--card:#fff;--fg:#1a1f26;--muted:#596371;--line:#e1e5ea;
--accent:47 98 201;--on-accent:#fff;--c1:#c4591b;--c2:#1c8a66;--mark:#a8324a}
@media(prefers-color-scheme:dark){:root{--bg:#0f1216;--card:#181c22;--fg:#e7eaee;--muted:#9aa5b3;--line:#2a3039;
--accent:122 165 255;--on-accent:#0b0f15;--c1:#ff9d5c;--c2:#5fd3a8;--mark:#ff8fa3}}
*{box-sizing:border-box}
html{scroll-padding-top:3.5rem}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.in{max-width:1240px;margin:0 auto;padding:0 20px}
header.in{padding-top:28px;padding-bottom:8px}
h1{font-size:1.75rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:40px 0 4px}
h3{font-size:1rem;margin:0 0 2px;overflow-wrap:anywhere}
p{margin:0 0 12px;max-width:90ch}
.muted{color:var(--muted)}
.path{color:var(--muted);overflow-wrap:anywhere;margin:4px 0 0}
nav{position:sticky;top:0;z-index:5;background:var(--bg);border-bottom:1px solid var(--line)}
nav .in{display:flex;gap:4px 18px;overflow-x:auto;padding-top:10px;padding-bottom:10px;white-space:nowrap}
a{color:rgb(var(--accent));text-decoration:none}a:hover{text-decoration:underline}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(148px,1fr));gap:12px;margin:18px 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 14px}
.tile b{display:block;font-size:1.25rem;letter-spacing:-.01em;white-space:nowrap;line-height:1.25;
font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:.85rem}
.card{padding:14px 16px;margin:12px 0;min-width:0}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,350px),1fr));gap:14px;margin:12px 0}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:14px;margin:12px 0;
align-items:start}
.grid>.card,.two>.card{margin:0}.grid>.card{display:flex;flex-direction:column}.grid svg{margin-top:auto}
.card p{font-size:.88rem;color:var(--muted);margin:0 0 8px}
ul.notes{margin:0;padding-left:1.1em}ul.notes li{margin:3px 0}
.scroll{overflow:auto;max-width:100%}
table{border-collapse:collapse;font-size:.88rem;width:100%}
th,td{padding:5px 9px;border-bottom:1px solid var(--line);text-align:left;vertical-align:middle}
tbody tr:last-child>*{border-bottom:0}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.n button{text-align:right}
tbody th{font-weight:500;min-width:9em}
thead th{font-weight:600;vertical-align:bottom;color:var(--muted);font-size:.82rem;line-height:1.25}
th button{all:unset;cursor:pointer;display:block;width:100%}
th button:hover{color:var(--fg)}
th button:focus-visible,.scroll:focus-visible,a:focus-visible{outline:2px solid rgb(var(--accent));outline-offset:2px;
border-radius:3px}
th[aria-sort=ascending] button,th[aria-sort=descending] button{color:rgb(var(--accent))}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
.sortable tbody tr:hover>*{background-color:rgb(var(--accent)/.07)}
td.w{background:
linear-gradient(to right,rgb(var(--accent)/.26) calc(var(--w)*1%),transparent 0) no-repeat 0 50%/calc(100% - 8px) 20px;
min-width:104px}
td.h{background:rgb(var(--accent)/calc(var(--w)*.55%))}
td small{color:var(--muted)}
td.h small,td.w small{color:inherit;opacity:.8}
.range{display:inline-block;position:relative;width:104px;height:10px;margin-left:8px;vertical-align:middle;
background:linear-gradient(var(--line),var(--line)) 0 50%/100% 1px no-repeat}
.range i,.range b{position:absolute;top:1px;bottom:1px;border-radius:3px}
.range i{left:calc(var(--a)*1%);right:calc(100% - var(--b)*1%);background:rgb(var(--accent)/.4)}
.range b{left:calc(var(--m)*1% - 1px);width:3px;top:-1px;bottom:-1px;background:rgb(var(--accent))}
.sw{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:7px;vertical-align:-1px;
border:1px solid rgb(128 128 128/.45)}
svg{display:block;width:100%;height:auto;max-width:540px}
svg text{font-size:11.5px;fill:var(--muted)}
svg .grid{stroke:var(--line);fill:none}svg .tick{stroke:var(--muted)}
svg .mark{stroke:var(--mark);stroke-dasharray:3 3;fill:none}
svg text.mark{fill:var(--mark);stroke:var(--card);stroke-width:3px;stroke-dasharray:none;paint-order:stroke}
svg .bar{fill:rgb(var(--accent)/.75)}svg .bar:hover{fill:rgb(var(--accent))}
svg .dot{fill:rgb(var(--accent))}
svg .line{fill:none;stroke-width:2.2}
svg .c0{stroke:rgb(var(--accent))}svg .c1{stroke:var(--c1)}svg .c2{stroke:var(--c2)}
.heat{max-height:86vh;width:fit-content}
.heat table{width:auto;border-collapse:separate;border-spacing:1px;font-size:11px}
.heat th,.heat td{border:0;padding:0;font-weight:400}
.heat td{width:23px;min-width:23px;height:21px;text-align:center;font-variant-numeric:tabular-nums;
background:rgb(var(--accent)/calc(var(--p)*1%));border-radius:2px}
.heat td:hover{outline:2px solid var(--mark)}
.heat td.d{color:var(--on-accent)}.heat td.s{background:var(--line)}
.heat thead th{position:sticky;top:0;z-index:2;background:var(--card);vertical-align:bottom;
color:var(--fg);font-size:11px}
.heat thead th span{writing-mode:vertical-rl;transform:rotate(180deg);display:block;margin:0 auto;padding:4px 0;
max-height:140px;overflow:hidden;white-space:nowrap;line-height:23px}
.heat tbody th{position:sticky;left:0;z-index:1;background:var(--card);white-space:nowrap;padding:0 8px 0 0;
text-align:right;min-width:0;max-width:150px;overflow:hidden;text-overflow:ellipsis}
.heat thead th:first-child{left:0;z-index:3}
.gallery{columns:2 440px;column-gap:14px;margin:12px 0}
.gallery .card{margin:0 0 14px;padding:12px;break-inside:avoid}
figure{margin:0}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:6px}
.pair img{max-height:440px;object-fit:contain;background:none}
img{display:block;width:100%;height:auto;border-radius:6px;background:var(--line)}
figcaption{font-size:.82rem;margin-top:8px;overflow-wrap:anywhere}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:6px 0 0;padding:0;font-size:.82rem}
.strip{overflow-x:auto;margin-top:8px}
.draws{display:grid;column-gap:14px}.draws figure{display:contents}.draws figure>*{grid-column:var(--c)}
.draws img{grid-row:1;align-self:end}.draws img+img{grid-row:3;align-self:start}
.draws figcaption{grid-row:2;margin:5px 0}
.fault{color:var(--mark);font-size:.88rem;overflow-wrap:anywhere}
footer{color:var(--muted);font-size:.82rem}footer.in{padding-top:28px;padding-bottom:40px}
@media(max-width:700px){.in{padding:0 12px}.card{padding:12px}h1{font-size:1.4rem}
.tiles{grid-template-columns:repeat(auto-fit,minmax(105px,1fr));gap:8px}.tile{padding:9px 10px}.tile b{font-size:1rem}
.draws{min-width:640px}
.sortable th[scope=row]{position:sticky;left:0;background:var(--card);min-width:7.5em;z-index:1}}
"""

# Sorts the table by a column when its heading is pressed, the other way round when pressed again.
SCRIPT = """
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
    const column = heading.cellIndex, rows = [...body.rows];
    const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const numbers = rows.every((row) => value(row) !== "" && !isNaN(value(row)));
    const before = heading.getAttribute("aria-sort");
    const order = before === "none" ? (numbers ? "descending" : "ascending")
      : before === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", order);
    rows.sort((a, b) => sign * (numbers ? value(a) - value(b) : value(a).localeCompare(value(b))));
    body.append(...rows);
  });
}
"""
