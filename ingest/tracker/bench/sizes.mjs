// What a browser loads of ours and of other trackers: bytes as they are, of gzip -9 and of brotli. Writes SIZES.md.
// The others come from npm, as package-lock.json here pins them, into a folder under target/. `make bench-tracker` runs it.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const folder = here("../../../target/bench-tracker/");

/** Packages that ship the file that a page loads. */
const SHIPPED = {
  "@openpanel/web": "dist/src/tracker.global.js",
  "@snowplow/browser-tracker": "dist/index.umd.min.js",
  "ackee-tracker": "dist/ackee-tracker.min.js",
  "posthog-js": "dist/array.js",
  swetrix: "dist/swetrix.js",
  "web-vitals": "dist/web-vitals.iife.js",
};
/** Packages for bundlers: everything that they export, bundled for a page. */
const BUNDLED = ["@datapunt/matomo-tracker-js", "@plausible-analytics/tracker", "@rybbit/js", "plausible-tracker"];

const install = () => {
  mkdirSync(folder, { recursive: true });
  for (const name of ["package.json", "package-lock.json"]) copyFileSync(here(name), folder + name);
  execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: folder, stdio: "inherit", timeout: 120_000 });
};

async function bundled(name) {
  const { outputFiles } = await build({
    stdin: { contents: `import * as all from "${name}"; globalThis.tracker = all`, resolveDir: folder },
    write: false,
    bundle: true,
    minifySyntax: true,
    format: "iife",
    target: "es2020",
    legalComments: "none",
  });
  return (await minify(outputFiles[0].text, { ecma: 2020, module: true, compress: { passes: 2 } })).code;
}

function row(what, file, how, code) {
  const content = Buffer.from(code);
  return { what, file, how, raw: content.length, gzip: gzipSync(content, { level: 9 }).length, brotli: brotliCompressSync(content).length };
}

install();
const version = (name) => JSON.parse(readFileSync(`${folder}node_modules/${name}/package.json`, "utf8")).version;
const dist = here("../dist/");
const ours = readdirSync(dist).filter((name) => name.endsWith(".js")).map((name) => row("footfall", name, "as built", readFileSync(dist + name)));
const others = [
  ...Object.entries(SHIPPED).map(([name, file]) => row(`${name} ${version(name)}`, file, "as shipped", readFileSync(`${folder}node_modules/${name}/${file}`))),
  ...(await Promise.all(BUNDLED.map(async (name) => row(`${name} ${version(name)}`, "", "all exports, bundled", await bundled(name))))),
];

const bySize = (one, other) => one.gzip - other.gzip;
const table = [...ours.sort(bySize), ...others.sort(bySize)]
  .map(({ what, file, how, raw, gzip, brotli }) => `| ${what} | ${file && `\`${file}\``} | ${how} | ${raw} | ${gzip} | ${brotli} |`)
  .join("\n");
const text = `# Sizes

Bytes of the file that a page loads; \`make bench-tracker\` writes this anew. gzip is level 9, brotli level 11.

| Package | File | | Raw | gzip | brotli |
|---|---|---|---:|---:|---:|
${table}

"As shipped" is a file of the package, untouched. A package for bundlers is bundled with everything it exports, by esbuild, and minified by terser. Some of these files load further ones by themselves; those are not added. What a tracker can do is not compared here: the files do different things, and web-vitals is no tracker.

A node serves gzip by zopfli: \`f.js\` is ${readFileSync(dist + "f.js.gz").length} bytes then. Not measured, because no package on npm was found to ship the file that a page loads: the scripts that Umami, Matomo, Plausible's hosted service, GoatCounter, Fathom and Simple Analytics serve from their own addresses, and Snowplow's \`sp.js\`.
`;
writeFileSync(here("SIZES.md"), text);
console.log(text);
