// Builds dist/f.js (what an ingest node serves) and prints its size; with --tests, bundles the tests for node instead.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";
import { compress } from "./compress.mjs";

/** Largest dist/f.js in bytes of gzip: the build fails above it. */
const BUDGET_GZIP = 3_770;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/**
 * Names between our own parts, given one letter each. They must be nobody else's: a name of the browser's would no
 * longer be found, one of the wire or of `state()` would reach others shortened.
 */
const OURS =
  "attend claimed counts evict fault faults flying home kick leave reclaim report scrolled settle shut stamp suspect unreported".split(" ");

function checkNames() {
  const lib = here("node_modules/typescript/lib/");
  const foreign = readdirSync(lib).filter((name) => /^lib\.(es\d{4}|es5|dom)\b.*\.d\.ts$/.test(name)).map((name) => readFileSync(lib + name, "utf8"));
  foreign.push(readFileSync(here("src/protocol.ts"), "utf8"), readFileSync(here("src/main.ts"), "utf8").match(/interface State[^}]*}/)[0]);
  for (const name of OURS) {
    const member = new RegExp(`^\\s*(readonly |get |set )?${name}\\??[(:<]`, "m");
    if (foreign.some((text) => member.test(text))) throw new Error(`OURS in build.mjs: "${name}" is a name of the browser or of the wire too; take it out`);
  }
}

async function tracker() {
  checkNames();
  const bundle = await build({
    entryPoints: [here("src/main.ts")],
    write: false,
    bundle: true,
    minifySyntax: true,
    format: "iife",
    target: "es2020",
    legalComments: "none",
    mangleProps: new RegExp(`^(${OURS.join("|")})$`),
  });
  const { code } = await minify(bundle.outputFiles[0].text, {
    ecma: 2020,
    module: true,
    compress: { passes: 4, keep_fargs: false, pure_getters: true, unsafe_arrows: true, unsafe_methods: true },
  });
  mkdirSync(here("dist"), { recursive: true });
  writeFileSync(here("dist/f.js"), code);
  const file = readFileSync(here("dist/f.js"));
  const gzip = gzipSync(file, { level: 9 }).length;
  const brotli = brotliCompressSync(file).length;
  console.log(`dist/f.js  ${file.length} B, gzip ${gzip} B (budget ${BUDGET_GZIP} B), brotli ${brotli} B`);
  if (gzip > BUDGET_GZIP) {
    console.error(`dist/f.js is ${gzip - BUDGET_GZIP} B over its gzip budget: take something out, or change BUDGET_GZIP in build.mjs`);
    process.exitCode = 1;
  }
}

async function tests() {
  rmSync(here("build"), { recursive: true, force: true });
  for (const kind of ["unit", "browser"]) {
    await build({
      entryPoints: readdirSync(here(`test/${kind}`)).filter((name) => name.endsWith(".test.ts")).map((name) => here(`test/${kind}/${name}`)),
      outdir: here(`build/${kind}`),
      outExtension: { ".js": ".mjs" },
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      packages: "external",
      sourcemap: "inline",
    });
  }
}

await tracker();
compress(here("dist"));
if (process.argv.includes("--tests")) await tests();
