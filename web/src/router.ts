import { useEffect, useState } from "preact/hooks";

export interface Place {
  view: string;
  id: string | null;
  query: URLSearchParams;
}

/** Read the part of the address behind the `#`: `#/jobs/ID?x=y`. */
export function parsePlace(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view = "", id = null] = path.split("/");
  return { view: view || "jobs", id: id === null ? null : decodeURIComponent(id), query: new URLSearchParams(query) };
}

export function usePlace(): Place {
  const [place, setPlace] = useState(() => parsePlace(location.hash));
  useEffect(() => {
    const changed = () => setPlace(parsePlace(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return place;
}

export function go(path: string): void {
  location.hash = path;
}
