// Builds dist/f.js (what an ingest node serves) and prints its size; with --tests, bundles the tests for node instead.
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/** Largest dist/f.js in bytes of gzip: the build fails above it. */
const BUDGET_GZIP = 4_000;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

async function tracker() {
  await build({
    entryPoints: [here("src/main.ts")],
    outfile: here("dist/f.js"),
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2020",
    legalComments: "none",
  });
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
if (process.argv.includes("--tests")) await tests();
