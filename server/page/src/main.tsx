import { render } from 'preact';
import { App } from './app';
import { live } from './live';
import { apply, chosen } from './theme';

apply(chosen());
live.connect();
render(<App />, document.getElementById('page')!);
