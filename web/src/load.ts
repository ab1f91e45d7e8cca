import { useEffect, useState } from "preact/hooks";

export interface Loaded<T> {
  value: T | null;
  error: unknown;
}

/** Load something whenever its inputs change; an earlier load that is still on its way is dropped. */
export function useLoad<T>(load: (signal: AbortSignal) => Promise<T>, inputs: unknown[]): Loaded<T> {
  const [loaded, setLoaded] = useState<Loaded<T>>({ value: null, error: null });
  useEffect(() => {
    const controller = new AbortController();
    setLoaded({ value: null, error: null });
    load(controller.signal).then(
      (value) => controller.signal.aborted || setLoaded({ value, error: null }),
      (error: unknown) => controller.signal.aborted || setLoaded({ value: null, error }),
    );
    return () => controller.abort();
  }, inputs);
  return loaded;
}
