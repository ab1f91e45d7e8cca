import { useEffect, useState } from "preact/hooks";

import { pauses } from "../api/client";

/** Says that the page waits, because the key may make no more requests for now. */
export function Pause() {
  const [until, setUntil] = useState(0);
  const [now, setNow] = useState(0);
  useEffect(() => {
    const told = (event: Event) => {
      setNow(Date.now());
      setUntil((before) => Math.max(before, (event as CustomEvent<number>).detail));
    };
    pauses.addEventListener("pause", told);
    return () => pauses.removeEventListener("pause", told);
  }, []);
  const left = Math.ceil((until - now) / 1000);
  useEffect(() => {
    if (left <= 0) return;
    const timer = setTimeout(() => setNow(Date.now()), 1000);
    return () => clearTimeout(timer);
  }, [left, now]);
  return (
    <div role="status">
      {left > 0 && (
        <p class="card warnings">This key has made as many requests as it may in a minute. The page goes on by itself in {left} s.</p>
      )}
    </div>
  );
}
