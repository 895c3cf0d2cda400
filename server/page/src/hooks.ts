/** What several views need of Preact. */

import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { ask } from './api';
import { live } from './live';
import { parse, type Route } from './route';

/** Draw again when this source changes. */
export function useChanges(source: { subscribe(listener: () => void): () => void }): void {
  const [, set] = useState(0);
  useEffect(() => source.subscribe(() => set((n) => n + 1)), [source]);
}

/** Draw again every so many milliseconds. */
export function useTicks(ms: number, on = true): void {
  const [, set] = useState(0);
  useEffect(() => {
    if (!on) return;
    const timer = setInterval(() => set((n) => n + 1), ms);
    return () => clearInterval(timer);
  }, [ms, on]);
}

export function useRoute(): Route {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => set(parse(location.hash));
    window.addEventListener('hashchange', changed);
    return () => window.removeEventListener('hashchange', changed);
  }, []);
  return route;
}

/** Whether a key that was pressed belongs to a field, a dialog or the browser, and so means nothing to the page. */
export function isTyped(event: KeyboardEvent): boolean {
  const field = (event.target as HTMLElement).closest('input:not([type=radio]), select, textarea') as HTMLElement | null;
  if (field && event.key === 'Escape') field.blur();
  return !!field || !!document.querySelector('dialog[open]') || event.ctrlKey || event.metaKey || event.altKey;
}

export interface Asked<T> {
  value: T | undefined;
  error: string | undefined;
  reload: () => Promise<void>;
}

/**
 * The answer of a route. With `follow` it is asked again after messages came, at most once in so many milliseconds. An answer that was
 * read stays while the server does not answer.
 */
export function useAsked<T>(path: string | undefined, follow = 0): Asked<T> {
  const [value, setValue] = useState<T>();
  const [error, setError] = useState<string>();
  const current = useRef(path);
  current.current = path;
  const reload = useCallback(async () => {
    if (!path) return;
    try {
      const answer = await ask<T>(path);
      if (current.current !== path) return;
      setValue(answer);
      setError(undefined);
    } catch (e) {
      if (current.current === path) setError((e as Error).message);
    }
  }, [path]);
  useEffect(() => {
    setValue(undefined);
    setError(undefined);
    void reload();
    if (!follow) return;
    let timer = 0;
    const later = () => {
      timer ||= window.setTimeout(() => {
        timer = 0;
        void reload();
      }, follow);
    };
    const both = [live.trace.subscribe(later), live.onHello(later)];
    return () => {
      clearTimeout(timer);
      for (const end of both) end();
    };
  }, [path, follow]);
  return { value, error, reload };
}

/** The width of an element, and the reference that it needs. */
export function useWidth<E extends HTMLElement>() {
  const element = useRef<E>(null);
  const [size, set] = useState({ width: 0, height: 0 });
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      set({ width, height });
    });
    observer.observe(element.current!);
    return () => observer.disconnect();
  }, []);
  return { element, ...size };
}
