/** Writes values as YAML, one member a line, as people write scenarios. */

const PLAIN = /^[A-Za-z_/][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*$/;
const MEANS_ELSE = /^(true|false|null|yes|no|on|off|y|n)$/i;

export function scalar(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value) ?? 'null';
  return PLAIN.test(value) && !MEANS_ELSE.test(value) ? value : JSON.stringify(value);
}

const isEmpty = (value: object) => Object.keys(value).length === 0;

/** The lines of a value that stands below its key. */
export function lines(value: unknown): string[] {
  if (Array.isArray(value)) {
    return value.flatMap((item) => {
      if (typeof item !== 'object' || item === null || isEmpty(item)) return [`- ${inline(item)}`];
      const [first, ...rest] = lines(item);
      return [`- ${first}`, ...rest.map((line) => `  ${line}`)];
    });
  }
  if (typeof value !== 'object' || value === null) return [scalar(value)];
  return Object.entries(value).flatMap(([key, item]) => {
    if (typeof item !== 'object' || item === null || isEmpty(item)) return [`${scalar(key)}: ${inline(item)}`];
    return [`${scalar(key)}:`, ...lines(item).map((line) => `  ${line}`)];
  });
}

function inline(value: unknown): string {
  if (Array.isArray(value)) return '[]';
  return typeof value === 'object' && value !== null ? '{}' : scalar(value);
}
