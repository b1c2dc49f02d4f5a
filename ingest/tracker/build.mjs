// Builds what an ingest node serves into dist/, each script in brotli and gzip, too, and prints what they weigh; with
// --tests, bundles the tests for node as well.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";
import ts from "typescript";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const vitals = JSON.parse(readFileSync(here("node_modules/web-vitals/package.json"), "utf8"));

/** Files of dist/ by name: where they begin, and how many bytes they may have as a node serves them to who takes gzip. */
const SCRIPTS = {
  f: { entry: "main", budget: 2_400 },
  "f-more": { entry: "more", budget: 2_500 },
  "f-links": { entry: "modules/links", budget: 700 },
  "f-autocapture": { entry: "modules/autocapture", budget: 1_950 },
  "f-vitals": { entry: "modules/vitals", budget: 3_500, notice: `/*! web-vitals ${vitals.version}, Google LLC, ${vitals.license} */\n` },
  "f-es5": { entry: "es5/main", budget: 3_200, es5: true },
};

const shared = { write: false, bundle: true, format: "iife", target: "es2020", legalComments: "none" };

/**
 * Names with an underscore at their end are how f and f-more meet, and one letter each. An f.js that a browser has kept for
 * an hour may meet the f-more.js of a newer node: a letter keeps its meaning for ever, and new names get new ones.
 */
const NAMES = {
  begin_: "a",
  stop_: "b",
  token_: "c",
  address_: "d",
  hear_: "e",
  down_: "f",
  send_: "g",
  flush_: "h",
  view_: "i",
  put_: "j",
  queue_: "k",
  counts_: "l",
  limit_: "m",
  shift_: "n",
  release_: "o",
  linger_: "p",
  keep_: "q",
  start_: "r",
  drop_: "s",
  ready_: "t",
};

async function modern(entryPoints) {
  const bundle = await build({ ...shared, entryPoints, minifySyntax: true, mangleProps: /[a-z]_$/, mangleCache: NAMES });
  const unknown = Object.keys(bundle.mangleCache).filter((name) => !(name in NAMES));
  if (unknown.length) throw new Error(`NAMES in build.mjs: give ${unknown.join(", ")} a letter that no other name has or had`);
  return minify(bundle.outputFiles[0].text, {
    ecma: 2020,
    module: true,
    compress: { passes: 4, keep_fargs: false, pure_getters: true, unsafe_arrows: true, unsafe_methods: true, booleans_as_integers: true },
  });
}

/** esbuild bundles, TypeScript writes it in ES5: esbuild does not know how. */
async function es5(entryPoints) {
  const bundle = await build({ ...shared, entryPoints });
  const { outputText } = ts.transpileModule(bundle.outputFiles[0].text, { compilerOptions: { target: ts.ScriptTarget.ES5, module: ts.ModuleKind.None } });
  return minify(outputText, { ecma: 5, compress: { passes: 4, pure_getters: true }, mangle: { toplevel: true } });
}

async function scripts() {
  rmSync(here("dist"), { recursive: true, force: true });
  mkdirSync(here("dist"));
  const codes = {};
  for (const [name, { entry, es5: old }] of Object.entries(SCRIPTS)) codes[name] = (await (old ? es5 : modern)([here(`src/${entry}.ts`)])).code;
  // Loaded, it answers to every error of this process with the whole of its own text.
  const { default: zopfli } = await import("@gfx/zopfli");
  console.log("file                    bytes  gzip -9   served as gzip (budget)   brotli");
  for (const [name, { budget, notice = "" }] of Object.entries(SCRIPTS)) {
    const script = Buffer.from(notice + codes[name]);
    const brotli = brotliCompressSync(script, { params: { [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT, [constants.BROTLI_PARAM_SIZE_HINT]: script.length } });
    // Slow, and smaller than any level of gzip.
    const gzip = Buffer.from(await zopfli.gzipAsync(script, { numiterations: 200 }));
    writeFileSync(here(`dist/${name}.js`), script);
    writeFileSync(here(`dist/${name}.js.br`), brotli);
    writeFileSync(here(`dist/${name}.js.gz`), gzip);
    const level9 = gzipSync(script, { level: 9 }).length;
    console.log(`${`dist/${name}.js`.padEnd(22)} ${String(script.length).padStart(6)} ${String(level9).padStart(8)} ${String(gzip.length).padStart(16)} (${budget})   ${String(brotli.length).padStart(8)}`);
    if (gzip.length > budget) {
      console.error(`dist/${name}.js is ${gzip.length - budget} B over its budget: take something out, or change SCRIPTS in build.mjs`);
      process.exitCode = 1;
    }
  }
}

/** The npm package in package/: `npm pack` makes a file of it that can be installed. */
async function npmPackage() {
  const { name, version, description, license, repository } = JSON.parse(readFileSync(here("package.json"), "utf8"));
  rmSync(here("package"), { recursive: true, force: true });
  const entryPoints = [here("src/package.ts")];
  const forms = { "index.mjs": { format: "esm" }, "index.cjs": { format: "cjs" }, "index.iife.js": { format: "iife", globalName: "footfallTracker", minify: true } };
  for (const [file, form] of Object.entries(forms)) await build({ entryPoints, outfile: here(`package/${file}`), bundle: true, target: "es2020", ...form });
  const { options } = ts.parseJsonConfigFileContent({ compilerOptions: { declaration: true, emitDeclarationOnly: true, noEmit: false, outDir: here("package/types"), lib: ["ES2022", "DOM", "DOM.Iterable"], moduleResolution: "Bundler", module: "ESNext", strict: true, types: [] } }, ts.sys, here("."));
  const emitted = ts.createProgram(entryPoints, options).emit();
  if (emitted.diagnostics.length) throw new Error(ts.formatDiagnostics(emitted.diagnostics, ts.createCompilerHost(options)));
  const types = "./types/package.d.ts";
  const exports = { ".": { types, import: "./index.mjs", require: "./index.cjs" } };
  writeFileSync(
    here("package/package.json"),
    `${JSON.stringify({ name, version, description, license, repository, type: "module", sideEffects: false, main: "./index.cjs", module: "./index.mjs", types, jsdelivr: "./index.iife.js", exports, files: ["index.*", "types"] }, null, 2)}\n`,
  );
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

if (process.argv.includes("--tests")) await tests();
await npmPackage();
await scripts();
