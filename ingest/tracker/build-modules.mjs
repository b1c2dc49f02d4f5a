// Builds what a page may load besides dist/f.js: a file for each of src/modules (dist/f-NAME.js), and the tracker for old
// browsers (dist/f-es5.js). Prints the sizes.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";
import ts from "typescript";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Largest file in bytes of gzip, by module: the build fails above it. */
const MODULES = { vitals: 3_500, autocapture: 1_950 };

const ES5_BUDGET = 3_000;

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

/** esbuild bundles, TypeScript writes it in ES5: esbuild does not know how. */
export async function buildEs5() {
  const bundle = await build({
    entryPoints: [here("src/es5/main.ts")],
    write: false,
    bundle: true,
    format: "iife",
    target: "es2020",
    legalComments: "none",
  });
  const { outputText } = ts.transpileModule(bundle.outputFiles[0].text, { compilerOptions: { target: ts.ScriptTarget.ES5, module: ts.ModuleKind.None } });
  const { code } = await minify(outputText, { ecma: 5, compress: { passes: 4, pure_getters: true }, mangle: { toplevel: true } });
  emit("f-es5.js", code, ES5_BUDGET);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await buildModules();
  await buildEs5();
}
