// Builds what a page may load besides dist/f.js: a file for each of src/modules (dist/f-NAME.js). Prints the sizes.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Largest file in bytes of gzip, by module: the build fails above it. */
const MODULES = { vitals: 3_500, autocapture: 1_950 };

const vitals = JSON.parse(readFileSync(here("node_modules/web-vitals/package.json"), "utf8"));
/** What a file owes to the code of others in it. */
const NOTICES = { vitals: `/*! web-vitals ${vitals.version}, Google LLC, ${vitals.license} */\n` };

function emit(file, code, budget) {
  mkdirSync(here("dist"), { recursive: true });
  writeFileSync(here(`dist/${file}`), code);
  const gzip = gzipSync(code, { level: 9 }).length;
  console.log(`dist/${file}  ${Buffer.byteLength(code)} B, gzip ${gzip} B (budget ${budget} B), brotli ${brotliCompressSync(code).length} B`);
  if (gzip > budget) {
    console.error(`dist/${file} is ${gzip - budget} B over its gzip budget: take something out, or change the budget in build-modules.mjs`);
    process.exitCode = 1;
  }
}

export async function buildModules() {
  for (const [name, budget] of Object.entries(MODULES)) {
    const bundle = await build({
      entryPoints: [here(`src/modules/${name}.ts`)],
      write: false,
      bundle: true,
      minifySyntax: true,
      format: "iife",
      target: "es2020",
      legalComments: "none",
    });
    const { code } = await minify(bundle.outputFiles[0].text, { ecma: 2020, module: true, compress: { passes: 4, pure_getters: true, unsafe_arrows: true } });
    emit(`f-${name}.js`, (NOTICES[name] ?? "") + code, budget);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await buildModules();
