import { mount } from 'svelte';
import 'uplot/dist/uPlot.min.css';
import './app.css';
import App from './App.svelte';
import Shared from './Shared.svelte';
import { shell } from './shell';

const target = document.getElementById('app');
if (!target) throw new Error('index.html has no element #app');
if (shell.site === null) mount(App, { target });
else mount(Shared, { target, props: { shell, key: shell.site } });
