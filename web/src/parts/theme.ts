import { useEffect, useState } from "preact/hooks";

const KEY = "bitwright-theme";
const CHANGED = "bitwright-theme-changed";

export type Theme = "light" | "dark";

function preferred(): Theme {
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function stored(): Theme | null {
  const value = localStorage.getItem(KEY);
  return value === "light" || value === "dark" ? value : null;
}

/** Show the page in the theme that was chosen, or the system's. */
export function applyTheme(): void {
  document.documentElement.dataset["theme"] = stored() ?? preferred();
  dispatchEvent(new Event(CHANGED));
}

export function chooseTheme(theme: Theme): void {
  localStorage.setItem(KEY, theme);
  applyTheme();
}

export function useTheme(): Theme {
  const now = () => (document.documentElement.dataset["theme"] as Theme | undefined) ?? preferred();
  const [theme, setTheme] = useState(now);
  useEffect(() => {
    const changed = () => setTheme(now());
    addEventListener(CHANGED, changed);
    return () => removeEventListener(CHANGED, changed);
  }, []);
  return theme;
}

export function watchSystem(): void {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
}
