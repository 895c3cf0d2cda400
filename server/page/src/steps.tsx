/** How something came to be, step by step, each with its rule and where to read more. */

import { dateAndTime } from './format';
import { href } from './route';
import type { Step } from './types';

export function Steps({ steps }: { steps: Step[] }) {
  return <ol class="steps">{steps.map((step, i) => <Line key={i} step={step} />)}</ol>;
}

function Line({ step }: { step: Step }) {
  return (
    <li>
      <p>{step.says}</p>
      <p class="source">
        {step.at !== undefined && <span>{dateAndTime(step.at)}</span>}
        {step.transaction !== undefined && (
          <a href={href('conversation', { q: step.transaction })}>transaction {step.transaction}{step.attempt ? `, attempt ${step.attempt}` : ''}</a>
        )}
        <span>Rule: {step.rule}</span>
        <code>spec-notes/src/{step.link}</code>
        {step.clause && <a href={step.clause} rel="noreferrer" target="_blank">{step.clause.includes('matrix-spec-proposals') ? 'proposal' : 'specification'}</a>}
      </p>
    </li>
  );
}
