// Builds what an ingest node serves into dist/ and prints the sizes; with --tests, bundles the tests for node, too.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";

/** Largest file in bytes of gzip: the build fails above it. */
const BUDGETS = { "f.js": 2_490, "f-more.js": 2_500, "f-links.js": 800 };

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Names with an underscore at their end are one letter each, the same ones in both files: they are how the files meet. */
let mangleCache = {};

async function bundle(entry, file) {
  const bundled = await build({
    entryPoints: [here(`src/${entry}.ts`)],
    write: false,
    bundle: true,
    minifySyntax: true,
    format: "iife",
    target: "es2020",
    legalComments: "none",
    mangleProps: /_$/,
    mangleCache,
  });
  ({ mangleCache } = bundled);
  const { code } = await minify(bundled.outputFiles[0].text, {
    ecma: 2020,
    module: true,
    compress: { passes: 4, keep_fargs: false, pure_getters: true, unsafe_arrows: true, unsafe_methods: true, booleans_as_integers: true },
  });
  emit(file, code);
}

function emit(file, code) {
  writeFileSync(here(`dist/${file}`), code);
  const gzip = gzipSync(code, { level: 9 }).length;
  console.log(`dist/${file}  ${Buffer.byteLength(code)} B, gzip ${gzip} B (budget ${BUDGETS[file]} B), brotli ${brotliCompressSync(code).length} B`);
  if (gzip > BUDGETS[file]) {
    console.error(`dist/${file} is ${gzip - BUDGETS[file]} B over its gzip budget: take something out, or change BUDGETS in build.mjs`);
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

rmSync(here("dist"), { recursive: true, force: true });
mkdirSync(here("dist"));
await bundle("main", "f.js");
await bundle("more", "f-more.js");
await bundle("links", "f-links.js");
if (process.argv.includes("--tests")) await tests();
