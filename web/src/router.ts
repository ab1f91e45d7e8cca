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
  return { view: view || "jobs", id: id === null ? null : decoded(id), query: new URLSearchParams(query) };
}

/** What is no proper escape is taken as it stands: the service then says that it knows no such job. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
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
