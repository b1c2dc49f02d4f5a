import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

/** Styles go to a file: the page's policy forbids injected style elements. */
export default { preprocess: vitePreprocess(), compilerOptions: { css: 'external' } };
